"""Utterances that share audio are found, whatever was done to the copy, and never divided by a split, a hold-out or an audit."""

import csv
import io
from dataclasses import replace
from time import process_time

import numpy as np
import pytest
import soundfile
import soxr
from helpers import section

from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.folds import plan_folds
from speaker_invariant_ser.audit.inputs.read_embeddings import read_embeddings
from speaker_invariant_ser.audit.leakage import measure_leakage
from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.data.copies import WINDOW, known_by_copies, share_audio, with_copies
from speaker_invariant_ser.data.holdout import hold_out, independent_units, single_utterances
from speaker_invariant_ser.data.manifest import Utterance, read_manifest, write_manifest
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import Split, make_splits, require_emotions
from speaker_invariant_ser.data.tables.near_rows import copies
from speaker_invariant_ser.errors import SplitError

RATE = 16_000


def speech(seed: int, seconds: float = 2.0) -> np.ndarray:
    """Return noise whose level changes as that of syllables does."""
    rng, samples = np.random.default_rng(seed), int(seconds * RATE)
    syllables = np.interp(
        np.arange(samples), np.arange(0, samples + 3200, 1600), rng.gamma(1, 1, len(range(0, samples + 3200, 1600)))
    )
    sound = np.convolve(rng.standard_normal(samples), np.hanning(rng.integers(4, 20)), "same") * syllables
    return 0.3 * sound / np.abs(sound).max()


def noise(seed: int, seconds: float = 2.0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))


def coded(sound: np.ndarray, kind: str, subtype: str, rate: int = RATE) -> np.ndarray:
    """Return sound after a codec."""
    file = io.BytesIO()
    soundfile.write(file, soxr.resample(sound, RATE, rate), rate, format=kind, subtype=subtype)
    file.seek(0)
    return soxr.resample(soundfile.read(file)[0], rate, RATE)


WAYS = {
    "twice as loud": lambda sound: np.clip(2 * sound, -1, 1),
    "20 dB quieter": lambda sound: sound / 10,
    "mirrored": lambda sound: -sound,
    "MP3": lambda sound: coded(sound, "MP3", "MPEG_LAYER_III"),
    "Vorbis": lambda sound: coded(sound, "OGG", "VORBIS"),
    "Opus": lambda sound: coded(sound, "OGG", "OPUS"),
    "telephone": lambda sound: coded(sound, "WAV", "ULAW", 8000),
    "8 bits": lambda sound: coded(sound, "WAV", "PCM_U8"),
    "a window": lambda sound: sound[len(sound) // 3 :],
    "delayed": lambda sound: np.concatenate([np.zeros(801), sound]),
    "with an offset": lambda sound: sound + 0.05,
}


def groups_of(clips: dict[str, np.ndarray]) -> list[set[str]]:
    """Return the groups of utterances that share audio."""
    utterances, parts, offset = [], [], 0
    for name, clip in clips.items():
        parts.append(np.round(np.clip(clip, -1, 1) * 32767).astype(np.int16))
        utterances.append(Utterance(name, "c", "1", "a", source=name, offset=offset, samples=len(clip)))
        offset += len(clip)
    groups: dict[str, set[str]] = {}
    for utterance in with_copies(utterances, np.concatenate(parts)):
        if utterance.copies:
            groups.setdefault(utterance.copies, set()).add(utterance.id)
    return list(groups.values())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [speech, noise])
def test_a_copy_is_found_and_nothing_else(make, way):
    originals = {f"{number}": make(number) for number in range(16)}
    planted = {f"{number} again": WAYS[way](originals[f"{number}"]) for number in range(0, 16, 4)}
    groups = groups_of(originals | planted)
    assert all(len(group) == 2 and {name.split()[0] for name in group} & set(planted.keys() | originals) for group in groups)
    assert sorted(min(group) for group in groups) == sorted(name.split()[0] for name in planted)


def test_copies_of_steady_noise_are_found_though_other_moments_are_the_loudest():
    originals = {f"{number}": noise(number, 1.0) for number in range(40)}
    planted = {f"{number} again": sound + 0.45 * noise(100 + int(number), 1.0) for number, sound in originals.items()}
    assert sorted(map(len, groups_of(originals | planted))) == [2] * 40


def test_clips_without_copies_silence_and_short_clips_stay_alone():
    quiet = {"zeros": np.zeros(RATE), "zeros too": np.zeros(RATE), "short": speech(1)[:800], "short too": speech(1)[:800]}
    assert groups_of({f"{number}": speech(number, 0.5) for number in range(40)} | quiet) == []


def test_tones_of_one_pitch_are_near_copies_as_the_warning_says():
    times = np.arange(2 * RATE) / RATE
    tones = {f"{hertz} {phase}": 0.3 * np.sin(2 * np.pi * hertz * times + phase) for hertz in (200, 300) for phase in (0, 1)}
    assert groups_of({name: tone + noise(number) / 50 for number, (name, tone) in enumerate(tones.items())}) == [
        {"200 0", "200 1"},
        {"300 0", "300 1"},
    ]


def test_windows_of_one_recording_are_one_group():
    whole = speech(5, 12.0)
    windows = {f"{start}": whole[start * RATE // 2 : start * RATE // 2 + 3 * RATE] for start in range(18)}
    assert groups_of(windows | {"other": speech(6, 3.0)}) == [set(windows)]


@pytest.mark.parametrize("way", ["mirrored", "telephone"])
def test_windows_of_six_tenths_of_a_second_are_found(way):
    originals = {f"{number}": speech(number, 2.5) for number in range(30)}
    starts = np.random.default_rng(0).integers(0, 2.5 * RATE - 0.6 * RATE, 30).tolist()
    windows = {
        f"{number} again": WAYS[way](sound[start : start + int(0.6 * RATE)])
        for (number, sound), start in zip(originals.items(), starts, strict=True)
    }
    groups = groups_of(originals | windows)
    assert all({name.split()[0] for name in group} <= {min(group)} for group in groups) and len(groups) >= 27


def test_hum_before_and_after_speech_is_no_copy():
    times = np.arange(RATE) / RATE
    beats = np.convolve(np.arange(RATE) % 4000 == 2000, np.hanning(1600), "same")
    hum = 0.002 * beats * sum(np.sin(2 * np.pi * 150 * k * times) / k for k in range(1, 20))
    assert groups_of({f"{number}": np.concatenate([hum, speech(number), hum]) for number in range(12)}) == []


def test_a_loud_sound_at_the_edge_of_a_pause_hides_no_copy():
    """Moments of copies differ by some samples, so that the sound lies in the window of one of them alone."""
    at = 24_000
    sound = 0.01 * noise(1, 3.0)
    sound[: at - WINDOW // 2 + 30] += noise(2, 3.0)[: at - WINDOW // 2 + 30]
    clip = np.round(32767 * sound).astype(np.int16)
    assert share_audio(clip, clip[112:], at, at - 80)


def write_corpus(folder, rows, head):
    with open(folder / "t.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return folder / "t.csv"


@pytest.fixture(scope="module")
def windowed(tmp_path_factory):
    """Overlapping windows of two recordings of each of five speakers; one recording also as a mirrored MP3."""
    folder, rows = tmp_path_factory.mktemp("windows"), []
    for speaker in range(5):
        for number, emotion in enumerate(("sad", "happy")):
            sound = speech(10 * speaker + number, 6.0)
            soundfile.write(folder / f"{speaker}{emotion}.wav", sound, RATE)
            rows += [[f"{speaker}{emotion}.wav", speaker, emotion, at, at + 2] for at in range(5)]
            soundfile.write(folder / f"{speaker}{emotion}.flac", speech(500 + 10 * speaker + number, 2.0), RATE)
            rows.append([f"{speaker}{emotion}.flac", speaker, emotion, "", ""])
    soundfile.write(folder / "again.mp3", -speech(0, 6.0), RATE)
    rows.append(["again.mp3", 0, "sad", "", ""])
    table = write_corpus(folder, rows, ("path", "speaker", "emotion", "start", "end"))
    assert siser(["prepare", "csv", str(table), str(folder / "data"), "--jobs", "1", "--quiet"]) == 0
    return PreparedCorpus.open(folder / "data")


def test_prepare_marks_utterances_that_share_audio(windowed):
    groups = {}
    for utterance in windowed.utterances:
        groups.setdefault(utterance.copies, []).append(utterance)
    assert len(groups.pop("")) == 10, "the whole files"
    assert sorted(len(group) for group in groups.values()) == [5] * 9 + [6]
    assert all(group[0].id == name for name, group in groups.items())
    assert windowed.settings["notes"] == [
        "51 utterances share audio with others, as overlapping segments or near copies (10 groups): each group stays on one side "
        "of every split; synthetic sound that repeats, such as tones of one pitch, counts as copied, too"
    ]
    assert all(utterance.recorded_in == (utterance.source if utterance.end else "") for utterance in windowed.utterances)


def test_near_copies_with_other_labels_are_warned_of(tmp_path, capsys):
    for name, sound in {"a.wav": speech(1), "b.wav": -speech(1), "c.wav": speech(2)}.items():
        soundfile.write(tmp_path / name, sound, RATE)
    table = write_corpus(
        tmp_path, [["a.wav", 1, "sad"], ["b.wav", 2, "sad"], ["c.wav", 2, "happy"]], ("path", "speaker", "emotion")
    )
    assert siser(["prepare", "csv", str(table), str(tmp_path / "data"), "--jobs", "1", "--quiet"]) == 0
    warned = (tmp_path / "data" / "warned.csv").read_text()
    assert warned.splitlines()[1:] == ['b.wav,"shares audio with a.wav, with conflicting speakers (1, 2)"']
    assert "recordings of 1, 2 occur under the names of other speakers, too" in " ".join(capsys.readouterr().err.split())


def test_who_has_copies_of_a_learned_speakers_recordings_may_be_known():
    def clip(speaker: str, source: str) -> Utterance:
        return Utterance(f"{speaker} {source}", "c", speaker, "sad", source=source, copies="x")

    dialogue = [clip("1", "a.wav"), clip("2", "a.wav")]
    assert known_by_copies(dialogue, {"1"}, {"2"}) == set(), "two people who speak at once"
    renamed = [*dialogue, clip("3", "b.wav")]
    assert known_by_copies(renamed, {"1"}, {"2", "3"}) == {"3"} and known_by_copies(renamed, {"4"}, {"3"}) == set()
    started = process_time()
    assert known_by_copies(dialogue * 5000, {"1"}, {"2"}) == set(), "a long dialogue in overlapping segments is one group"
    assert process_time() - started < 2, "the time grows with the number of segments, not with that of their pairs"


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_no_held_out_utterance_shares_audio_with_training(windowed, share):
    splits = hold_out(make_splits(section("split"), windowed.utterances), windowed.utterances, share)
    for split in splits:
        copies_of = {
            p: {windowed.utterances[i].copies for i in split.indices(p, windowed.utterances)} for p in ("train", "held_out")
        }
        assert split.held_out and not (copies_of["train"] & copies_of["held_out"]) - {""}
        trained = [windowed.utterances[i] for i in split.indices("train", windowed.utterances)]
        assert {utterance.speaker for utterance in trained} == set(split.train)
        assert {utterance.emotion for utterance in trained} == {"sad", "happy"}


def relabelled(utterances, **changes):
    return [Utterance(f"{n}", "c", s, e, copies=c, source=f"{n}", **changes) for n, (s, e, c) in enumerate(utterances)]


def test_a_copy_under_another_name_is_not_trained_on_when_it_is_tested():
    rows = [(speaker, emotion, "") for speaker in "abcde" for emotion in ("sad", "happy") for _ in range(3)]
    rows[0], rows[7] = ("a", "sad", "0"), ("b", "sad", "0")
    utterances = relabelled(rows)
    for split in make_splits(section("split"), utterances):
        parts = {part: {utterances[i].id for i in split.indices(part, utterances)} for part in ("train", "dev", "test")}
        holders = [part for part, ids in parts.items() if ids & {"0", "7"}]
        assert len(holders) == 1, "both in one part, or one of them nowhere"
        assert ("a" in split.test) == ("0" in parts["test"]) and ("b" in split.test) == ("7" in parts["test"])


def test_recordings_are_held_out_whole_unless_a_speaker_has_only_one():
    rows = [(speaker, emotion, "") for speaker in "abcde" for emotion in ("sad", "happy") for _ in range(6)]
    utterances = [Utterance(f"{n}", "c", s, e, source=f"{n}", recording=f"{s}{n % 4}") for n, (s, e, _) in enumerate(rows)]
    for split in hold_out(make_splits(section("split"), utterances), utterances, 0.3):
        held = {u.recording for u in utterances if u.id in split.held_out}
        assert held and held.isdisjoint(utterances[i].recording for i in split.indices("train", utterances))
    single = [Utterance(u.id, "c", u.speaker, u.emotion, source=u.source, recording=u.speaker) for u in utterances]
    assert all(split.held_out for split in hold_out(make_splits(section("split"), single), single, 0.3))
    assert len(set(independent_units(single))) == len(single)


def test_a_speaker_with_one_group_gives_up_nothing():
    rows = [(speaker, emotion, "") for speaker in "abcde" for emotion in ("sad", "happy") for _ in range(4)]
    rows = [(s, e, "0" if s == "a" else c) for s, e, c in rows]
    utterances = relabelled(rows)
    for split in hold_out(make_splits(section("split"), utterances), utterances, 0.3):
        assert "a" not in {u.speaker for u in utterances if u.id in split.held_out}


def test_a_speaker_whose_only_utterance_is_a_copy_of_another_speakers_keeps_it():
    rows = [(speaker, emotion, "") for speaker in "abcde" for emotion in ("sad", "happy") for _ in range(4)]
    utterances = relabelled([("f", "sad", "copy"), ("a", "sad", "copy"), *rows])
    folds = [single_utterances(utterances, 0.5, seed=0, fold=fold) for fold in range(3)]
    assert all(held_out and {"0", "1"}.isdisjoint(held_out) for held_out in folds)


def test_a_copy_of_a_held_out_utterance_is_not_trained_on_without_label_either():
    utterances = relabelled([(speaker, emotion, "") for speaker in "abct" for emotion in ("sad", "happy")])
    utterances[0], utterances[6] = (replace(utterances[index], copies="0") for index in (0, 6))
    split = Split("c", ("a", "b"), (), ("c",), held_out=("0",), unlabelled=("t",))
    assert split.indices("held_out", utterances) == [0] and split.indices("train", utterances) == [1, 2, 3]
    assert split.indices("unlabelled", utterances) == [7]
    assert replace(split, held_out=()).indices("unlabelled", utterances) == [6, 7]


def test_a_fold_whose_training_utterances_are_all_copies_of_tested_ones_is_refused():
    rows = [(speaker, emotion, f"{emotion}{n}") for speaker in "abc" for emotion in ("sad", "happy") for n in range(2)]
    with pytest.raises(SplitError, match="no train utterance is left that has an emotion and shares no audio with"):
        require_emotions(Split("c", ("a", "b"), (), ("c",)), relabelled(rows))


def test_manifests_of_earlier_versions_are_read(tmp_path):
    utterances = [Utterance("a", "c", "1", "sad", source="a.wav", samples=9)]
    write_manifest(tmp_path / "m.csv", utterances)
    with open(tmp_path / "m.csv", newline="") as file:
        head, *rows = csv.reader(file)
    early = [position for position, name in enumerate(head) if name not in ("recording", "copies")]
    with open(tmp_path / "m.csv", "w", newline="") as file:
        csv.writer(file).writerows([row[position] for position in early] for row in (head, *rows))
    assert read_manifest(tmp_path / "m.csv") == utterances


def embeddings(rng, rows: int = 160, dimensions: int = 16) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal((rows, dimensions)), np.repeat([f"{number:02}" for number in range(8)], rows // 8)


ROW_WAYS = {
    "equal": lambda rows, rng: rows,
    "twice as large": lambda rows, rng: 2 * rows,
    "mirrored": lambda rows, rng: -rows,
    "with noise": lambda rows, rng: rows + 0.02 * rng.standard_normal(rows.shape),
}


@pytest.mark.parametrize("way", ROW_WAYS)
def test_rows_listed_twice_give_the_verdict_of_rows_listed_once(tmp_path, way):
    rng = np.random.default_rng(0)
    rows, speaker = embeddings(rng)
    for name, parts in (("once", [rows]), ("twice", [rows, ROW_WAYS[way](rows, rng)])):
        np.savez(tmp_path / f"{name}.npz", embedding=np.concatenate(parts), speaker=np.tile(speaker, len(parts)))
    once, twice = (read_embeddings(tmp_path / f"{name}.npz") for name in ("once", "twice"))
    assert np.array_equal(twice.embeddings.embedding, once.embeddings.embedding) and not once.notes
    assert twice.notes == ["160 of 320 rows are equal or nearly equal to another row of the same speaker: taken once"]


def test_one_embedding_of_several_speakers_is_noted_unless_embeddings_are_codes(tmp_path):
    rows, speaker = embeddings(np.random.default_rng(0))
    np.savez(tmp_path / "codes.npz", embedding=rows[np.arange(160) % 30], speaker=speaker)
    rows[::40] = 0
    np.savez(tmp_path / "failed.npz", embedding=rows, speaker=speaker)
    assert not read_embeddings(tmp_path / "codes.npz").notes
    assert read_embeddings(tmp_path / "failed.npz").notes == [
        "4 of 160 embeddings, of 4 speakers, are one and the same: were they computed?"
    ]


def test_of_a_trained_and_a_scored_row_the_scored_one_is_taken(tmp_path):
    rows, speaker = embeddings(np.random.default_rng(0))
    scored = np.repeat([0, 1], 160)
    np.savez(tmp_path / "t.npz", embedding=np.tile(rows, (2, 1)), speaker=np.tile(speaker, 2), scored=scored)
    assert read_embeddings(tmp_path / "t.npz").embeddings.scored.all()


@pytest.mark.parametrize("case", ["codes", "codes of the speaker", "codebook", "constant", "rounded"])
def test_codes_repeat_by_themselves(case):
    rng = np.random.default_rng(0)
    speaker = np.repeat(np.arange(10), 100).astype(str)
    embedding = {
        "codes": np.eye(8)[rng.integers(0, 8, 1000)],
        "codes of the speaker": np.eye(10)[np.repeat(np.arange(10), 100)],
        "codebook": rng.standard_normal((64, 16))[rng.integers(0, 64, 1000)],
        "constant": np.zeros((1000, 3)),
        "rounded": np.round(rng.standard_normal((1000, 2)), 1),
    }[case]
    assert not copies(embedding, speaker).any()


def recordings_table(rng, recordings: int) -> Embeddings:
    """Return noise in which the rows of one recording are alike, and nothing else tells of the speaker."""
    recording = np.repeat(np.arange(8 * recordings), 6)
    rows = rng.standard_normal((8 * recordings, 16))[recording] + 0.5 * rng.standard_normal((len(recording), 16))
    labels = (np.repeat([f"s{number}" for number in range(8)], 6 * recordings), np.full(len(rows), ""), np.full(len(rows), ""))
    return Embeddings(rows, np.arange(len(rows)).astype(str), *labels, np.ones(len(rows), bool), group=recording.astype(str))


def test_folds_keep_recordings_together():
    table = recordings_table(np.random.default_rng(0), recordings=6)
    plan = plan_folds(table)
    for fold in plan.folds:
        assert not set(table.group[fold.train]) & set(table.group[fold.test])
        fitted, validated = (table.group[fold.train[part]] for part in fold.tuning)
        assert not set(fitted) & set(validated)
    assert np.array_equal(np.sort(np.concatenate([f.test for f in plan.folds if f.repeat == 0])), np.arange(len(table.id)))


def test_recordings_identify_speakers_only_where_they_are_divided():
    table = recordings_table(np.random.default_rng(0), recordings=6)
    grouped = measure_leakage([table], ["lda"], permutations=200)
    assert grouped.near_copies == 0 and grouped.attackers["lda"].accuracy < 0.3 and grouped.clusters == 48
    divided = measure_leakage([replace(table, group=None)], ["lda"], permutations=0)
    assert divided.attackers["lda"].accuracy > 0.45, "the test has something to find"


def test_what_cannot_be_kept_apart_is_stated():
    leakage = measure_leakage([recordings_table(np.random.default_rng(0), recordings=1)], ["lda"], permutations=0)
    assert leakage.near_copies == 1 and leakage.summary["near_copies"] == 1


def test_a_table_may_name_recordings(tmp_path):
    table = recordings_table(np.random.default_rng(0), recordings=4)
    np.savez(tmp_path / "t.npz", embedding=table.embedding, speaker=table.speaker, recording=table.group)
    read = read_embeddings(tmp_path / "t.npz")
    assert np.array_equal(read.embeddings.group, table.group) and not read.notes
