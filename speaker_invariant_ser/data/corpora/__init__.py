"""Known corpora, one module each. A module here is a corpus: nothing else to register.

Every module has a docstring that teaches the file-name code and a `CORPUS = Corpus(...)`. Facts are the corpora's own,
from their documentation; a count that no documentation gives is left out, not guessed.
"""

import importlib
import pkgutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from speaker_invariant_ser.data.audio import list_audio
from speaker_invariant_ser.data.manifest import Listing, Utterance
from speaker_invariant_ser.errors import CorpusError, unknown

Fields = dict[str, str]  # fields of an Utterance, by name
STRANGE = "not a file of"  # how the reason begins where a corpus knows nothing of a file


@dataclass(frozen=True)
class Counts:
    """What one release of a corpus holds by its own documentation; `emotions` is empty where that does not say."""

    files: int
    speakers: int
    emotions: Mapping[str, int] = field(default_factory=dict)  # label -> number of files


@dataclass(frozen=True)
class Download:
    """One archive of an openly licensed corpus; `hash` as pooch writes it, such as md5:..., or "" where none is published."""

    url: str
    hash: str
    bytes: int = 0  # of the archive; 0: not known


@dataclass(frozen=True)
class Corpus:
    """What is known of a corpus before it is seen, and how to find its utterances in a folder.

    `find(folder)` yields the fields of each utterance: `source` (relative to the folder), `speaker`, `emotion`, and where the
    corpus tells them `text`, `sex`, `language`, `session`, `style`, `intensity`, `repetition`, `partition`, `start`, `end`;
    or `source` and `rejected`, the reason why the corpus itself says that a file has no use. Audio it does not mention is
    rejected as well, unless one of the patterns in `aside` says that it belongs there. `layout` says in words what was
    looked for; `note` is printed in every report, where a corpus needs one.
    """

    name: str
    title: str
    licence: str
    citation: str
    url: str
    language: str  # ISO 639-1; several with commas between, and then `find` tells each utterance's
    counts: Mapping[str, Counts]  # by release; the first is the usual one
    layout: str
    find: Callable[[Path], Iterable[Fields]]
    aside: tuple[str, ...] = ()  # patterns of relative paths in lower case, `*` also crosses folders
    note: str = ""
    counts_useless: bool = False  # whether the counts hold files that `find` rejects, as where labels or speakers are unknown
    download: tuple[Download, ...] = ()


def named(parse: Callable[[Path], Fields | None]) -> Callable[[Path], Iterator[Fields]]:
    """A `find` for a corpus whose paths tell everything; `parse` reads one, relative to the folder, or returns None."""

    def find(folder: Path) -> Iterator[Fields]:
        for source in list_audio(folder):
            if fields := parse(Path(source)):
                yield {"source": source, **fields}

    return find


def known() -> dict[str, Corpus]:
    """All corpora by name, found by looking into this folder."""
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return {module.CORPUS.name: module.CORPUS for module in modules}


def get(name: str, others: Iterable[str] = ()) -> Corpus:
    """The corpus of that name. Raises CorpusError with the known ones, and `others` that would do in its place."""
    corpora = known()
    if name not in corpora:
        raise CorpusError(unknown("corpus", name, [*corpora, *others]))
    return corpora[name]


def find(corpus: Corpus, folder: Path | str) -> Listing:
    """The corpus's utterances below `folder`, and the audio there that is none. Raises CorpusError."""
    folder = Path(folder)
    if not folder.is_dir():
        reason = "is a file, not a folder" if folder.exists() else "does not exist"
        raise CorpusError(f"{folder} {reason}: expected the folder of {corpus.title}, {corpus.layout}")
    if not any(folder.iterdir()):
        raise CorpusError(f"{folder} is empty: looked for {corpus.title}, {corpus.layout}. Get it from {corpus.url}")
    found = list(corpus.find(folder))
    rejected = [(fields["source"], fields["rejected"]) for fields in found if "rejected" in fields]
    utterances = one_sex_each(identified(corpus, [fields for fields in found if "rejected" not in fields]))
    if not utterances:
        raise CorpusError(f"{folder} does not hold {corpus.title}: looked for {corpus.layout}. Get it from {corpus.url}")
    strangers = set(list_audio(folder)) - {fields["source"] for fields in found}
    for source in sorted(strangers):
        if not any(fnmatchcase(source.lower(), pattern) for pattern in corpus.aside):
            rejected.append((source, f"{STRANGE} {corpus.title} by its name: expected {corpus.layout}"))
    return Listing(utterances, rejected, folder, corpus.note)


def identified(corpus: Corpus, found: Iterable[Fields]) -> list[Utterance]:
    """Utterances whose id is the file's name, or its path where another one has that name already."""
    taken, utterances = set(), []
    for fields in found:
        name = fields.pop("id", "") or fields["source"].rpartition("/")[2].rpartition(".")[0]
        name = fields["source"] if name in taken else name
        taken.add(name)
        utterances.append(Utterance(**{"id": name, "corpus": corpus.name, "language": corpus.language, **fields}))
    return utterances


def one_sex_each(utterances: list[Utterance]) -> list[Utterance]:
    """A speaker has the sex that some rows tell; none where they contradict each other, as labels by many hands do."""
    told = defaultdict(set)
    for one in utterances:
        told[one.speaker].add(one.sex)
    sexes = {speaker: (found - {""}).pop() if len(found - {""}) == 1 else "" for speaker, found in told.items()}
    return [one if one.sex == sexes[one.speaker] else replace(one, sex=sexes[one.speaker]) for one in utterances]


def differences(corpus: Corpus, utterances: Iterable[Utterance], useless: int = 0) -> list[str]:
    """Where the counts found differ from those of the nearest release, in words; empty when all agree.

    `useless` files are those that the corpus itself has no use for: where its own counts hold them, they are found as well.
    """
    speakers, emotions = set(), Counter()
    for utterance in utterances:
        speakers.add(utterance.speaker)
        emotions[utterance.emotion] += 1
    files = emotions.total() + useless * corpus.counts_useless
    release, counts = min(corpus.counts.items(), key=lambda item: abs(item[1].files - files))
    expected, found = {"files": counts.files}, {"files": files}
    if not corpus.counts_useless:
        expected |= {"speakers": counts.speakers, **counts.emotions}
        found |= {"speakers": len(speakers)} | {label: emotions[label] for label in counts.emotions}
    kind = f" ({release})" if len(corpus.counts) > 1 else ""
    return [f"{name}: {found[name]} found, {expected[name]} expected{kind}" for name in expected if found[name] != expected[name]]


def describe(corpus: Corpus) -> dict[str, str | list[str]]:
    """A corpus's facts as words, for people: what `siser corpora` and the README's table say."""
    return {
        "title": corpus.title,
        "licence": corpus.licence,
        "citation": corpus.citation,
        "get it": corpus.url + (" (or --download)" if corpus.download else ""),
        "language": corpus.language,
        "holds": [in_words(release, counts) for release, counts in corpus.counts.items()],
        "layout": corpus.layout,
        **({"note": corpus.note} if corpus.note else {}),
    }


def in_words(release: str, counts: Counts) -> str:
    emotions = ", ".join(f"{label} {count}" for label, count in counts.emotions.items())
    return f"{release}: {counts.files} files, {counts.speakers} speakers" + (f": {emotions}" if emotions else "")
