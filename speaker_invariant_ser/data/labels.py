"""Map a corpus's emotion labels: all its own, the five that nearly every corpus has, or a map in the recipe.

A prepared corpus keeps every label. A map is applied when a model is trained or evaluated; what it merges and drops is recorded.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated

from pydantic import AfterValidator

from speaker_invariant_ser.data.manifest import GROUPABLE, Utterance
from speaker_invariant_ser.data.tables.names import alike_among, clean, contains, find, is_utf8
from speaker_invariant_ser.data.tables.votes import emotions_of, renamed
from speaker_invariant_ser.errors import RecipeError, counted, shorten, unknown
from speaker_invariant_ser.recipe import SplitSection

FIVE = ("neutral", "happy", "sad", "angry", "fearful")
SYNONYMS = {  # labels of corpora that use other words for the five
    "neutral": ("neutrality", "neu"),
    "happy": ("happiness", "joy", "joyful", "hap"),
    "sad": ("sadness",),
    "angry": ("anger", "ang"),
    "fearful": ("fear", "fea", "afraid"),
}
FIVE_MAP = {word: label for label in FIVE for word in (label, *SYNONYMS[label])}
MAPS: dict[str, Mapping[str, str] | None] = {
    "full": None,
    "five": FIVE_MAP,
    "five-merged": {**FIVE_MAP, "excited": "happy", "calm": "neutral"},
}


def require_names(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels of a model; raise ValueError unless they are at least two different names of one line each."""
    if len(set(labels)) < max(2, len(labels)) or not all(len(label.splitlines()) == 1 and is_utf8(label) for label in labels):
        raise ValueError("labels: expected at least two different names of one line each")
    return labels


LabelNames = Annotated[tuple[str, ...], AfterValidator(require_names)]


@dataclass(frozen=True)
class Mapped:
    """What a label map did.

    Attributes:
        name: Key of MAPS, or "own" for a map in the recipe.
        merged: Label -> (new label, number of utterances) for labels that were renamed or merged.
        dropped: Label -> number of utterances for labels that were dropped.
        unlabelled: Number of utterances of a domain that is trained on without labels; these are kept whatever their label.
        votes: Emotion -> number of utterances whose annotators' votes for it were dropped.
    """

    name: str
    merged: dict[str, tuple[str, int]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    unlabelled: int = 0
    votes: dict[str, int] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """What was merged and dropped in one line; empty if every label stayed as it was."""
        merged = [f"{label} -> {new} ({count})" for label, (new, count) in self.merged.items()]
        dropped = [f"{label} ({count})" for label, count in self.dropped.items()]
        parts = [f"merged {shorten(merged, 20)}"] * bool(merged) + [f"dropped {shorten(dropped, 20)}"] * bool(dropped)
        parts += [
            f"{counted(self.unlabelled, 'utterance')} of the unlabelled domain, whose labels are used for testing only"
        ] * bool(self.unlabelled)
        votes = [f"{emotion} (of {counted(count, 'utterance')})" for emotion, count in self.votes.items()]
        parts += [f"dropped votes for {shorten(votes, 20)}"] * bool(votes)
        return "; ".join(parts)

    def table(self) -> dict[str, object]:
        """Return the fields for JSON; that of votes where there are any."""
        fields = asdict(self) | {"merged": {label: list(new) for label, new in self.merged.items()}}  # JSON has no tuples
        return {name: value for name, value in fields.items() if name != "votes" or value}


def map_labels(
    chosen: str | Mapping[str, str], utterances: Sequence[Utterance], split: SplitSection | None = None
) -> tuple[list[Utterance], Mapped]:
    """Apply a label map to utterances.

    Args:
        chosen: A key of MAPS, "auto" ("five" for several corpora, "full" for one), or label -> new label. Utterances whose label
            is not in the map are dropped, except those that `split` trains on without labels, which are kept without one.
        utterances: Utterances with the labels of their corpus.
        split: The recipe's [split] section, for a domain that is trained on without labels.

    Returns:
        The remaining utterances with their new labels, and what was merged and dropped.

    Raises:
        RecipeError: The map is unknown, has a label that no utterance has, leaves no utterance or, if it is one of MAPS, a single
            emotion of several; or an utterance outside the unlabelled domain has no label.
    """
    name, table = resolve(chosen, utterances)
    without = [is_unlabelled(utterance, split) for utterance in utterances]
    require_labels(utterances, without)
    counts = Counter(utterance.emotion for utterance in utterances if utterance.emotion)
    if table is None:
        return list(utterances), Mapped(name, unlabelled=sum(without))
    voted = emotions_of(utterance.votes for utterance in utterances)
    known = sorted({*counts, *voted})
    if name == "own":
        table = {find(label, known): clean(new_label) for label, new_label in table.items()}
    if name == "own" and (absent := [label for label in table if label not in known]):
        raise RecipeError(f"labels.map: {unknown('emotion', absent[0], known)}")
    key = alike_among([*table, *known])
    by_key = {key(label): new_label for label, new_label in table.items()}
    new = {label: table.get(label) or by_key.get(key(label)) or "" for label in ("", *known)}
    votes = {text: renamed(text, new.__getitem__) for text in {utterance.votes for utterance in utterances}}
    mapped = [replace(u, emotion=new[u.emotion], votes=votes[u.votes]) for u in utterances]
    left = {utterance.emotion for utterance in mapped} - {""}
    if len(left) < (1 if name == "own" or len(counts) < 2 else 2):
        rest = f"only {shorten(sorted(left), 1)} is left" if left else "no utterance has any of its labels"
        raise RecipeError(
            f"labels.map = {name}: {rest}; found {shorten(sorted(counts), 20)}. --set labels.map=full takes them as they are"
        )
    merged = {label: (new[label], counts[label]) for label in sorted(counts) if new[label] not in ("", label)}
    dropped = {label: counts[label] for label in sorted(counts) if not new[label]}
    kept = [utterance for utterance, unlabelled in zip(mapped, without, strict=True) if utterance.emotion or unlabelled]
    dropped_votes = {label: voted[label] for label in sorted(voted) if not new[label]}
    return kept, Mapped(name, merged, dropped, sum(without), dropped_votes)


def is_unlabelled(utterance: Utterance, split: SplitSection | None) -> bool:
    """Return whether an utterance is of the domain that a split trains on without labels."""
    return split is not None and split.scheme == "domain" and contains(split.unlabelled, domain_of(utterance, split))


def domain_of(utterance: Utterance, split: SplitSection) -> str:
    """Return the domain of an utterance, its value in split.column; raise RecipeError for an unknown column."""
    return getattr(utterance, domain_column(split))


def domain_column(split: SplitSection) -> str:
    """Return split.column; raise RecipeError if it is not a column of the manifest that can divide domains."""
    if split.column not in GROUPABLE:
        raise RecipeError(f"split.column: {unknown('column', split.column, GROUPABLE)}")
    return split.column


def with_known_spelling(split: SplitSection, utterances: Sequence[Utterance]) -> SplitSection:
    """Return a [split] section whose speakers and domains are spelled as in the manifest, where they are the same names."""
    column = domain_column(split)
    speakers = {utterance.speaker for utterance in utterances}
    domains = {getattr(utterance, column) for utterance in utterances}
    known = {"test": speakers, "dev": speakers, "source": domains, "unlabelled": domains}
    return split.model_copy(
        update={key: tuple(find(name, spelled) for name in getattr(split, key)) for key, spelled in known.items()}
    )


def require_labels(utterances: Sequence[Utterance], without: Sequence[bool]) -> None:
    """Raise RecipeError for an utterance without an emotion that is not of an unlabelled domain (`without` [N])."""
    missing = [utterance.id for utterance, free in zip(utterances, without, strict=True) if not (utterance.emotion or free)]
    if missing:
        raise RecipeError(
            f"{counted(len(missing), 'utterance has', 'utterances have')} no emotion ({shorten(missing, 3)}): "
            "only utterances of a domain in "
            'split.unlabelled, with split.scheme = "domain", can be trained on without one'
        )


def labels_of(utterances: Sequence[Utterance], split: SplitSection) -> list[str]:
    """Return the emotions that a model can learn, sorted: those of split.source if a domain is unlabelled, otherwise all."""
    domain = split.scheme == "domain"
    return sorted({u.emotion for u in utterances if not domain or contains(split.source, domain_of(u, split))} - {""})


def resolve(chosen: str | Mapping[str, str], utterances: Sequence[Utterance]) -> tuple[str, Mapping[str, str] | None]:
    """Return the name and the table of the chosen map; raise RecipeError for an unknown name."""
    if not isinstance(chosen, str):
        return "own", chosen
    if chosen == "auto":
        chosen = "five" if len({utterance.corpus for utterance in utterances}) > 1 else "full"
    if chosen not in MAPS:
        raise RecipeError(f"labels.map: {unknown('map', chosen, ['auto', *MAPS])}")
    return chosen, MAPS[chosen]
