"""The file of one encoder's results on a corpus. Keys are stable: they are added to, never renamed. Rates are shares, 0 to 1."""

import hashlib
import re
from pathlib import Path
from typing import Any

from speaker_invariant_ser.errors import StudyError, shorten, shown
from speaker_invariant_ser.evaluation.part import ROUNDING, Count, Part, Share
from speaker_invariant_ser.evaluation.summary_parts import MeanUar, Uar, WorstSpeaker
from speaker_invariant_ser.studies.results import Measurement, StrongestNumbers, read_measurement

MAX_NAME = 100  # characters
CLASSIFIER_NAMES = {"linear": "Linear", "mlp": "MLP"}


class ClassifierNumbers(Part):
    """Emotion results of one classifier on unseen speakers."""

    settings: str
    uar: Uar
    uar_mean_over_speakers: MeanUar
    accuracy: Share
    worst_speaker: WorstSpeaker


class AttackerNumbers(Part):
    """What the closed-form attackers identify.

    `chance` is given the true emotion. `scored` says which utterances they were scored on: held-out (the encoder was not trained
    on them), trained (it was), given (all, none of which it was trained on as far as is known).
    """

    strongest: StrongestNumbers
    attackers: dict[str, Share]
    chance: Share
    speakers: Count
    utterances: Count
    scored: str
    grouped_by_text: bool


class LayerNumbers(Part):
    """Results of one layer; `emotion` by classifier, linear and mlp. `unaudited` is why nothing is known of the speaker."""

    layer: str
    dimensions: Count
    emotion: dict[str, ClassifierNumbers]
    speaker: AttackerNumbers | None
    unaudited: str = ""


class EncoderResult(Measurement):
    """The content of a result file; `models` is the number of models whose embeddings were pooled, one for each fold of a run.

    `contamination` says what of the corpus the encoder was trained on although it was tested on it; "" where nothing is known.
    """

    recipe: dict[str, Any]
    data_sha256: dict[str, str]
    corpus: str
    encoder: str
    about: str
    identity: list[str]
    network: bool
    models: Count
    chance: Share
    utterances: Count
    speakers: Count
    layers: list[LayerNumbers]
    contamination: str = ""

    @property
    def output(self) -> LayerNumbers:
        """The last layer, which is what the encoder puts out."""
        return self.layers[-1]


def result_path(folder: Path, encoder: str) -> Path:
    """Return the result file of an encoder, named like it; names of other letters, or long ones, get a hash.

    >>> result_path(Path("out"), "hf:owner/name").as_posix(), result_path(Path("out"), "größe 2").as_posix()
    ('out/hf-owner-name.json', 'out/gr-e-2~6b17f5d7.json')
    """
    return folder / f"{plain_name(encoder)}.json"


def plain_name(text: str) -> str:
    """Return a text as a part of a file's name; a hash makes it its own where letters are replaced, but for / and :."""
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", text).strip("-.")[:MAX_NAME]
    if name and len(text) <= MAX_NAME and re.fullmatch(r"[A-Za-z0-9_.+:/-]+", text):
        return name
    return f"{name or 'name'}~{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def read_encoder_result(path: Path) -> EncoderResult | None:
    """Read a result file; None if there is none. Raise StudyError if it is damaged, something else, or contradicts itself."""
    result = read_measurement(EncoderResult, path, "`siser audit-encoders`")
    if result and (wrong := why_inconsistent(result, path)):
        raise StudyError(f"{path} {wrong}; remove it, and it is measured again")
    return result


def why_inconsistent(result: EncoderResult, path: Path) -> str:
    """Say in what a result contradicts its name or itself; empty if in nothing."""
    if result_path(path.parent, result.encoder).name != path.name:
        return f"is of the encoder {shown(result.encoder)}, whose file is {result_path(Path(), result.encoder).name}"
    for layer in result.layers:
        if layer.emotion.keys() != CLASSIFIER_NAMES.keys():
            expected = " and ".join(CLASSIFIER_NAMES)
            return f"has results of {shorten(layer.emotion)} on layer {shown(layer.layer)}, expected {expected}"
        for kind, numbers in layer.emotion.items():
            if numbers.worst_speaker.uar > numbers.uar_mean_over_speakers.value + ROUNDING:
                return f"contradicts itself: {kind} of layer {shown(layer.layer)}: the worst speaker is above the mean"
        if bool(layer.unaudited) == bool(layer.speaker):
            return f"contradicts itself: layer {shown(layer.layer)}: expected numbers of attackers or a reason why there are none"
        if layer.speaker and layer.speaker.strongest.name not in layer.speaker.attackers:
            return f"contradicts itself: layer {shown(layer.layer)} has no results of {shown(layer.speaker.strongest.name)}"
        if layer.speaker and layer.speaker.speakers > result.speakers:
            return f"contradicts itself: {layer.speaker.speakers} speakers were attacked, and there are {result.speakers}"
    return "" if result.layers else "contradicts itself: it has no layers"


def read_all(folder: Path) -> list[EncoderResult]:
    """Read all results in a folder, those with the highest UAR of a linear classifier first."""
    results = [result for path in sorted(folder.glob("*.json")) if (result := read_encoder_result(path))]
    return sorted(results, key=lambda result: -result.output.emotion["linear"].uar.value)


def why_other(result: EncoderResult, wanted: EncoderResult) -> str:
    """Say in what a result differs from what is asked for, ignoring numbers and dates; empty if in nothing."""
    kinds = {
        "encoder": "an encoder of another name",
        "data_sha256": "other data",
        "identity": "another encoder",
        "recipe": "another recipe",
        "contamination": "an encoder of which other training data were known",
    }
    return shorten(text for key, text in kinds.items() if getattr(result, key) != getattr(wanted, key))
