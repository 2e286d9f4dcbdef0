"""Measure encoders one after another, each into a result file, which the next call takes as it is."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from speaker_invariant_ser.audit.audit import AuditSettings, today
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.tables.names import file_key
from speaker_invariant_ser.errors import StudyError, quoted
from speaker_invariant_ser.evaluation.emotion import chance_uar
from speaker_invariant_ser.files import held, remove, remove_leftovers
from speaker_invariant_ser.processes import TaskProgress, versions_of
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.studies.encoders.embedding import blocks_folder
from speaker_invariant_ser.studies.encoders.measure import measure_encoder
from speaker_invariant_ser.studies.encoders.results import (
    EncoderResult,
    read_encoder_result,
    result_path,
    why_other,
)
from speaker_invariant_ser.studies.encoders.sources import Encoder, Request, corpus_hashes, kind_of, open_encoders
from speaker_invariant_ser.studies.machine import describe_machine
from speaker_invariant_ser.studies.results import Machine, recorded_recipe, write_result

NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.+-]*)=(?P<source>.+)")


@dataclass(frozen=True)
class Comparison:
    """What all encoders of a comparison share.

    Attributes:
        prepared: The labelled corpus.
        recipe: Its sections [split], [labels] and [audit] are used.
        folder: Folder of the result files.
        command: What repeats the measurement, with `{}` for the encoder.
        refresh: Measure again what has a result of another encoder, recipe or corpus.
        deviation: Pool frame-level features by mean and standard deviation.
        device: auto, cpu or cuda.
        jobs: Attackers fitted in parallel.
    """

    prepared: PreparedCorpus
    recipe: Recipe
    folder: Path
    command: str
    refresh: bool = False
    deviation: bool = False
    device: str = "auto"
    jobs: int = 1


def split_name(text: str) -> tuple[str, str]:
    """Return the name and the source of an encoder, from `NAME=ENCODER` or `ENCODER` alone.

    Without a name, a folder has its own, and a table its file's without the ending.

    >>> split_name("ours=runs/emodb"), split_name("egemaps")
    (('ours', 'runs/emodb'), ('egemaps', 'egemaps'))
    """
    match = NAMED.fullmatch(text)
    if match and not Path(text).exists():
        return match["name"], match["source"]
    path = Path(text)
    return (path.stem if path.is_file() else path.absolute().name if path.is_dir() else text), text


def without_folder(word: object) -> str:
    """Return a word of a command as results have it, which are published: a path of this machine by its name alone.

    >>> without_folder("/home/me/encoders/wavlm"), without_folder("ours=/home/me/run"), without_folder("runs/a")
    ('wavlm', 'ours=run', 'runs/a')
    """
    before, sign, path = str(word).rpartition("=")
    return f"{before}{sign}{Path(path).name if Path(path).is_absolute() else path}"


def require_different_names(texts: Sequence[str]) -> None:
    """Raise an error for an unknown kind of encoder, or two of one name, before anything is measured."""
    for text in texts:
        kind_of(split_name(text)[1])
    names = {text: split_name(text)[0] for text in texts}
    files = Counter(file_key(result_path(Path(), name).name) for name in map(names.__getitem__, texts))
    twice = [name for name in names.values() if files[file_key(result_path(Path(), name).name)] > 1]
    if twice:
        same = " and ".join(dict.fromkeys(twice))
        raise StudyError(f"two encoders are named {same}, and have one file of results: give one another name, NAME=ENCODER")


def audit_encoder(comparison: Comparison, text: str, progress: TaskProgress) -> tuple[EncoderResult, bool]:
    """Measure an encoder, unless there is a result already.

    Args:
        comparison: Corpus, recipe and settings.
        text: The encoder, as `split_name` takes it.
        progress: Called with the step's name, the units done and the total.

    Returns:
        The result, and whether it was there already.

    Raises:
        StudyError: There is a result of another encoder, recipe or corpus, and `refresh` is off.
        SerError: The encoder cannot be opened or does not fit the corpus, or the corpus does not allow the split.
    """
    name, source = split_name(text)
    path = result_path(comparison.folder, name)
    request = Request(source, comparison.prepared, deviation=comparison.deviation, device=comparison.device)
    encoders = open_encoders(request)
    wanted, former = describe(comparison, name, text, encoders), read_encoder_result(path)
    if former and not (why := why_other(former, wanted)):
        remove_leftovers(path)
        return former, True
    if former and not comparison.refresh:
        raise StudyError(f"{path} is of {why}; --refresh measures it again, or choose another --out")
    with held(path):
        work = blocks_folder(path)
        settings = AuditSettings(comparison.recipe.audit.folds, comparison.recipe.audit.seed, quick=True, jobs=comparison.jobs)
        layers, predictions = zip(
            *measure_encoder(encoders, comparison.prepared, comparison.recipe, settings, work, named(progress, name)), strict=True
        )
        emotion = {"chance": chance_uar(predictions[-1]), "utterances": predictions[-1].utterances}
        result = wanted.model_copy(update={**emotion, "layers": list(layers)})
        write_result(path, result)
        remove(work)
    return result, False


def named(progress: TaskProgress, name: str) -> Callable[[str, int, int], None]:
    """Return a function that reports a step with the encoder's name before it."""
    return lambda step, done, total: progress(f"{name}: {step}", done, total)


def describe(comparison: Comparison, name: str, text: str, encoders: list[Encoder]) -> EncoderResult:
    """Return all that is known of a result before it is measured."""
    prepared = comparison.prepared
    return EncoderResult(
        command=comparison.command.replace("{}", quoted(without_folder(text))),
        date=today(),
        machine=Machine.model_validate(describe_machine()),
        versions=versions_of("scikit-learn", "numpy"),
        recipe=recorded_recipe(comparison.recipe, baseline=True),
        data_sha256=corpus_hashes(prepared),
        corpus="-".join(prepared.settings["corpora"]),
        encoder=name,
        about=encoders[0].about,
        identity=[encoder.identity for encoder in encoders],
        network=encoders[0].network,
        models=len(encoders),
        chance=0.0,
        utterances=0,
        speakers=len({utterance.speaker for utterance in prepared.utterances if utterance.emotion}),
        layers=[],
        contamination=encoders[0].contamination,
    )
