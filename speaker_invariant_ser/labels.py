"""Which emotions are told apart: all that a corpus names, the five that nearly every corpus has, or a recipe's own map.

Prepared corpora keep every label; a map acts when they are trained on or evaluated, and what it merges and drops is stored.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from speaker_invariant_ser.errors import RecipeError, shorten, unknown
from speaker_invariant_ser.manifest import Utterance

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
    """What a map did: label -> (new label, clips) for what was renamed or merged, label -> clips for what was dropped."""

    name: str
    merged: dict[str, tuple[str, int]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """In one line; empty if every label stayed as it was."""
        merged = [f"{label} -> {new} ({clips})" for label, (new, clips) in self.merged.items()]
        dropped = [f"{label} ({clips})" for label, clips in self.dropped.items()]
        told = [f"merged {shorten(merged, 20)}"] * bool(merged) + [f"dropped {shorten(dropped, 20)}"] * bool(dropped)
        return "; ".join(told)

    def table(self) -> dict:
        """For JSON."""
        return asdict(self)


def map_labels(chosen: str | Mapping[str, str], utterances: Sequence[Utterance]) -> tuple[list[Utterance], Mapped]:
    """Utterances with the labels of a map, and what it merged and dropped.

    `chosen` is a name in MAPS, "auto" (the five for several corpora, full for one), or label -> new label; labels that it does
    not name are dropped. Raises RecipeError for an unknown map, a label no utterance has, or if none is left.
    """
    name, table = resolve(chosen, utterances)
    found = Counter(utterance.emotion for utterance in utterances)
    if table is None:
        return list(utterances), Mapped(name)
    if name == "own" and (absent := [label for label in table if label not in found]):
        raise RecipeError(f"labels.map: {unknown('emotion', absent[0], sorted(found))}")
    new = {label: table.get(label) or table.get(label.lower()) for label in sorted(found)}
    kept = [replace(one, emotion=new[one.emotion]) for one in utterances if new[one.emotion]]
    if not kept:
        raise RecipeError(f"labels.map = {name}: no utterance has any of its labels; found {shorten(sorted(found), 20)}")
    merged = {label: (target, found[label]) for label, target in new.items() if target and target != label}
    return kept, Mapped(name, merged, {label: found[label] for label, target in new.items() if not target})


def resolve(chosen: str | Mapping[str, str], utterances: Sequence[Utterance]) -> tuple[str, Mapping[str, str] | None]:
    """(name, table) of the map meant. Raises RecipeError."""
    if not isinstance(chosen, str):
        return "own", chosen
    if chosen == "auto":
        chosen = "five" if len({utterance.corpus for utterance in utterances}) > 1 else "full"
    if chosen not in MAPS:
        raise RecipeError(f"labels.map: {unknown('map', chosen, ['auto', *MAPS])}")
    return chosen, MAPS[chosen]
