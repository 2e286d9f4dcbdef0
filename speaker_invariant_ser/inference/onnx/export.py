"""Write a trained model as an ONNX file that computes everything from the waveform on, and is checked against the model.

Input `waveform`: float32 [S], one recording in [-1, 1] at 16 kHz, of any length. Outputs: `probabilities` [C], corrected by the
model's temperature if it has one, and `embedding` [D]; of a model that releases codes the number `code` of the one that the
embedding is, and of a model with `emotion.targets` their values, `dimensions` [R]. The whole recording is one window: whoever
calls it cuts recordings longer than 30 s, as `siser infer` does.

Shapes: S samples, M mel bands, T frames, C emotions, D embedding dimension.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speaker_invariant_ser.data.f0.frames import HOP
from speaker_invariant_ser.data.f0.tracker import F0_RANGE, PEAK, TRACKER_LICENCE, TRACKER_VERSION
from speaker_invariant_ser.errors import RunError, SetupError, counted, shorten, unknown
from speaker_invariant_ser.features.prosody import prosody_rows
from speaker_invariant_ser.files import refuse_existing, sha256, writing
from speaker_invariant_ser.inference.exported import Export
from speaker_invariant_ser.inference.onnx.model import CODE, DIMENSIONS, ENDING, FORMAT, INPUT, OUTPUTS, OnnxModel
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.calibration import apply_temperature
from speaker_invariant_ser.models.model import WEIGHTS, SerModel, load_model
from speaker_invariant_ser.models.release import DecisionRelease, StandardisedRelease
from speaker_invariant_ser.processes import versions_of
from speaker_invariant_ser.runs import ModelSpec, Run

if TYPE_CHECKING:
    import onnx

DOMAIN, TRACKER = "siser", "SwiftF0"  # of the node in whose place the tracker's own graph is put
OPSET = 18  # that of the tracker's graph
TRACED = 30_000  # samples of the traced recording, of which the branches of a fusion make different numbers of frames
TOLERANCE = 1e-4  # largest difference of a probability or of a value of the embedding
CHECKED = 1600, 4001, 16_000, 39_937, 81_000  # samples of the recordings that the file is compared with the model on
GATES = 0, 3, 1, 2  # torch has the gates of an LSTM in the order input, forget, cell, output; ONNX input, output, forget, cell


def one_model(run: Run, fold: str | None = None, seed: int | None = None, kind: str = "an ONNX file") -> ModelSpec:
    """Return the one model of a run, or of one of its folds and seeds.

    Args:
        run: The run.
        fold: Name of the fold; needed where several are trained.
        seed: The seed; needed where there are several.
        kind: What the model is for, of which there is one in each.

    Raises:
        RunError: There is no such model, or there are several.
    """
    trained = run.trained_models() if fold is None else run.models_of_fold(fold)
    specs = [spec for spec in trained if seed in (None, spec.seed)]
    if not specs:
        raise RunError(f"--seed: {run.folder}: {unknown('seed', str(seed), sorted({str(spec.seed) for spec in trained}))}")
    if len(specs) > 1:
        folds, seeds = ({getattr(spec, part) for spec in specs} for part in ("split", "seed"))
        options = ["--fold"] * (len(folds) > 1) + ["--seed"] * (len(seeds) > 1)
        models = f"{counted(len(specs), 'model')} ({shorten(spec.name for spec in specs)})"
        raise RunError(
            f"{run.folder} has {models}, and {kind} holds one: choose with {' and '.join(options)}, or train one on all "
            "speakers (siser train --final)"
        )
    return specs[0]


def only_model(export: Export, fold: str | None = None, seed: int | None = None) -> Path:
    """Return the folder of the one model of an export.

    Raises:
        RunError: It has several, or a fold or seed is named, which the models of an export do not have.
    """
    if fold is not None or seed is not None:
        raise RunError(
            f"--fold, --seed: the models of the export {export.folder} do not say of which fold and seed they are; leave it out"
        )
    if export.number > 1:
        raise RunError(
            f"{export.folder} has {counted(export.number, 'model')}, and an ONNX file holds one: expected the folder of one of "
            f"them, such as {export.models[0]}"
        )
    return export.models[0]


def export_onnx(folder: Path | str, path: Path | str) -> float:
    """Write a trained model as an ONNX file.

    Args:
        folder: Folder of the model, with model.safetensors and model.json.
        path: The file to write, with the ending .onnx.

    Returns:
        The largest difference between the file's outputs and the model's on synthetic recordings of several lengths.

    Raises:
        RunError: The model cannot be loaded or cannot be exported, the ending is another, or the file computes something else.
        SetupError: onnx or onnxscript is not installed.
        WriteError: The file cannot be written.
    """
    folder, path = Path(folder), Path(path)
    if path.suffix.lower() != ENDING:
        raise RunError(f"{path}: expected the ending {ENDING}")
    refuse_existing(path, "choose another --onnx, or remove it")
    model = load_model(folder)
    require_exportable(model, folder)
    proto = build(model)
    describe(proto, model, sha256(folder / WEIGHTS))
    content = proto.SerializeToString(deterministic=True)
    difference = largest_difference(model, OnnxModel(content, str(path)))
    if not difference <= TOLERANCE:
        raise RunError(
            f"{folder}: the ONNX graph differs from the model by {difference:.1g}, more than {TOLERANCE:g} (torch "
            f"{torch.__version__}, onnxscript {version('onnxscript')}, onnxruntime {version('onnxruntime')}); nothing was written"
        )
    with writing(path, "wb") as file:
        file.write(content)
    return difference


def require_exportable(model: SerModel, folder: Path) -> None:
    """Raise RunError, with the reason, for a model that no ONNX file can compute from one waveform alone."""
    settings = model.settings
    reasons = {
        "its encoder is a pre-trained checkpoint, which is not part of the model and is loaded from its source": (
            settings.encoder.on_waveform
        ),
        "it was trained on images, and the input of the file is a waveform": settings.features.front != "log-mel",
        "it subtracts the mean over all recordings of a speaker (features.normalise = speaker), and the file gets a single one": (
            settings.features.transductive
        ),
        f"its noise (bottleneck {settings.bottleneck.name}, release {settings.release.name}) is computed from a hash of the "
        "audio, for which ONNX has no operator": model.noisy,
    }
    for reason, applies in reasons.items():
        if applies:
            raise RunError(f"{folder} cannot be exported to ONNX: {reason}")


def build(model: SerModel) -> "onnx.ModelProto":
    """Return the graph of a model, with standard operators only."""
    try:
        import onnx.inliner
        import onnxscript  # noqa: F401  # what torch.onnx needs
        import swift_f0  # noqa: F401  # whose graph becomes part of the file
    except ImportError as error:
        raise SetupError(f'ONNX export needs onnx and onnxscript: pip install "speaker-invariant-ser[onnx]" ({error})') from None
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            OneClip(model).eval(),
            (torch.zeros(TRACED),),
            input_names=[INPUT],
            output_names=(*OUTPUTS, *([CODE] if model.releases_codes else []), *([DIMENSIONS] if model.targets else [])),
            dynamic_shapes=({0: "samples"},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    if model.logmel.needs_f0:
        proto.functions.append(tracker_function())
        proto = onnx.inliner.inline_local_functions(proto)
    remove_traces(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what torch says about its own internals, such as the absence of torchvision."""
    logger = logging.getLogger("torch.onnx")
    disabled = logger.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(disabled)


class OneClip(nn.Module):
    """What the file computes of one recording [S]: probabilities [C], embedding [D], code and dimensions [R] if there are any."""

    def __init__(self, model: SerModel) -> None:
        super().__init__()
        self.model = with_onnx_lstm(deepcopy(model))
        if isinstance(release := self.model.release, (StandardisedRelease, DecisionRelease)):
            fitted = bool(release.fitted)
            del release.fitted
            setattr(release, "fitted", fitted)  # noqa: B010  # no tensor, on which the trace cannot branch

    def forward(self, waveform: Tensor) -> tuple[Tensor, ...]:
        """Compute them for a waveform [S]."""
        rows, frames = self.model.logmel(waveform[None], torch.full((1,), waveform.shape[0], dtype=torch.int64))
        if self.model.logmel.needs_f0:
            rows = torch.cat((rows, prosody_rows(rows, track(waveform, rows.shape[2]), self.model.logmel.low_bands)), dim=1)
        output = self.model.from_mels(rows, frames)
        probabilities = (output.logits / (self.model.settings.temperature or 1)).softmax(dim=1)[0]
        further = (values[0] for values in (output.code, output.dimensions) if values is not None)
        return probabilities, output.embedding[0], *further


def track(waveform: Tensor, frames: int) -> Tensor:
    """Return F0 in Hz and confidence [1, 2, T] of a waveform [S], as `compute_f0` does for any but digital silence.

    There the confidence is 0 here too, and frames that are not voiced have no F0 for the model.
    """
    from swift_f0 import core

    peak = waveform.abs().amax(dim=0)
    scaled = F.pad(waveform * (PEAK / torch.where(peak > 0, peak, 1.0)), (0, HOP))[None]
    pitch, confidence = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{TRACKER}",
        (scaled, torch.tensor(core.FMIN), torch.tensor(core.FMAX)),
        dtypes=(torch.float64, torch.float32),
        shapes=((1, frames), (1, frames)),
    )
    audible = F.max_pool2d(scaled.abs()[None], (1, HOP))[0] >= core.SILENCE_PEAK  # max_pool1d would fix the length in the trace
    low, high = F0_RANGE
    f0 = torch.where((pitch > low) & (pitch < high), pitch, 0.0).float()
    return torch.stack((f0, torch.where(audible, confidence, 0.0)), dim=1)


def tracker_function() -> "onnx.FunctionProto":
    """Return the graph that comes with swift-f0 as a function."""
    import onnx.helper
    import swift_f0

    model = onnx.load(Path(swift_f0.__file__).with_name("model.onnx"))
    weights = [onnx.helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in model.graph.initializer]
    inputs, outputs = ([value.name for value in values] for values in (model.graph.input, model.graph.output))
    return onnx.helper.make_function(DOMAIN, TRACKER, inputs, outputs, [*weights, *model.graph.node], model.opset_import)


class OnnxLstm(nn.Module):
    """An LSTM as ONNX's own operator, for a batch of one; torch would trace it step by step."""

    inner: Tensor
    recurrent: Tensor
    bias: Tensor

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.units = lstm.hidden_size
        self.register_buffer("inner", by_gate(lstm.weight_ih_l0)[None])
        self.register_buffer("recurrent", by_gate(lstm.weight_hh_l0)[None])
        self.register_buffer("bias", torch.cat((by_gate(lstm.bias_ih_l0), by_gate(lstm.bias_hh_l0)))[None])

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Return the states [1, T, units] for x [1, T, inputs], and nothing in the place of torch's last state."""
        states = torch.onnx.ops.symbolic(
            "LSTM",
            (x.transpose(0, 1), self.inner, self.recurrent, self.bias),
            {"hidden_size": self.units},
            dtype=x.dtype,
            shape=(x.shape[1], 1, 1, self.units),
        )
        return states[:, 0].transpose(0, 1), None


def by_gate(weights: Tensor | nn.Module) -> Tensor:
    """Return weights of an LSTM with its gates in ONNX's order."""
    assert isinstance(weights, Tensor)
    parts = weights.detach().chunk(len(GATES))
    return torch.cat([parts[gate] for gate in GATES])


def with_onnx_lstm(module: SerModel) -> SerModel:
    """Replace every LSTM of a model, and return the model."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LSTM):
                setattr(parent, name, OnnxLstm(child))
    return module


def remove_traces(proto: "onnx.ModelProto") -> None:
    """Remove what torch notes about where in its code each node comes from: paths of this machine."""
    for part in (*proto.graph.node, *proto.graph.input, *proto.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for name in ("value_info", "metadata_props", "doc_string"):
        proto.graph.ClearField(name)
    for name in ("metadata_props", "doc_string"):
        proto.ClearField(name)
    for index in reversed([index for index, opset in enumerate(proto.opset_import) if opset.domain]):
        del proto.opset_import[index]


def describe(proto: "onnx.ModelProto", model: SerModel, weights: str) -> None:
    """Store labels, settings and versions in the metadata.

    Args:
        proto: The graph.
        model: Whose graph it is.
        weights: SHA-256 of its model.safetensors.
    """
    import onnx.helper

    settings = model.settings.model_dump(mode="json")
    licence = {"f0": f"{TRACKER_VERSION}\n\n{TRACKER_LICENCE.read_text(encoding='utf-8')}"}
    metadata = {
        "format": str(FORMAT),
        "labels": json.dumps(model.labels, ensure_ascii=False),
        "sample_rate": str(model.settings.sample_rate),
        "embedding_size": str(model.dim),
        "features": json.dumps(settings["features"]),
        "settings": json.dumps(settings, ensure_ascii=False),
        "weights_sha256": weights,
        "versions": json.dumps(versions_of("torch", "onnx", "onnxscript")),
        **(licence if model.logmel.needs_f0 else {}),
    }
    onnx.helper.set_model_props(proto, metadata)


def largest_difference(model: SerModel, exported: OnnxModel) -> float:
    """Return the largest difference of a probability or of a value of the embedding on noise and tones of several lengths.

    Of a model that rounds its embedding it is that of the median recording, since a value on the border of two cells may be
    either.
    """
    differences = []
    for samples in CHECKED:
        clip = synthetic_clip(samples)
        expected, actual = apply_to_clips(model, [clip]), exported.apply([clip])
        probability = apply_temperature(expected.probability, model.settings.temperature or 1)
        parts = [actual.probability - probability, actual.embedding - expected.embedding]
        if actual.dimensions is not None and expected.dimensions is not None:
            parts.append(actual.dimensions - expected.dimensions)
        differences.append(max(float(np.abs(part).max()) for part in parts))
    rounds = model.settings.bottleneck.name == "fsq" or model.settings.release.name in ("quantise", "codes", "decision")
    return float(np.median(differences)) if rounds else float(np.max(differences))


def synthetic_clip(samples: int) -> np.ndarray:
    """Return a tone that glides upwards between two pauses, with a little noise, float32 [S]."""
    rng, position = np.random.default_rng(samples), np.linspace(0, 1, samples)
    phase = 2 * np.pi * np.cumsum(120 * 2 ** (0.5 * position)) / 16_000
    voice = sum(np.sin(number * phase) / number for number in range(1, 12)) * ((position > 0.1) & (position < 0.8))
    return (0.1 * voice + 1e-3 * rng.standard_normal(samples)).astype(np.float32)
