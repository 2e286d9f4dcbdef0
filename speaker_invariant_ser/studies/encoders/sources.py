"""Encoders by name: sets of features, an untrained model, tables, pre-trained encoders, and models of this package.

`SOURCES` has an entry for each kind. Another kind of encoder is another entry: a test of the name, and a function that opens it.

Shapes: B utterances of a batch, N utterances, D dimensions, F dimensions of frame-level features, T frames, L layers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import numpy as np
import torch

from speaker_invariant_ser import __version__
from speaker_invariant_ser.audit.inputs.read_embeddings import READERS, read_content
from speaker_invariant_ser.config import DEFAULT_RECIPE, read_recipe
from speaker_invariant_ser.data.prepared_corpus import AUDIO, MANIFEST, PreparedCorpus
from speaker_invariant_ser.data.splits import Split
from speaker_invariant_ser.data.tables.vectors import require_finite, to_floats, to_mask
from speaker_invariant_ser.errors import AuditError, RunError, counted, shorten, unknown
from speaker_invariant_ser.evaluation.model_outputs import attacked_parts
from speaker_invariant_ser.features.functionals import FEATURE_SETS, open_features
from speaker_invariant_ser.features.pretrained.checkpoint import CONFIG, open_checkpoint
from speaker_invariant_ser.features.pretrained.front import require_cache, source_of
from speaker_invariant_ser.features.speaker_means import compute_speaker_means
from speaker_invariant_ser.files import sha256
from speaker_invariant_ser.inference.exported import EXPORT, Export, open_models, shipped_models
from speaker_invariant_ser.inference.hub import NAME, download, is_hub
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.binding import HASHES, RUN, digest, recorded_hashes
from speaker_invariant_ser.models.model import DESCRIPTION, WEIGHTS, SerModel, choose_device, load_model, read_description
from speaker_invariant_ser.recipe_encoders import PretrainedSettings
from speaker_invariant_ser.studies.encoders.contamination import TrainedOn, contamination, trained_on
from speaker_invariant_ser.training.objective import build_model

if TYPE_CHECKING:
    from speaker_invariant_ser.runs import ModelSpec, Run

Layers = dict[str, np.ndarray]  # by name, in order, float32 [B, D] each; what the encoder puts out is the last

UNTRAINED = "untrained"
OUTPUT = "embedding"  # name of the only or last layer
FRAMES = "frames"  # name of our models' frame-level features, the input of pooling
CODE, PREDICTED = "code", "predicted"  # of models that release codes, and of all our models: integers [B, 1] beside the layers
LAYER = "layer_"  # a table's arrays of this beginning are layers
TABLES = tuple(READERS)


@dataclass(frozen=True)
class Encoder:
    """An encoder that is ready for the utterances of one prepared corpus.

    Attributes:
        about: What it is, in a few words.
        identity: What its embeddings depend on besides the audio, such as hashes of its weights: results of another are not used.
        embed: Return the layers of some utterances, given by their positions in the corpus.
        network: Whether it is a trained network.
        split: The fold that it was trained on; None if it was trained on none of the corpus's speakers, or if that is not known.
        attacked: The parts of that fold that attackers learn from and are scored on.
        trained: Ids of the utterances that it was trained on, as far as that is known.
        contamination: What of the corpus it was trained on although it is tested on it, as the end of a sentence; "" if nothing.
        labels: The emotions that it predicts; none of encoders that predict no emotion.
    """

    about: str
    identity: str
    embed: Callable[[Sequence[int]], Layers]
    network: bool = True
    split: Split | None = None
    attacked: tuple[str, ...] = ()
    trained: frozenset[str] = frozenset()
    contamination: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """An encoder as it is asked for.

    Attributes:
        source: Its name, folder or file.
        prepared: The labelled corpus.
        fold: The fold whose model is wanted, of a run that was trained on this corpus; None for those of all folds.
        deviation: Pool frame-level features by mean and standard deviation, not by the mean alone.
        device: auto, cpu or cuda.
        decisions: Return codes and predicted emotions beside the layers, where the encoder has any.
    """

    source: str
    prepared: PreparedCorpus
    fold: str | None = None
    deviation: bool = False
    device: str = "auto"
    decisions: bool = False


@dataclass(frozen=True)
class Source:
    """A kind of encoder: whether a name is of this kind, and how to open it, as one encoder for each of its models."""

    matches: Callable[[str], bool]
    open: Callable[[Request], list[Encoder]]


def open_encoders(request: Request) -> list[Encoder]:
    """Open an encoder: one for each model of a run that was trained on the corpus, otherwise a single one.

    Raises:
        SerError: No kind of encoder has this name, it is damaged or does not fit the corpus, or a package is missing.
    """
    source = kind_of(request.source)
    if request.fold is not None and source is not SOURCES["models"]:
        raise RunError(f"--fold {request.fold}: {request.source} is not a run; leave it out")
    return source.open(request)


def kind_of(name: str) -> Source:
    """Return the kind of an encoder; raise AuditError with what is known if it is of none."""
    for source in SOURCES.values():
        if source.matches(name):
            return source
    raise AuditError(
        f"{unknown('encoder', name, [*FEATURE_SETS, UNTRAINED, *shipped_models()])}, or the folder of a run, model or "
        f"checkpoint, hf:OWNER/NAME, or a table of embeddings ({', '.join(TABLES)})"
    )


def open_feature_set(request: Request) -> list[Encoder]:
    """Open a set of features."""
    chosen = FEATURE_SETS[request.source]
    compute = open_features(request.source, request.prepared)

    def embed(indices: Sequence[int]) -> Layers:
        return {OUTPUT: np.array([compute(index) for index in indices], dtype=np.float32)}

    return [Encoder(chosen.about, f"features {request.source}", embed, chosen.network)]


def open_untrained(request: Request) -> list[Encoder]:
    """Open the encoder of the default recipe with the weights that a training begins with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(read_recipe(DEFAULT_RECIPE), ("first", "second"))
    model = model.to(choose_device(request.device)).eval()
    about = "the default recipe's encoder with its initial weights"
    return [Encoder(about, f"{UNTRAINED} {__version__} {pooling_of(request)}", model_embedding(model, request), network=False)]


def open_hub(request: Request) -> list[Encoder]:
    """Open a repository of the hub: a model that `siser export` wrote, or a checkpoint of transformers.

    Raises:
        RunError: The name is none, there is no such repository, or it cannot be downloaded.
        SetupError: huggingface_hub is not installed.
    """
    if (download(request.source, (EXPORT, CONFIG)) / EXPORT).is_file():
        return open_trained(request)
    match = NAME.fullmatch(request.source)
    assert match, "download refuses other names"
    return open_pretrained(request, match["repository"], match["revision"] or "")


def open_pretrained(request: Request, source: str | None = None, revision: str = "") -> list[Encoder]:
    """Open a checkpoint of transformers: all layers of its frames, from the corpus's cache where a training has put them there.

    Args:
        request: What is asked for; its source is a folder, unless a repository is given.
        source: OWNER/NAME of the hub.
        revision: Revision of the repository.

    Raises:
        RecipeError: It cannot be used: no weights as safetensors, another architecture, another sampling rate.
        SetupError: transformers is not installed.
    """
    settings = PretrainedSettings(source=source or request.source, revision=revision)
    require_cache(settings, request.prepared)
    checkpoint, device = open_checkpoint(settings), choose_device(request.device)
    layers = source_of(checkpoint, checkpoint.layers(()), settings.normalise_layers)

    def embed(indices: Sequence[int]) -> Layers:
        flat = [layers.of(request.prepared.clip(index), device) for index in indices]
        frames = [values.reshape(len(values), len(layers.layers), checkpoint.width) for values in flat]  # [T, L, H]
        pooled = {
            layer: pool([values[:, row].T for values in frames], request.deviation) for row, layer in enumerate(layers.layers)
        }
        return {str(layer): values for layer, values in pooled.items()}

    about = f"pre-trained {checkpoint.architecture}, {checkpoint.depth} layers"
    return [Encoder(about, f"checkpoint {checkpoint.sha256} {pooling_of(request)}", embed)]


def is_checkpoint(name: str) -> bool:
    """Return whether a folder is a checkpoint of transformers, and no export of this package."""
    return (Path(name) / CONFIG).is_file() and not (Path(name) / EXPORT).is_file()


def open_trained(request: Request) -> list[Encoder]:
    """Open a run, an export, or one model of either.

    The models of a run that was trained on this corpus embed it each for its own fold. Others must be one model: embeddings of
    several have nothing in common. Where it says that it was trained on recordings of this corpus, it is contaminated.

    Raises:
        RunError: It is damaged, has several models for the corpus, or was trained on all of its speakers.
    """
    opened = open_models(request.source)
    if isinstance(opened, Export):
        if request.fold is not None:
            raise RunError(f"--fold {request.fold}: {request.source} is a model without folds; leave it out")
        require_single(request.source, list(opened.models))
        require_other_corpus(request, opened.models[0])
        return [contaminated(model_of(opened.models[0], request), request, trained_on(opened))]
    specs = opened.trained_models() if request.fold is None else opened.models_of_fold(request.fold)
    specs = [spec for spec in specs if spec.seed == specs[0].seed]
    if opened.hashes == corpus_hashes(request.prepared):
        return [model_of_fold(spec, opened, request) for spec in specs]
    require_single(request.source, [spec.folder for spec in specs])
    return [contaminated(model_of(specs[0].folder, request), request, trained_on(specs[0], opened))]


def contaminated(encoder: Encoder, request: Request, trained: TrainedOn) -> Encoder:
    """Return the encoder with what of the corpus it was trained on."""
    what, ids = contamination(request.prepared, trained)
    return replace(encoder, trained=ids, contamination=what)


def require_single(source: str, folders: Sequence[Path]) -> None:
    """Raise RunError if there are several models."""
    if len(folders) > 1:
        raise RunError(
            f"{source} has several models, whose embeddings have nothing in common, and was not trained on this corpus: "
            f"name one of them, such as {folders[0]}"
        )


def require_other_corpus(request: Request, folder: Path) -> None:
    """Raise RunError if a model, of which only its folder is known, says that it was trained on this corpus."""
    path = folder / DESCRIPTION
    described = read_description(path)
    recorded = recorded_hashes(path, described)[RUN] if HASHES in described else {}
    if recorded.get("sha256") == digest(corpus_hashes(request.prepared)):
        raise RunError(
            f"{request.source} was trained on speakers of {request.prepared.folder}: name its run, which says on "
            "whom (`siser embed`: with --fold)"
        )


def corpus_hashes(prepared: PreparedCorpus) -> dict[str, str]:
    """Return the hashes by which a run knows the corpus that it was trained on."""
    return {name: prepared.settings["sha256"].get(name, "") for name in (AUDIO, MANIFEST)}


def model_of_fold(spec: "ModelSpec", run: "Run", request: Request) -> Encoder:
    """Return the model of a fold as an encoder."""
    train, held_out = set(spec.split.train), set(spec.split.held_out)
    trained = {row.id for row in request.prepared.utterances if row.speaker in train and row.id not in held_out}
    encoder = model_of(spec.folder, request)
    return replace(encoder, split=spec.split, attacked=attacked_parts(run.recipe), trained=frozenset(trained))


def model_of(folder: Path, request: Request) -> Encoder:
    """Return a model as an encoder, as if it was trained on none of the corpus's speakers."""
    model = load_model(folder, str(choose_device(request.device)))
    require_cache(model.settings.encoder, request.prepared)
    if model.settings.features.front != "log-mel":
        raise RunError(f"{folder} was trained on images, not on speech: expected a model whose features.front is log-mel")
    about = f"{model.settings.encoder.name} of this package, trained on emotions"
    identity = f"model {identity_of(folder)} {pooling_of(request)}{' decisions' * request.decisions}"
    return Encoder(about, identity, model_embedding(model, request), labels=model.labels)


def identity_of(folder: Path) -> str:
    """Return what no two models have in common: the hash of model.json, and that of the weights where it lacks theirs."""
    described = sha256(folder / DESCRIPTION)
    return described if HASHES in read_description(folder / DESCRIPTION) else f"{described} {sha256(folder / WEIGHTS)}"


def model_embedding(model: SerModel, request: Request) -> Callable[[Sequence[int]], Layers]:
    """Return the function that computes frame-level features, pooled, the embedding and, where asked for, the decisions."""
    prepared = request.prepared
    speakers = {utterance.speaker for utterance in prepared.utterances}
    means = compute_speaker_means(prepared, model.logmel, speakers) if model.settings.features.transductive else None

    def embed(indices: Sequence[int]) -> Layers:
        clips = [prepared.clip(index) for index in indices]
        of_speakers = means.of([prepared.utterances[index].speaker for index in indices]) if means else None
        outputs = apply_to_clips(model, clips, of_speakers, frame_features=True)
        layers = {FRAMES: pool(outputs.frame_features, request.deviation), OUTPUT: outputs.embedding}
        if request.decisions:
            layers[PREDICTED] = outputs.logits.argmax(axis=1)[:, None]
            layers |= {} if outputs.code is None else {CODE: outputs.code[:, None]}
        return layers

    return embed


def pool(frames: Sequence[np.ndarray], deviation: bool) -> np.ndarray:
    """Pool frame-level features [F, T] of B utterances over time.

    Args:
        frames: Of each utterance, without padding.
        deviation: Return standard deviations beside means.

    Returns:
        Float32 [B, F], or [B, 2 F] with deviations.

    >>> pool([np.array([[1.0, 3.0]])], deviation=True).tolist()
    [[2.0, 1.0]]
    """
    wide = [utterance.astype(np.float32) for utterance in frames]
    means = [utterance.mean(axis=1) for utterance in wide]
    if not deviation:
        return np.array(means)
    return np.array([np.concatenate(pair) for pair in zip(means, (utterance.std(axis=1) for utterance in wide), strict=True)])


def pooling_of(request: Request) -> str:
    """Return how frame-level features are pooled, in words."""
    return "mean and deviation" if request.deviation else "mean"


def open_table(request: Request) -> list[Encoder]:
    """Open a table of embeddings that has a row for every labelled utterance of the corpus, by its id.

    In an .npz file with arrays named `layer_...`, these are the layers; otherwise there is one.

    Raises:
        AuditError: The table is missing or damaged, utterances are missing in it, or its speakers are others.
    """
    path, prepared = Path(request.source), request.prepared
    _, labels, _, _ = read_content(path, {}, ())
    names = layer_names(path)
    arrays, row_of = {}, rows_by_utterance(path, labels, prepared)
    for name in names or [OUTPUT]:
        values = to_floats(read_content(path, {"embedding": f"{LAYER}{name}"} if names else {}, ())[0], path)
        require_finite(values, [f"row {row}" for row in range(1, len(values) + 1)], path)
        arrays[name] = values.astype(np.float32)

    def embed(indices: Sequence[int]) -> Layers:
        rows = [row_of[prepared.utterances[index].id] for index in indices]
        return {name: values[rows] for name, values in arrays.items()}

    scored = to_mask(labels.get("scored", ["1"] * len(row_of)), path)
    trained = frozenset(name for name, row in row_of.items() if not scored[row])
    return [Encoder("a table of embeddings", f"table {sha256(path)}", embed, trained=trained)]


def rows_by_utterance(path: Path, labels: Mapping[str, list[str]], prepared: PreparedCorpus) -> dict[str, int]:
    """Return the row of each utterance of a table by id; raise AuditError where the corpus's utterances are not in it."""
    rows = {name: row for row, name in enumerate(labels.get("id", ()))}
    needed = [utterance for utterance in prepared.utterances if utterance.emotion]
    missing = [utterance.id for utterance in needed if utterance.id not in rows]
    if missing:
        raise AuditError(
            f"{path} has no row for {len(missing)} of {counted(len(needed), 'utterance')} of {prepared.folder} "
            f"({shorten(missing, 3)}): expected the ids of its {MANIFEST} as id"
        )
    pairs = {(utterance.speaker, labels["speaker"][rows[utterance.id]]) for utterance in needed}
    ours, theirs = (len({pair[side] for pair in pairs}) for side in (0, 1))
    if not len(pairs) == ours == theirs:
        raise AuditError(f"{path}: its speakers are not those of the same ids in {prepared.folder}: is it of another corpus?")
    return rows


def layer_names(path: Path) -> list[str]:
    """Return the names of the layers in an .npz file, in order; none in other tables."""
    if path.suffix.lower() != ".npz":
        return []
    with ZipFile(path) as file:
        names = [Path(name).stem for name in file.namelist()]
    return [name.removeprefix(LAYER) for name in names if name.startswith(LAYER)]


SOURCES = {  # the first that matches is taken
    "features": Source(lambda name: name in FEATURE_SETS, open_feature_set),
    UNTRAINED: Source(lambda name: name == UNTRAINED, open_untrained),
    "table": Source(lambda name: Path(name).suffix.lower() in TABLES and not Path(name).is_dir(), open_table),
    "pretrained": Source(is_checkpoint, open_pretrained),
    "hub": Source(is_hub, open_hub),
    "models": Source(lambda name: Path(name).exists() or name in shipped_models(), open_trained),
}
