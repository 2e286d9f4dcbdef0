"""What stands behind the encoder, on the toy with a planted speaker code: a fresh attacker reads less, the task stays solved.

Adversaries are put to it in test_adversaries.py, per-speaker normalisation in test_normalise_speaker.py.
"""

from functools import cache

import pytest
import torch
from helpers import section
from toy import SPEAKERS, Trained, judge, make_clips, train

from speaker_invariant_ser.models.erasure import ERASERS
from speaker_invariant_ser.models.release import RELEASES

NOBODY = section("adversary", strength=0.0, hidden=16)
MARGIN = 0.15
BEHIND = {  # a narrow one has room for the emotions alone; four dimensions of three values are 6.3 bits
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
    return train(NOBODY)


@torch.no_grad()
def embeddings(trained: Trained, count: int, seed: int):
    clips = make_clips(count, seed)
    return trained.encoder.embed(*trained.encoder.frame_features(clips.x, clips.frames)), clips.target.argmax(dim=1).numpy()


def test_it_was_there():
    assert judge(plain()).attacker > 0.7 and judge(plain()).task > 0.95


@pytest.mark.parametrize("name", BEHIND)
def test_a_bottleneck_lets_less_through(name):
    through = judge(train(NOBODY, **BEHIND[name]))
    assert through.attacker < judge(plain()).attacker - MARGIN
    assert through.task > 0.95 * judge(plain()).task


@pytest.mark.parametrize("name", RELEASED)
def test_what_is_released_says_less(name):
    torch.manual_seed(0)
    release = RELEASES[name](plain().encoder.dim, RELEASED[name])
    release.fit(embeddings(plain(), 600, seed=1)[0])
    released = judge(plain(), leaves=release.eval())
    assert released.attacker < judge(plain()).attacker - MARGIN
    assert released.task == judge(plain()).task, "the emotion is told before"


@pytest.mark.parametrize("name", [name for name in ERASERS if name != "none"])
def test_what_is_erased_says_less(name):
    x, speaker = embeddings(plain(), 600, seed=1)
    eraser = ERASERS[name](plain().encoder.dim, section("erase", name=name)).eval()
    eraser.fit(x, speaker, 0)
    erased = judge(plain(), leaves=eraser)
    assert erased.attacker < judge(plain()).attacker - 2 * MARGIN and erased.attacker < 1.5 / SPEAKERS
