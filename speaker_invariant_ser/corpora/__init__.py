"""Known corpora, one module each. A module here is a corpus: nothing else to register.

Every module has a docstring that teaches the file-name code and a `CORPUS = Corpus(...)`.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from speaker_invariant_ser.errors import CorpusError, unknown
from speaker_invariant_ser.manifest import Utterance


@dataclass(frozen=True)
class Corpus:
    """What is known of a corpus before it is seen, and how to find its utterances in a folder.

    `find(folder)` returns utterances with `source` relative to the folder, and an empty list where it finds none;
    `layout` says in words what it looked for. `note` is printed in every report, where a corpus needs one.
    """

    name: str
    title: str
    licence: str
    citation: str
    url: str
    language: str
    files: int
    speakers: int
    emotions: Mapping[str, int]  # label -> number of files
    layout: str
    find: Callable[[Path], list[Utterance]]
    note: str = ""


def known() -> dict[str, Corpus]:
    """All corpora by name, found by looking into this folder."""
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return {module.CORPUS.name: module.CORPUS for module in modules}


def get(name: str) -> Corpus:
    """The corpus of that name. Raises CorpusError with the known ones."""
    corpora = known()
    if name not in corpora:
        raise CorpusError(unknown("corpus", name, [*corpora, "csv"]))
    return corpora[name]


def find(corpus: Corpus, folder: Path | str) -> list[Utterance]:
    """The corpus's utterances below `folder`. Raises CorpusError that says what was looked for."""
    folder = Path(folder)
    if not folder.is_dir():
        reason = "is a file, not a folder" if folder.exists() else "does not exist"
        raise CorpusError(f"{folder} {reason}: expected the folder of {corpus.title}, {corpus.layout}")
    if not any(folder.iterdir()):
        raise CorpusError(f"{folder} is empty: looked for {corpus.title}, {corpus.layout}. Get it from {corpus.url}")
    utterances = corpus.find(folder)
    if not utterances:
        raise CorpusError(f"{folder} does not hold {corpus.title}: looked for {corpus.layout}. Get it from {corpus.url}")
    return utterances


def differences(corpus: Corpus, utterances: list[Utterance]) -> list[str]:
    """Where the counts found differ from the corpus's own, in words; empty when all agree."""
    found = {"files": len(utterances), "speakers": len({utterance.speaker for utterance in utterances})}
    expected = {"files": corpus.files, "speakers": corpus.speakers}
    for label in corpus.emotions:
        found[label] = sum(utterance.emotion == label for utterance in utterances)
        expected[label] = corpus.emotions[label]
    return [f"{name}: {found[name]} found, {expected[name]} expected" for name in found if found[name] != expected[name]]
