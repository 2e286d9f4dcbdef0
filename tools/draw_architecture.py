"""Draw the pictures of docs/architecture.md as SVG. Run it with `make reference` after changing one.

Each picture is a column of boxes: what happens on the left, where in the package on the right, and what is passed on along the
arrows. A test fails when a picture is out of date or names a module that does not exist.
"""

from html import escape
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent.parent / "docs"
WIDTH, BOX, GAP, LEFT, MARGIN = 760, 44, 34, 330, 16
FONT = "font-family='Helvetica, Arial, sans-serif'"


class Box(NamedTuple):
    """A step, the module that does it, and what it passes on; `kind` is its colour."""

    text: str
    module: str
    passes: str = ""
    kind: str = "plain"


COLOURS = {"plain": "#e8eaf6", "emotion": "#e0f2f1", "speaker": "#fff3e0"}

WAVEFORM = (
    Box("decode, resample, check", "data/decoding.py", "16 kHz mono, int16"),
    Box("prepared corpus (memory-mapped)", "data/prepared_corpus.py", "audio [B, S]"),
    Box("log-mel spectrogram", "features/log_mel.py", "log-mel [B, M, T]"),
    Box("virtual speakers (training only)", "features/virtual_speakers.py", "log-mel [B, M, T]"),
    Box("mixup, concatenation (training only)", "features/pairing.py", "log-mel [B, M, T]"),
    Box("augmentation (training only)", "features/augmentation.py", "log-mel [B, M, T]"),
    Box("normalisation, encoder", "models/encoders.py", "frame-level features [B, F, T'], pooled to [B, D]"),
    Box("bottleneck, erasure, release", "models/model.py", "embedding [B, D]"),
    Box("emotion classifier", "models/model.py", "logits [B, C]", "emotion"),
    Box("loss in training; probabilities in inference", "training/objective.py", "", "emotion"),
)
SPEAKER = (
    Box("file name or table column", "data/corpora/emodb.py", "speaker, such as 03"),
    Box("manifest: one row per utterance", "data/manifest.py", "Utterance.speaker"),
    Box("split by whole speakers", "data/splits.py", "train, dev and test speakers"),
    Box("hold out utterances of training speakers", "data/holdout.py", "ids of held-out utterances"),
    Box("integers, then shares of a batch", "features/dataset.py", "target [B, K]", "speaker"),
    Box(
        "the adversary's speaker classifier",
        "adversaries/discriminators.py",
        "trained encoder, held-out embeddings [N, D]",
        "speaker",
    ),
    Box("fresh attackers on held-out utterances", "audit/leakage.py", "accuracy, interval, p-value", "speaker"),
    Box("conclusion in words", "audit/words/verdict.py", "", "speaker"),
)
STRENGTH = (
    Box("[adversary] strength = 0.1", "recipes/cnn.toml", "text"),
    Box("checked: a number from 0 to 100", "recipe_methods.py", "recipe.adversary.strength"),
    Box("schedule over training progress", "adversaries/schedules.py", "lambda(progress)", "speaker"),
    Box("gradient reversal layer (grl)", "adversaries/gradients.py", "-lambda * gradient", "speaker"),
    Box("gradient balancing, if set; gradient norm", "training/adversary_step.py", "encoder_loss, a scalar with that gradient"),
    Box("sum of losses, backward pass, update", "training/trainer.py", "lambda, losses, gradient norms"),
    Box("one row per epoch", "training/epoch_metrics.py", "metrics.csv"),
    Box("curves and settings", "report/plots.py", ""),
)
PICTURES = {"waveform.svg": WAVEFORM, "speaker-label.svg": SPEAKER, "strength.svg": STRENGTH}


def draw(boxes: tuple[Box, ...]) -> str:
    """Return the picture of a column of boxes as SVG."""
    height = 2 * MARGIN + len(boxes) * BOX + (len(boxes) - 1) * GAP
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}'>",
        "<defs><marker id='tip' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' markerHeight='7' orient='auto'>"
        "<path d='M0 0L10 5L0 10z' fill='#455a64'/></marker></defs>",
        f"<rect width='{WIDTH}' height='{height}' rx='8' fill='#ffffff'/>",
    ]
    centre = MARGIN + LEFT / 2
    for number, box in enumerate(boxes):
        top = MARGIN + number * (BOX + GAP)
        middle = top + BOX / 2 + 5
        parts += [
            f"<rect x='{MARGIN}' y='{top}' width='{LEFT}' height='{BOX}' rx='6' fill='{COLOURS[box.kind]}' stroke='#455a64'/>",
            f"<text x='{centre}' y='{middle}' {FONT} font-size='15' text-anchor='middle' fill='#212121'>{escape(box.text)}"
            "</text>",
            f"<text x='{MARGIN + LEFT + 24}' y='{middle}' font-family='monospace' font-size='14' fill='#37474f'>"
            f"{escape(box.module)}</text>",
        ]
        if number + 1 < len(boxes):
            bottom = top + BOX
            parts += [
                f"<line x1='{centre}' y1='{bottom}' x2='{centre}' y2='{bottom + GAP - 1}' stroke='#455a64' "
                "stroke-width='1.5' marker-end='url(#tip)'/>",
                f"<text x='{centre + 12}' y='{bottom + GAP / 2 + 4}' {FONT} font-size='13' font-style='italic' "
                f"fill='#455a64'>{escape(box.passes)}</text>",
            ]
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    for name, boxes in PICTURES.items():
        (FOLDER / name).write_text(draw(boxes), encoding="utf-8")
