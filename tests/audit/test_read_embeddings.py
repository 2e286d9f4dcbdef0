"""Tables of embeddings: formats, columns, the message for every invalid table, and damaged files."""

import glob
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from speaker_invariant_ser import processes
from speaker_invariant_ser.audit.inputs.read_embeddings import read_embeddings
from speaker_invariant_ser.data.tables.columns import read_columns
from speaker_invariant_ser.errors import AuditError, ManifestError

UTTERANCES, DIMENSIONS = 6, 3
SPEAKERS = ["01", "01", "02", "02", "1e3", "1e3"]
EMOTIONS = ["sad", "happy"] * 3


def content(**changes) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; None removes one."""
    embedding = np.random.default_rng(0).normal(size=(UTTERANCES, DIMENSIONS))
    arrays = {"embedding": embedding, "speaker": SPEAKERS, "emotion": EMOTIONS} | changes
    return {name: np.asarray(array) for name, array in arrays.items() if array is not None}


def npz(folder: Path, **changes) -> Path:
    np.savez(folder / "t.npz", **content(**changes))
    return folder / "t.npz"


def columns_of(**changes) -> dict[str, list]:
    """The same content as columns."""
    embedding = content()["embedding"]
    columns = {
        "speaker": SPEAKERS,
        "emotion": EMOTIONS,
        **{f"d{index}": list(embedding[:, index]) for index in range(DIMENSIONS)},
    }
    return {name: values for name, values in (columns | changes).items() if values is not None}


def csv(folder: Path, name: str = "t.csv", **changes) -> Path:
    columns, delimiter = columns_of(**changes), "\t" if name.endswith(".tsv") else ","
    rows = [delimiter.join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    (folder / name).write_text("\n".join([delimiter.join(columns), *rows]) + "\n", encoding="utf-8")
    return folder / name


def parquet(folder: Path, **changes) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns_of(**changes)), folder / "t.parquet")
    return folder / "t.parquet"


WRITERS = {"npz": npz, "csv": csv, "tsv": lambda folder, **changes: csv(folder, "t.tsv", **changes), "parquet": parquet}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    return lambda **changes: WRITERS[request.param](tmp_path, **changes)


def test_every_format_gives_the_same_table(write):
    table, _, notes = read_embeddings(write())
    assert np.array_equal(table.embedding, content()["embedding"]) and not notes
    assert list(table.speaker) == SPEAKERS and list(table.emotion) == EMOTIONS
    assert list(table.id) == [f"row {row}" for row in range(1, UTTERANCES + 1)]
    assert list(table.text) == [""] * UTTERANCES and table.scored.all() and table.frames is None


def test_optional_labels_are_read(write):
    ids = [f"clip {number}" for number in range(UTTERANCES)]
    table, _, notes = read_embeddings(write(id=ids, text=list("aabbcc"), scored=[1, 0, 1, 1, 0, 1]))
    assert (
        list(table.id) == ids
        and list(table.text) == list("aabbcc")
        and notes == ["2 of 6 rows have scored = 0: attackers learn from them, nothing is concluded about them"]
    )
    assert table.scored.tolist() == [True, False, True, True, False, True]


def test_other_names_of_columns_are_given_by_the_user(write):
    table, _, notes = read_embeddings(write(speaker=None, emotion=None, who=SPEAKERS, label=EMOTIONS), {"speaker": "who"})
    assert list(table.speaker) == SPEAKERS and not notes
    assert list(table.emotion) == EMOTIONS, "usual names are recognised"
    with pytest.raises(AuditError, match="no speaker; found .*who.*--column speaker=NAME"):
        read_embeddings(write(speaker=None, who=SPEAKERS))
    with pytest.raises(AuditError, match=r"--column speaker=whom: unknown column 'whom', did you mean 'who'\?"):
        read_embeddings(write(speaker=None, who=SPEAKERS), {"speaker": "whom"})
    with pytest.raises(AuditError, match="--column sex=who: unknown column 'sex'. Expected one of:.* speaker, emotion, text"):
        read_embeddings(write(who=SPEAKERS), {"sex": "who"})


def test_emotion_is_optional(write):
    table, *_ = read_embeddings(write(emotion=None))
    assert list(table.emotion) == [""] * UTTERANCES


def test_integers_bytes_and_booleans_are_labels(tmp_path):
    changes = {"speaker": np.arange(6) // 2, "emotion": np.array([b"sad"] * 6), "scored": np.arange(6) > 0}
    table, *_ = read_embeddings(npz(tmp_path, **changes))
    assert list(table.speaker) == list("001122") and table.emotion[0] == "sad" and table.scored.tolist() == [False] + 5 * [True]


@pytest.mark.parametrize(("given", "kept"), [("f2", "f8"), ("f4", "f4"), (">f4", "f8"), ("i2", "f8"), ("?", "f8")])
def test_the_embedding_stays_in_single_precision_or_becomes_double(tmp_path, given, kept):
    embedding = content()["embedding"].astype(given)
    embedding[0] = 0  # as booleans, all others are true
    table, *_ = read_embeddings(npz(tmp_path, embedding=embedding))
    assert table.embedding.dtype == kept and np.array_equal(table.embedding, embedding)


def test_other_arrays_are_left_out_and_listed(tmp_path):
    table, _, notes = read_embeddings(npz(tmp_path, posteriors=np.zeros((6, 2))))
    assert notes == ["arrays that are not used: posteriors"] and table.embedding.shape == (UTTERANCES, DIMENSIONS)


def test_text_columns_are_left_out_and_listed(tmp_path):
    table, _, notes = read_embeddings(csv(tmp_path, note=["loud", "low", "", "", "x", "y"], empty=[""] * 6))
    assert notes == ["not numeric, and not used as dimensions: note, empty"] and table.embedding.shape == (UTTERANCES, DIMENSIONS)


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "index", "start", "session", "path", "speaker_id", "actor"])
def test_row_numbers_and_manifest_columns_are_not_dimensions(tmp_path, name):
    table, _, notes = read_embeddings(csv(tmp_path, **{name: range(6)}))
    shown = name or "'' (empty)"
    assert notes == [f"labels and row numbers that are not used: {shown}"] and table.embedding.shape == (UTTERANCES, DIMENSIONS)
    table, _, notes = read_embeddings(csv(tmp_path, **{f"d{DIMENSIONS}": range(6)}))
    assert not notes and table.embedding.shape == (UTTERANCES, DIMENSIONS + 1)


def numbers_beside(tmp_path, embedding: dict[str, object], *patterns: str, **others):
    """Write a table of 40 rows of four speakers with columns of numbers, and read it."""
    speaker = np.repeat([f"s{number}" for number in range(4)], 10)
    pyarrow.csv.write_csv(pyarrow.table({"speaker": speaker, **others, **embedding}), tmp_path / "t.csv")
    return read_embeddings(tmp_path / "t.csv", dimensions=patterns)


@pytest.mark.parametrize(
    "names, between",
    [("d0 d1 d2", ""), ("d001 d002 d010", "d002 and d010"), ("x_9 x_10 x_12 x_15", "x_10 and x_12, x_12 and x_15")],
)
def test_a_gap_in_the_numbers_of_dimensions_is_noted(tmp_path, names, between):
    notes = numbers_beside(tmp_path, noise(*names.split())).notes
    assert notes == ([f"no dimension is between {between}: is a column missing?"] if between else [])


def test_long_rows_are_read_and_longer_ones_refused_in_words(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("speaker,text\n" + f"a,{'x' * 3_000_000}\n" * 2)
    assert [len(cell) for cell in read_columns(path, {})["text"]] == [3_000_000] * 2
    monkeypatch.setattr("speaker_invariant_ser.data.tables.columns.MAX_ROW", 1_000_000)
    with pytest.raises(ManifestError, match="a row of more than 1 MB; perhaps a quotation mark is not closed"):
        read_columns(path, {})


@pytest.mark.parametrize(
    "rows, line", [('a,"5 inch\nb,x\nc,"y', 3), ('a,"5 inch\nb,x', 3), ('a,"x\ny"\nb,"5 inch\nc,x\n', 5), ('"a,5\n"b,x', 3)]
)
def test_a_quotation_mark_that_takes_rows_into_its_cell_is_refused(tmp_path, rows, line):
    path = tmp_path / "t.csv"
    path.write_text(f"speaker,text\nz,x\n{rows}\n")
    with pytest.raises(ManifestError, match=f"t.csv: line {line}: a quotation mark that begins a cell is not closed"):
        read_columns(path, {})
    path.write_text('speaker,text\na,"x\ny"\nb,"""Hm"\nc,5" or 6"\n')
    assert read_columns(path, {})["text"] == ["x\ny", '"Hm', '5" or 6"']


def noise(*names: str) -> dict[str, np.ndarray]:
    return {name: np.random.default_rng(index).normal(size=40) for index, name in enumerate(names)}


LABEL_NUMBERS = {
    "age": np.repeat([20, 30, 40, 50], 10),
    "number": np.arange(40),
    "take1": np.arange(40) % 2,
    "weight": np.random.default_rng(9).normal(size=40),
}


@pytest.mark.parametrize("label", LABEL_NUMBERS)
@pytest.mark.parametrize("stem", ["", "d", "dim_", "f_", "emb.", "Ü-0"])
def test_numbers_without_the_stem_are_labels_and_named(tmp_path, stem, label):
    names = [f"{stem}{number}" for number in range(3)]
    table, dimensions, notes = numbers_beside(tmp_path, noise(*names), **{label: LABEL_NUMBERS[label]})
    assert dimensions == names and table.embedding.shape == (40, 3)
    assert notes == [f"numbers that are not used as dimensions: {label}; --dimensions names others"]


@pytest.mark.parametrize(
    "names, text",
    [
        (
            ("pitch", "energy x"),
            "pitch, energy x are numbers and have no common stem and number, such as dim_0; name the dimensions, once for each "
            "name or pattern, such as --dimensions pitch --dimensions 'energy x'",
        ),
        (("emb[0]", "emb[1]"), r".*such as --dimensions 'emb\[\[\]\[0-9\]\*\]'"),
        (("mfcc0_mean", "mfcc1_mean"), r".*such as --dimensions 'mfcc\[0-9\]\*_mean'"),
        (
            ("a1", "a2", "b1", "b2"),
            r"a1 to a2 \(2\), b1 to b2 \(2\) are numbers and have several stems.*such as --dimensions 'a\[0-9\]\*'",
        ),
    ],
)
def test_other_numbers_are_asked_about_and_can_be_chosen(tmp_path, names, text):
    with pytest.raises(AuditError, match=f"which columns are the dimensions\\? {text}"):
        numbers_beside(tmp_path, noise(*names))
    _, dimensions, notes = numbers_beside(tmp_path, noise(*names), "*")
    assert dimensions == list(names) and not notes
    _, dimensions, notes = numbers_beside(tmp_path, noise(*names), *map(glob.escape, names[:2]))
    assert dimensions == list(names[:2])
    assert notes == ["numbers that are not used as dimensions: b1 to b2 (2); --dimensions names others"] * (len(names) > 2)
    with pytest.raises(AuditError, match=r"--dimensions x\*: unknown column of numbers 'x\*'"):
        numbers_beside(tmp_path, noise(*names), "x*")


@pytest.mark.parametrize(
    "cells, found",
    [
        ({"x0": ["1,5"] * 40, "x1": ["-0,5"] * 40}, r"x0 \('1,5'\), x1 \('-0,5'\)"),
        ({"emb": ["[0.1, 0.2]"] * 40}, r"emb \('\[0.1, 0.2\]'\)"),
    ],
)
def test_an_embedding_that_cannot_be_read_is_named_before_an_age_is_taken(tmp_path, cells, found):
    age = LABEL_NUMBERS["age"]
    with pytest.raises(AuditError, match=f"which columns .* convert it to columns of numbers .*: {found}"):
        numbers_beside(tmp_path, cells, age=age, room=["a1"] * 40)
    uneven = pyarrow.table({"speaker": ["a", "b"] * 20, "age": age, "x": [[1.0, 2.0]] * 39 + [[1.0]]})
    pyarrow.parquet.write_table(uneven, tmp_path / "t.parquet")
    with pytest.raises(AuditError, match=r"x \(nested, or of unequal length\)"):
        read_embeddings(tmp_path / "t.parquet")


@pytest.mark.parametrize("label", LABEL_NUMBERS)
def test_whole_numbers_that_name_the_speaker_are_warned_of(tmp_path, label):
    _, dimensions, notes = numbers_beside(tmp_path, noise("d0", "d1"), "*", **{label: LABEL_NUMBERS[label]})
    assert dimensions == [label, "d0", "d1"]
    text = "every speaker has one value, or a range of whole numbers, of its own there, which alone names the speaker"
    named = [f"{label}: {text}"]
    assert [note.partition(";")[0] for note in notes] == named * (label in ("age", "number"))


def test_a_column_of_an_array_that_names_the_speaker_is_warned_of(tmp_path):
    embedding = np.random.default_rng(0).normal(size=(40, 3))
    embedding[:, 1] = np.arange(40) // 10
    np.savez(tmp_path / "t.npz", embedding=embedding, speaker=np.arange(40) // 10)
    assert read_embeddings(tmp_path / "t.npz").notes[0].startswith("dimension 1: every speaker has one value")
    embedding[:, 1] = np.array([0.7, -1.5, 0.2, 0.9])[np.arange(40) // 10]
    np.savez(tmp_path / "t.npz", embedding=embedding, speaker=np.arange(40) // 10)
    assert read_embeddings(tmp_path / "t.npz").notes[0].startswith("dimension 1: every speaker has one value")
    np.savez(tmp_path / "t.npz", embedding=np.random.default_rng(0).integers(0, 255, (40, 300)), speaker=np.arange(40) // 10)
    assert not read_embeddings(tmp_path / "t.npz").notes, "quantised embeddings are no labels"


NUMBERS = np.arange(18.0).reshape(6, 3)
LISTS = {
    "list": pyarrow.list_(pyarrow.float32()),
    "large list": pyarrow.large_list(pyarrow.float64()),
    "fixed size": pyarrow.list_(pyarrow.float16(), 3),
    "integers": pyarrow.list_(pyarrow.int64(), 3),
    "tensor": pyarrow.fixed_shape_tensor(pyarrow.float32(), [3]),
}


def vectors(folder: Path, kind: pyarrow.DataType, rows: list, **columns) -> Path:
    """A .parquet file with speakers and a column `emb` of lists."""
    plain = kind.storage_type if isinstance(kind, pyarrow.BaseExtensionType) else kind
    cells = pyarrow.array([row if row is None else plain_row(row, plain) for row in rows], plain)
    array = pyarrow.ExtensionArray.from_storage(kind, cells) if kind is not plain else cells
    path = folder / "v.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"speaker": SPEAKERS, "emb": array, **columns}), path, row_group_size=4)
    return path


def plain_row(row, kind: pyarrow.DataType) -> list:
    """Numbers as the list's type takes them."""
    return [np.float16(x) if kind.value_type == pyarrow.float16() else x for x in np.asarray(row).tolist()]


@pytest.mark.parametrize("kind", LISTS.values(), ids=LISTS)
def test_a_column_of_vectors_is_the_embedding(tmp_path, kind):
    other = {"raw": [b"\xff\x80"] * 6, "age": [30] * 6, "words": [["a"], ["b"], [], ["c"], ["d"], ["e"]]}
    table, names, notes = read_embeddings(vectors(tmp_path, kind, list(NUMBERS), **other))
    assert names == ["emb_0", "emb_1", "emb_2"]
    np.testing.assert_array_equal(table.embedding, NUMBERS)
    single = kind in (LISTS["list"], LISTS["fixed size"], LISTS["tensor"])
    assert table.embedding.dtype == (np.float32 if single else np.float64)
    assert "numbers that are not used as dimensions: age; --dimensions names others" in notes
    assert "nested, and not used as dimensions: words" in notes


@pytest.mark.parametrize(
    "rows, columns, error",
    [
        ([[1, 2, 3]] * 4 + [[1, 2], [1, 2, 3]], {}, "emb in row 5 has 2 numbers, row 1 has 3; expected equally many"),
        ([[1, 2, 3]] * 5 + [None], {}, "emb in row 6 is missing; expected equally many numbers in every row"),
        ([None] + [[1, 2, 3]] * 5, {}, "emb in row 1 is missing"),
        ([[1, 2, None]] + [[1, 2, 3]] * 5, {}, "the embedding of row 1 contains NaN"),
        (
            NUMBERS.tolist(),
            {"f_0": [1.0] * 6, "f_1": [2.0] * 6},
            "several stems; name the dimensions, once for each name or pattern, such as --dimensions",
        ),
        (
            [[[1.0, 2.0]]] * 6,
            {"raw": [b"\xff\x80"] * 6},
            "in .parquet also one column of lists of numbers; found raw ('\\udcff\\udc80'), emb (nested)",
        ),
        (NUMBERS.tolist(), {"emb_0": [1.0] * 6}, "column emb_0 occurs more than once"),
    ],
)
def test_vectors_of_other_shapes_are_refused(tmp_path, rows, columns, error):
    depth = 2 if isinstance((rows[0] or [0])[0], list) else 1
    kind = pyarrow.list_(pyarrow.float64()) if depth == 1 else pyarrow.list_(pyarrow.list_(pyarrow.float64()))
    path = vectors(tmp_path, kind, rows, **columns)
    with pytest.raises(AuditError, match=re.escape(error)):
        read_embeddings(path)


def test_whole_numbers_in_vectors_are_those_that_double_precision_holds(tmp_path):
    path = vectors(tmp_path, pyarrow.list_(pyarrow.int64()), (2**53 + NUMBERS.astype(int)).tolist())
    with pytest.raises(AuditError, match=r"whole numbers beyond 2\^53"):
        read_embeddings(path)


def test_one_of_several_vectors_is_chosen(tmp_path):
    second = pyarrow.array((NUMBERS + 100).tolist(), pyarrow.list_(pyarrow.float64()))
    path = vectors(tmp_path, pyarrow.list_(pyarrow.float64()), NUMBERS.tolist(), second=second)
    table, names, _ = read_embeddings(path, dimensions=["second_*"])
    assert names == ["second_0", "second_1", "second_2"] and table.embedding.min() == 100


def test_dimensions_are_of_tables_only(tmp_path):
    with pytest.raises(AuditError, match=r"t\.npz: --dimensions names columns of a table; an \.npz file has the array embedding"):
        read_embeddings(npz(tmp_path), dimensions=("d*",))


@pytest.mark.parametrize(
    "values, message",
    [
        (np.zeros(UTTERANCES), f"all {UTTERANCES} embeddings are equal; expected one of each utterance"),
        (1e-170 * np.arange(UTTERANCES), r"dimension 1, .* differs by less than 1e-100; scale or remove it"),
        (2**57 + np.arange(UTTERANCES), r"whole numbers beyond 2\^53 = 9007199254740992, whose last digits would not be audited"),
    ],
)
def test_embeddings_that_are_equal_or_nearly_are_refused(write, values, message):
    """Attackers are at chance there, which says nothing of the speaker."""
    npz_changes = {"embedding": np.tile(values[:, None], (1, DIMENSIONS))}
    path = write(**npz_changes) if write().suffix == ".npz" else write(**{f"d{index}": values for index in range(DIMENSIONS)})
    with pytest.raises(AuditError, match=message):
        read_embeddings(path)


INVALID_LABELS = {
    "speaker in row 3": ({"speaker": ["a", "a", " ", "b", "b", "b"]}, "empty speaker in row 3; every row needs one$"),
    "scored": ({"scored": ["1", "0", "2", "1", "1", "1"]}, "scored in row 3 is '2'; expected 1 .* or 0$"),
    "none scored": ({"scored": ["0"] * 6}, "scored is 0 for all utterances; attackers need at least one to be scored on$"),
}


@pytest.mark.parametrize("case", INVALID_LABELS)
def test_invalid_labels_are_refused(write, case):
    changes, text = INVALID_LABELS[case]
    path = write(**changes)
    with pytest.raises(AuditError, match=rf"^{re.escape(str(path))}: {text}"):
        read_embeddings(path)


OPTIONAL_LABELS = {
    "emotion in some rows": ("emotion", ["", "NaN", "x", "x", "x", "x"], "empty emotion in row 1, 2 ('NaN', which stands for"),
    "an id twice": ("id", ["a", "b", "a", "c", "d", "e"], "id a occurs more than once: not used, rows have numbers"),
    "a text too long": ("text", ["b" * 10_001, *"abcde"], "text in row 1 has more than 10,000 characters"),
}


@pytest.mark.parametrize("case", OPTIONAL_LABELS)
def test_an_optional_label_rejects_no_table(write, case):
    name, cells, note = OPTIONAL_LABELS[case]
    table = read_embeddings(write(**{name: cells}))
    assert [text.startswith(note) for text in table.notes] == [True]
    assert len(table.embeddings.id) == len(set(table.embeddings.id)) == 6
    assert set(table.embeddings.emotion) == ({""} if name == "emotion" else set(read_embeddings(write()).embeddings.emotion))


NOT_LABELS = {  # by format: cells of an optional label, and the note
    "csv": {
        "line breaks": (['"two\nlines, as said"'] * 6, ""),
        "another encoding": (["\xfc"] * 6, "is not UTF-8: read as Windows-1252"),
    },
    "parquet": {
        "bytes": ([b"\xff"] * 6, "is not UTF-8: read as Windows-1252"),
        "vectors": ([[1.0, 2.0]] * 6, "labels and row numbers that are not used: "),
        "lists": ([[1.0]] * 5 + [[1.0, 2.0]], "nested, and not used as dimensions: "),
        "missing lists": ([None] + [[1.0]] * 5, "nested, and not used as dimensions: "),
    },
    "npz": {
        "fractions": (np.arange(6.0), "float64 of shape (6,); expected text or integers of shape (N,); not used"),
        "a matrix": ([["a"]] * 6, "of shape (6, 1); expected text or integers of shape (N,); not used"),
        "one value": ("corpus", "of shape (); expected text or integers of shape (N,); not used"),
        "another length": (["a"] * 5, "has 5; not used"),
        "objects": (np.array([None] * 6), "is an array of objects, which is not read; not used"),
        "bytes": (np.array([b"\xff"] * 6), "contains bytes that are not UTF-8 text; not used"),
    },
}


@pytest.mark.parametrize("name", ["emotion", "text", "id", "recording", "sentence"])
@pytest.mark.parametrize("form, case", [(form, case) for form, cases in NOT_LABELS.items() for case in cases])
def test_what_is_no_label_in_an_optional_column_rejects_no_table(tmp_path, form, case, name):
    cells, note = NOT_LABELS[form][case]
    path = WRITERS[form](tmp_path, **{name: cells})
    if case == "another encoding":
        path.write_bytes(path.read_text(encoding="utf-8").encode("cp1252"))
    table = read_embeddings(path)
    assert np.array_equal(table.embeddings.embedding, content()["embedding"])
    assert not note or sum(note in text for text in table.notes) == 1
    if form == "npz":
        with pytest.raises(AuditError, match="cannot be read|contains bytes|expected (text|one)"):
            read_embeddings(path, columns={"emotion": name})


def test_rows_inside_a_label_are_refused(tmp_path):
    rows = "a,0.1,0.2,x\n" * 2 + 'a,0.1,0.2,"5 inch\nb,0.3,0.4,y\nb,0.5,0.6,6"\nb,1,2,z\n'
    (tmp_path / "t.csv").write_text("speaker,d0,d1,text\n" + rows)
    with pytest.raises(AuditError, match="text in row 3 contains further rows; check for an unclosed quotation mark"):
        read_embeddings(tmp_path / "t.csv")


INVALID_ARRAYS = {
    "no embedding": (
        {"embedding": None, "x": [1]},
        "no embedding; found x, speaker, emotion|no embedding; found speaker, emotion, x",
    ),
    "one dimension": (
        {"embedding": np.zeros(6)},
        r"embedding is float64 of shape \(6,\); expected real numbers of shape \(N, D\)",
    ),
    "text": ({"embedding": [["a"]] * 6}, r"embedding is <U1 of shape \(6, 1\); expected real numbers"),
    "complex": ({"embedding": np.zeros((6, 2), complex)}, "embedding is complex128 of shape"),
    "times": ({"embedding": np.zeros((6, 2), "m8[s]")}, r"embedding is timedelta64\[s\]"),
    "no utterances": ({"embedding": np.zeros((0, 3)), "speaker": [], "emotion": []}, "speaker is float64|has no utterances"),
    "no dimensions": ({"embedding": np.zeros((6, 0))}, "the embedding has no dimensions; expected numbers"),
    "lengths": ({"speaker": ["a"] * 5}, "embedding has 6 rows, speaker has 5; expected one per utterance"),
    "a matrix of speakers": ({"speaker": [["a"]] * 6}, r"speaker is <U1 of shape \(6, 1\); expected text or integers"),
    "speakers as fractions": ({"speaker": np.arange(6.0)}, r"speaker is float64 of shape \(6,\); expected text or integers"),
    "not UTF-8": ({"speaker": np.array([b"\xff"] * 6)}, "speaker contains bytes that are not UTF-8 text"),
    "half a character": ({"speaker": ["\ud800"] * 6}, "speaker contains characters that cannot be encoded in UTF-8"),
    "NaN": (
        {"embedding": [[0.0], [np.nan], [0], [np.inf], [1e300], [0]]},
        "the embedding of row 2, row 4, row 5 contains NaN, inf",
    ),
}


@pytest.mark.parametrize("case", INVALID_ARRAYS)
def test_invalid_arrays_are_refused(tmp_path, case):
    changes, text = INVALID_ARRAYS[case]
    with pytest.raises(AuditError, match=text):
        read_embeddings(npz(tmp_path, **changes))


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, **content() | {"speaker": np.array(SPEAKERS, dtype=object)})
    with pytest.raises(
        AuditError, match=r"Object arrays cannot be loaded.*; save labels as text, np.array\(labels, dtype=str\)$"
    ):
        read_embeddings(path)


def test_a_bare_array_is_refused(tmp_path):
    with open(tmp_path / "t.npz", "wb") as file:
        np.save(file, content()["embedding"])
    with pytest.raises(AuditError, match="is an .npy array, expected an .npz file of arrays"):
        read_embeddings(tmp_path / "t.npz")


INVALID_CELLS = {
    "a separator": ({"d1": [1, 2, "1_0", 4, 5, 6]}, "d1 in row 3 is '1_0'; a dimension needs a number in every row"),
    "a word": ({"d1": [1, 2, "loud", 4, 5, 6]}, "d1 in row 3 is 'loud'; a dimension needs a number in every row"),
    "a gap": ({"d1": [1, "", 3, 4, 5, 6]}, "d1 in row 2 is ''; a dimension"),
    "NaN": ({"d1": [1, 2, 3, 4, "nan", "-inf"]}, "the embedding of row 5, row 6 contains NaN"),
    "ids of NaN": ({"d1": ["nan"] * 6, "id": list("abcdef")}, "the embedding of a, b, c, d, e and 1 more contains NaN"),
    "no numbers": (
        dict.fromkeys(["d0", "d1", "d2"]),
        "no dimensions; expected numbers, in a text table one column per dimension",
    ),
    "decimal commas": (
        {"d0": ['"0,5"'] * 6, "d1": ['"1,5"'] * 6, "d2": None},
        r"no dimensions; expected numbers, in a text table one column per dimension.*found d0 \('0,5'\), d1 \('1,5'\)",
    ),
    "lists as text": (
        {"d0": ['"[0.1, 0.2, 0.3, 0.4, 0.5]"'] * 6, "d1": None, "d2": None},
        r"no dimensions; .*; found d0 \('\[0.1, 0.2, 0.3, 0.4,'\.\.\.\)",
    ),
    "an open quote": ({"speaker": ['"a', "a", "a", "a", "a", 'b"']}, "cannot be read as a CSV table|contains further rows"),
}


@pytest.mark.parametrize("case", INVALID_CELLS)
def test_invalid_cells_are_refused(tmp_path, case):
    changes, text = INVALID_CELLS[case]
    with pytest.raises(AuditError, match=text):
        read_embeddings(csv(tmp_path, **changes))


INVALID_FILES = {
    "": "is empty, expected a CSV table in UTF-8",
    "speaker,d0": "has no utterances",
    "speaker,d0\n": "has no utterances",
    "speaker,d0\na,1\nb\n": "cannot be read as a CSV table",
    "speaker,d0\na,1\nb,2,3\n": "cannot be read as a CSV table",
    "speaker,d0,d0\na,1,2\n": "column d0 occurs more than once",
    "name;d0\na;1\n": r"no speaker; found name, d0\. If",
    "speaker;d0\na;1;5\n": "cannot be read as a CSV table",
}


@pytest.mark.parametrize("text", INVALID_FILES)
def test_invalid_text_files(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(AuditError, match=INVALID_FILES[text]):
        read_embeddings(tmp_path / "t.csv")


def test_a_table_of_a_spreadsheet_with_semicolons_and_decimal_commas_is_that_with_commas_and_points(tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 3)).round(3)
    rows = [("speaker", "dim_0", "dim_1", "dim_2"), *((f"s{n % 4}", *values[n]) for n in range(40))]
    for name, sign, point in (("points", ",", "."), ("commas", ";", ","), ("mixed", ";", ".")):
        text = "\n".join(sign.join(str(cell).replace(".", point) for cell in row) for row in rows)
        (tmp_path / f"{name}.csv").write_text(text)
        table = read_embeddings(tmp_path / f"{name}.csv")[0]
        np.testing.assert_array_equal(table.embedding, values)
        assert len(set(table.speaker)) == 4


def test_a_missing_file_a_folder_and_an_unknown_ending_are_refused(tmp_path):
    with pytest.raises(AuditError, match=r"^no such file: .*missing\.csv$"):
        read_embeddings(tmp_path / "missing.csv")
    for name in ("folder.npz", "run"):
        (tmp_path / name).mkdir()
        with pytest.raises(AuditError, match=f"{name} is a folder, not a table of embeddings; `siser evaluate` audits a run"):
            read_embeddings(tmp_path / name)
    with pytest.raises(AuditError, match=r"t\.npy: unknown ending '\.npy', did you mean '\.npz'\? Expected one of: \.npz, \.csv"):
        read_embeddings(tmp_path / "t.npy")


def test_a_repeated_array_is_refused(tmp_path):
    path, file = npz(tmp_path), io.BytesIO()
    np.save(file, np.zeros((6, 1)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("embedding", file.getvalue())
    with pytest.raises(AuditError, match="column embedding occurs more than once"):
        read_embeddings(path)


def test_a_large_table_is_read(tmp_path):
    embedding = np.random.default_rng(0).normal(size=(2_000, 128)).astype(np.float32)
    columns = {f"d{index}": embedding[:, index] for index in range(128)} | {
        "speaker": np.repeat([f"{number:03}" for number in range(100)], 20)
    }
    pyarrow.csv.write_csv(pyarrow.table(columns), tmp_path / "t.csv")
    table, *_ = read_embeddings(tmp_path / "t.csv")
    assert np.array_equal(table.embedding.astype(np.float32), embedding) and len(set(table.speaker)) == 100


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip, remove, repeat or insert random bytes."""
    first, last = sorted(rng.integers(0, len(data), 2))
    inserted = rng.integers(0, 256, rng.integers(1, 100), dtype=np.uint8).tobytes()
    flipped = bytearray(data)
    for position in rng.integers(0, len(data), rng.integers(1, 9)):
        flipped[position] = rng.integers(0, 256)
    damaged = [bytes(flipped)] * 4 + [data[:first], data[:first] + data[last:], data[:last] + data[first:]]
    return [*damaged, data[:first] + inserted + data[first:]][rng.integers(8)]


@pytest.mark.parametrize("kind", ["npz", "csv", "tsv"])
def test_damaged_files_are_refused_or_read(tmp_path, kind):
    path = WRITERS[kind](tmp_path, id=list("abcdef"), scored=[1, 0, 1, 1, 0, 1])
    whole, read, refused = path.read_bytes(), 0, 0
    for number in range(300):
        path.write_bytes(damage(whole, np.random.default_rng([number, len(kind)])))
        try:
            table, *_ = read_embeddings(path)
        except AuditError:
            refused += 1
            continue
        read += 1
        assert len({len(table.embedding), *(len(getattr(table, name)) for name in ("id", "speaker", "emotion", "scored"))}) == 1
        assert np.isfinite(table.embedding).all() and all(table.speaker) and table.scored.any()
    assert read and refused, "some mutations should be harmless and some not"


def test_a_small_file_that_unpacks_to_more_than_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, embedding=np.zeros((1000, 100)), speaker=np.array(["s"]))
    with pytest.raises(AuditError, match="embedding has 1,000 rows, speaker has 1; expected one per utterance"):
        read_embeddings(path)
    monkeypatch.setattr("speaker_invariant_ser.data.tables.columns.available_memory", lambda: 10**6)
    with pytest.raises(AuditError, match="bomb.npz: its arrays take 0.0 GB of memory, and 0.0 GB are available"):
        read_embeddings(path)


def test_a_parquet_table_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("speaker_invariant_ser.data.tables.columns.available_memory", lambda: 100)
    with pytest.raises(AuditError, match="v.parquet: 6 rows of 2 columns take 0.0 GB of memory, and 0.0 GB are available"):
        read_embeddings(vectors(tmp_path, LISTS["list"], list(NUMBERS)))


@pytest.mark.parametrize("content", ["lists", "dictionary"])
def test_a_small_parquet_file_of_gigabytes_is_refused(tmp_path, monkeypatch, content):
    path = tmp_path / "a.parquet"
    repeated = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(400, np.int32)), pyarrow.array(["x" * 10**6]))
    zeros = pyarrow.array(np.zeros(2 * 10**7, np.float16))
    held = pyarrow.FixedSizeListArray.from_arrays(zeros, 10**7) if content == "lists" else repeated
    rows = len(held)
    pyarrow.parquet.write_table(pyarrow.table({"speaker": ["a", "b"] * (rows // 2), "x": held}), path, compression="zstd")
    monkeypatch.setattr(processes, "available_memory", lambda: 2 * 10**7)  # the file itself is small
    with pytest.raises(AuditError, match="its content does not fit into memory"):
        read_embeddings(path)


def test_a_label_of_ten_thousand_characters_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", embedding=np.eye(4), speaker=np.array(["a", "b", "a", "b" * 10_001]))
    with pytest.raises(AuditError, match="speaker in row 4 has 10,001 characters, expected at most 10,000"):
        read_embeddings(tmp_path / "a.npz")
