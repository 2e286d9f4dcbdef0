"""Damaged tables of utterances and embeddings, recipes and segments."""

import os
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet

from mutations.base import RECIPE, Fault, Mutation, drawn

Rng = np.random.Generator


def with_cell(column: str, value: str, row: int = 3) -> Callable:
    """Return a mutation of one cell of a CSV table; the column is added if it is missing."""

    def mutate(rng: Rng, text: str) -> str:
        lines = [line.split(",") for line in text.splitlines()]
        if column not in lines[0]:
            lines = [[*line, "" if number else column] for number, line in enumerate(lines)]
        lines[row][lines[0].index(column)] = value
        return "\n".join(",".join(line) for line in lines)

    return mutate


def replaced(old: str, new: str) -> Callable:
    """Return a mutation that replaces a text once."""
    return lambda rng, text: text.replace(old, new, 1)


TABLES: list[Mutation] = [
    ("intact", False, replaced("", "")),
    ("byte order mark", False, replaced("", "\ufeff")),
    ("CRLF", False, lambda rng, text: text.replace("\n", "\r\n")),
    ("empty", True, lambda rng, text: ""),
    ("header alone", True, lambda rng, text: text.splitlines()[0]),
    ("no speaker", True, replaced("speaker", "talker_x")),
    ("column twice", True, replaced("text", "speaker")),
    ("semicolons", None, lambda rng, text: text.replace(",", ";")),
    ("NUL", True, with_cell("speaker", "a\0b")),
    ("not UTF-8", None, with_cell("text", "\udcff\udcfe")),
    ("UTF-16", True, lambda rng, text: text.encode("utf-16")),
    ("short row", True, lambda rng, text: text + "ada_calm_one.wav,ada\n"),
    ("long row", True, lambda rng, text: text + "ada_calm_one.wav,ada,calm,one,two,three\n"),
    ("start left out", False, with_cell("start", "nan")),
    ("open quote", True, with_cell("text", '"one')),
    ("huge cell", None, with_cell("text", "x" * 300_000)),
    ("repeated rows", True, lambda rng, text: text + "\n".join(text.splitlines()[1:4]) + "\n"),
    ("formulas", None, with_cell("text", "=HYPERLINK(0)")),
    ("escape sequence", None, with_cell("text", "\x1b]0;title\x07")),
    ("no emotion", True, with_cell("emotion", "")),
    ("no name", True, with_cell("speaker", "")),
    ("speaker of two spellings", True, with_cell("speaker", "ADA")),
    ("deep name", None, with_cell("speaker", "../" * 20 + "etc")),
    *((f"path {path[:12]!r}", True, with_cell("path", path))
      for path in ("/etc/passwd", "/dev/zero", "absent.wav", "", ".", "x" * 5000)),
    *((f"start {start}", True, with_cell("start", start)) for start in ("inf", "-1", "1e300", "abc", "0.79", "9" * 400)),
    *((f"end {end}", True, with_cell("end", end)) for end in ("-inf", "1e300", "0.001", "0x10")),
    ("random bytes", True, lambda rng, text: rng.bytes(3000)),
    ("cut", True, lambda rng, text: text[: int(len(text) * rng.uniform(0.2, 0.8)) // 7 * 7] + ",,,,"),
]  # fmt: skip


def parquet_bytes(text: str, change: Callable[[pyarrow.Table], pyarrow.Table]) -> bytes:
    """Return a CSV table as Parquet, after a change."""
    buffer = BytesIO()
    pyarrow.parquet.write_table(change(pyarrow.csv.read_csv(BytesIO(text.encode()))), buffer)
    return buffer.getvalue()


def column(name: str, values: Callable[[int], pyarrow.Array]) -> Callable:
    """Return a mutation of a Parquet table that replaces or adds a column."""

    def change(table: pyarrow.Table) -> pyarrow.Table:
        kept = table.drop_columns([name]) if name in table.column_names else table
        return kept.append_column(name, values(len(table)))

    return lambda rng, text: parquet_bytes(text, change)


def damaged(rng: Rng, data: bytes) -> bytes:
    """Return bytes of which some are changed."""
    changed = bytearray(data)
    for position in rng.integers(0, len(changed), 30):
        changed[position] ^= int(rng.integers(1, 256))
    return bytes(changed)


PARQUETS: list[Mutation] = [
    ("intact", False, lambda rng, text: parquet_bytes(text, lambda table: table)),
    ("cut", True, lambda rng, text: parquet_bytes(text, lambda table: table)[: int(rng.integers(1, 900))]),
    *(("bytes", None, lambda rng, text: damaged(rng, parquet_bytes(text, lambda table: table))) for _ in range(6)),
    ("no rows", True, lambda rng, text: parquet_bytes(text, lambda table: table.slice(0, 0))),
    ("no columns", True, lambda rng, text: parquet_bytes(text, lambda table: table.select([]))),
    ("nested path", True, column("path", lambda n: pyarrow.array([["a.wav"]] * n))),
    ("bytes as path", True, column("path", lambda n: pyarrow.array([b"\xff\xfe"] * n))),
    ("missing path", True, column("path", lambda n: pyarrow.nulls(n))),
    ("missing speaker", True, column("speaker", lambda n: pyarrow.nulls(n, pyarrow.string()))),
    ("infinite start", True, column("start", lambda n: pyarrow.array([np.inf] * n))),
    ("CSV", True, lambda rng, text: text),
]


def arrays(rng: Rng) -> dict[str, np.ndarray]:
    """Return an intact table of 60 embeddings."""
    return {
        "embedding": rng.standard_normal((60, 6)).astype(np.float32),
        "speaker": np.char.mod("s%d", np.arange(60) % 4),
        "emotion": np.char.mod("e%d", np.arange(60) // 4 % 3),
    }


def npz(change: Callable[[dict], object]) -> Callable:
    """Return a mutation of the arrays of an .npz file."""

    def mutate(rng: Rng, text: str) -> bytes:
        content, buffer = arrays(rng), BytesIO()
        changed = change(content)
        np.savez(buffer, **(changed if isinstance(changed, dict) else content))
        return buffer.getvalue()

    return mutate


def with_array(name: str, value: Callable[[np.ndarray], object]) -> Callable:
    """Return a mutation that replaces an array by one that is made from the embedding."""
    return npz(lambda content: {**content, name: np.asarray(value(content["embedding"].copy()))})


def filled(value: float) -> Callable:
    """Return a change of one number of the embedding."""

    def change(x: np.ndarray) -> np.ndarray:
        x[3, 2] = value
        return x

    return change


def forged(shape: str, kind: str = "<f4") -> Callable:
    """Return a mutation whose embedding states this shape and holds nothing."""

    def mutate(rng: Rng, text: str) -> bytes:
        buffer = BytesIO()
        np.savez(buffer, **{name: array for name, array in arrays(rng).items() if name != "embedding"})
        header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
        header += b" " * (117 - len(header)) + b"\n"
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr("embedding.npy", b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header)
        return buffer.getvalue()

    return mutate


NPZS: list[Mutation] = [
    ("intact", False, npz(lambda content: content)),
    ("more arrays", False, with_array("comment", lambda x: np.array("none"))),
    *((f"embedding with {value}", True, with_array("embedding", filled(value))) for value in (np.nan, np.inf, -np.inf)),
    ("embedding of 1e37", None, with_array("embedding", lambda x: x * np.float32(1e37))),
    ("embedding constant", True, with_array("embedding", np.ones_like)),
    ("embedding too small", True, with_array("embedding", lambda x: 1e-170 * x.astype(float))),
    ("one embedding repeated", True, with_array("embedding", lambda x: np.where(np.arange(len(x))[:, None] % 9, x, 0))),
    ("embedding of objects", True, with_array("embedding", lambda x: x.astype(object))),
    ("embedding of text", True, with_array("embedding", lambda x: x.astype(str))),
    ("embedding complex", True, with_array("embedding", lambda x: x.astype(complex))),
    ("embedding 1-D", None, with_array("embedding", lambda x: x[:, 0])),
    ("embedding 3-D", True, with_array("embedding", lambda x: x[:, :, None])),
    ("embedding 0-D", True, with_array("embedding", lambda x: x[0, 0])),
    ("embedding without rows", True, with_array("embedding", lambda x: x[:0])),
    ("embedding without columns", True, with_array("embedding", lambda x: x[:, :0])),
    ("embedding shorter", True, with_array("embedding", lambda x: x[:-1])),
    ("speaker missing", True, npz(lambda content: {"embedding": content["embedding"]})),
    ("speaker of objects", True, with_array("speaker", lambda x: np.array([None] * len(x)))),
    ("speaker NaN", True, with_array("speaker", lambda x: np.full(len(x), np.nan))),
    ("speaker alone", True, with_array("speaker", lambda x: np.full(len(x), "a"))),
    ("speaker of one utterance", True, with_array("speaker", lambda x: np.arange(len(x)))),
    ("speaker of two columns", True, with_array("speaker", lambda x: np.full((len(x), 2), "a"))),
    ("scored neither 0 nor 1", True, with_array("scored", lambda x: np.full(len(x), 2))),
    ("scored NaN", True, with_array("scored", lambda x: np.full(len(x), np.nan))),
    ("huge shape", True, forged("(1099511627776, 8)")),
    ("negative shape", True, forged("(-5, 8)")),
    ("no shape", True, forged("None")),
    ("pickle", True, forged("(60,)", "|O")),
    ("code for a shape", True, forged("(__import__('os').getpid(), 8)")),
    ("cut", True, lambda rng, text: npz(lambda content: content)(rng, text)[: int(rng.integers(10, 2000))]),
    *(("bytes", None, lambda rng, text: damaged(rng, npz(lambda content: content)(rng, text))) for _ in range(4)),
    ("text", True, lambda rng, text: text),
]


RECIPES: list[Mutation] = [
    ("intact", False, replaced("", "")),
    *((f"{key} = {value[:20]}", True, replaced(f"{key} = ", f"{key} = {value} # "))
      for key in ("mels", "hop_ms", "dim", "hidden", "time_mask_ms", "batch_size", "folds", "channels", "test")
      for value in ("-1", "nan", "inf", '"many"', "9" * 30, "[]", "{}", "1979-05-27", "true")),
    ("unknown key", True, replaced("mels", "mel_bands")),
    ("unknown section", True, replaced("[features]", "[feature]")),
    ("key twice", True, replaced("mels = 24", "mels = 24\nmels = 25")),
    ("section twice", True, lambda rng, text: text + "[train]\n"),
    ("deep lists", True, lambda rng, text: "x = " + "[" * 100_000),
    ("deep tables", True, lambda rng, text: "x = " + "{a=" * 100_000),
    ("deep keys", True, lambda rng, text: "a." * 100_000 + "b = 1"),
    ("number of 6,000 digits", True, replaced("mels = 24", "mels = " + "9" * 6000)),
    ("not UTF-8", True, replaced('"cy"', '"\udcff"')),
    ("NUL", True, replaced('"cy"', '"c\0y"')),
    ("random bytes", True, lambda rng, text: rng.bytes(2000)),
    ("speaker that is none", True, replaced('"cy"', '"../../etc"')),
    ("speaker in two parts", True, replaced('dev = ["ben"]', 'dev = ["cy"]')),
    ("cut", True, lambda rng, text: text[: text.index('scheme = "fi') + 12]),
]  # fmt: skip

RTTM = "SPEAKER talk 1 0.5 1.25 <NA> <NA> ada <NA> <NA>\nSPEAKER talk 1 2.0 0.5 <NA> <NA> ben <NA> <NA>\n"
SEGMENTS: list[Mutation] = [
    ("intact", False, replaced("", "")),
    *((f"start {value[:9]}", True, replaced("0.5", value)) for value in ("nan", "inf", "-1", "1e400", "x", "9" * 5000, "1_0")),
    *((f"duration {value[:9]}", True, replaced("1.25", value)) for value in ("0", "nan", "-2", "1e309", "")),
    ("empty", True, lambda rng, text: ""),
    ("short line", True, lambda rng, text: text + "SPEAKER talk 1\n"),
    ("not UTF-8", True, replaced("ada", "\udcff")),
    ("NUL", None, replaced("ada", "a\0a")),
    ("random bytes", True, lambda rng, text: rng.bytes(1000)),
    ("other lines", False, replaced("", ";; comment\nSPKR-INFO talk 1 <NA> <NA> <NA> unknown ada <NA>\n")),
]  # fmt: skip


def tables(folder: Path, corpus: Path, prepared: Path, number: int | None, seed: int) -> list[Fault]:
    """Write damaged tables, recipes and segments, with the commands that read them."""
    text, end = corpus.read_text(encoding="utf-8"), ("--quiet", "--jobs", "1")
    kinds: list[tuple[str, str, list[Mutation], str, Callable[[str, str], list[str]]]] = [
        ("CSV", ".csv", TABLES, text, lambda path, out: ["prepare", "csv", path, out, "--no-f0", *end]),
        ("Parquet", ".parquet", PARQUETS, text, lambda path, out: ["prepare", "parquet", path, out, "--no-f0", *end]),
        ("NPZ", ".npz", NPZS, text, lambda path, out: ["audit", path, "--json", "--quick", *end]),
        ("recipe", ".toml", RECIPES, RECIPE, lambda path, out: ["train", path, "--data", str(prepared), "--out", out, *end]),
        ("RTTM", ".rttm", SEGMENTS, RTTM, lambda path, out: ["segments", path]),
    ]  # fmt: skip
    listed = [(kind, mutation) for kind in kinds for mutation in kind[2]]
    faults = []
    for index, (kind, mutation) in enumerate(drawn(listed, number)):
        name, suffix, _, intact, command = kind
        what, detectable, mutate = mutation
        content = mutate(np.random.default_rng([seed, index]), intact)
        path = corpus.parent / f"damaged-{index}{suffix}" if suffix in (".csv", ".parquet") else folder / f"{index}{suffix}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
        faults.append(Fault(f"{name}: {what}", tuple(command(os.fspath(path), str(folder / f"out-{index}"))), detectable))
    return faults
