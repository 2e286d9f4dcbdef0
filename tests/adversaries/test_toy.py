"""Bottlenecks, erasers and releases on the toy problem: they lower the accuracy of a fresh attacker and keep the task.

Adversaries are tested on it in test_adversaries.py.
"""

from functools import cache

import pytest
import torch
from helpers import section
from toy import SPEAKERS, Trained, judge, make_clips, train

from speaker_invariant_ser.models.erasure import ERASERS
from speaker_invariant_ser.models.release import RELEASES

BASELINE = section("adversary", strength=0.0, hidden=16)
MARGIN = 0.15
BOTTLENECK_CASES = {  # two dimensions have room for the emotions alone
    "narrow": {"dim": 2},
    "vib": {"bottleneck": section("bottleneck", name="vib", weight=0.03)},
    "fsq": {"dim": 2, "bottleneck": section("bottleneck", name="fsq", levels=3)},
}
RELEASED = {
    "noise": section("release", name="noise", sigma=2.0),
    "quantise": section("release", name="quantise", step=4.0),
}


@cache
def plain() -> Trained:
    return train(BASELINE)


@torch.no_grad()
def embeddings(trained: Trained, count: int, seed: int):
    clips = make_clips(count, seed)
    return trained.encoder.embed(*trained.encoder.frame_features(clips.x, clips.frames)), clips.target.argmax(dim=1).numpy()


def test_the_baseline_reveals_the_speaker():
    assert judge(plain()).attacker > 0.7 and judge(plain()).task > 0.95


@pytest.mark.parametrize("name", BOTTLENECK_CASES)
def test_a_bottleneck_lowers_leakage(name):
    through = judge(train(BASELINE, **BOTTLENECK_CASES[name]))
    assert through.attacker < judge(plain()).attacker - MARGIN
    assert through.task > 0.95 * judge(plain()).task


@pytest.mark.parametrize("name", RELEASED)
def test_a_release_lowers_leakage(name):
    torch.manual_seed(0)
    release = RELEASES[name](plain().encoder.dim, RELEASED[name], 2)
    release.fit(embeddings(plain(), 600, seed=1)[0])
    released = judge(plain(), release=release.eval())
    assert released.attacker < judge(plain()).attacker - MARGIN
    assert released.task == judge(plain()).task, "emotion is classified before the release"


@pytest.mark.parametrize("name", [name for name in ERASERS if name != "none"])
def test_erasure_lowers_leakage_to_chance(name):
    clips, (x, speaker) = make_clips(600, 1), embeddings(plain(), 600, seed=1)
    eraser = ERASERS[name](plain().encoder.dim, section("erase", name=name)).eval()
    eraser.fit(x, speaker, clips.emotion.argmax(dim=1).numpy(), 0)
    erased = judge(plain(), release=eraser)
    assert erased.attacker < judge(plain()).attacker - 2 * MARGIN and erased.attacker < 1.5 / SPEAKERS
