"""Whether a model was trained on recordings of a corpus, by what the model says of its training."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.errors import RunError, counted, shorten
from speaker_invariant_ser.inference.exported import Export, open_models
from speaker_invariant_ser.report.card import corpora_of

if TYPE_CHECKING:
    from speaker_invariant_ser.runs import ModelSpec, Run

RUN_DEPTH = 3  # folders between a model and its run: folds/FOLD, or folds/FOLD/seed-S


@dataclass(frozen=True)
class TrainedOn:
    """What a model says it was trained on.

    Attributes:
        corpora: Names of corpora; empty where they are not known.
        speakers: Names of the speakers; empty where they are not known, as in an export.
    """

    corpora: tuple[str, ...] = ()
    speakers: frozenset[str] = frozenset()


def trained_on(model: "Export | ModelSpec", run: "Run | None" = None) -> TrainedOn:
    """Return what an export, a model without its run, or a model of a run says it was trained on."""
    if isinstance(model, Export):
        return TrainedOn(model.corpora) if model.corpora else of_folder(model.models[0])
    split = model.split
    return TrainedOn(tuple(corpora_of(run)) if run else (), frozenset((*split.train, *split.dev, *split.unlabelled)))


def of_folder(folder: Path) -> TrainedOn:
    """Return what the run says of a model in it, given the model's folder; nothing where it is in no run."""
    for above in list(folder.resolve().parents)[:RUN_DEPTH]:
        try:
            run = open_models(above)
        except RunError:
            continue
        if not isinstance(run, Export):
            return next(
                (trained_on(spec, run) for spec in run.model_specs if spec.folder.resolve() == folder.resolve()), TrainedOn()
            )
    return TrainedOn()


def contamination(prepared: PreparedCorpus, trained: TrainedOn) -> tuple[str, frozenset[str]]:
    """Compare what a model was trained on with a corpus.

    Corpora are compared by name, because another preparation of the same recordings has other hashes; and the names of speakers
    within them, where the model says them.

    Returns:
        What is contaminated, in words, and the ids of those utterances; nothing where no recording is known to be common.
    """
    rows = [row for row in prepared.utterances if row.corpus in trained.corpora and is_known(row, trained.speakers)]
    if not rows:
        return "", frozenset()
    speakers, common = ({row.speaker for row in of} for of in (prepared.utterances, rows))
    return (
        f"was trained on recordings of {shorten(sorted({row.corpus for row in rows}))}, which this corpus is of: it knows "
        f"{len(common)} of {counted(len(speakers), 'speaker')}",
        frozenset(row.id for row in rows),
    )


def is_known(row: Utterance, speakers: frozenset[str]) -> bool:
    """Return whether the speaker of an utterance is one of these, with or without the corpus before the name; all are in none."""
    plain = row.speaker.removeprefix(f"{row.corpus}-")
    return not speakers or bool({row.speaker, plain, f"{row.corpus}-{plain}"} & speakers)
