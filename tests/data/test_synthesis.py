"""The built-in corpus is reproducible to the byte, and its speakers and emotions differ as documented."""

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from speaker_invariant_ser.data.corpora import builtin, synthesis
from speaker_invariant_ser.data.corpora.synthesis import EMOTIONS, SAMPLE_RATE, SENTENCES, SPEAKERS, file_name, generate, speak
from speaker_invariant_ser.errors import SerError, SetupError, WriteError


@pytest.fixture(scope="module")
def clips():
    """Synthesise every sentence in every emotion by one female speaker: {emotion: [samples, ...]}."""
    return {emotion: [speak("s03", emotion, text) for text in range(len(SENTENCES))] for emotion in EMOTIONS}


@pytest.fixture
def small(monkeypatch):
    """Reduce the corpus to 2 speakers x 2 emotions x 2 sentences."""
    monkeypatch.setattr(synthesis, "SPEAKERS", {name: SPEAKERS[name] for name in ("s01", "s13")})
    monkeypatch.setattr(synthesis, "EMOTIONS", {name: EMOTIONS[name] for name in ("sad", "angry")})
    monkeypatch.setattr(synthesis, "SENTENCES", SENTENCES[:2])


def f0(samples):
    """Return the median pitch in Hz by autocorrelation, over the louder half of the 40 ms frames."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 640)[::320]
    frames = frames[np.argsort((frames**2).sum(axis=1))[len(frames) // 2 :]]
    spectra = np.abs(np.fft.rfft(frames * np.hanning(640), n=2048)) ** 2
    similarity = np.fft.irfft(spectra)[:, : SAMPLE_RATE // 60]
    min_lag = SAMPLE_RATE // 450
    return SAMPLE_RATE / np.median(min_lag + similarity[:, min_lag:].argmax(axis=1))


def seconds(samples):
    return len(samples) / SAMPLE_RATE


def level(samples):
    return 10 * np.log10(np.mean(samples**2))


def brightness(samples):
    """Return the ratio of the energy above 2 kHz to the energy below, in dB."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    high = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE) > 2000
    return 10 * np.log10(power[high].sum() / power[~high].sum())


def ranked(clips, measure):
    """Return the emotions from the lowest to the highest mean of a measure."""
    return sorted(clips, key=lambda emotion: np.mean([measure(samples) for samples in clips[emotion]]))


def test_train_dev_and_unseen_speakers_are_disjoint_and_balanced():
    assert len(synthesis.TRAIN_SPEAKERS) == 11
    assert Counter(SPEAKERS[name].sex for name in synthesis.UNSEEN_SPEAKERS) == {"female": 2, "male": 2}
    assert not set(synthesis.TRAIN_SPEAKERS) & set(synthesis.UNSEEN_SPEAKERS)
    assert sorted(SPEAKERS) == sorted(synthesis.TRAIN_SPEAKERS + synthesis.DEV_SPEAKERS + synthesis.UNSEEN_SPEAKERS)
    assert len(set(SPEAKERS.values())) == len(SPEAKERS)


def test_there_are_five_emotions_and_twelve_different_sentences():
    assert list(EMOTIONS) == ["neutral", "happy", "sad", "angry", "fearful"]
    assert len(set(SENTENCES)) == len(SENTENCES) == 12


def test_file_names_are_parsed_by_the_corpus_module():
    clips = [(speaker, emotion, text) for speaker in SPEAKERS for emotion in EMOTIONS for text in range(len(SENTENCES))]
    parsed = [builtin.parse(Path(file_name(*clip))) for clip in clips]
    assert [(fields["speaker"], fields["emotion"], fields["text"]) for fields in parsed] == [
        (s, e, f"t{t:02d}") for s, e, t in clips
    ]


@pytest.mark.parametrize("name", ["s03_angry_07.wav", "s99_angry_t07.wav", "03a01Fa.wav", "s03_bored_t07.wav"])
def test_other_names_are_not_of_this_corpus(name):
    assert builtin.parse(Path(name)) is None


def test_the_files_are_16_bit_mono_at_16_khz(tmp_path, small):
    import soundfile

    calls = []
    assert generate(tmp_path / "new" / "corpus", progress=lambda *call: calls.append(call)) == 8
    assert calls == [(done, 8) for done in range(1, 9)]
    files = sorted((tmp_path / "new" / "corpus").iterdir())
    assert [path.name for path in files][:2] == ["s01_angry_t00.wav", "s01_angry_t01.wav"]
    infos = [soundfile.info(path) for path in files]
    assert {(info.samplerate, info.channels, info.subtype, info.format) for info in infos} == {(16000, 1, "PCM_16", "WAV")}


def test_the_bytes_depend_on_the_seed_only(tmp_path, small):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        generate(tmp_path / folder, seed=seed)
    first, again, other = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "abc")
    assert first == again
    assert not set(first.values()) & set(other.values())


def test_an_utterance_does_not_depend_on_earlier_ones(clips):
    order = [(emotion, text) for emotion in EMOTIONS for text in range(len(SENTENCES))]
    for emotion, text in np.random.default_rng(0).permutation(np.array(order, dtype=object))[:20]:
        speak("s10", "happy", text, seed=text)
        assert np.array_equal(speak("s03", emotion, text), clips[emotion][text])


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_no_synthesiser_voice_keeps_state_between_utterances(speaker):
    with_r = [text for text, sentence in enumerate(SENTENCES) if "r" in sentence][
        ::2
    ]  # the Scottish accent keeps state for its rolled r
    alone = [speak(speaker, "angry", text) for text in with_r]
    speak("s01", "sad", 10)
    assert all(np.array_equal(speak(speaker, "angry", text), first) for text, first in zip(with_r, alone, strict=True))


def test_another_process_synthesises_the_same_utterance(clips):
    module = "speaker_invariant_ser.data.corpora.synthesis"
    code = f"import sys; from {module} import speak; sys.stdout.buffer.write(speak('s03', 'sad', 4))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert other.stdout == clips["sad"][4].tobytes()
    assert other.stderr == b""


def test_samples_never_clip_and_have_plausible_durations(clips):
    for samples in itertools.chain.from_iterable(clips.values()):
        assert samples.dtype == np.float32 and samples.ndim == 1
        assert 0.01 < np.abs(samples).max() < 1
        assert 0.8 < seconds(samples) < 3.2


def test_fear_has_the_highest_pitch_and_sadness_the_lowest(clips):
    order = ranked(clips, f0)
    assert order[:2] == ["sad", "neutral"] and order[-1] == "fearful"


def test_sadness_is_slow_and_fear_and_anger_are_fast(clips):
    order = ranked(clips, seconds)
    assert order[-2:] == ["neutral", "sad"] and set(order[:2]) == {"fearful", "angry"}


def test_anger_has_the_highest_level_and_brightness_and_sadness_the_lowest(clips):
    for measure in (level, brightness):
        order = ranked(clips, measure)
        assert (order[0], order[-1]) == ("sad", "angry")


def test_levels_and_durations_of_the_emotions_overlap(clips):
    for measure in (level, seconds):
        spans = [sorted(measure(samples) for samples in group) for group in clips.values()]
        assert max(span[0] for span in spans) < min(span[-1] for span in spans)


def test_female_speakers_have_higher_pitch_than_male_speakers():
    pitch = {name: f0(speak(name, "neutral", 0)) for name in SPEAKERS}
    highest_man = max(hertz for name, hertz in pitch.items() if SPEAKERS[name].sex == "male")
    assert min(hertz for name, hertz in pitch.items() if SPEAKERS[name].sex == "female") > highest_man


@pytest.mark.parametrize("clip, text", [(("s18", "sad", 0), "s17"), (("s01", "bored", 0), "fearful"), (("s01", "sad", -1), "11")])
def test_unknown_utterances_raise_an_error_with_the_allowed_names(clip, text):
    with pytest.raises(SerError, match=f"unknown .*{text}"):
        speak(*clip)


def test_without_the_demo_extra_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SetupError, match="pip install espeakng-loader"):
        generate(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_long_path_to_the_espeak_data_works(tmp_path, monkeypatch, clips):
    import espeakng_loader

    long_path = tmp_path / ("x" * 200) / "espeak-ng-data"
    long_path.parent.mkdir()
    long_path.symlink_to(espeakng_loader.get_data_path(), target_is_directory=True)
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(long_path))
    assert np.array_equal(speak("s03", "happy", 0), clips["happy"][0])


def test_a_broken_library_is_a_setup_error(tmp_path, monkeypatch):
    import espeakng_loader

    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(tmp_path / "libespeak-ng.so"))
    with pytest.raises(SetupError, match="cannot be loaded"):
        speak("s01", "sad", 0)


def test_the_error_for_an_unwritable_folder_names_it(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(WriteError, match="taken"):
        generate(tmp_path / "taken")


def test_a_file_that_does_not_fit_on_the_disk_is_an_error_with_advice(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(WriteError, match=r"s01_.*\.wav: the file would be larger than .* \(ulimit -f\) allows"):
            generate(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [*tmp_path.iterdir()]


def test_espeak_prints_nothing(capfd):
    speak("s05", "neutral", 0)
    assert capfd.readouterr() == ("", "")
