"""Names that are equal to a person are one name or a decision of the user's; words for missing values are no names."""

import csv
import html
import json
import re
import unicodedata
import urllib.parse
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from helpers import section

from speaker_invariant_ser.audit.inputs.read_embeddings import read_embeddings
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data.labels import map_labels
from speaker_invariant_ser.data.manifest import Listing, Utterance, combine, select
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import make_splits
from speaker_invariant_ser.data.tables import names
from speaker_invariant_ser.data.tables.columns import read_rows
from speaker_invariant_ser.data.tables.custom import Request, read_table
from speaker_invariant_ser.errors import AuditError, ManifestError, SplitError

VALUES = ["Jörg", "anna", "3", "de la Cruz", "রহমান ক্‌ষ"]
SAME = {  # rewritings that nobody sees
    "normal form": lambda name: unicodedata.normalize("NFD", name),
    "zero width": lambda name: f"{name[0]}\u200b{name[1:]}\ufeff",
    "outer blanks": lambda name: f" \u00a0{name}\t",
    "other blanks": lambda name: name.replace(" ", "\u00a0"),
    "joiners": lambda name: name.replace("\u200c", ""),
    "variation selector": lambda name: name + "\ufe0f",
}
ALIKE = {  # rewritings that a person sees
    "case": lambda name: name.upper(),
    "leading zeros": lambda name: f"00{name}" if name.isdigit() else name,
    "decimals": lambda name: f"{name}.0" if name.isdigit() else name,
    "inner blanks": lambda name: name.replace(" ", "  "),
    "wide letters": lambda name: name.replace("a", "ａ").replace("3", "３"),
    "digits of another script": lambda name: name.replace("3", "٣"),
    "separators": lambda name: name.replace(" ", "_"),
    "no separators": lambda name: name.replace(" ", ""),
    "other accents": lambda name: name.replace("ö", "ő").replace("a", "à"),
    "a point": lambda name: f"{name}." if name.isascii() else name,
    "Cyrillic letters": lambda name: name.replace("a", "\u0430"),
    "Greek letters": lambda name: name.replace("r", "R").replace("n", "N").replace("a", "\u03b1"),
    "umlauts as two letters": lambda name: name.replace("ö", "oe"),
    "powers of ten": lambda name: f"{name}.00E+00" if name.isdigit() else name,
    "decimal commas": lambda name: f"{name},00" if name.isdigit() else name,
    "plus": lambda name: f"+{name}" if name.isdigit() else name,
    "quotes": lambda name: f'"{name}"',
    "typographic quotes": lambda name: f"\u201e{name}\u201c",
    "a spreadsheet's apostrophe": lambda name: f"'{name}",
    "a spreadsheet's formula": lambda name: f'="{name}"',
    "Python's bytes": lambda name: f"b'{name}'",
    "a file system's signs": lambda name: name.replace(" ", ":"),
    "percent signs": lambda name: urllib.parse.quote(name),
    "entities": lambda name: html.escape(name).replace("ö", "&ouml;"),
    "UTF-8 read as Latin-1": lambda name: name.encode().decode("latin-1"),
    "UTF-8 read as DOS text": lambda name: name.encode().decode("cp437"),
    "UTF-8 read as text of a Mac": lambda name: name.encode().decode("mac_roman"),
    "UTF-8 read as Chinese": lambda name: name.encode().decode("gbk", "ignore") if name == "Jörg" else name,
    "UTF-8 read wrongly twice": lambda name: name.encode().decode("latin-1").encode().decode("latin-1"),
    "JSON's escapes": lambda name: json.dumps(name)[1:-1],
    "Python's text": ascii,
    "Python's bytes of UTF-8": lambda name: str(name.encode()),
    "NumPy's numbers": lambda name: f"np.int64({name})" if name.isdigit() else name,
    "letters that ASCII lacks": lambda name: name.encode("ascii", "replace").decode() if name == "Jörg" else name,
    "letters that UTF-8 lacks": lambda name: name.encode("latin-1").decode("utf-8", "replace") if name == "Jörg" else name,
    "form fields": lambda name: urllib.parse.quote_plus(name),
    "a hash": lambda name: f"#{name}",
}
COLUMNS = ("speaker", "emotion", "text", "session", "language", "style", "intensity", "repetition")


def write_table(path: Path, rows: list[dict[str, str]], encoding: str = "utf-8") -> Path:
    with open(path, "w", encoding=encoding, newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


def rows_with(column: str, rewrite) -> list[dict[str, str]]:
    """Return rows in which a column has VALUES, half of them rewritten."""
    rows = []
    for number in range(20):
        value = rewrite(VALUES[number % 5]) if number % 10 > 4 else VALUES[number % 5]
        rows.append({"path": f"{number}.wav", "speaker": f"s{number % 4}", "emotion": f"e{number % 3}", column: value})
    return rows


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("way", SAME)
def test_spellings_that_look_the_same_are_one_name(tmp_path, column, way):
    table = write_table(tmp_path / "t.csv", rows_with(column, SAME[way]))
    listing = read_table(Request(table))
    assert {names.same_key(getattr(u, column)) for u in listing.utterances} == {names.same_key(value) for value in VALUES}
    assert len({getattr(u, column) for u in listing.utterances}) == len(VALUES)
    raw = {row[column].strip() for row in rows_with(column, SAME[way])}
    assert bool(listing.notes) == (len(raw) > len(VALUES)), listing.notes


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("way", ALIKE)
def test_names_that_are_alike_are_an_error_or_a_named_note(tmp_path, column, way):
    table = write_table(tmp_path / "t.csv", rows_with(column, ALIKE[way]))
    given = {names.clean(row[column]) for row in rows_with(column, ALIKE[way])}
    different = sorted(given - set(VALUES))
    assert different, "the test rewrites something"
    if column == "speaker":
        with pytest.raises(ManifestError, match=r"speaker .*may be one person.*--same-speaker.*--distinct-speakers") as error:
            read_table(Request(table))
        escaped = {name: ascii(name).replace("  ", r" \x20") for name in different}
        shown = [escaped[name] if " ".join(names.latin(name).split()) in VALUES else f"'{name}'" for name in different]
        assert all(name in str(error.value) for name in shown) or "more" in str(error.value)
        together = read_table(Request(table, same_speaker=True))
        assert len({u.speaker for u in together.utterances}) == len(VALUES) and "one speaker" in together.notes[-1]
        apart = read_table(Request(table, same_speaker=False))
        assert {u.speaker for u in apart.utterances} == given and "different speakers" in apart.notes[-1]
    elif column == "emotion":
        listing = read_table(Request(table))
        assert names.groups({u.emotion for u in listing.utterances}), "shortcuts warn of them"
    else:
        assert any(note.startswith(f"{column} '") and "count as different" in note for note in read_table(Request(table)).notes)


def test_words_of_a_column_of_sexes_and_partitions_are_read_in_any_spelling(tmp_path):
    cells = [("F", "Train"), ("FEMALE", "validation"), ("\u200bfemale ", "TEST"), ("w", "devel")]
    rows = [{"path": f"{n}.wav", "speaker": "1", "emotion": "a", "sex": s, "partition": p} for n, (s, p) in enumerate(cells)]
    listing = read_table(Request(write_table(tmp_path / "t.csv", rows)))
    assert [(u.sex, u.partition) for u in listing.utterances] == [("female", p) for p in ("train", "dev", "test", "dev")]
    assert not listing.notes


@pytest.mark.parametrize("rewrite", [*SAME.values(), *ALIKE.values()], ids=[*SAME, *ALIKE])
def test_audited_tables_follow_the_same_rule(tmp_path, rewrite):
    speaker = [*VALUES, *map(rewrite, VALUES)] * 3
    np.savez(tmp_path / "t.npz", embedding=np.random.default_rng(0).normal(size=(30, 4)), speaker=np.array(speaker))
    if rewrite in SAME.values():
        embeddings, _, notes = read_embeddings(tmp_path / "t.npz")
        assert len(set(embeddings.speaker)) == len(VALUES)
        assert bool(notes) == (len({name.strip() for name in speaker}) > len(VALUES))
    else:
        with pytest.raises(AuditError, match=r"t\.npz: speaker .*may be one person.*--same-speaker"):
            read_embeddings(tmp_path / "t.npz")
        assert len(set(read_embeddings(tmp_path / "t.npz", same_speaker=True).embeddings.speaker)) == len(VALUES)
        distinct = read_embeddings(tmp_path / "t.npz", same_speaker=False)
        assert len(set(distinct.embeddings.speaker)) > len(VALUES) and "different speakers" in distinct.notes[0]


DIFFERENT = [
    ("s1", "s10"),
    ("1.05", "1.5"),
    ("1 1", "11"),
    ("0", "00x"),
    ("1_1", "11"),
    ("1e3", "1"),
    ("0e3", "0e4"),
    ("1.000", "1000"),
    ("001 002", "1002"),
    ("Joe", "Jo"),
    ("Lee, Kim", "Park, Lee"),
    ("-1", "1"),
    ("2021_1_11", "2021_11_1"),
]
DIFFERENT += [("Möller", "Müller"), ("王小明", "李雷"), ("Wer", "Wo?")]
DIFFERENT += [("spk_1_2", "spk_12"), ("1.5", "15"), ("\u041c\u0430\u0440\u0438\u044f", "Mapu"), ("\u0436", "x")]


ALIKE_PAIRS = [("İrem", "irem"), ("IŞIK", "ışık"), ("Łukasz", "Lukasz"), ("Sørø", "SORO"), ("Nguyễn", "nguyen")]
ALIKE_PAIRS += [("+49 30 1234", "0049301234"), ("030/123-4567", "030 1234567"), ("Семён", "Семен")]
ALIKE_PAIRS += [
    ("Müller", "Mueller"),
    ("Müller", "MULLER"),
    ("Groß", "gross"),
    ("Bjørn", "Bjoern"),
    ("Åse", "Aase"),
    ("Æsa", "Aesa"),
]
ALIKE_PAIRS += [
    ("1e3", "1000"),
    ("1.0E+03", "1000"),
    ("1,00E+03", "1e3"),
    ("1e+05", "100000"),
    ("1,000", "1000"),
    ("1 000", "1000"),
    ("1,5", "1.5"),
    ("1.10", "1.1"),
]
ALIKE_PAIRS += [
    ("O\u00b4Brien", "O'Brien"),
    ("O\u2019Brien", "OBrien"),
    ("O&#39;Brien", "O'Brien"),
    ("\uff71\uff9d\uff85", "アンナ"),
]
ALIKE_PAIRS += [
    ("Müller, Anna", "Anna Mueller"),
    ("Müller, Anna", "Müller Anna"),
    ("علي", "علی"),
    ("أحمد", "احمد"),
    ("MÃ¼ller", "Mueller"),
    ("Mart\u00c3\u00adnez", "Martínez"),
    ("РђРЅРЅР°", "Анна"),
    ("?ukasz Müller", "Łukasz Müller"),
    ("A&amp;amp;B", "A&B"),
]


@pytest.mark.parametrize("first, second", ALIKE_PAIRS)
def test_names_of_people_and_telephone_numbers_are_alike_in_their_usual_spellings(first, second):
    assert names.groups([first, second]) == [sorted([first, second])]


@pytest.mark.parametrize("first, second", DIFFERENT)
def test_different_names_stay_different_without_a_word(tmp_path, first, second):
    rows = [{"path": f"{n}.wav", "speaker": name, "emotion": "a"} for n, name in enumerate((first, second))]
    listing = read_table(Request(write_table(tmp_path / "t.csv", rows)))
    assert [u.speaker for u in listing.utterances] == [first, second] and not listing.notes


def test_the_command_line_names_both_spellings_and_takes_the_decision(tmp_path, capsys):
    rows = []
    for number in range(6):
        soundfile.write(tmp_path / f"{number}.wav", np.random.default_rng(number).uniform(-0.3, 0.3, 4000), 16_000)
        rows.append({"path": f"{number}.wav", "speaker": ("Jörg", "Jo\u0308rg", "3", "03", "a", "a")[number], "emotion": "x"})
    command = ["prepare", "csv", str(write_table(tmp_path / "t.csv", rows))]
    assert siser([*command, str(tmp_path / "no"), "--jobs", "1"]) == 2
    error = capsys.readouterr().err
    assert "speaker '03' and '3' may be one person" in error and "--same-speaker" in error and not (tmp_path / "no").exists()
    for option, speakers in (("--same-speaker", 3), ("--distinct-speakers", 4)):
        assert siser([*command, str(tmp_path / option[2:]), "--jobs", "1", option]) == 0
        assert PreparedCorpus.open(tmp_path / option[2:]).settings["counts"]["speakers"] == speakers
        assert r"warning: speaker 'Jo\u0308rg' and 'J\xf6rg': one name in several spellings" in capsys.readouterr().err


def utterances_of(speakers: list[str]) -> list[Utterance]:
    return [Utterance(f"{s} {e}", "c", s, e, session=s, source=f"{s}{e}") for s in speakers for e in ("Ärger", "Freude")]


def test_options_and_maps_find_names_in_another_normal_form():
    utterances = utterances_of(["Jörg", "b", "c", "d", "e"])
    decomposed = unicodedata.normalize("NFD", "Jörg")
    (split,) = make_splits(section("split", scheme="fixed", test=[decomposed], dev=["b\u200b"]), utterances)
    assert split.test == ("Jörg",) and split.dev == ("b",)
    (selected,) = select([Listing(utterances)], [("speaker", decomposed)])
    assert {u.speaker for u in selected.utterances} == {"Jörg"}
    mapped, _ = map_labels({unicodedata.normalize("NFD", "Ärger"): "angry", "Freude": "happy"}, utterances)
    assert {u.emotion for u in mapped} == {"angry", "happy"}
    with pytest.raises(ManifestError, match="two corpora are named 'Nemo' and 'nemo'"):
        combine([Listing([Utterance("1", name, "1", "a", source="a")]) for name in ("nemo", "Nemo")])


def test_a_corpus_with_one_name_in_two_normal_forms_is_not_split():
    with pytest.raises(SplitError, match="one name in several spellings; prepare the corpus again"):
        make_splits(section("split"), utterances_of(["Jörg", unicodedata.normalize("NFD", "Jörg"), "b", "c", "d"]))


MISSING = ["nan", "NaN", "None", "null", "NULL", "N/A", "n/a", "NA", "<NA>", "-", "?", "undefined", "#N/A", " nan "]
MISSING += [
    "n.a.",
    "\u2013",
    "\u2014",
    "---",
    "...",
    "none.",
    "TBD",
    "Missing",
    "unlabeled",
    "#REF!",
    "not available",
    "_",
    "not_annotated",
    "Pending",
]
MISSING += ["(none)", "[NULL]", "'-'", "\\N", "no label", "<none>", "Keine Angabe", "no disponible", "н/д"]


@pytest.mark.parametrize("word", MISSING)
@pytest.mark.parametrize("column", ["speaker", "emotion"])
def test_words_for_missing_values_are_refused_in_every_kind_of_own_data(tmp_path, word, column):
    good = {"speaker": "1", "emotion": "sad"}
    rows = [{"path": f"{n}.wav", **good} for n in range(3)]
    rows[1][column] = word
    table = write_table(tmp_path / "t.csv", rows)
    with pytest.raises(ManifestError, match=rf"{column} in row 2 is '.*', which stands for a missing value\. Fill in") as error:
        read_table(Request(table))
    assert ("--unlabelled" in str(error.value)) == (column == "emotion")
    if column == "emotion":
        unlabelled = read_table(Request(table, unlabelled=True)).utterances
        assert [u.emotion for u in unlabelled] == ["sad", "", "sad"]
    embedding = np.random.default_rng(0).normal(size=(3, 2))
    np.savez(tmp_path / "t.npz", embedding=embedding, **{name: [row[name] for row in rows] for name in good})
    expected = rf"""empty {column} in row 2 \(['"].*['"], which stands for a missing value\)"""
    if column == "emotion":
        embeddings, _, notes = read_embeddings(tmp_path / "t.npz")
        assert set(embeddings.emotion) == {""} and re.match(expected, notes[0])
        return
    with pytest.raises(AuditError, match=expected):
        read_embeddings(tmp_path / "t.npz")


def test_missing_words_in_optional_columns_are_empty(tmp_path):
    optional = dict.fromkeys(("text", "sex", "session", "style", "partition"), "NaN")
    numbers = {"start": "nan", "end": "None", "id": "null"}
    rows = [{"path": "a.wav", "speaker": "Nan", "emotion": "none of these", **optional, **numbers}]
    with pytest.raises(ManifestError, match="speaker in row 1 is 'Nan'"):
        read_table(Request(write_table(tmp_path / "t.csv", rows)))
    (only,) = read_table(Request(write_table(tmp_path / "t.csv", [{**rows[0], "speaker": "Nana"}]))).utterances
    assert (only.emotion, only.start, only.end, only.id) == ("none of these", 0, 0, "a.wav")
    assert {getattr(only, name) for name in optional} == {""}


@pytest.mark.parametrize("word", ["nan", "TBD", "-"])
def test_a_folder_rejects_the_files_whose_names_say_that_a_label_is_missing(tmp_path, word, capsys):
    for name in (f"in/a/{word}.wav", f"in/{word}/sad.wav", "in/b/sad.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        soundfile.write(tmp_path / name, np.random.default_rng(0).uniform(-0.3, 0.3, 4000), 16_000)
    command = ["prepare", "folder", str(tmp_path / "in"), str(tmp_path / "out"), "--pattern", "{speaker}/{emotion}.wav"]
    assert siser(command) == 0 and "2 files rejected" in capsys.readouterr().err
    (kept,) = PreparedCorpus.open(tmp_path / "out").utterances
    rejected = {row["file"]: row["reason"] for row in read_rows(tmp_path / "out" / "rejected.csv", ())}
    reasons = {name: f"its {name} is '{word}', which stands for a missing value" for name in ("speaker", "emotion")}
    assert kept.source == "b/sad.wav" and len(rejected) == 2
    assert rejected[f"a/{word}.wav"] == reasons["emotion"] and set(rejected.values()) == set(reasons.values())
    (tmp_path / "in/b/sad.wav").unlink()
    assert siser([*command[:3], str(tmp_path / "other"), *command[4:]]) == 2
    assert "none of 2 files can be used, the first: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "word", ["unknown", "Other", "mixed", "k. A.", "Unbekannt", "-1", "\u2212999", "99", "999.0", "4.91701E+11"]
)
def test_labels_that_say_nothing_are_kept_with_a_named_warning(tmp_path, word):
    rows = [{"path": f"{n}.wav", "speaker": word if n else "a", "emotion": word if n > 2 else "sad"} for n in range(5)]
    listing = read_table(Request(write_table(tmp_path / "t.csv", rows)))
    assert [(u.speaker, u.emotion) for u in listing.utterances] == [(row["speaker"], row["emotion"]) for row in rows]
    assert [note.split(" counts as ")[0] for note in listing.notes] == [
        f"speaker '{word}' (4 rows)",
        f"emotion '{word}' (2 rows)",
    ]
    np.savez(tmp_path / "t.npz", embedding=np.random.default_rng(0).normal(size=(5, 2)), speaker=[row["speaker"] for row in rows])
    assert read_embeddings(tmp_path / "t.npz").notes == [listing.notes[0]]


def test_codes_among_numbers_are_named_where_they_are_unlike_the_others_in_every_column_that_groups(tmp_path):
    for cells, codes in ("12345", ["-1"]), (["-1", "0", "1"], []), (["97", "98", "99"], []), ("12345", ["999"]):
        names = [*cells, *codes]
        rows = [{"path": f"{n}.wav", "speaker": name, "emotion": "a", "recording": name} for n, name in enumerate(names)]
        notes = read_table(Request(write_table(tmp_path / "t.csv", rows))).notes
        assert [note.split(" counts")[0] for note in notes] == [
            f"{column} '{code}' (1 row)" for column in ("speaker", "recording") for code in codes
        ]


def test_words_for_missing_values_and_spellings_count_in_every_label_of_an_audited_table(tmp_path):
    embedding = np.random.default_rng(0).normal(size=(6, 2))
    recording = ["nan", "None", "Jörg", unicodedata.normalize("NFD", "Jörg"), "n/a", "x"]
    np.savez(tmp_path / "t.npz", embedding=embedding, speaker=list("aabbcc"), recording=recording, text=recording)
    table = read_embeddings(tmp_path / "t.npz").embeddings
    assert len(set(table.group)) == 5 and table.group[2] == table.group[3]
    assert table.text.tolist() == ["", "", "Jörg", "Jörg", "", "x"]


BASE = [{"path": f"{n}.wav", "speaker": f"s{n % 2}", "emotion": "sad"} for n in range(4)]
OPTIONAL_CELLS = {
    "a third sex": ("sex", ["f", "other", "f", "other"], "sex 'other' (2 rows): expected female or male; left empty"),
    "a blank among sexes": ("gender", ["f", "m", "", "m"], ""),
    "two sexes": ("sex", ["f", "m", "m", "m"], "speaker s0 has more than one sex: left empty"),
    "unknown partitions": ("partition", ["fold1", "fold2", "fold1", "fold2"], "partition 'fold1' (2 rows), 'fold2' (2 rows)"),
    "ids that repeat": ("id", ["1", "1", "2", "3"], "id 1 occurs more than once: paths are used as ids"),
    "a cell too long": ("text", ["x", "b" * 10_001, "y", "z"], "text in row 2 has more than 10,000 characters"),
    "a sex too long": ("sex", ["f", "b" * 999, "f", ""], f"sex '{'b' * 199}... (1 row): expected female or male; left empty"),
    "the character NUL": ("recording", ["x", "y\0", "x", "z\0"], "recording in row 2, 4 has more than 10,000 characters, or"),
    "a line break": ("text", ["two\nlines", "x", "y", "z"], ""),
    "a nobody's column": ("remark", ["two\nlines", "\0", "it’s", "ü"], ""),
}


@pytest.mark.parametrize("case", OPTIONAL_CELLS)
def test_an_optional_column_rejects_no_table(tmp_path, case):
    column, cells, note = OPTIONAL_CELLS[case]
    table = write_table(tmp_path / "t.csv", [{**row, column: cell} for row, cell in zip(BASE, cells, strict=True)])
    listing = read_table(Request(table))
    assert [[u.source, u.speaker, u.emotion] for u in listing.utterances] == [list(row.values()) for row in BASE]
    assert len(listing.notes) == bool(note) and all(text.startswith(note) for text in listing.notes)
    assert len({u.id for u in listing.utterances}) == 4


def test_a_blank_sex_is_that_of_the_speaker(tmp_path):
    rows = [{**row, "gender": cell} for row, cell in zip(BASE, ["f", "m", "", "m"], strict=True)]
    assert [u.sex for u in read_table(Request(write_table(tmp_path / "t.csv", rows))).utterances] == ["female", "male"] * 2


@pytest.mark.parametrize("column", ["path", "speaker", "emotion", "text", "remark"])
def test_bytes_that_are_not_utf8_matter_only_where_they_are_needed(tmp_path, column):
    rows = [{**row, "text": "t", "remark": "r"} for row in BASE]
    rows[2][column] = "it’s fine…"
    table = write_table(tmp_path / "t.csv", rows, "cp1252")
    if column in ("path", "speaker", "emotion"):
        with pytest.raises(ManifestError, match=rf"{column} in row 3 is .*, which is not UTF-8; save the table again as UTF-8"):
            read_table(Request(table))
    else:
        listing = read_table(Request(table))
        assert listing.utterances[2].text == ("it’s fine…" if column == "text" else "t")
        assert listing.notes == ["text is not UTF-8: read as Windows-1252"] * (column == "text")


def test_names_of_columns_are_compared_as_names_of_speakers_are(tmp_path):
    rows = [{"Ko\u0308nig": row["speaker"], "e\u200bmotion": row["emotion"], "path\u00a0": row["path"]} for row in BASE]
    request = Request(write_table(tmp_path / "t.csv", rows), columns={"speaker": "K\u00f6nig"})
    assert [utterance.speaker for utterance in read_table(request).utterances] == [row["speaker"] for row in BASE]
    request = Request(write_table(tmp_path / "t.csv", rows), columns={"speaker": "Ko\u0308nig\u200b"})
    assert len(read_table(request).utterances) == len(BASE)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_what_separates_the_columns_is_seen_in_their_names(tmp_path, separator):
    """Spreadsheets write semicolons, and commas in numbers, where the comma is the decimal sign."""
    rows = [
        '\ufeffpath|speaker|emotion|"note, or; more"|start|end|arousal',
        *(f"a,{n}.wav|Müller, Anna|sad|1,{n}|0,5|{n},25|0,{n}" for n in (1, 2)),
    ]
    (tmp_path / "t.csv").write_text("\r\n".join(rows).replace("|", separator), encoding="utf-8")
    if separator == "\t":  # which is the decimal sign, only semicolons tell
        with pytest.raises(ManifestError, match="start in row 1 is '0,5' and in 1 more row: expected seconds, such as 12.5"):
            read_table(Request(tmp_path / "t.csv"))
        return
    first, second = read_table(Request(tmp_path / "t.csv")).utterances
    assert (first.source, first.speaker, first.start, first.end, first.arousal) == ("a,1.wav", "Müller, Anna", 0.5, 1.25, 0.1)
    assert second.end == 2.25


@pytest.mark.parametrize("cell", ["1,000", "12,345"])
def test_what_may_be_thousands_is_no_decimal_comma(tmp_path, cell):
    (tmp_path / "t.csv").write_text(f"path;speaker;emotion;end\na.wav;1;sad;{cell}\n")
    with pytest.raises(ManifestError, match=f"end in row 1 is '{cell}': expected seconds"):
        read_table(Request(tmp_path / "t.csv"))


def test_another_separator_of_a_tsv_is_named(tmp_path):
    (tmp_path / "t.tsv").write_text("path,speaker,emotion\na.wav,1,sad\n")
    with pytest.raises(
        ManifestError, match=r"no column path, speaker, emotion; .*\(separated otherwise\? Tabs are expected in a \.tsv"
    ):
        read_table(Request(tmp_path / "t.tsv"))


def test_utf16_is_named(tmp_path):
    with pytest.raises(ManifestError, match="is text in UTF-16, expected a CSV table in UTF-8; save it in that form"):
        read_table(Request(write_table(tmp_path / "t.csv", BASE, "utf-16")))


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_the_character_nul_is_named(tmp_path, ending):
    table, rows = tmp_path / f"t{ending}", [dict(row) for row in BASE]
    rows[2]["speaker"] += "\0"
    if ending == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    else:
        mark = "," if ending == ".csv" else "\t"
        table.write_text("\n".join([mark.join(rows[0]), *(mark.join(row.values()) for row in rows)]))
    with pytest.raises(ManifestError, match=f"t{ending}: speaker in row 3 holds the character NUL"):
        read_table(Request(table))


def test_rows_inside_an_unclosed_quotation_mark_are_an_error(tmp_path):
    (tmp_path / "t.csv").write_text('path,speaker,emotion,text\na.wav,1,sad,"no end\nb.wav,1,sad,x\nc.wav,2,sad,y"\n')
    with pytest.raises(ManifestError, match="text in row 1 contains further rows; check for an unclosed quotation mark"):
        read_table(Request(tmp_path / "t.csv"))
