"""The network of a checkpoint, by transformers: utterances in, all its layers out.

Shapes: B batch, S samples, L layers, T frames, H dimension of a frame.
"""

import logging
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.errors import RecipeError, SetupError, counted, first_line, shown
from speaker_invariant_ser.features.pretrained.checkpoint import CONFIG, Checkpoint, files_of, read_table
from speaker_invariant_ser.recipe_encoders import PretrainedSettings

FEED_FORWARD = ("intermediate_dense", "output_dense", "fc1", "fc2")  # linear layers in transformer layers of all architectures
WITHOUT_EFFECT = ("masked_spec_embed",)  # weights that only pre-training needs, which checkpoints may lack
ATTENTION = ("attn_implementation", "_attn_implementation")  # may name a repository of the hub with code
KNOWN_ATTENTION = (None, "eager", "sdpa")


class Backbone(nn.Module):
    """A pre-trained encoder with its feature extractor.

    Utterances are given as they are, one at a time or several of equal length: group norm (wav2vec2-base) and positional
    convolutions (data2vec-audio) would see the padding of others. An encoder with a fixed window gets the silence that it was
    trained with, and its frames are left out.

    Args:
        checkpoint: The checkpoint.

    Raises:
        SetupError: transformers is not installed.
        RecipeError: The weights are damaged or belong to another architecture, or the checkpoint wants to run code of its own.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.network, self.extractor = load(checkpoint)

    def forward(self, clips: Tensor, layers: Sequence[int], normalised: bool = True) -> Tensor:
        """Compute layers of utterances.

        Args:
            clips: Of equal length, in [-1, 1] at 16 kHz, without padding, [B, S].
            layers: Which ones.
            normalised: Normalise every frame of every layer to mean 0 and variance 1.

        Returns:
            The frames of the layers, [B, L, T, H].

        Raises:
            RecipeError: The encoder's configuration is impossible, or does not fit what it computes.
        """
        frames = self.checkpoint.frames_of(clips.shape[1])
        try:
            hidden = self.network(**self.inputs(clips), output_hidden_states=True).hidden_states
        except (ValueError, ArithmeticError, LookupError) as error:  # settings that are impossible, such as a distance of 0
            raise RecipeError(f"encoder.source = {self.checkpoint.name}: cannot be used ({first_line(error)})") from None
        chosen = torch.stack([hidden[layer].float() for layer in layers], dim=1)
        if self.checkpoint.window:
            windows = len(chosen) // len(clips)
            chosen = chosen.unflatten(0, (len(clips), windows)).transpose(1, 2).flatten(2, 3)[:, :, :frames]
        self.require_frames(chosen.shape[2], frames, clips.shape[1])
        return F.layer_norm(chosen, chosen.shape[-1:]) if normalised else chosen

    def inputs(self, clips: Tensor) -> dict[str, Tensor]:
        """Return what the checkpoint's own feature extractor makes of utterances, on their device."""
        window = self.checkpoint.window or max(clips.shape[1], self.checkpoint.shortest)
        windows = F.pad(clips, (0, -clips.shape[1] % window)).unflatten(1, (-1, window)).flatten(0, 1)
        made = self.extractor([*windows.cpu().numpy()], sampling_rate=SAMPLE_RATE, return_tensors="pt")
        name = self.network.main_input_name
        return {name: made[name].to(clips.device)}

    def require_frames(self, frames: int, expected: int, samples: int) -> None:
        """Raise RecipeError where the encoder does not make the frames that its configuration promises."""
        if frames != expected:
            raise RecipeError(
                f"encoder.source = {self.checkpoint.name}: {self.checkpoint.architecture} makes {frames} frames of {samples} "
                f"samples in its layers, expected {expected}; its layers cannot be used"
            )


def trained_part(backbone: Backbone, settings: PretrainedSettings) -> nn.Module:
    """Return what of an encoder is trained; of that, what the chosen layers depend on requires gradients.

    LoRA (Hu et al., ICLR 2022) is put at the feed-forward layers: WavLM computes attention from the weights of its projections,
    which would pass by an update of these.

    Args:
        backbone: The encoder; with LoRA it is changed.
        settings: Section [encoder] of the recipe.

    Raises:
        RecipeError: The encoder has fewer layers, or none that LoRA updates, or the chosen layers come before what is trained.
        SetupError: peft is not installed.
    """
    part = chosen_part(backbone, settings).requires_grad_(True)
    with torch.enable_grad():
        layers = backbone(torch.zeros(1, SAMPLE_RATE), backbone.checkpoint.layers(settings.layers))
        if layers.requires_grad:
            layers.sum().backward()
    for parameter in part.parameters():
        parameter.requires_grad_(parameter.grad is not None)  # processes that share a batch wait for every gradient
        parameter.grad = None
    if not any(parameter.requires_grad for parameter in part.parameters()):
        raise RecipeError(
            f"encoder.train = {settings.train} with encoder.layers = {list(settings.layers)}: these layers come before what is "
            "trained; expected later ones"
        )
    return part


def chosen_part(backbone: Backbone, settings: PretrainedSettings) -> nn.Module:
    """Return the part of an encoder that `encoder.train` names."""
    network, name = backbone.network, backbone.checkpoint.name
    if settings.train == "all":
        return network
    if settings.train == "lora":
        return add_lora(network, settings.lora_rank, name)
    count, layers = int(settings.train.removeprefix("top ")), getattr(network, "layers", None) or network.encoder.layers
    if count > len(layers):
        raise RecipeError(f"encoder.train = {settings.train}: {name} has {counted(len(layers), 'transformer layer')}")
    return nn.ModuleList(layers[-count:])


def add_lora(network: Any, rank: int, name: str) -> nn.ModuleDict:
    """Add low-rank updates to a network, and return them by name."""
    try:
        import peft
    except ImportError as error:
        raise SetupError(f'encoder.train = lora needs peft: pip install "speaker-invariant-ser[pretrained]" ({error})') from None
    targets = sorted({part for part, _ in network.named_modules() if part.rpartition(".")[2] in FEED_FORWARD})
    if not targets:
        raise RecipeError(
            f"encoder.train = lora: {name} has no layers named {', '.join(FEED_FORWARD)}; expected frozen, top N or all"
        )
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
    network = peft.inject_adapter_in_model(config, network)
    added = {part: module for part, module in network.named_modules() if part.endswith((".lora_A.default", ".lora_B.default"))}
    return nn.ModuleDict({part.replace(".", "-"): module for part, module in added.items()})


def load(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """Load the network of a checkpoint, in evaluation mode, and its feature extractor."""
    try:
        import transformers
        from huggingface_hub.errors import StrictDataclassError
    except ImportError as error:
        raise SetupError(
            f'encoder.name = pretrained needs transformers: pip install "speaker-invariant-ser[pretrained]" ({error})'
        ) from None
    name = f"encoder.source = {checkpoint.name}"
    if checkpoint.architecture not in transformers.CONFIG_MAPPING:
        raise RecipeError(
            f"{name}: model_type = {checkpoint.architecture} is none of transformers {transformers.__version__}, and code that "
            "comes with a checkpoint is never run (trust_remote_code)"
        )
    require_no_code(checkpoint, name)
    options = {"local_files_only": True, "trust_remote_code": False}
    damaged = (OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError, ImportError, ArithmeticError)
    try:
        with silent_transformers(), hashed_files(checkpoint) as folder:
            extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **options)
            network, report = transformers.AutoModel.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **options
            )
    except (*damaged, AssertionError, SafetensorError, StrictDataclassError) as error:
        raise RecipeError(f"{name}: cannot be loaded ({first_line(error)})") from None
    if foreign := foreign_weights(network, report):
        raise RecipeError(
            f"{name}: its weights are incomplete or of another network ({foreign[0]}); expected all of {checkpoint.architecture}"
        )
    if checkpoint.window:
        network = network.get_encoder()
    for part in (network.config, network):
        for key in ("layerdrop", "encoder_layerdrop"):
            if hasattr(part, key):
                setattr(part, key, 0.0)  # a layer that is skipped has no output
    network.config.apply_spec_augment = False  # draws from numpy's global generator, whatever the seed
    return network.eval().requires_grad_(False), extractor


def require_no_code(checkpoint: Checkpoint, name: str) -> None:
    """Raise RecipeError where the configuration names code to be downloaded, or weights that need such code."""
    config = read_table(checkpoint.folder / CONFIG)
    for key in ATTENTION:
        if config.get(key) not in KNOWN_ATTENTION:
            raise RecipeError(
                f"{name}: {CONFIG} asks for {key} = {shown(config[key])}, which may be code of the hub and is never run; "
                "expected eager or sdpa"
            )
    if config.get("quantization_config") is not None:
        raise RecipeError(f"{name}: its weights are quantised ({CONFIG}), which needs code of its own; expected single precision")


@contextmanager
def hashed_files(checkpoint: Checkpoint) -> Iterator[Path]:
    """Make a folder with links to the files of the checkpoint's hash alone, for transformers would read others beside them.

    Such as an adapter, or processor_config.json: a model would be used with another encoder than the one it was trained with.
    """
    with tempfile.TemporaryDirectory() as folder:
        for path in files_of(checkpoint.folder, checkpoint.name):
            os.symlink(path.resolve(), Path(folder, path.name))
        yield Path(folder)


def foreign_weights(network: nn.Module, report: Mapping[str, Collection[Any]]) -> list[str]:
    """Return which weights of a network are missing or of another shape; or else those in its layers that it has no place for.

    Weights beside the network, such as those of a classifier, are none of it.
    """
    missing = [key for key in report["missing_keys"] if not key.endswith(WITHOUT_EFFECT)]
    parts = [name for name, _ in network.named_children()]
    unknown = [key for key in report["unexpected_keys"] if key.partition(".")[0] in parts and "layers." in key]
    return sorted(missing) or sorted(map(str, report["mismatched_keys"])) or sorted(unknown)


@contextmanager
def silent_transformers() -> Iterator[None]:
    """Let transformers neither log nor show progress bars: what it says is about its own internals."""
    from transformers.utils import logging as messages

    level, bars = messages.get_verbosity(), messages.is_progress_bar_enabled()
    messages.set_verbosity(logging.CRITICAL)
    messages.disable_progress_bar()
    try:
        yield
    finally:
        messages.set_verbosity(level)
        if bars:
            messages.enable_progress_bar()
