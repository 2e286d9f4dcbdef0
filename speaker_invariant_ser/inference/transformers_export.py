"""Write a model on a pre-trained encoder as a checkpoint of transformers, which its pipelines load without this package.

The classes `...ForSequenceClassification` of transformers compute

    classifier(mean over frames of projector(weighted sum of layers))

with a linear projector and classifier. So does a model of ours whose pooling is the mean, whose layers are not normalised and
whose emotion classifier is linear: batch norm, linear eraser, classifier and temperature together are one linear function, which
becomes `classifier`.

Shapes: B batch, S samples, D dimensions after the projection, C emotions.
"""

from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.errors import RunError, SetupError, WriteError, first_line
from speaker_invariant_ser.features.pretrained.backbone import Backbone, silent_transformers
from speaker_invariant_ser.features.pretrained.checkpoint import open_checkpoint
from speaker_invariant_ser.files import new_folder, refuse_existing
from speaker_invariant_ser.inference.exported import CARD
from speaker_invariant_ser.inference.onnx.export import CHECKED
from speaker_invariant_ser.models.model import ModelSettings, SerModel, load_model
from speaker_invariant_ser.models.pretrained_encoder import PretrainedEncoder
from speaker_invariant_ser.recipe_encoders import PretrainedSettings

UNUSED = -1e4  # weight of a layer that the model does not use; softmax makes it 0
TOLERANCE = 1e-4  # largest difference of a probability


def export_transformers(folder: Path | str, out: Path | str, card: str) -> float:
    """Write a trained model as a checkpoint of transformers, with its feature extractor and a model card.

    Args:
        folder: Folder of the model, with model.safetensors and model.json.
        out: A new folder.
        card: Text of the card.

    Returns:
        The largest difference between the probabilities of both on synthetic recordings of several lengths.

    Raises:
        RunError: The model cannot be loaded, no class of transformers computes the same, or it computes something else.
        WriteError: The folder is not empty or cannot be written.
    """
    folder, out = Path(folder), refuse_existing(out, "choose another --transformers")
    model = load_model(folder)
    require_class(model.settings, folder)
    backbone = backbone_of(model)
    network = build(model, backbone)
    difference = largest_difference(model, network, backbone)
    if not difference <= TOLERANCE:
        raise RunError(
            f"{folder}: the checkpoint differs from the model by {difference:.1g}, more than {TOLERANCE:g} (torch "
            f"{torch.__version__}, transformers {version('transformers')}); nothing was written"
        )
    with new_folder(out) as partial, silent_transformers():
        try:
            network.save_pretrained(partial)
        except SafetensorError as error:  # of the system, such as a full disk
            raise WriteError(f"cannot write {out}: {first_line(error)}; free some space or choose another disk") from None
        backbone.extractor.save_pretrained(partial)
        (partial / CARD).write_text(card, encoding="utf-8")
    return difference


def require_class(settings: ModelSettings, folder: Path) -> None:
    """Raise RunError, with the reason and what would fit, for a model that no class of transformers computes."""
    refused = f"{folder} cannot be exported to transformers"
    encoder = settings.encoder
    if not isinstance(encoder, PretrainedSettings):
        raise RunError(f"{refused}: it has no class for encoder.name = {encoder.name}; expected a model with pretrained")
    checkpoint = open_checkpoint(encoder)
    if checkpoint.window:
        raise RunError(
            f"{refused}: its {checkpoint.architecture} classifier averages over the silence that fills a window too, and this "
            "model leaves that out; expected an encoder that takes recordings as they are, such as wavlm, hubert or wav2vec2"
        )
    library = open_transformers()
    kinds, classes = library.CONFIG_MAPPING, library.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING
    if checkpoint.architecture not in kinds or kinds[checkpoint.architecture] not in classes:
        raise RunError(f"{refused}: it has no classifier on {checkpoint.architecture}; expected an encoder such as wavlm")
    values = {
        "encoder.pooling": (encoder.pooling, "mean"),
        "encoder.normalise_layers": (str(encoder.normalise_layers).lower(), "false"),
        "emotion.hidden": (settings.emotion.hidden, 0),
        "emotion.targets": (f"[{', '.join(settings.emotion.targets)}]", "[]"),
        "bottleneck.name": (settings.bottleneck.name, "none"),
        "erase.name": (settings.erase.name, "none" if settings.erase.name == "obliviator" else settings.erase.name),
        "release.name": (settings.release.name, settings.release.name if settings.release.classifies_before else "none"),
    }
    wrong = {key: (value, expected) for key, (value, expected) in values.items() if value != expected}
    if wrong:
        reasons = ", ".join(f"{key} = {value}" for key, (value, _) in wrong.items())
        words = " ".join(f"--set {key}={expected}" for key, (_, expected) in wrong.items())
        raise RunError(f"{refused}: its classifiers have nothing for {reasons}; train one with {words}")


def open_transformers() -> Any:
    """Return transformers; raise SetupError with the extra if it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise SetupError(
            f'--transformers needs transformers: pip install "speaker-invariant-ser[pretrained]" ({error})'
        ) from None
    return transformers


def backbone_of(model: SerModel) -> Backbone:
    """Return the pre-trained encoder of a model, with what was trained of it."""
    assert isinstance(model.encoder, PretrainedEncoder) and isinstance(model.settings.encoder, PretrainedSettings)
    return model.encoder.network[0] if model.encoder.network else Backbone(open_checkpoint(model.settings.encoder))


@torch.no_grad()
def build(model: SerModel, backbone: Backbone) -> Any:
    """Return the classifier of transformers that computes what a model does."""
    encoder, config = model.encoder, deepcopy(backbone.network.config)
    assert isinstance(encoder, PretrainedEncoder)
    config.name_or_path = ""  # the path of the checkpoint
    config.use_weighted_layer_sum, config.classifier_proj_size = True, encoder.dim
    config.id2label = dict(enumerate(model.labels))
    config.label2id = {label: number for number, label in enumerate(model.labels)}
    with torch.random.fork_rng(devices=[]), silent_transformers():
        network = open_transformers().AutoModelForAudioClassification.from_config(config, dtype=torch.float32).eval()
    getattr(network, network.base_model_prefix).load_state_dict(merged_weights(backbone.network))
    network.layer_weights.fill_(UNUSED)
    network.layer_weights[list(encoder.layers)] = encoder.layer_weights
    network.projector.load_state_dict(encoder.project.state_dict())
    network.classifier.weight[:], network.classifier.bias[:] = linear_rest(model)
    return network


def merged_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of an encoder, low-rank updates added to the layers that they are of."""
    module: Any  # of peft, where it has updates
    for module in network.modules():
        if hasattr(module, "merged_adapters") and not module.merged_adapters:
            module.merge()
    weights = {name: tensor for name, tensor in network.state_dict().items() if ".lora_" not in name}
    return {name.replace(".base_layer.", "."): tensor for name, tensor in weights.items()}


def linear_rest(model: SerModel) -> tuple[Tensor, Tensor]:
    """Return weights [C, D] and bias [C] of what a model computes of the projection: its logits divided by the temperature."""
    encoder = model.encoder
    assert isinstance(encoder, PretrainedEncoder)
    parts: tuple[Any, ...] = encoder.norm, model.eraser, model.head
    rest = nn.Sequential(*(deepcopy(part).double().eval() for part in parts))
    points = torch.cat((torch.zeros(1, encoder.dim), torch.eye(encoder.dim))).double()
    values = rest(points) / (model.settings.temperature or 1.0)
    return (values[1:] - values[0]).T, values[0]


@torch.no_grad()
def largest_difference(model: SerModel, network: Any, backbone: Backbone) -> float:
    """Return the largest difference of a probability between both on synthetic recordings."""
    generator, difference = torch.Generator().manual_seed(0), 0.0
    for samples in CHECKED:
        clip = 0.1 * torch.randn(1, samples, generator=generator)
        made = backbone.extractor(clip[0].numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        ours = logits_of(model, clip, backbone) / (model.settings.temperature or 1.0)
        difference = max(difference, float((ours.softmax(dim=1) - network(**made).logits.softmax(dim=1)).abs().max()))
    return difference


def logits_of(model: SerModel, clip: Tensor, backbone: Backbone) -> Tensor:
    """Return the logits [1, C] of a recording [1, S], for a frozen encoder from its layers before they are rounded to float16."""
    encoder = model.encoder
    assert isinstance(encoder, PretrainedEncoder)
    if encoder.network:
        return model(clip, torch.tensor([clip.shape[1]])).logits
    layers = backbone(clip, encoder.layers, encoder.normalise_layers).transpose(2, 3).flatten(1, 2)
    return model.from_mels(layers, torch.tensor([layers.shape[2]])).logits
