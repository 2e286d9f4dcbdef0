"""Trained models as objects to be called."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speaker_invariant_ser.inference.classifier import Classifier
    from speaker_invariant_ser.inference.exported import Export
    from speaker_invariant_ser.inference.pipeline import AudioClassificationPipeline
    from speaker_invariant_ser.runs import Run


def load_model(
    source: "Run | Export | Path | str | None" = None, device: str = "cpu", *, fold: str | None = None
) -> "Classifier":
    """Load a model once, to be called many times with waveforms or files.

    Args:
        source: The name of a model that `siser models` lists; a run, whose models are averaged; the folder of one of its models,
            `folds/FOLD` or `folds/FOLD/seed-S`; a folder or an ONNX file that `siser export` wrote; or `hf:OWNER/NAME` of the
            Hugging Face Hub, with or without `@REVISION` (extra `hub`). None is the model that comes with the package.
        device: Where to put the weights: `cpu`, `cuda`, or `auto` for the first GPU if there is one.
        fold: Name of a fold of a run: load its models alone.

    Returns:
        The classifier. Its methods `predict`, `predict_file`, `embed` and `timeline` give the numbers of `siser infer`, `stream`
        classifies while audio arrives, and `module` is the PyTorch module in evaluation mode.

    Raises:
        RunError: There is no such model, it is damaged or was changed, the fold is unknown, or the source has no folds.
        RecipeError: There is no such device.
        SetupError: A model of the hub is named, and huggingface_hub is not installed.

    Example:
        ```python
        classifier = siser.load_model()
        prediction = classifier.predict_file("call.wav")
        print(prediction.emotion, prediction.confidence, prediction.warnings)
        ```
    """
    from speaker_invariant_ser.inference.classifier import load_classifier

    return load_classifier(source, fold, device)


def pipeline(
    task: str = "audio-classification",
    model: "Classifier | Path | str | None" = None,
    *,
    top_k: int | None = None,
    device: str = "cpu",
    fold: str | None = None,
) -> "AudioClassificationPipeline":
    """Load a model as `transformers.pipeline("audio-classification")` does, to be called in the same way.

    Args:
        task: `audio-classification`.
        model: A classifier, or what `load_model` takes as its source.
        top_k: Emotions in an answer, the most probable ones; None for all.
        device: As for `load_model`.
        fold: As for `load_model`.

    Returns:
        A callable. It takes a path, the bytes of a file, samples at 16 kHz, or a dictionary with `sampling_rate` and `raw` or
        `array`; or a list of these. It answers with a list of {"label": emotion, "score": probability}, the most probable first;
        to a list with a list of these.

    Raises:
        SerError: Another task, or `top_k` is no whole number above 0.
        RunError: As for `load_model`.

    Example:
        ```python
        classify = siser.pipeline("audio-classification", top_k=2)
        for answer in classify(["a.wav", {"array": samples, "sampling_rate": 44_100}]):
            print(answer[0]["label"], answer[0]["score"])
        ```
    """
    from speaker_invariant_ser.errors import SerError, unknown
    from speaker_invariant_ser.inference.classifier import Classifier
    from speaker_invariant_ser.inference.pipeline import TASK, AudioClassificationPipeline

    if task != TASK:
        raise SerError(unknown("task", task, (TASK,)))
    classifier = model if isinstance(model, Classifier) else load_model(model, device, fold=fold)
    return AudioClassificationPipeline(classifier, top_k)
