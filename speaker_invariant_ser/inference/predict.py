"""Paths -> predictions. A bad file becomes a row with its reason; nothing stops on it."""

import csv
import glob
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.errors import AudioError, RunError, SerError, unknown
from speaker_invariant_ser.features.speaker_means import mean_log_mel
from speaker_invariant_ser.files import writing
from speaker_invariant_ser.models.apply import apply
from speaker_invariant_ser.models.model import SerModel, choose_device, load_model
from speaker_invariant_ser.runs import Run

WINDOW = 30 * audio.SAMPLE_RATE  # samples; longer recordings are read in windows of this length
BLOCK = 64  # files decoded before the models run: bounds memory

Row = dict[str, str | float | None]


def find_inputs(inputs: Sequence[str | Path]) -> list[Path]:
    """Files in the order given; folders, globs and .txt lists become the files in them. A file that is not there stays listed.

    Raises SerError for an empty folder, or a glob that matches nothing.
    """
    found: list[Path] = []
    for item in map(str, inputs):
        if not item:
            raise SerError("an empty input: expected a file, folder, pattern or .txt list (is a variable unset?)")
        if Path(item).is_dir():
            found += in_folder(item)
        elif item.lower().endswith(".txt"):
            found += in_list(item)
        elif glob.has_magic(item) and not Path(item).exists():
            found += matching(item)
        else:
            found.append(Path(item))
    return list(dict.fromkeys(found))


def in_folder(folder: str) -> list[Path]:
    files = audio.find_audio(folder)
    if not files:
        endings = ", ".join(sorted(audio.SUFFIXES))
        raise SerError(f"{folder}: no audio file in this folder or below it (looked for {endings})")
    return files


def in_list(path: str) -> list[Path]:
    try:
        audio.require_file(Path(path))
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (AudioError, OSError, UnicodeDecodeError) as error:
        raise SerError(f"{path}: cannot be read as a list of paths, one a line ({error})") from None
    paths = [Path(path).parent / line.strip() for line in lines if line.strip()]  # relative to the list, as in a table
    if not paths:
        raise SerError(f"{path}: an empty list, expected one path a line")
    return paths


def matching(pattern: str) -> list[Path]:
    """The files that match; a name whose only sign of a pattern are brackets may be a plain file that is missing."""
    files = sorted(Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file())
    if not files and not any(sign in pattern for sign in "*?"):
        return [Path(pattern)]
    if not files:
        raise SerError(f"{pattern}: no file matches this pattern")
    return files


def load_models(run: Run, fold: str | None = None, device: str = "auto", one_speaker: bool = False) -> list[SerModel]:
    """The models of a run, one per fold and seed, or those of `fold` alone. Raises RunError.

    A transductive run reads nobody of whom it knows nothing: it is refused unless `one_speaker` says that one person speaks in
    all that it will be given.
    """
    require_one_speaker(run, one_speaker)
    fits = run.done() if fold is None else run.one(fold)
    models = [load_model(fit.folder, str(choose_device(device))) for fit in fits]
    if len({model.labels for model in models}) > 1:
        raise RunError(f"{run.folder} is damaged: its folds have different labels")
    if models[0].settings.features.front != "log-mel":
        raise RunError(f"{run.folder} was trained on images, not on speech: expected a run whose features.front is log-mel")
    return models


def require_one_speaker(run: Run, one_speaker: bool) -> None:
    """Raise RunError where the run has to know who speaks and is not told, or is told and has no use for it."""
    if run.recipe.features.transductive and not one_speaker:
        raise RunError(
            f"{run.folder} takes the mean over all clips of a speaker from each of them (features.normalise = speaker), and "
            "files do not say who speaks: call it once for each person with all that there is of them, and --one-speaker"
        )
    if one_speaker and not run.recipe.features.transductive:
        raise RunError(
            f"--one-speaker: {run.folder} reads every file alone (features.normalise = {run.recipe.features.normalise}); "
            "leave it out"
        )


def predict(
    models: Sequence[SerModel], paths: Sequence[Path], progress: Callable[[int, int], None] | None = None
) -> Iterator[Row]:
    """One row per path, in order: path, label, confidence, p_<label> for each, error.

    Several models' probabilities are averaged. A recording longer than 30 s is read in windows, weighted by length.
    `error` is empty and the rest filled, or the other way round. Transductive models read all files once before, as one person's.
    """
    done, mean = 0, speaker_mean(models[0], paths) if models[0].settings.features.transductive else None
    for block in read_blocks(paths):
        probabilities = iter(probability_of(models, [clip for _, clip in block if isinstance(clip, np.ndarray)], mean))
        for path, clip in block:
            failed = isinstance(clip, AudioError)
            yield failure(path, clip, models[0].labels) if failed else success(path, next(probabilities), models[0].labels)
            done += 1
            if progress:
                progress(done, len(paths))


def read_blocks(paths: Sequence[Path]) -> Iterator[list[tuple[Path, np.ndarray | AudioError]]]:
    """Decoded files in order, so many at once that memory stays bounded whatever their number and length."""
    block, held = [], 0
    for path in paths:
        clip = read(path)
        block.append((path, clip))
        held += clip.size if isinstance(clip, np.ndarray) else 0
        if len(block) == BLOCK or held > BLOCK * WINDOW:
            yield block
            block, held = [], 0
    if block:
        yield block


def read(path: Path) -> np.ndarray | AudioError:
    try:
        return audio.read(path)
    except AudioError as error:
        return error


def speaker_mean(model: SerModel, paths: Sequence[Path]) -> np.ndarray:
    """Compute the mean log-mel [M] over all frames of all readable files, which are of one speaker."""
    blocks = (
        [window for _, clip in block if isinstance(clip, np.ndarray) for window in windows(clip)] for block in read_blocks(paths)
    )
    return mean_log_mel(model.logmel, blocks)


def probability_of(models: Sequence[SerModel], clips: Sequence[np.ndarray], mean: np.ndarray | None = None) -> np.ndarray:
    """Mean probability over models and windows, [N, C]; `mean` [M] is the speaker's, for transductive models."""
    if not clips:
        return np.zeros((0, len(models[0].labels)))
    parts = [windows(clip) for clip in clips]
    flat = [window for part in parts for window in part]
    means = None if mean is None else np.tile(mean, (len(flat), 1))
    each = np.mean([apply(model, flat, means)[1] for model in models], axis=0)
    owner = np.repeat(np.arange(len(clips)), [len(part) for part in parts])
    weight = np.array([len(window) for window in flat], dtype=float)
    total = np.zeros((len(clips), each.shape[1]))
    np.add.at(total, owner, each * weight[:, None])
    return total / total.sum(axis=1, keepdims=True)


def windows(clip: np.ndarray) -> list[np.ndarray]:
    """The clip [S] in equal parts of at most 30 s, so that no part is a short leftover."""
    return np.array_split(clip, max(1, -(-len(clip) // WINDOW)))


def printable(text: str) -> str:
    """The text with bytes of a file name that are no UTF-8 written as \\xNN: one odd name must not lose a whole table."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def success(path: Path, probability: np.ndarray, labels: Sequence[str]) -> Row:
    best = int(probability.argmax())
    each = {f"p_{label}": float(p) for label, p in zip(labels, probability, strict=True)}
    return {"path": printable(str(path)), "label": labels[best], "confidence": float(probability[best]), **each, "error": ""}


def failure(path: Path, error: AudioError, labels: Sequence[str]) -> Row:
    empty = {f"p_{label}": None for label in labels}
    return {"path": printable(str(path)), "label": "", "confidence": None, **empty, "error": printable(str(error))}


@contextmanager
def open_table(path: Path | str, labels: Sequence[str]) -> Iterator[Callable[[Row], None]]:
    """A function that writes one row; .csv, .jsonl or .parquet by the path's ending. The file appears when all is written.

    Raises SerError for another ending.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in WRITERS:
        raise SerError(f"{path}: {unknown('ending', path.suffix, WRITERS)}")
    columns = ["path", "label", "confidence", *(f"p_{label}" for label in labels), "error"]
    with writing(path, "wb" if ending == ".parquet" else "w") as file, WRITERS[ending](file, columns) as write:
        yield write


@contextmanager
def csv_rows(file, columns: Sequence[str]) -> Iterator[Callable[[Row], None]]:
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    yield lambda row: writer.writerow({name: f"{cell:.6f}" if isinstance(cell, float) else cell for name, cell in row.items()})


@contextmanager
def json_lines(file, columns: Sequence[str]) -> Iterator[Callable[[Row], None]]:
    yield lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n")


@contextmanager
def parquet_rows(file, columns: Sequence[str]) -> Iterator[Callable[[Row], None]]:
    """Rows wait in memory: Parquet is written in large groups."""
    text = ("path", "label", "error")
    schema = pyarrow.schema([(name, pyarrow.string() if name in text else pyarrow.float64()) for name in columns])
    rows: list[Row] = []
    yield rows.append
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), file)


WRITERS = {".csv": csv_rows, ".jsonl": json_lines, ".parquet": parquet_rows}
