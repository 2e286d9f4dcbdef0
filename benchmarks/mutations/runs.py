"""Tampered runs and prepared corpora: splits, models, weights, reports, manifests, audio."""

import csv
import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from mutations.base import RECIPE, Fault, Mutation, drawn

Rng = np.random.Generator
DEEP = "[" * 100_000 + "]" * 100_000
MODEL, WEIGHTS, SPLIT, REPORT = "model.json", "model.safetensors", "split.json", "report.json"


def the(folder: Path, name: str) -> Path:
    """Return the one file of a name in a folder and below."""
    return min(folder.rglob(name))


def json_of(name: str, change: Callable[[dict], object]) -> Callable:
    """Return a mutation of the content of a JSON file."""

    def mutate(rng: Rng, folder: Path) -> None:
        path = the(folder, name)
        content = json.loads(path.read_text(encoding="utf-8"))
        changed = change(content)
        path.write_text(json.dumps(content if changed is None else changed), encoding="utf-8")

    return mutate


def text_of(name: str, text: str) -> Callable:
    """Return a mutation that replaces the content of a file."""
    return lambda rng, folder: the(folder, name).write_text(text, encoding="utf-8")


def key_twice(name: str) -> Callable:
    """Return a mutation that gives a key of a JSON file a second value, at the end."""

    def mutate(rng: Rng, folder: Path) -> None:
        path = the(folder, name)
        text = path.read_text(encoding="utf-8").rstrip()
        path.write_text(f'{text[:-1]}, "{next(iter(json.loads(text)))}": null}}', encoding="utf-8")

    return mutate


def cut(name: str) -> Callable:
    """Return a mutation that keeps a part of a file."""

    def mutate(rng: Rng, folder: Path) -> None:
        path = the(folder, name)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * rng.uniform(0.1, 0.9))])

    return mutate


def flipped(name: str) -> Callable:
    """Return a mutation of bytes in the second half of a file."""

    def mutate(rng: Rng, folder: Path) -> None:
        path = the(folder, name)
        data = bytearray(path.read_bytes())
        for position in rng.integers(len(data) // 2, len(data), 5):
            data[position] ^= int(rng.integers(1, 256))
        path.write_bytes(data)

    return mutate


def without(name: str) -> Callable:
    """Return a mutation that removes a file."""
    return lambda rng, folder: the(folder, name).unlink()


def key(*keys: str | int, value: object) -> Callable[[dict], None]:
    """Return a change of one value of nested tables and lists."""

    def change(content: dict) -> None:
        for part in keys[:-1]:
            content = content[part]
        content[keys[-1]] = value

    return change


def exchanged(content: dict) -> None:
    """Exchange the training and the test speakers of a split."""
    fold = content["folds"][0]
    fold["train"], fold["test"] = fold["test"], fold["train"]


def reversed_labels(content: dict) -> None:
    """Reverse the order of a model's labels."""
    content["labels"] = content["labels"][::-1]


def weights(change: Callable[[dict[str, np.ndarray]], object]) -> Callable:
    """Return a mutation of the weights of a model."""

    def mutate(rng: Rng, folder: Path) -> None:
        path = the(folder, WEIGHTS)
        tensors = {name: array.copy() for name, array in load_file(path).items()}
        changed = change(tensors)
        save_file(changed if isinstance(changed, dict) else tensors, path)

    return mutate


def every(change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """Return a mutation of every tensor."""
    return weights(lambda tensors: {name: np.ascontiguousarray(change(array)) for name, array in tensors.items()})


def largest(change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """Return a mutation of the largest tensor."""

    def mutate(tensors: dict[str, np.ndarray]) -> None:
        name = max(tensors, key=lambda name: tensors[name].size)
        tensors[name] = np.ascontiguousarray(change(tensors[name]))

    return weights(mutate)


def filled(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return a change of the first number of a tensor."""

    def change(array: np.ndarray) -> np.ndarray:
        array.flat[0] = value
        return array

    return change


def forged_header(length: int) -> Callable:
    """Return a mutation that states another length of the header of the weights."""

    def mutate(rng: Rng, folder: Path) -> None:
        path = the(folder, WEIGHTS)
        path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])

    return mutate


TRAINED: list[Mutation] = [  # read by infer
    ("intact", False, lambda rng, folder: None),
    ("weights: sign of the largest", True, largest(np.negative)),
    ("weights: one number NaN", True, largest(filled(np.nan))),
    ("weights: one number infinite", True, largest(filled(np.inf))),
    ("weights: one number 1e30", True, largest(filled(1e30))),
    ("weights: one number changed", True, largest(filled(0.125))),
    ("weights: integers", True, every(lambda array: array.astype(np.int32))),
    ("weights: float64", True, every(lambda array: array.astype(np.float64))),
    ("weights: float16", True, every(lambda array: array.astype(np.float16))),
    ("weights: zero", True, every(np.zeros_like)),
    ("weights: rows reversed", True, largest(lambda array: array[::-1])),
    ("weights: another shape", True, largest(np.ravel)),
    ("weights: tensor missing", True, weights(lambda tensors: dict(list(tensors.items())[1:]))),
    ("weights: tensor added", True, weights(lambda tensors: {**tensors, "extra": np.zeros(3, np.float32)})),
    ("weights: tensor renamed", True, weights(lambda tensors: {f"{name}_": array for name, array in tensors.items()})),
    ("weights: none", True, weights(lambda tensors: {"x": np.zeros(1, np.float32)})),
    ("weights: cut", True, cut(WEIGHTS)),
    ("weights: bytes", True, flipped(WEIGHTS)),
    *((f"weights: header of {length}", True, forged_header(length)) for length in (0, 2**40, 2**63 + 5)),
    ("weights: empty", True, text_of(WEIGHTS, "")),
    ("weights: missing", True, without(WEIGHTS)),
    ("model.json: labels reversed", True, json_of(MODEL, reversed_labels)),
    ("model.json: labels missing", True, json_of(MODEL, key("labels", value=[]))),
    ("model.json: label a number", True, json_of(MODEL, key("labels", value=[1, 2, 3]))),
    ("model.json: hop", True, json_of(MODEL, key("features", "hop_ms", value=10.0))),
    ("model.json: window", True, json_of(MODEL, key("features", "window_ms", value=25.0))),
    ("model.json: mels", True, json_of(MODEL, key("features", "mels", value=25))),
    ("model.json: sample rate", True, json_of(MODEL, key("sample_rate", value=8000))),
    ("model.json: encoder of 1e9 dimensions", True, json_of(MODEL, key("encoder", "dim", value=10**9))),
    ("model.json: encoder unknown", True, json_of(MODEL, key("encoder", "name", value="os.system"))),
    *((f"model.json: temperature {value}", True, json_of(MODEL, key("temperature", value=value)))
      for value in (-1, 0, float("nan"), float("inf"), 1e-300, "1", [1], 3.5)),
    ("model.json: key added", True, json_of(MODEL, key("extra", value=1))),
    ("model.json: list", True, text_of(MODEL, "[]")),
    ("model.json: null", True, text_of(MODEL, "null")),
    ("model.json: deep", True, text_of(MODEL, DEEP)),
    ("model.json: number of 6,000 digits", True, text_of(MODEL, "9" * 6000)),
    ("model.json: empty", True, text_of(MODEL, "")),
    ("model.json: not UTF-8", True, lambda rng, folder: the(folder, MODEL).write_bytes(b'{"a": "\xff"}')),
    ("model.json: cut", True, cut(MODEL)),
    ("model.json: key twice", True, key_twice(MODEL)),
    ("split.json: key twice", True, key_twice(SPLIT)),
    ("model.json: range", True, json_of(MODEL, key("trained_range", value={"level": ["a", []]}))),
    ("split.json: deep", True, text_of(SPLIT, DEEP)),
    ("split.json: list", True, text_of(SPLIT, "[1]")),
    ("split.json: no folds", True, json_of(SPLIT, key("folds", value=[]))),
    ("split.json: folds a text", True, json_of(SPLIT, key("folds", value="abc"))),
    ("split.json: name of a fold", True, json_of(SPLIT, key("folds", 0, "name", value="../../.."))),
    ("split.json: name a list", True, json_of(SPLIT, key("folds", 0, "name", value=[]))),
    ("split.json: fold twice", True, json_of(SPLIT, lambda content: content["folds"].append(content["folds"][0]))),
    ("recipe.toml: deep", True, text_of("recipe.toml", "x = " + "[" * 100_000)),
    ("recipe.toml: empty", True, text_of("recipe.toml", "")),
    ("recipe.toml: cut", True, cut("recipe.toml")),
]  # fmt: skip

EVALUATED: list[Mutation] = [  # read by evaluate
    ("intact", False, lambda rng, folder: None),
    ("split.json: speakers exchanged", True, json_of(SPLIT, exchanged)),
    ("split.json: a test speaker less", True, json_of(SPLIT, key("folds", 0, "test", value=["cy"]))),
    ("split.json: speaker that is none", True, json_of(SPLIT, key("folds", 0, "test", value=["cy", "gus"]))),
    ("split.json: speakers numbers", True, json_of(SPLIT, key("folds", 0, "test", value=[1, {}]))),
    ("split.json: held-out utterances", True, json_of(SPLIT, key("folds", 0, "held_out", value=[]))),
    ("split.json: held-out utterance that is none", True, json_of(SPLIT, key("folds", 0, "held_out", value=["x"]))),
    ("split.json: hash of the split", True, json_of(SPLIT, key("folds", 0, "sha256", value="0" * 64))),
    ("split.json: hash of the audio", True, json_of(SPLIT, key("sha256", "audio.i16", value="0" * 64))),
    ("split.json: hashes a list", True, json_of(SPLIT, key("sha256", value=[1]))),
    ("split.json: data elsewhere", None, json_of(SPLIT, key("data", value="/dev/null"))),
    ("split.json: data a number", True, json_of(SPLIT, key("data", value=5))),
    ("metrics.csv: cut", None, cut("metrics.csv")),
    ("metrics.csv: text", True, text_of("metrics.csv", "epoch,best\none,two\n")),
    ("metrics.csv: no best epoch", True, text_of("metrics.csv", "epoch,best\n1,0\n")),
    ("metrics.csv: NaN", True, text_of("metrics.csv", "epoch,best,dev_uar\nnan,1,nan\n")),
    ("metrics.csv: missing", True, without("metrics.csv")),
    ("weights: sign of the largest", True, largest(np.negative)),
    ("model.json: labels reversed", True, json_of(MODEL, reversed_labels)),
]

COMPARED: list[Mutation] = [  # read by compare, beside the intact run
    ("intact", False, lambda rng, folder: None),
    ("report.json: deep", True, text_of(REPORT, DEEP)),
    ("report.json: list", True, text_of(REPORT, "[]")),
    ("report.json: empty", True, text_of(REPORT, "")),
    ("report.json: cut", True, cut(REPORT)),
    ("report.json: number of 6,000 digits", True, text_of(REPORT, '{"emotion": ' + "9" * 6000 + "}")),
    ("report.json: UAR a text", True, json_of(REPORT, key("emotion", "uar", value="<script>"))),
    ("report.json: UAR 200 %", True, json_of(REPORT, key("emotion", "uar", value=2.0))),
    ("report.json: UAR NaN", True, json_of(REPORT, key("emotion", "uar", value=float("nan")))),
    *((f"report.json: UAR of {value}", True, json_of(REPORT, key("emotion", "uar", "value", value=value)))
      for value in (7.0, -1, "0.5", float("nan"))),
    ("report.json: accuracy -1", True, json_of(REPORT, key("emotion", "accuracy", value=-1))),
    ("report.json: chance 200 %", True, json_of(REPORT, key("speaker", "chance", "given_emotion", value=2.0))),
    ("report.json: -3 utterances", True, json_of(REPORT, key("emotion", "utterances", value=-3))),
    ("report.json: interval exchanged", True,
     json_of(REPORT, key("emotion", "uar", value={"value": 0.5, "low": 0.6, "high": 0.4}))),
    ("report.json: seeds texts", True, json_of(REPORT, key("settings", "seeds", value=["0"]))),
    ("report.json: key twice", True, key_twice(REPORT)),
    ("report.json: no emotion", True, json_of(REPORT, lambda content: content.pop("emotion") and None)),
    ("report.json: missing", True, without(REPORT)),
]  # fmt: skip


def rehashed(change: Callable[[str], str]) -> Callable:
    """Return a mutation of the manifest by somebody who corrects its hash as well."""

    def mutate(rng: Rng, folder: Path) -> None:
        path, settings = folder / "manifest.csv", folder / "prepare.json"
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
        content = json.loads(settings.read_text(encoding="utf-8"))
        content["sha256"]["manifest.csv"] = hashlib.sha256(path.read_bytes()).hexdigest()
        settings.write_text(json.dumps(content), encoding="utf-8")

    return mutate


def manifest_cell(column: str, value: str) -> Callable:
    """Return a mutation of a cell of the manifest and of its hash."""

    def change(text: str) -> str:
        rows = list(csv.reader(text.splitlines()))
        rows[2][rows[0].index(column)] = value
        return "\n".join(map(",".join, rows)) + "\n"

    return rehashed(change)


PREPARED: list[Mutation] = [  # read by train
    ("intact", False, lambda rng, folder: None),
    ("manifest.csv: bytes", True, flipped("manifest.csv")),
    ("manifest.csv: cut", True, cut("manifest.csv")),
    ("manifest.csv: empty", True, rehashed(lambda text: "")),
    ("manifest.csv: header alone", True, rehashed(lambda text: text.splitlines()[0] + "\n")),
    ("manifest.csv: row twice", True, rehashed(lambda text: text + text.splitlines()[-1] + "\n")),
    *((f"manifest.csv: offset {value}", True, manifest_cell("offset", value)) for value in ("-5", "x", "9" * 30, "nan")),
    *((f"manifest.csv: samples {value}", True, manifest_cell("samples", value))
      for value in ("0", "-1", "999999999999", "1.5", "10")),
    ("prepare.json: deep", True, text_of("prepare.json", DEEP)),
    ("prepare.json: list", True, text_of("prepare.json", "[]")),
    ("prepare.json: no hashes", True, json_of("prepare.json", key("sha256", value={}))),
    ("prepare.json: hash a list", True, json_of("prepare.json", key("sha256", "audio.i16", value=[1]))),
    ("prepare.json: corpora numbers", None, json_of("prepare.json", key("corpora", value=[1]))),
    ("prepare.json: cut", True, cut("prepare.json")),
    ("prepare.json: key twice", True, key_twice("prepare.json")),
    ("audio.i16: bytes", True, flipped("audio.i16")),
    ("audio.i16: cut", True, cut("audio.i16")),
    ("audio.i16: empty", True, text_of("audio.i16", "")),
    ("audio.i16: missing", True, without("audio.i16")),
]  # fmt: skip


def runs(
    folder: Path, run: Path, prepared: Path, clip: Path, number: int | None, seed: int, only: Collection[str] = ()
) -> list[Fault]:
    """Write tampered copies of a run and of a prepared corpus, with the commands that read them; of `only` these kinds."""
    recipe, end, quick = folder / "recipe.toml", ("--quiet", "--device", "cpu"), ("--quick", "--no-baseline", "--jobs", "1")
    recipe.write_text(RECIPE, encoding="utf-8")
    kinds: list[tuple[str, Path, list[Mutation], Callable[[str, str], list[str]]]] = [
        ("model", run, TRAINED, lambda copy, out: ["infer", copy, str(clip), "--out", f"{out}.csv", *end]),
        ("run", run, EVALUATED, lambda copy, out: ["evaluate", copy, "--data", str(prepared), *quick, *end]),
        ("report", run, COMPARED, lambda copy, out: ["compare", str(run), copy, "--out", out]),
        (
            "corpus",
            prepared,
            PREPARED,
            lambda copy, out: ["train", str(recipe), "--data", copy, "--out", out, "--jobs", "1", *end],
        ),
    ]
    listed = [(kind, mutation) for kind in kinds for mutation in kind[2] if not only or kind[0] in only]
    faults = []
    for index, ((name, source, _, command), (what, detectable, mutate)) in enumerate(drawn(listed, number)):
        copy = folder / f"{name}-{index}"
        shutil.copytree(source, copy)
        mutate(np.random.default_rng([seed, index]), copy)
        faults.append(Fault(f"{name}: {what}", tuple(command(str(copy), str(folder / f"out-{index}"))), detectable))
    return faults
