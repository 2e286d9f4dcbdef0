"""Sections on the embedding map and on training."""

from functools import partial

from speaker_invariant_ser.errors import counted
from speaker_invariant_ser.evaluation.summary_parts import Speaker
from speaker_invariant_ser.report import plots
from speaker_invariant_ser.report.figure import Plot
from speaker_invariant_ser.report.formatting import percent
from speaker_invariant_ser.report.plots import Curves, Points
from speaker_invariant_ser.report.sections.blocks import Block, Plots, Section, Text
from speaker_invariant_ser.report.tables import adversary_accuracy
from speaker_invariant_ser.runs import best_epoch

TIMES = {  # columns seconds_NAME of metrics.csv
    "data": "loading audio",
    "features": "augmentation",
    "network": "forward and backward passes",
    "update": "weight updates",
    "dev": "scoring dev speakers",
    "checkpoint": "checkpoints",
}
LOSSES = {"emotion_loss": "emotion loss", "adversary_loss": "adversary's loss"}
LAYER = "layer_"  # columns of metrics.csv: weight of a pre-trained encoder's layer
GRADIENTS = {"emotion_gradient": "of the emotion loss", "adversary_gradient": "of the adversarial loss, reversed"}


def map_section(points: Points) -> Section:
    """Return the embedding map, by emotion and by speaker."""
    about = (
        f"t-SNE of {counted(len(points.emotion), 'utterance')} by one encoder, the same points twice. Neighbours in the plot are "
        "neighbours in the embedding; sizes of clusters and distances between them have no meaning."
    )
    maps = [
        Plot(
            f"map-{name}",
            f"Embeddings; colour and marker show the {name}.",
            partial(plots.plot_map, position=points.position, classes=classes),
            4.4,
        )
        for name, classes in (("emotion", points.emotion), ("speaker", points.speaker))
    ]
    return Section("Embedding map", [Text(about), Plots(maps)])


def training_section(curves: Curves, speaker: Speaker | None, refit: bool = False) -> Section:
    """Return the training curves, where the time went, and the adversary's own accuracy."""
    classifier = speaker and speaker.adversary_head
    blocks: list[Block] = [
        Text("One thin line for each model. The adversary is trained against the encoder, and is not part of the model.")
    ]
    if curves:
        blocks.append(Plots(curve_plots(curves, "inner folds, pooled" if refit else "dev speakers")))
        blocks += [Text(text) for text in [about_time(curves)] if text]
    if speaker and classifier:
        blocks.append(
            Text(
                "Not evidence: in training, at the selected epochs, the adversary's own classifier of the "
                f"{classifier.target} has an accuracy of {adversary_accuracy(speaker)}. The encoder is trained against this "
                "classifier, which can be at chance while a fresh attacker identifies almost every speaker."
            )
        )
    return Section("Training", blocks)


def curve_plots(curves: Curves, scored: str) -> list[Plot]:
    """Return plots of losses, accuracies and gradient norms, where they were measured; `scored` says what the dev UAR is of."""
    classifies = all_have(curves, "adversary_accuracy")  # an adversary without a classifier has no accuracy
    shares = {"dev_uar": f"emotion UAR, {scored}"} if all_have(curves, "dev_uar") else {}
    if classifies:
        shares["adversary_accuracy"] = "adversary's accuracy: not evidence"
    if all_have(curves, "attacker_accuracy"):
        shares["attacker_accuracy"] = "fresh attacker's accuracy (LDA)"
    level = "adversary_loss_uninformed" if classifies else ""
    caption = "Training losses, with ln K, the adversary's loss at chance." if classifies else "Training losses."
    losses = partial(plots.plot_curves, curves=curves, keys=LOSSES, unit="loss, nats", level=level)
    accuracies = partial(plots.plot_curves, curves=curves, keys=shares)
    drawn = [Plot("losses", caption, losses, 3.7)]
    if shares:
        drawn.append(Plot("accuracies", f"Over the epochs: {'; '.join(shares.values())}.", accuracies, 3.7))
    if all_have(curves, *GRADIENTS):
        norms = partial(plots.plot_gradients, curves=curves, keys=GRADIENTS)
        drawn.append(Plot("gradients", "Gradient norms at the embedding; the adversarial one includes lambda.", norms, 3.0))
    if weights := layer_weights(curves):
        layers = [int(column.removeprefix(LAYER)) for column in next(iter(curves.values()))[0] if column.startswith(LAYER)]
        caption = "Weights of the pre-trained encoder's layers after the selected epoch; dashed: all equal."
        drawn.append(Plot("layers", caption, partial(plots.plot_layers, layers=layers, weights=weights), 3.0))
    return drawn


def layer_weights(curves: Curves) -> dict[str, list[float]]:
    """Return the weights of a pre-trained encoder's layers after the selected epoch, by model; empty for other encoders."""
    selected = {name: best_epoch([dict(row) for row in rows]) for name, rows in curves.items()}
    weights = {name: [value for key, value in row.items() if key.startswith(LAYER)] for name, row in selected.items()}
    return weights if all(weights.values()) else {}


def all_have(curves: Curves, *columns: str) -> bool:
    """Return whether every row of every model has these columns; older runs lack some."""
    return all(column in row for rows in curves.values() for row in rows for column in columns)


def about_time(curves: Curves) -> str:
    """Say how training time was spent, all models together; "" for older runs, which did not measure it."""
    rows = [row for model in curves.values() for row in model]
    seconds = {text: sum(row.get(f"seconds_{name}", 0) for row in rows) for name, text in TIMES.items()}
    total = sum(seconds.values())
    if not total:
        return ""
    shares = ", ".join(f"{percent(spent / total)} {text}" for text, spent in seconds.items())
    return f"Training took {total / 60:.1f} minutes, summed over the models: {shares}."
