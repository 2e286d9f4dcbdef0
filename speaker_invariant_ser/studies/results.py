"""The file of one result: what was measured, how it is measured again, and whether it still is what the study asks for.

Keys are stable: they are added to, never renamed. Rates are shares from 0 to 1.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from speaker_invariant_ser.config import saved_recipe
from speaker_invariant_ser.data.prepared_corpus import AUDIO, MANIFEST
from speaker_invariant_ser.errors import RecipeError, StudyError, changes, shorten, shown
from speaker_invariant_ser.evaluation.claims.numbers import contradictions
from speaker_invariant_ser.evaluation.part import Count, Part, Share, Size
from speaker_invariant_ser.evaluation.summary_parts import Control, MeanUar, SpeakerResult, Uar, WorstSpeaker
from speaker_invariant_ser.files import writing
from speaker_invariant_ser.json_files import read_typed, why_invalid
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.runs import flattened
from speaker_invariant_ser.studies.study import Cell

MAX_LINE = 120  # characters of a result file
BASELINE_SECTIONS = ("split", "labels", "audit")  # of the recipe; a baseline depends on no other


class EmotionNumbers(Part):
    """Emotion results on unseen speakers; `by_telephone` is their UAR as a telephone transmits them, where it was measured."""

    uar: Uar
    uar_mean_over_speakers: MeanUar
    accuracy: Share
    worst_speaker: WorstSpeaker
    chance: Share
    utterances: Count
    per_speaker: dict[str, SpeakerResult]
    by_telephone: Uar | None = None


class StrongestNumbers(Part):
    """The strongest attacker, selected on validation utterances."""

    centre = "accuracy"
    name: str
    accuracy: Share
    low: Share | None
    high: Share | None
    balanced_accuracy: Share


class SpeakerNumbers(Part):
    """What attackers identify; `quick` if only the closed-form ones were tried, `chance` given the true emotion."""

    strongest: StrongestNumbers
    chance: Share
    speakers: Count
    quick: bool
    scored: str
    controls: dict[str, Control]


class TrainingNumbers(Part):
    """The training of all folds, inner folds included; `epoch` and `dev_uar` are of the model that each fold keeps."""

    parameters: Count
    epoch: dict[str, Count]
    dev_uar: dict[str, Share]
    seconds: Size
    cpu_seconds: Size | None
    jobs: Count
    threads: Count
    trained: dict[str, str | int]


class SvmNumbers(Part):
    """Emotion results of one classifier of a baseline."""

    settings: str
    uar: Uar
    uar_mean_over_speakers: MeanUar
    accuracy: Share
    worst_speaker: WorstSpeaker


class BaselineNumbers(Part):
    """A baseline: its features, and all classifiers; `headline` names the one whose numbers are the emotion results."""

    features: str
    dimensions: Count
    headline: str
    classifiers: dict[str, SvmNumbers]


class Numbers(Part):
    """All numbers of a result; `training` is of a network, `baseline` of a baseline.

    `unaudited` is why nothing is known of the speaker.
    """

    emotion: EmotionNumbers
    speaker: SpeakerNumbers | None
    training: TrainingNumbers | None
    baseline: BaselineNumbers | None
    unaudited: str = ""


class Machine(Part):
    """Where it was measured."""

    processor: str
    cores: Count
    instructions: list[str] = Field(default_factory=list)


class Measurement(Part):
    """How, when and where a result was measured."""

    command: str
    date: str
    machine: Machine
    versions: dict[str, str]


M = TypeVar("M", bound=Measurement)


class Result(Measurement):
    """The content of a result file."""

    recipe: dict[str, Any]
    recipe_sha256: str
    data_sha256: dict[str, str]
    corpus: str
    arm: str
    seed: int | None
    numbers: Numbers


def read_result(path: Path, cell: Cell | None = None) -> Result | None:
    """Read a result file.

    Args:
        path: The file.
        cell: The cell that it has to be of; None for any.

    Returns:
        The result; None if there is no such file.

    Raises:
        StudyError: The file is damaged or not a result, is that of another cell, or contradicts itself.
    """
    result = read_measurement(Result, path, "a study")
    if result and (wrong := (cell and why_other_cell(result, cell)) or why_inconsistent(result)):
        raise StudyError(f"{path} {wrong}; remove it, and it is measured again")
    return result


def why_other_cell(result: Result, cell: Cell) -> str:
    """Say of which other cell a result is; empty if it is of this one."""
    stated = {"corpus": result.corpus, "arm": result.arm, "seed": result.seed}
    own = {"corpus": cell.corpus, "arm": cell.arm.name, "seed": cell.seed}
    differing = [f"{key} {shown(stated[key])}, not {shown(own[key])}" for key in own if stated[key] != own[key]]
    return f"is of {shorten(differing)}" if differing else ""


def why_inconsistent(result: Result) -> str:
    """Say in what the numbers of a result contradict each other, as far as they follow from each other; empty if in nothing."""
    emotion, baseline = result.numbers.emotion, result.numbers.baseline
    wrong = contradictions(emotion, emotion.utterances)
    if baseline and (first := baseline.classifiers.get(baseline.headline)):
        keys = ("uar", "uar_mean_over_speakers", "accuracy", "worst_speaker")
        wrong += [f"{key} is not that of the classifier" for key in keys if getattr(first, key) != getattr(emotion, key)]
    elif baseline:
        wrong.append(f"it has no results of its classifier {shown(baseline.headline)}")
    if bool(result.numbers.unaudited) == bool(result.numbers.speaker):
        wrong.append("expected numbers of attackers or a reason why there are none")
    if table_sha256(result.recipe) != result.recipe_sha256:
        wrong.append("recipe_sha256 is not the hash of its recipe")
    return f"contradicts itself: {shorten(wrong, 3)}" if wrong else ""


def read_measurement(kind: type[M], path: Path, origin: str) -> M | None:
    """Read a file of measurements; None if there is none. Raise StudyError if it is damaged or none of this origin."""
    try:
        return read_typed(kind, path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = why_invalid(error)
        raise StudyError(f"{path} is not a result of {origin} ({why}); choose another folder, or move it") from None


def write_result(path: Path, result: Measurement) -> None:
    """Write a result file, atomically; raise WriteError where that fails."""
    with writing(path) as file:
        file.write(compact(result.to_json()) + "\n")


def compact(value: object, indent: str = "") -> str:
    """Return JSON with objects that fit on a line on one line, so that a file is short and can be compared by line.

    >>> print(compact({"a": {"b": "x" * 80, "c": [2, 3]}, "d": {"e": "y" * 40}}).replace("x" * 79, "..."))
    {
      "a": {"b": "...x", "c": [2, 3]},
      "d": {"e": "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"}
    }
    """
    line = json.dumps(value, ensure_ascii=False)
    inside = indent + "  "
    if isinstance(value, dict) and value and len(indent) + len(line) > MAX_LINE:
        items = [f"{json.dumps(key, ensure_ascii=False)}: {compact(item, inside)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inside + item for item in items) + f"\n{indent}}}"
    return line


def recorded_recipe(recipe: Recipe, baseline: bool) -> dict[str, Any]:
    """Return what a result records of its recipe: all of it, or the sections that a baseline depends on."""
    return recipe.model_dump(mode="json", include=set(BASELINE_SECTIONS) if baseline else None)


def table_sha256(table: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a recorded recipe."""
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def why_stale(result: Result, recipe: Recipe | None, data: Mapping[str, str] | None) -> str:
    """Say why a result is not one of this recipe and these data; empty if it is.

    A saved recipe is completed with today's defaults of the keys that it lacks: a new key of the package makes no result stale.

    Args:
        result: The result.
        recipe: The recipe that the study asks for; None if it is not known.
        data: SHA-256 of the prepared corpus's files, by name; None if it is not here.
    """
    if data is not None:
        changed = [name for name in (AUDIO, MANIFEST) if result.data_sha256.get(name) != data.get(name)]  # F0 follows from them
        if changed:
            return f"measured on other data ({shorten(changed)})"
    return "" if recipe is None else why_other_recipe(result, recipe)


def why_other_recipe(result: Result, recipe: Recipe) -> str:
    """Say in which keys the recipe of a result differs from the one that the study asks for; empty if in none."""
    try:
        old = flattened(saved_recipe(result.recipe, "recipe"))
    except RecipeError as error:
        return f"its recipe is no longer valid ({error})"
    new = flattened(recipe)
    if result.numbers.baseline:
        old, new = ({key: value for key, value in keys.items() if key.split(".")[0] in BASELINE_SECTIONS} for keys in (old, new))
    changed = changes(old, new)
    return f"measured with another recipe: {shorten(changed, 3)}" if changed else ""
