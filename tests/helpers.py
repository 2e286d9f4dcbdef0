"""Made-up data and comparisons that tests of several packages share."""

import numpy as np
import torch
from safetensors.torch import load_file

from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.evaluation.predictions import Predictions, soften
from speaker_invariant_ser.features.dataset import LogMelDataset
from speaker_invariant_ser.runs import Run


def section(table, /, **keys):
    """Settings of a section of a recipe, such as `section("release", name="noise")`."""
    return getattr(make_recipe({table: keys}), table)


LABELS = ("anger", "joy", "no, thanks")
SPEAKERS = ("01", "1", "NA", "x,y")


def some_clips(number=300, seed=0):
    """Clips of 5 speakers and 4 emotions, some cells far larger than others, one empty; nothing to be read."""
    rng = np.random.default_rng(seed)
    speaker, emotion = rng.choice(5, number, p=[0.6, 0.2, 0.1, 0.05, 0.05]), rng.choice(4, number, p=[0.7, 0.1, 0.1, 0.1])
    keep = ~((speaker == 0) & (emotion == 3))
    frames = rng.integers(50, 600, number)
    return LogMelDataset(None, frames[keep], emotion[keep], (speaker[keep],), speaker[keep])


def made_up(seed=0, clips=80, fold="a", temperature=1.0, trained_from=0) -> Predictions:
    """Predictions whose probabilities are true if divided by no temperature, and overconfident below 1."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet(np.ones(3), clips)
    return Predictions(
        labels=LABELS,
        id=np.array([f"{fold}{clip:05}" for clip in range(clips)]),
        speaker=np.array(SPEAKERS)[np.arange(clips) % len(SPEAKERS)],
        fold=np.full(clips, fold),
        seed=np.full(clips, trained_from),
        truth=(rng.random((clips, 1)) > true.cumsum(axis=1)).sum(axis=1).clip(max=2),
        probability=soften(true, temperature).astype(np.float32),
    )


def same_bits(first: Run, second: Run) -> None:
    """Weights, and all of metrics.csv but the times."""
    for one, two in zip(first.fits, second.fits, strict=True):
        weights, others = (load_file(fit.folder / "model.safetensors") for fit in (one, two))
        assert all(torch.equal(weights[name], tensor) for name, tensor in others.items())
        for row, other in zip(one.metrics(), two.metrics(), strict=True):
            assert {key: row[key] for key in row if "seconds" not in key} == {
                key: other[key] for key in row if "seconds" not in key
            }
