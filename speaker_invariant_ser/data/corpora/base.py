"""What a corpus module states about its corpus, and how its utterances are listed and counted."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from speaker_invariant_ser.data.formats.files import list_audio
from speaker_invariant_ser.data.manifest import DIMENSIONS, Listing, Utterance
from speaker_invariant_ser.data.tables.ratings import UNIT, Scale, outside_note, ratings_of
from speaker_invariant_ser.errors import CorpusError, counted
from speaker_invariant_ser.files import read_bytes

Fields = dict[str, str]  # fields of an Utterance by name, or `source` and `rejected`
UNKNOWN_FILE = "not a file of"  # beginning of the reason for audio that the corpus does not describe


@dataclass(frozen=True)
class Counts:
    """Numbers of files, speakers and files per emotion of one release, as its own documentation states them.

    `emotions` maps a label to its number of files; it is empty where the documentation does not give them.
    """

    files: int
    speakers: int
    emotions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Download:
    """One archive of an openly licensed corpus.

    Attributes:
        url: Its address, by HTTPS.
        hash: Checksum as pooch expects it (`sha256:...`, or `md5:...` where nothing else is published); empty without one.
        bytes: Its size.
        exact: Whether that is the exact size, which is then verified as well.
    """

    url: str
    hash: str
    bytes: int
    exact: bool = True


@dataclass(frozen=True)
class Corpus:
    """Facts about a corpus, and the function that finds its utterances in a folder.

    `find(folder)` yields one dictionary per audio file. Either it holds `source` (path relative to the folder), `speaker`,
    `emotion` and, where the corpus provides them, `id`, `text`, `sex`, `language`, `session`, `style`, `intensity`,
    `repetition`, `partition`, and `arousal`, `valence`, `dominance` as numbers of `scale`; or it holds `source` and `rejected`,
    the reason why this file cannot be used. Audio files that `find` does not yield are rejected as well, unless they match
    `other_files`.

    Attributes:
        name: Name on the command line and in manifests; the module's name.
        title: Name in reports.
        licence: Licence, or the conditions of use in one sentence.
        citation: Authors, title, venue and year.
        url: Address of the corpus, with what has to be done first in brackets; follows "Get it from".
        language: ISO 639-1 code. Several are separated by commas; `find` then gives each utterance's own.
        counts: Counts by release; the first release is the usual one.
        layout: The expected files in words, with one real path; part of error messages.
        find: The function described above.
        other_files: Patterns (`fnmatch`, `*` also matches `/`) of relative paths in lower case that belong to the corpus but are
            no utterances: they are skipped without a remark.
        note: A limitation of the corpus that every report prints; empty where there is none.
        counts_rejected: Whether `counts` include files that `find` rejects, such as files without an agreed label.
        download: Archives for `siser prepare --download`; empty where the corpus is not openly licensed.
        scale: Lowest and highest value of its ratings of arousal, valence and dominance; None where it has none.
    """

    name: str
    title: str
    licence: str
    citation: str
    url: str
    language: str
    counts: Mapping[str, Counts]
    layout: str
    find: Callable[[Path], Iterable[Fields]]
    other_files: tuple[str, ...] = ()
    note: str = ""
    counts_rejected: bool = False
    download: tuple[Download, ...] = ()
    scale: Scale | None = None


def by_file_name(parse: Callable[[Path], Fields | None]) -> Callable[[Path], Iterator[Fields]]:
    """Return a `find` function for a corpus whose paths hold all labels.

    Args:
        parse: Takes the path of one audio file relative to the corpus folder. Returns its fields, or None for a file that does
            not follow the corpus's naming scheme.
    """

    def find(folder: Path) -> Iterator[Fields]:
        """Yield the fields of every audio file that `parse` accepts."""
        for source in list_audio(folder):
            if fields := parse(Path(source)):
                yield {"source": source, **fields}

    return find


def read_text(path: Path) -> str:
    """Return the text of a corpus's file of labels; raise CorpusError where it cannot be read or is too large."""
    try:
        return read_bytes(path).decode(errors="replace")
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path}: cannot be read ({error})") from None


def list_corpus(corpus: Corpus, folder: Path | str) -> Listing:
    """List the utterances of a corpus in a folder, and the audio files that are none.

    Args:
        corpus: The corpus that the folder is expected to hold.
        folder: The corpus as it was unpacked.

    Returns:
        Utterances and rejected files; no audio has been read.

    Raises:
        CorpusError: The folder does not exist, is empty, or holds no utterance of this corpus.
    """
    folder = Path(folder)
    if not folder.is_dir():
        reason = "is a file, not a folder" if folder.exists() else "does not exist"
        raise CorpusError(f"{folder} {reason}: expected the unpacked {corpus.title} folder ({corpus.layout})")
    if not any(folder.iterdir()):
        raise CorpusError(f"{folder} is empty: looked for {corpus.title}, {corpus.layout}. Get it from {corpus.url}")
    files = list(corpus.find(folder))
    rejected = [(fields["source"], fields["rejected"]) for fields in files if "rejected" in fields]
    utterances = with_consistent_sex(with_unique_ids(corpus, [fields for fields in files if "rejected" not in fields]))
    if not utterances:
        raise CorpusError(f"{folder} does not hold {corpus.title}: looked for {corpus.layout}. Get it from {corpus.url}")
    for source in sorted(set(list_audio(folder)) - {fields["source"] for fields in files}):
        if not any(fnmatchcase(source.lower(), pattern) for pattern in corpus.other_files):
            rejected.append((source, f"{UNKNOWN_FILE} {corpus.title} by its name: expected {corpus.layout}"))
    notes = outside_note((fields for fields in files if "rejected" not in fields), corpus.scale or UNIT)
    return Listing(utterances, rejected, folder, corpus.note, notes=notes)


def with_unique_ids(corpus: Corpus, files: Iterable[Fields]) -> list[Utterance]:
    """Return utterances whose id is the file's name without its ending, or its path where that name is already in use."""
    used: set[str] = set()
    utterances = []
    for fields in files:
        name = fields.get("id") or fields["source"].rpartition("/")[2].rpartition(".")[0]
        name = fields["source"] if name in used else name
        used.add(name)
        labels = {key: value for key, value in fields.items() if key not in DIMENSIONS}
        values = {"corpus": corpus.name, "language": corpus.language, **labels, "id": name}
        rated = ratings_of(fields, corpus.scale or UNIT)
        utterances.append(Utterance(**values, **rated))  # type: ignore[arg-type]  # no corpus yields `start` or the other numbers
    return utterances


def with_consistent_sex(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Give every utterance of a speaker the same sex; none where the labels of one speaker contradict each other."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for utterance in utterances:
        labels[utterance.speaker] |= {utterance.sex} - {""}
    sexes = {speaker: given.pop() if len(given) == 1 else "" for speaker, given in labels.items()}
    return [replace(utterance, sex=sexes[utterance.speaker]) for utterance in utterances]


def count_differences(corpus: Corpus, utterances: Iterable[Utterance], rejected: int = 0) -> list[str]:
    """Compare the numbers of files, speakers and emotions with those of the release that is nearest in size.

    Args:
        corpus: The corpus with its documented counts.
        utterances: The utterances that are kept.
        rejected: Files that the corpus module itself rejects; they count as files where `corpus.counts_rejected` is set.

    Returns:
        One sentence per number that differs; empty when all agree.
    """
    speakers = set()
    emotions: Counter[str] = Counter()
    for utterance in utterances:
        speakers.add(utterance.speaker)
        emotions[utterance.emotion] += 1
    files = emotions.total() + rejected * corpus.counts_rejected
    release, counts = min(corpus.counts.items(), key=lambda item: abs(item[1].files - files))
    expected, actual = {"files": counts.files}, {"files": files}
    if not corpus.counts_rejected:
        expected |= {"speakers": counts.speakers, **counts.emotions}
        actual |= {"speakers": len(speakers)} | {label: emotions[label] for label in counts.emotions}
    suffix = f" ({release})" if len(corpus.counts) > 1 else ""
    return [
        f"{name}: {actual[name]} found, {expected[name]} expected{suffix}" for name in expected if actual[name] != expected[name]
    ]


def corpus_facts(corpus: Corpus) -> dict[str, str | list[str]]:
    """Return what `siser corpora` and the documentation print about a corpus, by heading."""
    return {
        "title": corpus.title,
        "licence": corpus.licence,
        "citation": corpus.citation,
        "get it": corpus.url + (", or with --download" if corpus.download else ""),
        "language": corpus.language,
        "holds": [counts_text(release, counts) for release, counts in corpus.counts.items()],
        **({"ratings": "{}, {} and {} from {:g} to {:g}".format(*DIMENSIONS, *corpus.scale)} if corpus.scale else {}),
        "layout": corpus.layout,
        **({"note": corpus.note} if corpus.note else {}),
    }


def counts_text(release: str, counts: Counts) -> str:
    """Return the counts of one release in one line."""
    emotions = ", ".join(f"{label} {count}" for label, count in counts.emotions.items())
    return f"{release}: {counted(counts.files, 'file')}, {counted(counts.speakers, 'speaker')}" + (
        f": {emotions}" if emotions else ""
    )
