"""Which emotions are told apart: all that a corpus names, the five that nearly every corpus has, or a recipe's own map.

Prepared corpora keep every label; a map acts when they are trained on or evaluated, and what it merges and drops is stored.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from speaker_invariant_ser.data.manifest import GROUPABLE, Utterance
from speaker_invariant_ser.errors import RecipeError, shorten, unknown
from speaker_invariant_ser.recipe import SplitSection

FIVE = ("neutral", "happy", "sad", "angry", "fearful")
WORDS = {  # what others call the five, for corpora whose labels are not in our words
    "neutral": ("neutrality", "neu"),
    "happy": ("happiness", "joy", "joyful", "hap"),
    "sad": ("sadness",),
    "angry": ("anger", "ang"),
    "fearful": ("fear", "fea", "afraid"),
}
FIVE_MAP = {word: label for label in FIVE for word in (label, *WORDS[label])}
MAPS: dict[str, Mapping[str, str] | None] = {
    "full": None,
    "five": FIVE_MAP,
    "five-merged": {**FIVE_MAP, "excited": "happy", "calm": "neutral"},
}


@dataclass(frozen=True)
class Mapped:
    """What a map did: label -> (new label, clips) for what was renamed or merged, label -> clips for what was dropped.

    `unlabelled` clips are of a domain that is trained on without labels; they are kept for that whatever their label.
    """

    name: str
    merged: dict[str, tuple[str, int]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    unlabelled: int = 0

    @property
    def words(self) -> str:
        """In one line; empty if every label stayed as it was."""
        merged = [f"{label} -> {new} ({clips})" for label, (new, clips) in self.merged.items()]
        dropped = [f"{label} ({clips})" for label, clips in self.dropped.items()]
        told = [f"merged {shorten(merged, 20)}"] * bool(merged) + [f"dropped {shorten(dropped, 20)}"] * bool(dropped)
        told += [f"{self.unlabelled} clips of the unlabelled domain, whose labels are for tests alone"] * bool(self.unlabelled)
        return "; ".join(told)

    def table(self) -> dict:
        """For JSON."""
        return asdict(self)


def map_labels(
    chosen: str | Mapping[str, str], utterances: Sequence[Utterance], split: SplitSection | None = None
) -> tuple[list[Utterance], Mapped]:
    """Utterances with the labels of a map, and what it merged and dropped.

    `chosen` is a name in MAPS, "auto" (the five for several corpora, full for one), or label -> new label; clips whose label it
    does not name are dropped, but for those that `split` trains on without labels: these are kept, with no label. Raises
    RecipeError for an unknown map, a label no utterance has, if none is left, or for a missing label anywhere else.
    """
    name, table = resolve(chosen, utterances)
    free = [without_labels(one, split) for one in utterances]
    require_labels(utterances, free)
    found = Counter(utterance.emotion for utterance in utterances if utterance.emotion)
    if table is None:
        return list(utterances), Mapped(name, unlabelled=sum(free))
    if name == "own" and (absent := [label for label in table if label not in found]):
        raise RecipeError(f"labels.map: {unknown('emotion', absent[0], sorted(found))}")
    new = {label: table.get(label) or table.get(label.lower()) or "" for label in ("", *sorted(found))}
    mapped = [replace(one, emotion=new[one.emotion]) for one in utterances]
    if not any(one.emotion for one in mapped):
        raise RecipeError(f"labels.map = {name}: no utterance has any of its labels; found {shorten(sorted(found), 20)}")
    merged = {label: (new[label], found[label]) for label in sorted(found) if new[label] not in ("", label)}
    dropped = {label: found[label] for label in sorted(found) if not new[label]}
    kept = [one for one, kind in zip(mapped, free, strict=True) if one.emotion or kind]
    return kept, Mapped(name, merged, dropped, sum(free))


def without_labels(one: Utterance, split: SplitSection | None) -> bool:
    """Whether a clip is of the domain that a split trains on without labels."""
    return split is not None and split.scheme == "domain" and domain_of(one, split) in split.unlabelled


def domain_of(one: Utterance, split: SplitSection) -> str:
    """What split.column says of a clip. Raises RecipeError for a column that there is not."""
    return getattr(one, domain_column(split))


def domain_column(split: SplitSection) -> str:
    if split.column not in GROUPABLE:
        raise RecipeError(f"split.column: {unknown('column', split.column, GROUPABLE)}")
    return split.column


def require_labels(utterances: Sequence[Utterance], free: Sequence[bool]) -> None:
    """Raise RecipeError for a clip without an emotion that is not free to have none."""
    missing = [one.id for one, kind in zip(utterances, free, strict=True) if not (one.emotion or kind)]
    if missing:
        raise RecipeError(
            f"{len(missing)} clips have no emotion ({shorten(missing, 3)}): only those of a domain that split.unlabelled names, "
            'with split.scheme = "domain", can be trained on without one'
        )


def labels_of(utterances: Sequence[Utterance], split: SplitSection) -> list[str]:
    """The emotions that can be learned, sorted: of split.source where that is all that has labels, otherwise of all clips."""
    domain = split.scheme == "domain"
    return sorted({one.emotion for one in utterances if not domain or domain_of(one, split) in split.source} - {""})


def resolve(chosen: str | Mapping[str, str], utterances: Sequence[Utterance]) -> tuple[str, Mapping[str, str] | None]:
    """(name, table) of the map meant. Raises RecipeError."""
    if not isinstance(chosen, str):
        return "own", chosen
    if chosen == "auto":
        chosen = "five" if len({utterance.corpus for utterance in utterances}) > 1 else "full"
    if chosen not in MAPS:
        raise RecipeError(f"labels.map: {unknown('map', chosen, ['auto', *MAPS])}")
    return chosen, MAPS[chosen]
