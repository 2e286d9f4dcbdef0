"""Checkpoints restore values and memory order to the bit; anything else is refused with an error that names the file."""

import copy
import errno
import functools
import operator
import os
import random
from itertools import islice

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file

from speaker_invariant_ser.errors import RunError, WriteError
from speaker_invariant_ser.training.checkpoints import CHECKPOINT, FORMAT, digest, load_checkpoint, save_checkpoint
from speaker_invariant_ser.training.epoch_metrics import why_diverged
from speaker_invariant_ser.training.trainer import Trainer


def state():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    network(torch.randn(4, 2, 5, 5)).square().sum().backward()
    optimizer.step()
    numbers = {"best": (0.1 + 0.2, -1e300), "rows": [{"a": 1 / 3}], "none": None, "text": "ü", "flag": True}
    return {"network": network.state_dict(), "optimizer": optimizer.state_dict(), **numbers}


def test_a_state_is_restored_to_the_bit(tmp_path):
    before = state()
    save_checkpoint(tmp_path / "checkpoint", before, "this run")
    after = load_checkpoint(tmp_path / "checkpoint", "this run")
    for name, tensor in before["network"].items():
        assert torch.equal(after["network"][name], tensor) and after["network"][name].dtype == tensor.dtype
    old, new = (checkpoint["optimizer"]["state"] for checkpoint in (before, after))
    assert list(old) == list(new) == [0, 1, 2, 3]  # numbers, not text
    assert old[0]["exp_avg"].stride() == new[0]["exp_avg"].stride() and not new[0]["exp_avg"].is_contiguous()
    assert torch.equal(old[0]["exp_avg"], new[0]["exp_avg"])
    assert after["best"] == list(before["best"]) and after["rows"] == before["rows"]
    assert after["none"] is None and after["text"] == "ü" and after["flag"] is True


def test_later_changes_do_not_reach_a_saved_state(tmp_path):
    weight = torch.zeros(3)
    save_checkpoint(tmp_path / "checkpoint", {"a": weight, "b": weight}, "this run")  # shared memory as well
    weight += 1
    assert load_checkpoint(tmp_path / "checkpoint", "this run")["b"].tolist() == [0, 0, 0]


def test_a_flipped_byte_anywhere_is_detected(tmp_path):
    path = tmp_path / "checkpoint"
    save_checkpoint(path, {"weight": torch.arange(5.0), "step": 3}, "this run")
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(RunError, match=f"{path}.*remove {path} to train this fold from its beginning"):
            load_checkpoint(path, "this run")


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_truncated_checkpoint_is_refused(tmp_path, length):
    path = tmp_path / "checkpoint"
    save_checkpoint(path, {"weight": torch.arange(50.0)}, "this run")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(RunError, match=f"{path} is damaged"):
        load_checkpoint(path, "this run")


def test_other_checkpoints_and_other_files_are_refused(tmp_path):
    save_checkpoint(tmp_path / "checkpoint", {"step": 1}, "another run")
    with pytest.raises(RunError, match="belongs to another run, fold, seed or precision"):
        load_checkpoint(tmp_path / "checkpoint", "this run")
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(RunError, match="a checkpoint of format None, this version reads 2"):
        load_checkpoint(tmp_path / "model.safetensors", "this run")


def test_a_full_disk_leaves_the_last_good_state(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    save_checkpoint(path, {"step": 1}, "this run")

    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(WriteError, match="no space left on the disk"):
        patch.setattr(os, "replace", full)
        save_checkpoint(path, {"step": 2}, "this run")
    assert load_checkpoint(path, "this run") == {"step": 1} and [file.name for file in tmp_path.iterdir()] == ["checkpoint"]


def test_nothing_is_pickled(tmp_path):
    save_checkpoint(tmp_path / "checkpoint", state(), "this run")
    assert all(isinstance(tensor, torch.Tensor) for tensor in load_file(tmp_path / "checkpoint").values())


@pytest.mark.parametrize(
    "state", ["[" * 100_000, '{"pairs": 5}', '{"tensor": "7", "channels_last": true}', "9" * 6000, "null, 1"]
)
def test_a_forged_state_is_refused(tmp_path, state):
    """Whoever forges a checkpoint makes its hash fit."""
    path, tensors = tmp_path / "checkpoint", {"0": torch.zeros(2)}
    metadata = {"format": str(FORMAT), "owner": "this run", "state": state}
    save_file(tensors, path, {**metadata, "sha256": digest(tensors, metadata)})
    with pytest.raises(RunError, match=f"{path} is damaged .*; remove {path} to train this fold from its beginning"):
        load_checkpoint(path, "this run")


def test_a_tensor_that_is_forged_is_refused(tmp_path):
    path, tensors = tmp_path / "checkpoint", {"0": torch.zeros(2)}
    metadata = {"format": str(FORMAT), "owner": "this run", "state": '{"tensor": "0", "channels_last": true}'}
    save_file(tensors, path, {**metadata, "sha256": digest(tensors, metadata)})
    with pytest.raises(RunError, match=f"{path} is damaged .required rank 4"):
        load_checkpoint(path, "this run")


def paths_in(value, path=()):
    """Yield the paths to all parts of a state."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from paths_in(value[key], (*path, key))


def mutated(state, rng):
    """Return a copy of a state with one part replaced or removed."""
    state = copy.deepcopy(state)
    part = rng.choice(["loop", "optimizers", "totals", "learning_rate_schedule", *state])
    path = rng.choice([path for path in paths_in(state) if path[0] == part])
    parent = functools.reduce(operator.getitem, path[:-1], state)
    if rng.random() < 0.3:
        del parent[path[-1]]
    else:
        parent[path[-1]] = rng.choice(["x", None, -1, 10**400, {}, [1], {"best": "x"}, torch.zeros(3), torch.tensor(-1.0)])
    return state


def test_a_mutated_state_is_refused_in_one_line_or_trains_on(trained, prepared, tmp_path):
    spec, rng, fabric = trained.model_specs[0], random.Random(0), Fabric(accelerator="cpu", devices=1)
    training = Trainer(trained, prepared, spec, fabric, tmp_path)
    training.train_epoch()
    training.end_epoch()
    training.state.epoch, training.state.batch = 2, 0
    step(training)
    training.save_checkpoint()
    path, fingerprint = tmp_path / CHECKPOINT, training.fingerprint
    whole = load_checkpoint(path, fingerprint)
    refused = 0
    for _ in range(60):
        save_checkpoint(path, mutated(whole, rng), fingerprint)
        if error := error_of(training.resume):
            refused += 1
            assert "\n" not in error and str(path) in error and error.endswith("to train this fold from its beginning")
        else:
            step(training)
            why_diverged(training.state.rows, 3)
    assert refused >= 45


def error_of(resume):
    """Return the error of a resumption; None without one."""
    try:
        resume()
    except RunError as error:
        return str(error)


def step(training):
    """Take the next step of a training."""
    for batch in islice(training.batches.epoch(training.state.epoch, training.state.batch, training.timer), 1):
        training.training_step(*batch)
        training.state.batch, training.state.step = training.state.batch + 1, training.state.step + 1
