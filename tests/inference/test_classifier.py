"""Models called from Python: the command line's numbers, whatever the form of the input, and one clear line for what is none."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import soxr
import torch
from conftest import RATE, tone

import speaker_invariant_ser as siser
from speaker_invariant_ser.cli.app import run as command
from speaker_invariant_ser.data import audio
from speaker_invariant_ser.errors import AudioError, RunError, SerError
from speaker_invariant_ser.inference.classifier import Classifier
from speaker_invariant_ser.inference.waves import clip_of
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.model import SerModel
from speaker_invariant_ser.report.timeline import Envelope, draw_timeline


@pytest.fixture(scope="module")
def classifier():
    return siser.load_model()


@pytest.fixture(scope="module")
def clips():
    """Waves of 0.4 s to 3 s."""
    parts = [tone(f"0{n % 6 + 1}", ("rising", "falling", "level")[n % 3], "abcd"[n % 4]) for n in range(12)]
    return [audio.at_16_bits(np.concatenate(parts[: n + 1]).astype(np.float32)) for n in range(4)]


def probabilities(predictions) -> np.ndarray:
    return np.array([list(prediction.probabilities.values()) for prediction in predictions])


@pytest.mark.parametrize("rate, channels, subtype", [(16_000, 1, "PCM_16"), (44_100, 1, "PCM_16"), (22_050, 2, "FLOAT")])
def test_a_file_its_wave_and_the_command_line_have_the_same_numbers(classifier, clips, tmp_path, rate, channels, subtype):
    wave = soxr.resample(clips[3], RATE, rate)
    wave = np.stack([wave, 0.3 * wave[::-1]], axis=1) if channels == 2 else wave
    soundfile.write(tmp_path / "a.wav", wave, rate, subtype=subtype)
    assert command(["infer", str(tmp_path / "a.wav"), "--out", str(tmp_path / "a.jsonl"), "--device", "cpu", "--quiet"]) == 0
    row = json.loads((tmp_path / "a.jsonl").read_text())
    prediction = classifier.predict_file(tmp_path / "a.wav")
    assert prediction.probabilities == pytest.approx({label: row[f"p_{label}"] for label in classifier.labels}, abs=1e-9)
    assert prediction.confidence == row["confidence"] == prediction.probabilities[prediction.emotion]
    samples, _ = soundfile.read(tmp_path / "a.wav", dtype="int16" if subtype == "PCM_16" else "float32")
    assert classifier.predict(samples.T, rate) == prediction
    if subtype == "PCM_16":
        assert classifier.predict(samples / 32768, rate) == prediction, "float64"
    assert any("the model was trained on" in warning for warning in prediction.warnings)
    assert any("different sounds" in warning for warning in prediction.warnings) == (channels == 2)
    assert command(["infer", str(tmp_path / "a.wav"), "--out", str(tmp_path / "left.jsonl"), "--channel", "left", "--quiet"]) == 0
    left = json.loads((tmp_path / "left.jsonl").read_text())
    assert classifier.predict_file(tmp_path / "a.wav", "left").confidence == left["confidence"]


def test_digital_silence_is_told_as_on_the_command_line(classifier, clips, tmp_path):
    wave = np.concatenate([clips[3][:RATE], np.zeros(2 * RATE, np.float32), clips[3][:RATE]])
    soundfile.write(tmp_path / "a.wav", wave, RATE)
    note = "digital silence from 1.0 to 3.0 s of 4.0 s"
    assert note in classifier.predict_file(tmp_path / "a.wav").warnings and note in classifier.predict(wave, RATE).warnings
    windows = classifier.timeline(tmp_path / "a.wav", window=1, hop=1)
    assert [window.emotion == "no speech" for window in windows] == [False, True, True, False]
    assert (windows[1].confidence, set(windows[1].probabilities.values())) == (0, {0}) and windows[3].confidence > 0.2
    stream = classifier.stream(window=1, hop=1)
    assert [window.emotion for window in stream.push(wave, RATE)] == [window.emotion for window in windows]
    draw_timeline(tmp_path / "a.png", "a", Envelope(), windows[1:])
    soundfile.write(tmp_path / "long.wav", np.concatenate([np.zeros(31 * RATE, np.float32), clips[3], np.zeros(28 * RATE)]), RATE)
    assert command(["infer", str(tmp_path / "long.wav"), "--out", str(tmp_path / "long.jsonl"), "--quiet"]) == 0
    row = json.loads((tmp_path / "long.jsonl").read_text())
    assert classifier.predict_file(tmp_path / "long.wav").confidence == pytest.approx(row["confidence"], abs=1e-6)


def test_waves_in_a_list_have_the_numbers_of_each_alone(classifier, clips):
    waves, rates = [clips[0], soxr.resample(clips[3], RATE, 8000), clips[2], clips[1]], [RATE, 8000, RATE, RATE]
    alone = [classifier.predict(wave, rate) for wave, rate in zip(waves, rates, strict=True)]
    np.testing.assert_allclose(probabilities(classifier.predict(waves, rates)), probabilities(alone), atol=1e-5)
    assert [each.warnings for each in classifier.predict(tuple(clips), RATE)] == [
        classifier.predict(clip, RATE).warnings for clip in clips
    ]
    assert classifier.predict([], RATE) == []


def test_threads_share_a_classifier(classifier, clips):
    expected = [classifier.predict(clip, rate) for clip in clips for rate in (RATE, 8000, 11_025)]
    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(classifier.predict, clip, rate) for _ in range(3) for clip in clips for rate in (RATE, 8000, 11_025)]
        assert [job.result() for job in jobs] == expected * 3


def test_an_embedding_is_that_of_the_module(classifier, clips, tmp_path):
    embedding = classifier.embed(clips[2], RATE)
    expected = apply_to_clips(classifier.module, [clips[2]]).embedding[0]
    assert embedding.dtype == np.float32 and embedding.shape == (classifier.module.dim,)
    np.testing.assert_array_equal(embedding, expected)
    soundfile.write(tmp_path / "a.wav", clips[2], RATE, subtype="FLOAT")
    np.testing.assert_array_equal(classifier.embed(tmp_path / "a.wav"), expected)
    long = np.resize(clips[3], 31 * RATE)
    halves = apply_to_clips(classifier.module, np.array_split(long, 2)).embedding
    np.testing.assert_allclose(classifier.embed(long, RATE), halves.mean(axis=0), atol=1e-5)


def test_a_timeline_and_a_stream_have_the_same_windows(classifier, clips, tmp_path):
    soundfile.write(tmp_path / "a.wav", clips[3], RATE, subtype="FLOAT")
    windows = classifier.timeline(tmp_path / "a.wav", window=1, hop=0.5)
    assert windows == classifier.timeline(clips[3], RATE, window=1, hop=0.5) and len(windows) > 3
    stream = classifier.stream(window=1, hop=0.5)
    streamed = [window for block in np.array_split(clips[3], 7) for window in stream.push(block, RATE)] + stream.finish()
    assert [window.start for window in streamed] == [window.start for window in windows]
    np.testing.assert_allclose(probabilities(streamed), probabilities(windows), atol=1e-5)


def test_a_model_is_loaded_from_whatever_holds_it(classifier, trained, tmp_path):
    assert isinstance(classifier, Classifier) and classifier.calibrated and classifier.name == "emodb-five"
    assert classifier.card.name == "README.md" and "emodb-five" in classifier.card.read_text()
    folder = trained.folder / "folds" / "fixed"
    for source in (trained, trained.folder, str(folder)):
        loaded = siser.load_model(source)
        assert isinstance(loaded.module, SerModel) and not loaded.module.training
        assert loaded.card is None and loaded.calibrated == (loaded.module.settings.temperature is not None)
    assert siser.load_model(trained.folder, fold="fixed").name == str(trained.folder)
    assert repr(classifier) == "Classifier('emodb-five', 1 model: angry, fearful, happy, neutral, sad)"
    exported = tmp_path / "exported"
    assert command(["export", str(trained.folder), "--out", str(exported)]) == 0
    assert siser.load_model(exported).card == exported / "README.md"
    assert command(["infer", "--model", str(folder), str(exported / "no.wav")]) == 1, (
        "siser infer takes the folder of a model, too"
    )


def test_several_models_are_averaged_and_have_no_common_embedding(trained, clips):
    (model,) = siser.load_model(trained).models
    other = SerModel(model.settings).eval()
    both = Classifier([model, other], "both")
    alone = [Classifier([each], "alone").predict(clips[1], RATE) for each in (model, other)]
    np.testing.assert_allclose(probabilities([both.predict(clips[1], RATE)])[0], probabilities(alone).mean(axis=0), atol=1e-6)
    for use in (lambda: both.embed(clips[1], RATE), lambda: both.module):
        with pytest.raises(RunError, match="both has 2 models: load one, by `fold` or by its folder"):
            use()
    other.settings = model.settings.model_copy(update={"labels": model.labels[::-1]})
    with pytest.raises(RunError, match="both is damaged: its models have different labels"):
        Classifier([model, other], "both")


@pytest.mark.parametrize(
    "section, message",
    [
        ({"front": "pixels"}, "was trained on images, not on speech; only `module` can be used"),
        ({"normalise": "speaker"}, "subtracts the mean over all recordings of a speaker .*: call siser.predict"),
    ],
)
def test_models_that_no_single_recording_fits_are_loaded_and_refuse_it(trained, clips, section, message):
    model = siser.load_model(trained).module
    model.settings = model.settings.model_copy(update={"features": model.settings.features.model_copy(update=section)})
    loaded = Classifier([model], "special")
    assert loaded.module is model
    uses = (loaded.predict, loaded.embed, loaded.timeline, lambda *_: loaded.stream(), lambda *_: loaded.predict_file("a.wav"))
    for use in uses:
        with pytest.raises(RunError, match=f"special {message}"):
            use(clips[0], RATE)


def test_output_that_is_not_finite_is_an_error(trained, clips):
    model = siser.load_model(trained).module
    with torch.no_grad():
        next(reversed(list(model.head.parameters()))).fill_(float("inf"))
    with pytest.raises(RunError, match="broken: its output is not finite"):
        Classifier([model], "broken").predict(clips[0], RATE)


NOISE = np.random.default_rng(0).uniform(-0.1, 0.1, 4000)


@pytest.mark.parametrize(
    "wave, rate, message",
    [
        (NOISE.astype(np.int32), RATE, "samples of the wave of type int32: expected int16, or floats"),
        (NOISE > 0, RATE, "samples of the wave of type bool"),
        (np.array(["a"]), RATE, "of type <U1: expected int16"),
        (None, RATE, r"the wave has the shape \[\]: expected \[S\], or \[channels, S\]"),
        (NOISE.reshape(-1, 2), RATE, r"the wave has the shape \[2000, 2\]: expected .*the transpose of what soundfile reads"),
        (NOISE.reshape(2, 2, -1), RATE, r"shape \[2, 2, 1000\]"),
        (np.zeros((0, 5)), RATE, r"shape \[0, 5\]"),
        (np.zeros(0), RATE, "the wave: contains no samples"),
        (NOISE[:1599], RATE, "the wave: 0.0999 s is too short, expected at least 0.1 s"),
        (0 * NOISE, RATE, "the wave: is silent"),
        (0 * NOISE + 0.5, RATE, "the wave: is constant"),
        (1e5 * NOISE, RATE, r"samples of the wave up to 1e\+04: expected floats"),
        (np.append(NOISE, np.nan), RATE, "up to nan"),
        (np.append(NOISE, np.inf), RATE, "up to inf"),
        (torch.zeros(4000, requires_grad=True), RATE, "the wave is no array of samples: .*requires grad"),
        (NOISE, 999, "a sample rate of 999 Hz, expected at least 1000 Hz"),
        (NOISE, 16_000.0, "a sample rate of 16000.0: expected a whole number of Hz"),
        (NOISE, None, "a sample rate of None: expected"),
        (NOISE, True, "a sample rate of True: expected"),
        (NOISE, "16k", "a sample rate of '16k': expected"),
        (NOISE, [RATE], r"a sample rate of \[16000\]: expected"),
        ([NOISE, NOISE], [RATE], "2 waves and 1 sample rate: expected one for each, or one"),
        ([NOISE, 0 * NOISE], RATE, "wave 2: is silent"),
        ([0.1, 0.2], RATE, r"wave 1 has the shape \[\]"),
    ],
)
def test_what_is_no_audio_is_refused(classifier, wave, rate, message):
    with pytest.raises(SerError, match=message):
        classifier.predict(wave, rate)


@pytest.mark.parametrize(
    "wave", [NOISE.astype(np.float16), NOISE[::2], torch.from_numpy(NOISE), NOISE[None], NOISE.astype(">f4")]
)
def test_other_arrays_of_floats_are_audio(classifier, wave):
    clip, notes = clip_of(wave, np.int64(RATE))
    assert clip.dtype == np.float32 and clip.ndim == 1 and notes == []
    np.testing.assert_allclose(clip, np.asarray(wave, dtype=np.float64).ravel(), atol=1e-4)
    assert classifier.predict(wave, RATE).emotion in classifier.labels


def test_a_file_that_cannot_be_used_has_the_reason_of_the_command_line(classifier, tmp_path, capsys):
    (tmp_path / "a.wav").write_text("no audio")
    with pytest.raises(AudioError) as error:
        classifier.predict_file(tmp_path / "a.wav")
    assert command(["infer", str(tmp_path / "a.wav"), "--device", "cpu", "--quiet"]) == 1
    assert f"warning: {error.value}" in capsys.readouterr().err
    with pytest.raises(SerError, match="unknown channel 'middle'. Expected one of: mix, left, right"):
        classifier.predict_file(tmp_path / "a.wav", "middle")


@pytest.fixture(scope="module")
def classify(classifier):
    return siser.pipeline("audio-classification", classifier)


def test_a_pipeline_answers_as_that_of_transformers(classifier, classify, clips, tmp_path):
    soundfile.write(tmp_path / "a.wav", clips[2], RATE, subtype="FLOAT")
    expected = classifier.predict(clips[2], RATE)
    answer = classify(str(tmp_path / "a.wav"))
    assert answer == sorted(answer, key=lambda each: -each["score"]) and set(map(len, map(tuple, answer))) == {2}
    assert {each["label"]: each["score"] for each in answer} == expected.probabilities and answer[0]["label"] == expected.emotion
    inputs = [
        tmp_path / "a.wav",
        (tmp_path / "a.wav").read_bytes(),
        clips[2],
        {"raw": clips[2], "sampling_rate": RATE},
        {"path": "elsewhere.wav", "array": clips[2], "sampling_rate": RATE},
    ]
    assert classify(inputs) == [answer] * 5 == [classify(each) for each in inputs]
    assert list(classify(iter(inputs[:2]), top_k=2)) == [answer[:2]] * 2
    assert siser.pipeline(model=classifier, top_k=1)(clips[2]) == answer[:1]
    assert siser.pipeline(model=classifier, top_k=1)(clips[2], top_k=99) == answer


@pytest.mark.parametrize(
    "use, message",
    [
        (lambda call: call({"raw": NOISE}), "an input with 'raw': expected sampling_rate, and the samples as raw or array"),
        (lambda call: call({"sampling_rate": RATE}), "an input with 'sampling_rate': expected"),
        (lambda call: call(3), "an input of type int: expected a path, bytes, an array at 16000 Hz, or a dictionary"),
        (lambda call: call("https://example.org/a.wav"), "https://example.org/a.wav: an address; download"),
        (lambda call: call(NOISE, top_k=0), "top_k = 0: expected a whole number, at least 1, or None"),
        (lambda _: siser.pipeline("text-classification"), "unknown task 'text-classification'"),
    ],
)
def test_a_pipeline_refuses_what_is_none_of_its_inputs(classify, use, message):
    with pytest.raises(SerError, match=message):
        use(classify)
