"""Per-speaker normalisation: a speaker's own colour goes, an emotion's stays, no label is asked, and it is marked everywhere."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from conftest import TINY
from reports import against_report, changed, run_report

from speaker_invariant_ser.cli.app import run as siser
from speaker_invariant_ser.config import make_recipe, write_toml
from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.evaluation.evaluate import evaluate
from speaker_invariant_ser.evaluation.model_outputs import speaker_means
from speaker_invariant_ser.features.dataset import open_dataset
from speaker_invariant_ser.features.log_mel import LogMel, Normalise
from speaker_invariant_ser.features.speaker_means import compute_speaker_means
from speaker_invariant_ser.inference.inputs import find_inputs
from speaker_invariant_ser.inference.loading import load_models
from speaker_invariant_ser.inference.predict import predict
from speaker_invariant_ser.metrics import uar
from speaker_invariant_ser.models.apply import apply_to_clips
from speaker_invariant_ser.models.calibration import apply_temperature
from speaker_invariant_ser.models.model import load_model
from speaker_invariant_ser.recipe import FeaturesSection
from speaker_invariant_ser.report.write import write_comparison, write_report
from speaker_invariant_ser.runs import best_epoch
from speaker_invariant_ser.training.batching import BatchLoader
from speaker_invariant_ser.training.launcher import train
from speaker_invariant_ser.training.timing import PhaseTimer

LABELS = ("falling", "level", "rising")
SPEAKER = {**TINY, "features": {**TINY["features"], "normalise": "speaker"}}


@pytest.fixture(scope="module")
def logmel():
    return LogMel(make_recipe(TINY).features, SAMPLE_RATE)


def direct_mean(prepared, logmel, speaker):
    """Compute a speaker's mean over all frames, one utterance after another."""
    frames = []
    for index, utterance in enumerate(prepared.utterances):
        if utterance.speaker == speaker:
            audio = torch.from_numpy(prepared.clip(index))[None]
            mels, count = logmel(audio, torch.tensor([audio.shape[1]]))
            frames.append(mels[0, :, : count.item()].double())
    return torch.cat(frames, dim=1).mean(dim=1).float()


def test_speaker_means_remove_a_planted_speaker_spectrum_and_keep_that_of_each_emotion():
    """Speakers add a curve over the bands, emotions another; an utterance's own mean would take both."""
    rng = torch.Generator().manual_seed(0)
    speaker, emotion = torch.arange(48) % 4, torch.arange(48) // 4 % 3
    colour, mood = 5 * torch.randn(4, 8, generator=rng), 2 * torch.randn(3, 8, generator=rng)
    mood -= mood.mean(dim=0)  # every speaker has every emotion equally often
    clips = (colour[speaker] + mood[emotion])[:, :, None] + torch.randn(48, 8, 60, generator=rng)
    mean = torch.stack([clips[speaker == index].mean(dim=(0, 2)) for index in range(4)])

    def spread(kind, subtracted):
        """Return the spread of the means of normalised utterances over speakers, and over emotions."""
        given = clips - mean[speaker][:, :, None] if subtracted else clips
        normalise = Normalise(kind, 8)
        normalise.fit(given)
        inner = normalise(given, torch.full((48,), 60)).mean(dim=2)
        means = [torch.stack([inner[by == group].mean(dim=0) for group in by.unique()]) for by in (speaker, emotion)]
        return [group_means.std(dim=0).mean().item() for group_means in means]

    (before, mood_before), (alone, mood_alone) = spread("corpus", False), spread("utterance", False)
    after, mood_after = spread("speaker", True)
    assert before > 0.5 and mood_before > 0.1, "the planted spectrum is measurable"
    assert after < 1e-5 and alone < 1e-5, "it is removed"
    assert mood_after > 0.5 > 1e-4 > mood_alone


def test_a_speakers_mean_is_over_all_utterances_of_any_label_and_part(prepared, logmel):
    means = compute_speaker_means(prepared, logmel, ["05", "03"])
    assert means.speakers == ["03", "05"]
    for speaker in means.speakers:
        assert torch.allclose(means[speaker], direct_mean(prepared, logmel, speaker), atol=1e-4)
    assert np.array_equal(means.of(["05", "03", "05"]), means.means[[1, 0, 1]].numpy())
    fewer = prepared.labelled({"rising": "up", "falling": "down"})
    assert len(fewer.utterances) < len(prepared.utterances)
    same = compute_speaker_means(fewer, logmel, ["03", "05"])
    assert torch.equal(same.means, means.means), "no label is used"


def test_the_dataset_subtracts_the_speakers_mean(prepared, logmel):
    plain, clips = (
        open_dataset(prepared, range(30), LABELS, (), logmel, 1.0, subtract_speaker_means=subtracted)
        for subtracted in (False, True)
    )
    batch = [np.array([3, 29, 14])]
    ((mels, frames),), ((own, same),) = plain.read(batch), clips.read(batch)
    for row, index in enumerate(batch[0]):
        mean = direct_mean(prepared, logmel, prepared.utterances[index].speaker)
        assert torch.allclose(own[row] + mean[:, None], mels[row], atol=1e-4)
    assert torch.equal(frames, same) and plain.speaker_means is None
    everything = torch.cat(
        list(open_dataset(prepared, range(72), LABELS, (), logmel, 1.0, subtract_speaker_means=True).sample()), dim=1
    )
    assert everything.mean(dim=1).abs().max() < 1e-3


@pytest.mark.parametrize("join", [{}, {"concatenate": 1.0}, {"mixup_any_emotion": 1.0}])
def test_every_part_of_a_combined_clip_has_its_own_speakers_mean_subtracted(prepared, logmel, join):
    no_augmentation = dict.fromkeys(("warp", "tempo", "equaliser_db", "time_masks", "frequency_masks"), 0)
    recipe = make_recipe({**SPEAKER, "augment": {**no_augmentation, **join}, "train": {"batch_size": 8}})
    dataset = open_dataset(prepared, range(40), LABELS, ("speaker",), logmel, 1.0, subtract_speaker_means=True)
    loader = BatchLoader(dataset, recipe, 3, (4,), 0, torch.device("cpu"))
    for step, (mels, frames, _) in zip(loader.plan_epoch(1), loader.epoch(1, 0, PhaseTimer()), strict=True):
        ((own, count),) = dataset.read([step.chosen])
        ((others, other_count),) = dataset.read([step.chosen if step.pairs is None else step.pairs.partner])
        for row, length in enumerate(count.tolist()):
            if not join:
                expected = own[row, :, :length]
            elif "concatenate" in join:
                expected = torch.cat((own[row, :, :length], others[row, :, : other_count[row]]), dim=1)
            else:
                repeated = others[row, :, torch.arange(length) % other_count[row]]
                expected = torch.lerp(repeated, own[row, :, :length], step.pairs.weight[row].item())
            assert frames[row] == expected.shape[1]
            assert torch.allclose(mels[row, :, : frames[row]], expected, atol=1e-4)


def test_a_masked_band_is_zero_and_not_the_negative_speaker_mean(prepared, logmel):
    masks_only = {**dict.fromkeys(("warp", "tempo", "equaliser_db", "time_masks"), 0), "frequency_mask_bands": 4}
    dataset = open_dataset(prepared, range(40), LABELS, ("speaker",), logmel, 1.0, subtract_speaker_means=True)
    normalise = Normalise("speaker", 24)
    normalise.fit(dataset.sample())
    loader = BatchLoader(dataset, make_recipe({**SPEAKER, "augment": masks_only}), 3, (4,), 0, torch.device("cpu"))
    batches = [(normalise(mels, frames), frames) for mels, frames, _ in loader.epoch(1, 0, PhaseTimer())]
    bands = torch.cat(
        [clip[:, :count] for mels, frames in batches for clip, count in zip(mels, frames.tolist(), strict=True)], dim=1
    )
    masked = [
        band
        for mels, frames in batches
        for clip, n in zip(mels, frames, strict=True)
        for band in clip[:, :n]
        if band.std() < 1e-3
    ]
    assert len(masked) > 20 and torch.stack([band.abs().max() for band in masked]).max() < 0.5 < bands.abs().mean()


@pytest.fixture(scope="module")
def run(prepared, tmp_path_factory):
    return train(make_recipe(SPEAKER), prepared, tmp_path_factory.mktemp("speaker") / "run", device="cpu")


def test_the_saved_model_scores_dev_speakers_as_training_did(prepared, run):
    best, model = best_epoch(run.model_specs[0].metrics()), load_model(run.model_specs[0].folder)
    indices = run.splits[0].indices("dev", prepared.utterances)
    clips = [prepared.clip(index) for index in indices]
    means = speaker_means(run, prepared, "cpu").of([prepared.utterances[index].speaker for index in indices])
    probability = apply_to_clips(model, clips, means).probability
    truth = np.array([model.labels.index(prepared.utterances[index].emotion) for index in indices])
    assert uar(truth, probability.argmax(axis=1), 3) == pytest.approx(best["dev_uar"], abs=1e-5)


def test_a_model_requires_speaker_means_only_if_it_subtracts_them(prepared, run, trained):
    model, clips = load_model(run.model_specs[0].folder), [prepared.clip(0)]
    with pytest.raises(RunError, match="features.normalise = speaker needs the mean log-mel of each utterance's speaker"):
        apply_to_clips(model, clips)
    with pytest.raises(RunError, match="features.normalise = utterance takes no speaker means"):
        apply_to_clips(load_model(trained.model_specs[0].folder), clips, np.zeros((1, 24), dtype=np.float32))


def test_infer_refuses_until_one_speaker_is_given(prepared, run, trained, folder, tmp_path, capsys):
    evaluate(run, prepared, "cpu", quick=True)
    out = tmp_path / "p.csv"
    command = ["infer", str(run.folder), str(folder / "05_*.wav"), "--out", str(out), "--device", "cpu"]
    assert siser(command) == 2
    assert "files do not name their speaker: call it once for each speaker" in capsys.readouterr().err and not out.exists()
    assert siser([*command, "--one-speaker"]) == 0 and "of one speaker (transductive)" in capsys.readouterr().out
    inferred = {row["file"].rsplit("/", 1)[-1]: row for row in csv.DictReader(out.read_text().splitlines())}
    rows = [row for row in csv.DictReader((run.folder / "predictions.csv").read_text().splitlines()) if row["speaker"] == "05"]
    assert len(rows) == len(inferred) == 12
    temperature = load_model(run.model_specs[0].folder).settings.temperature
    for row in rows:
        (expected,) = apply_temperature(np.array([[float(row[f"p_{label}"]) for label in LABELS]]), temperature)
        assert [float(inferred[row["id"]][f"p_{label}"]) for label in LABELS] == pytest.approx(expected, abs=2e-5)
    of_one_file = list(
        predict(load_models(run, device="cpu", one_speaker=True), find_inputs([folder / "05_level_a.wav", folder / "no.wav"]))
    )
    assert not of_one_file[0]["error"] and of_one_file[1]["error"]
    assert abs(of_one_file[0]["p_level"] - float(inferred["05_level_a.wav"]["p_level"])) > 1e-4, "fewer utterances, another mean"
    with pytest.raises(RunError, match="--one-speaker: .* predicts every file on its own"):
        load_models(trained, device="cpu", one_speaker=True)


def tables(markdown):
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", markdown, flags=re.M)]


def transductive(report):
    return changed(report, settings__transductive=True)


def test_every_table_of_a_transductive_report_is_marked(tmp_path):
    plain = changed(against_report(), baseline=None)
    marked = transductive(plain)
    for name, report, is_marked in (("plain", plain, False), ("marked", marked, True)):
        folder = write_report(report, tmp_path / name).parent
        page, text = ((folder / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
        results = text.partition("## Settings")[0]
        assert len(tables(results)) > 10 and all(("transductive" in table[0]) is is_marked for table in tables(results))
        heads = re.findall(r"<thead>.*?</thead>", page.partition('id="settings"')[0], flags=re.S)
        assert len(heads) == len(tables(results)) and all(("transductive" in head) is is_marked for head in heads)
        assert ("test speakers included" in text.partition("|")[0]) is is_marked, "before any number"
    assert "| transductive | True |" in (tmp_path / "marked" / "report.md").read_text()
    assert json.loads((tmp_path / "marked" / "report.json").read_text())["settings"]["transductive"] is True


def test_the_baseline_of_a_transductive_run_is_not_marked(tmp_path):
    text = (write_report(transductive(run_report()), tmp_path / "report").parent / "report.md").read_text(encoding="utf-8")
    section = text.partition("## Prosody baseline")[2].partition("\n## ")[0]
    assert len(tables(section)) == 2 and "transductive" not in section


def test_the_name_of_a_transductive_run_to_compare_with_is_marked(tmp_path):
    report = changed(against_report(), against__transductive=True)
    text = (write_report(report, tmp_path / "one").parent / "report.md").read_text()
    assert "emodb-baseline (transductive)" in text and "emodb-grl (transductive)" not in text and "test speakers included" in text
    runs = [run_report("plain"), transductive(run_report("other", 0.75, 0.6)), run_report("third", 0.6, 0.5)]
    for number in (2, 3):
        written = (write_comparison(runs[:number], tmp_path / str(number)).parent / "report.md").read_text()
        (rows,) = [table for table in tables(written) if "front" in table[0]]
        assert sum("other (transductive)" in row for row in rows) == 1 == sum("transductive" in row for row in rows)
        assert "test speakers included" in written


def test_the_command_line_marks_it(prepared, run, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(write_toml(run.recipe))
    assert (
        siser(["train", str(recipe), "--data", str(prepared.folder), "--out", str(run.folder), "--resume", "--device", "cpu"])
        == 0
    )
    assert re.search(r"fold fixed: epoch \d kept, dev UAR [\d.]+ \(transductive\)", capsys.readouterr().out)
    assert siser(["evaluate", str(run.folder), "--device", "cpu", "--quick"]) == 0
    shown = capsys.readouterr().out
    for header in ("measure", "attacker", "chance level of speaker identification"):
        assert f"{header} (transductive)" in " ".join(shown.split())
    assert "normalised by the mean over all utterances of each test speaker (transductive)" in " ".join(shown.split())
    report = json.loads((run.folder / "report" / "report.json").read_text())
    assert report["settings"]["transductive"] is True and "(transductive)" in report["verdict"][0]
    assert siser(["compare", str(run.folder), "--out", str(tmp_path / "compared")]) == 0
    assert "run (transductive)" in capsys.readouterr().out


def test_a_preview_shows_normalised_log_mels(prepared, tmp_path):
    from speaker_invariant_ser.report.augmentation_preview import preview_clips

    recipes = [make_recipe({**TINY, "features": {**TINY["features"], "normalise": kind}}) for kind in ("corpus", "speaker")]
    shown = [preview_clips(recipe, prepared) for recipe in recipes]
    for plain, own in zip(*shown, strict=True):
        assert plain.title == own.title and len(own.augmented) == 3
        assert not np.allclose(plain.original, own.original, atol=0.05)


def test_only_normalisation_by_speaker_is_transductive():
    assert [kind for kind in ("corpus", "utterance", "speaker") if FeaturesSection(normalise=kind).transductive] == ["speaker"]
