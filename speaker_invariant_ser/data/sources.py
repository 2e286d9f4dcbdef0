"""Where utterances come from: known corpora by name, or the user's own data, together in one prepared corpus."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from speaker_invariant_ser.data.corpora.base import UNKNOWN_FILE, count_differences, list_corpus
from speaker_invariant_ser.data.corpora.registry import get_corpus, known_corpora
from speaker_invariant_ser.data.decoding import Treatment
from speaker_invariant_ser.data.manifest import Listing, Utterance, select
from speaker_invariant_ser.data.prepare import prepare
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.tables.custom import Request
from speaker_invariant_ser.data.tables.custom_formats import CUSTOM_FORMATS, WITH_VOTES
from speaker_invariant_ser.data.tables.names import alike_among
from speaker_invariant_ser.data.tables.ratings import UNIT, Scale
from speaker_invariant_ser.data.tables.unify import unify
from speaker_invariant_ser.errors import CorpusError, shorten, shown
from speaker_invariant_ser.files import refuse_existing, remove_leftovers, scratch_folder
from speaker_invariant_ser.processes import TaskProgress


@dataclass(frozen=True)
class Source:
    """A corpus and its location.

    Attributes:
        corpus: Name of a known corpus, or the kind of the user's own data: csv, tsv, parquet, folder, audformat, datasets.
        path: The corpus's folder, or the user's table or folder.
        name: Name of the user's own data; by default that of the file or folder.
        pattern: Pattern of the paths in a folder, such as `{speaker}/{emotion}/*.wav`.
        columns: Name of a field -> name of its column in the table.
        unlabelled: Whether the user's own data may lack emotions.
        same_speaker: Whether speaker names that are alike, such as `3` and `03`, are one speaker; None: such
            names are an error.
        scale: Lowest and highest value of the ratings of arousal, valence and dominance in the user's own data; None: 0 and 1.
        votes: Beginning of the names of columns that hold the votes for an emotion; empty: `votes_`, if there are any.
        annotators: Names or patterns of columns that hold one annotator's labels each.
    """

    corpus: str
    path: Path
    name: str = ""
    pattern: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    unlabelled: bool = False
    same_speaker: bool | None = None
    scale: Scale | None = None
    votes: str = ""
    annotators: Sequence[str] = ()

    @property
    def is_own(self) -> bool:
        """Whether this is the user's own data."""
        return self.corpus in CUSTOM_FORMATS

    def list_utterances(self, scratch: Path) -> Listing:
        """List the utterances.

        Args:
            scratch: Folder for audio files that are stored inside tables.

        Raises:
            CorpusError: The corpus is unknown, or the folder does not hold it.
            ManifestError: The user's table or folder cannot be used, or speaker names are alike and `same_speaker` is None.
        """
        if self.is_own:
            return CUSTOM_FORMATS[self.corpus](
                Request(
                    source=self.path,
                    name=self.name,
                    pattern=self.pattern,
                    columns=self.columns,
                    scratch=scratch,
                    unlabelled=self.unlabelled,
                    same_speaker=self.same_speaker,
                    scale=self.scale or UNIT,
                    votes=self.votes,
                    annotators=self.annotators,
                )
            )
        return unify(list_corpus(get_corpus(self.corpus, CUSTOM_FORMATS), self.path), self.path, self.same_speaker)


def prepare_sources(
    sources: Sequence[Source],
    out: Path,
    treatment: Treatment,
    conditions: Sequence[tuple[str, str]] = (),
    download: bool = False,
    pool: Executor | None = None,
    progress: TaskProgress | None = None,
    f0: bool = False,
) -> PreparedCorpus:
    """Decode the utterances of one or several sources into a prepared corpus.

    Args:
        sources: What to prepare into one manifest.
        out: The prepared corpus: a new folder.
        treatment: Trimming and loudness normalisation.
        conditions: (column, value) pairs; only utterances that have one of the values in each column are kept.
        download: Download the first source into its path first.
        pool: Processes that decode, of `decoding.workers`; without, this process does.
        progress: Called with task, steps done and steps in total.
        f0: Whether to track F0 as well.

    Returns:
        The prepared corpus, opened.

    Raises:
        CorpusError: A corpus is unknown, cannot be downloaded, or is not in its folder; or an option has no effect on it.
        ManifestError: A table or folder of the user's own cannot be used, or no utterance meets the conditions.
        WriteError: `out` holds anything, or cannot be written.
    """
    remove_leftovers(out)
    refuse_existing(out, "prepare into a new folder, or remove this one first")
    require_own_data(sources)
    with scratch_folder(out) as scratch:
        if download:
            from speaker_invariant_ser.data.corpora.download import download_corpus  # slow to import, and seldom needed

            download_corpus(get_corpus(sources[0].corpus), sources[0].path, progress)
        listings = [source.list_utterances(scratch / str(number)) for number, source in enumerate(sources)]
        listings[0].notes.extend(shared_speakers(sources, listings))
        compare = comparison(sources, listings) if not conditions else lambda kept: []
        return prepare(select(listings, conditions), out, treatment, pool, progress, compare, f0)


def shared_speakers(sources: Sequence[Source], listings: Sequence[Listing]) -> list[str]:
    """Return a note on speakers who have the same name, or one that is alike, in several corpora of the user's own.

    Each corpus has speakers of its own, because short names such as 01 stand for other people in other corpora. Where it is one
    person, this person would be tested and trained on. There is no note where the user has said that names that are alike differ.
    """
    pairs = zip(sources, listings, strict=True)
    own = [listing.utterances for source, listing in pairs if source.is_own and source.same_speaker is not False]
    key = alike_among(utterance.speaker for utterances in own for utterance in utterances)
    known = [{key(utterance.speaker): utterance.speaker for utterance in utterances} for utterances in own]
    counts = Counter(key for speakers in known for key in speakers)
    names = sorted({shown(name) for speakers in known for key, name in speakers.items() if counts[key] > 1})
    if not names:
        return []
    return [
        f"speaker {shorten(names)} of several of your tables or folders: taken as different people in each. If it is one person, "
        "put the recordings into one table, since a test on this person is none on an unseen speaker; else --distinct-speakers"
    ]


def require_own_data(sources: Sequence[Source]) -> None:
    """Raise CorpusError for an option about own data where there is none of the kinds it is for: it would do nothing."""
    first = sources[0]
    own = any(source.is_own for source in sources)
    for option in ("name", "pattern", "columns", "unlabelled", "scale"):
        if getattr(first, option) and not (first.is_own if option == "name" else own):
            flag = "--column" if option == "columns" else f"--{option}"
            raise CorpusError(f"{flag}: for your own data only, {first.corpus} is a known corpus; leave it out")
    for option, kinds in (("pattern", ("folder",)), ("votes", WITH_VOTES), ("annotators", WITH_VOTES)):
        if getattr(first, option) and not any(source.corpus in kinds for source in sources):
            raise CorpusError(f"--{option}: for {', '.join(kinds)}, and not for {first.corpus}; leave it out")


def comparison(sources: Sequence[Source], listings: Sequence[Listing]) -> Callable[[Sequence[Utterance]], list[str]]:
    """Return a function that lists where the counts of the kept utterances differ from those of the known corpora."""
    known = known_corpora()
    rejected = {  # files that the corpus module itself rejects
        source.corpus: sum(not reason.startswith(UNKNOWN_FILE) for _, reason in listing.rejected)
        for source, listing in zip(sources, listings, strict=True)
    }

    def compare(kept: Sequence[Utterance]) -> list[str]:
        lines = []
        for name in (source.corpus for source in sources if source.corpus in known):
            utterances = [utterance for utterance in kept if utterance.corpus == name]
            lines += [f"{name}: {line}" for line in count_differences(known[name], utterances, rejected[name])]
        return lines

    return compare
