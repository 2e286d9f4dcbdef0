"""Load the models of a run, an export or an ONNX file. Models of a run import torch; an ONNX file does without."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.inference.onnx.model import ENDING, OnnxModel

if TYPE_CHECKING:
    from speaker_invariant_ser.inference.exported import Export
    from speaker_invariant_ser.models.model import SerModel
    from speaker_invariant_ser.recipe import FeaturesSection
    from speaker_invariant_ser.runs import Run

    Models = Sequence[SerModel] | Sequence[OnnxModel]


def load_models(
    source: "Run | Export | Path | str", fold: str | None = None, device: str = "auto", one_speaker: bool = False
) -> "Models":
    """Load the models of a run, or of an export: a folder or an ONNX file.

    Args:
        source: The run or export, its folder, or an ONNX file, which holds one model.
        fold: Load the models of this fold alone (one per seed); by default those of all folds. An export has no folds.
        device: `auto` (the first GPU, otherwise the CPU), `cpu` or `cuda`.
        one_speaker: Whether all files to predict are of one speaker; models with features.normalise = "speaker" need that.

    Returns:
        One model per fold and seed, all with the same labels.

    Raises:
        RunError: No model is trained, the fold is unknown, the models are for images, or `one_speaker` does not fit them.
    """
    if is_onnx(source):
        return [load_onnx(source, fold, device, one_speaker)]
    from speaker_invariant_ser.inference.exported import open_models
    from speaker_invariant_ser.models.model import choose_device, load_model

    source = open_models(source) if isinstance(source, Path | str) else source
    models = [load_model(folder, str(choose_device(device))) for folder in model_folders(source, fold)]
    if len({model.labels for model in models}) > 1:
        raise RunError(f"{source.folder} is damaged: its models have different labels")
    if models[0].settings.features.front != "log-mel":
        raise RunError(f"{source.folder} was trained on images, not on speech: expected a run whose features.front is log-mel")
    require_one_speaker(source.folder, models[0].settings.features, one_speaker)
    return models


def is_onnx(source: object) -> TypeGuard[Path | str]:
    """Return whether this is the path of an ONNX file, and not of a folder of such a name."""
    return isinstance(source, Path | str) and Path(source).suffix.lower() == ENDING and not Path(source).is_dir()


def load_onnx(path: Path | str, fold: str | None, device: str, one_speaker: bool) -> OnnxModel:
    """Load an ONNX file; raise RunError where it is none of ours, or an option of `load_models` does not fit it."""
    options = {"--fold": fold is not None, "--one-speaker": one_speaker, f"--device {device}": device not in ("auto", "cpu")}
    for option in (option for option, given in options.items() if given):
        raise RunError(f"{option}: {path} is one model that predicts every recording on its own, on the CPU; leave it out")
    return OnnxModel(path)


def model_folders(source: "Run | Export", fold: str | None) -> list[Path]:
    """Return the folders of the models, of one fold or of all."""
    from speaker_invariant_ser.inference.exported import Export

    if not isinstance(source, Export):
        return [spec.folder for spec in (source.trained_models() if fold is None else source.models_of_fold(fold))]
    if fold is not None:
        single = source.models == (source.folder,)
        kind = "a single model" if single else "an export, whose models do not say of which fold they are"
        raise RunError(f"--fold {fold}: {source.folder} is {kind}; leave it out")
    return list(source.models)


def require_one_speaker(folder: Path, features: "FeaturesSection", one_speaker: bool) -> None:
    """Raise RunError unless `one_speaker` is set exactly for models that normalise by speaker."""
    if features.transductive and not one_speaker:
        raise RunError(
            f"{folder} subtracts the mean over all utterances of a speaker (features.normalise = speaker), and files do not "
            "name their speaker: call it once for each speaker, with all files of that speaker and --one-speaker"
        )
    if one_speaker and not features.transductive:
        raise RunError(
            f"--one-speaker: {folder} predicts every file on its own (features.normalise = {features.normalise}); leave it out"
        )


def fingerprint(source: "Run | Export | Path", fold: str | None = None) -> list[str]:
    """Return what tells models from others: hashes of their descriptions, sizes and times of their weights; of ONNX its hash."""
    from speaker_invariant_ser.files import sha256

    if is_onnx(source):
        return [sha256(Path(source))]
    assert not isinstance(source, Path)
    from speaker_invariant_ser.models.model import DESCRIPTION, WEIGHTS

    parts = []
    for folder in model_folders(source, fold):
        weights = (folder / WEIGHTS).stat()
        parts.append(f"{sha256(folder / DESCRIPTION)} {weights.st_size} {weights.st_mtime_ns}")
    return parts
