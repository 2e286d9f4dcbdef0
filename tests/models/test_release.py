"""Erasers, what happens before an embedding leaves, noise out of the content; then whole runs with each of them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from concept_erasure import LeaceFitter
from conftest import TINY, prepare_table
from embedding_tables import linear_code, make_table, xor_code
from helpers import section
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from speaker_invariant_ser.audit.controls import CONTROLS, controls_for
from speaker_invariant_ser.audit.threat_model import describe_threat_model
from speaker_invariant_ser.config import make_recipe
from speaker_invariant_ser.errors import RecipeError, RunError
from speaker_invariant_ser.evaluation.evaluate import evaluate, unless_starved
from speaker_invariant_ser.features.dataset import open_dataset
from speaker_invariant_ser.features.log_mel import mask_of
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.inference.predict import load_models, predict
from speaker_invariant_ser.models import erasure as erasers
from speaker_invariant_ser.models.apply import apply, apply_to_dataset
from speaker_invariant_ser.models.erasure import ERASERS
from speaker_invariant_ser.models.model import DESCRIPTION, WEIGHTS, ModelSettings, SerModel, load_model, save_model
from speaker_invariant_ser.models.release import RELEASES, content_noise, mel_noise
from speaker_invariant_ser.recipe import EmotionSection, EncoderSection, FeaturesSection, Recipe
from speaker_invariant_ser.report.write import write_report
from speaker_invariant_ser.training.checks import check_erase
from speaker_invariant_ser.training.launcher import train
from speaker_invariant_ser.training.post_training import finish, fit_release, refit_head

# ---- erasers


def eraser(name, dim, **settings):
    return ERASERS[name](dim, section("erase", name=name, **settings)).eval()


def erased(name, table, *others, **settings):
    """Embeddings of a table and of others after an eraser that was fitted on the first."""
    fitted = eraser(name, table.embedding.shape[1], **settings)
    fitted.fit(as_tensor(table), table.speaker, seed=0)
    return [replace(one, embedding=fitted(as_tensor(one)).numpy()) for one in (table, *others)]


def as_tensor(table):
    return torch.from_numpy(table.embedding).float()


def read(attacker, learned, scored, what="speaker"):
    """Share of the scored clips of which a fresh attacker names the speaker (or the emotion) rightly."""
    fitted = make_pipeline(StandardScaler(), attacker).fit(learned.embedding, getattr(learned, what))
    return fitted.score(scored.embedding, getattr(scored, what))


def coded(embedding, speaker, rng):
    """As an encoder leaves it: speakers in places of their own, dimensions of unlike scale that depend on each other."""
    mixing = np.random.default_rng(3).standard_normal((embedding.shape[1],) * 2) * np.geomspace(1, 0.01, embedding.shape[1])
    return linear_code(embedding, speaker, rng, 0.7) @ mixing


def emotional(table):
    """The table with a place for each emotion, in directions of its own."""
    emotion = to_indices(table.emotion)
    places = 2 * np.random.default_rng(2).standard_normal((emotion.max() + 1, table.embedding.shape[1]))
    places[:, :4] = 0
    return replace(table, embedding=table.embedding + places[emotion])


@pytest.mark.parametrize("speakers", [2, 8, 60])
def test_after_leace_no_line_reads_the_clips_that_it_was_fitted_on(speakers):
    """370 clips, as a fold of EMO-DB has; also where there are so many speakers that each says little by itself."""
    table = make_table(370, dims=128, speakers=speakers, code=coded)
    (after,) = erased("leace", table)
    attacker = LogisticRegression(max_iter=1000)
    majority = np.bincount(to_indices(table.speaker)).max() / 370
    assert read(attacker, table, table) > 0.95
    assert read(attacker, after, after) <= majority + 0.03
    means = [after.embedding[after.speaker == who].mean(axis=0) for who in np.unique(after.speaker)]
    assert np.ptp(means, axis=0).max() < 1e-4 < 0.1 < np.ptp(table.embedding, axis=0).min()


def test_leace_takes_it_from_new_clips_too_and_leaves_the_emotion():
    table, new = (emotional(make_table(2000, dims=16, speakers=4, seed=seed, code=linear_code)) for seed in (0, 1))
    after, new_after = erased("leace", table, new)
    attacker = LogisticRegression(max_iter=1000)
    assert read(attacker, table, new) > 0.95 and read(attacker, after, new_after) < 0.25 + 0.05
    assert read(attacker, after, new_after, "emotion") > 0.9


def test_of_many_speakers_leace_takes_every_direction():
    """Each of 100 correlates little with anything; the limit that concept-erasure has by itself leaves them as they are."""
    weak = lambda embedding, speaker, rng: linear_code(embedding, speaker, rng, 0.1)  # noqa: E731
    table = make_table(3000, dims=128, speakers=100, code=weak)

    def apart(embedding):
        return np.ptp([embedding[table.speaker == who].mean(axis=0) for who in np.unique(table.speaker)], axis=0).max()

    x, who = as_tensor(table).double(), erasers.one_hot(table.speaker)
    (after,) = erased("leace", table)
    by_itself = LeaceFitter.fit(x, who).eraser(x).numpy()
    assert apart(table.embedding) > 0.5 and apart(by_itself) > 0.1 and apart(after.embedding) < 1e-4


def test_the_kernel_eraser_takes_what_no_line_shows():
    """Attackers learn from clips that it was not fitted on: on its own it has wiped away more than on any others."""
    table, new, more = (emotional(make_table(800, dims=16, speakers=4, seed=seed, code=xor_code)) for seed in range(3))
    _, *straight = erased("leace", table, new, more)
    _, *curved = erased("kernel", table, new, more, rounds=5)
    svm, line = SVC(C=3.0), LogisticRegression(max_iter=1000)
    before = read(svm, new, more)
    assert before > 0.85 and read(svm, *straight) > 0.65, "LEACE leaves most of it where it is"
    assert read(svm, *curved) < 0.5 and read(line, *curved) < 0.35
    assert read(line, *curved, "emotion") > 0.9


def test_where_a_line_shows_it_the_kernel_eraser_is_no_worse_than_leace():
    """Moving along curves would bend a straight code into one that is read again: the straight one goes first."""
    weak = lambda embedding, speaker, rng: linear_code(embedding, speaker, rng, 0.5)  # noqa: E731
    table, new, more = (make_table(400, dims=32, speakers=4, seed=seed, code=weak) for seed in range(3))
    svm = SVC(C=3.0)
    straight, curved = (read(svm, *erased(name, table, new, more)[1:]) for name in ("leace", "kernel"))
    assert read(svm, new, more) > 0.8 and straight < 0.45 and curved < straight + 0.05


def test_who_learns_from_the_clips_an_eraser_was_fitted_on_learns_nothing_whatever_is_left():
    """Why attackers of an erased embedding learn from held-out clips alone."""
    table, new, more = (make_table(400, dims=128, speakers=8, seed=seed, code=linear_code) for seed in range(3))
    after, new, more = erased("leace", table, new, more)
    line = LogisticRegression(max_iter=1000)
    assert read(line, after, more) < 0.16 and read(line, new, more) > 0.28, "chance is 0.125"


def test_the_kernel_eraser_ends_where_there_is_nothing_to_read():
    table = make_table(800, dims=8, speakers=4)
    nothing, something = eraser("kernel", 8), eraser("kernel", 8, rounds=2)
    nothing.fit(as_tensor(table), table.speaker, seed=0)
    something.fit(as_tensor(make_table(800, dims=8, speakers=4, code=xor_code)), table.speaker, seed=0)
    assert int(nothing.used) <= 1 and int(something.used) == 2, "of eight and of two rounds; a first one by bad luck"


@pytest.mark.parametrize("name", ["leace", "kernel"])
def test_erasing_is_a_function_of_the_embedding_and_of_the_seed(name):
    table = make_table(200, dims=12, speakers=4, code=xor_code)
    first, again, other = (eraser(name, 12, **({"rounds": 2} if name == "kernel" else {})) for _ in range(3))
    x = as_tensor(table)
    for one, seed in ((first, 0), (again, 0)):
        one.fit(x, table.speaker, seed)
    other.load_state_dict(first.state_dict())
    assert torch.equal(first(x), again(x)) and torch.equal(first(x), other(x))
    assert torch.allclose(first(x[:1])[0], first(x)[0], atol=1e-4) and torch.isfinite(first(1e4 * x)).all()
    assert not torch.allclose(first(x), x, atol=1e-2) and first.train()(x) is x


@pytest.mark.parametrize("name", ["leace", "kernel"])
def test_before_it_is_fitted_an_eraser_changes_nothing(name):
    x = torch.randn(5, 12)
    assert torch.allclose(eraser(name, 12)(x), x, atol=1e-6)


@pytest.mark.parametrize("name", ["leace", "kernel"])
def test_one_speaker_or_few_clips_are_no_reason_to_fail(name):
    x = torch.randn(6, 12)
    for speaker in (["a"] * 6, ["a", "b", "c", "d", "e", "f"], ["a", "a", "a", "a", "a", "b"]):
        fitted = eraser(name, 12)
        fitted.fit(x, np.array(speaker), seed=0)
        assert torch.isfinite(fitted(x)).all()


def test_erasing_more_speakers_than_there_are_dimensions_is_refused():
    leace = make_recipe({"erase": {"name": "leace"}})
    check_erase(leace, 12, 12)
    check_erase(Recipe(), 12, 500)
    with pytest.raises(RecipeError, match=r"13 training speakers take 12 dimensions.* expected encoder.dim above 12"):
        check_erase(leace, 12, 13)
    with pytest.raises(RecipeError, match="unknown erase.name 'lace', did you mean 'leace'"):
        check_erase(make_recipe({"erase": {"name": "lace"}}), 12, 3)
    check_erase(make_recipe({"audit": {"holdout": 0}}), 12, 3)
    with pytest.raises(RecipeError, match="erase.name = leace with audit.holdout = 0: .* expected audit.holdout above 0"):
        check_erase(make_recipe({"erase": {"name": "leace"}, "audit": {"holdout": 0}}), 12, 3)


@pytest.mark.parametrize(
    ("before", "claim"), [(0.5, (True, "within")), (0.2, ("undecided", "starved")), (None, ("undecided", "starved"))]
)
def test_attackers_who_could_not_read_before_the_erasure_show_nothing_after_it(before, claim):
    control = {"accuracy": 0.55, "low": before, "high": 0.6}
    speaker = {"at_chance": True, "reason": "within", "chance": {"given_emotion": 0.2}, "controls": {"unreleased": control}}
    found = unless_starved(speaker)
    assert (found["at_chance"], found["reason"]) == claim and set(found) == set(speaker)
    leak = {**speaker, "at_chance": False, "reason": "leak"}
    assert unless_starved(leak) == leak
    assert unless_starved({**speaker, "controls": {}})["reason"] == "starved"


def test_at_chance_allows_for_luck_and_no_more():
    speaker = np.repeat(np.arange(4), 25)
    assert erasers.at_chance(0.25, speaker) and erasers.at_chance(0.32, speaker) and not erasers.at_chance(0.33, speaker)


# ---- noise out of the content


def some_audio(seed=0):
    rng, samples = np.random.default_rng(seed), torch.tensor([900, 400, 1600])
    audio = torch.from_numpy(rng.uniform(-0.5, 0.5, (3, 1600))).float()
    return audio * mask_of(samples, 1600), samples


def test_asking_twice_gives_the_same_bits_alone_or_padded_in_any_order():
    audio, samples = some_audio()
    noise = content_noise(audio, samples, 7)
    assert noise.shape == (2, 3, 7) and torch.equal(noise, content_noise(audio, samples, 7))
    order = torch.tensor([2, 0, 1])
    assert torch.equal(content_noise(audio[order], samples[order], 7), noise[:, order])
    for row, count in enumerate(samples.tolist()):
        alone = content_noise(audio[row : row + 1, :count], samples[row : row + 1], 7)
        assert torch.equal(alone, noise[:, row : row + 1])


def test_other_content_has_other_noise_however_little_it_differs():
    audio, samples = some_audio()
    changed = audio.clone()
    changed[0, 5] += 1 / 32768
    changed[1, 399] += 0.2 / 32768 * (1 if (audio[1, 399] * 32768).frac().abs() < 0.25 else 0)  # rounds to the same
    noise, other = content_noise(audio, samples, 500), content_noise(changed, samples, 500)
    assert (noise[:, 0] - other[:, 0]).abs().mean() > 0.5 and torch.equal(noise[:, 1:], other[:, 1:])
    rows = noise.transpose(0, 1).flatten(0, 1)
    assert (torch.corrcoef(rows) - torch.eye(6)).abs().max() < 0.2, "of clips, and of bottleneck and release"


def test_in_training_the_content_is_that_of_the_log_mels():
    """So that dev speakers are scored alike whatever was drawn before."""
    torch.manual_seed(0)
    mels, frames = torch.randn(3, 8, 50), torch.tensor([50, 20, 40])
    noise, before = mel_noise(mels, frames, 7), torch.get_rng_state()
    alone = mel_noise(mels[1:2, :, :20], frames[1:2], 7)
    assert torch.equal(alone, noise[:, 1:2]) and (noise[:, 0] - noise[:, 2]).abs().mean() > 0.5
    model = model_of(bottleneck=section("bottleneck", name="vib"))
    mels, frames = torch.randn(3, 24, 50), torch.tensor([50, 20, 40])
    one, two = (model.from_mels(mels, frames).embedding for _ in range(2))
    assert torch.equal(one, two) and not torch.equal(model.train().from_mels(mels, frames).embedding, one)
    assert not torch.equal(torch.get_rng_state(), before), "in training it is drawn"


def test_the_noise_is_standard_normal():
    audio, samples = some_audio()
    assert stats.kstest(content_noise(audio, samples, 5000).flatten().numpy(), "norm").pvalue > 0.01


def test_the_noise_of_a_clip_stays_what_it_is():
    """What a released embedding was made with must not change with a library's version."""
    noise = content_noise(torch.tensor([[0.0, 0.5, -0.25]]), torch.tensor([3]), 2)
    assert noise.flatten().tolist() == pytest.approx(GOLDEN, abs=1e-6)


GOLDEN = [-0.15349998, 1.34693122, 0.12703247, 0.89341474]


# ---- release


def release(name, dim=6, **settings):
    return RELEASES[name](dim, section("release", name=name, **settings)).eval()


def spread(clips=4000, dim=6):
    torch.manual_seed(0)
    return 5 + torch.randn(clips, dim) * torch.logspace(-1, 2, dim)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_the_noise_has_its_sigma_on_the_embedding_of_unit_variance(sigma):
    x, noise = spread(), torch.randn(4000, 6)
    fitted, quiet = release("noise", sigma=sigma), release("noise", sigma=0.0)
    assert torch.equal(fitted(x, noise), x), "nothing happens before the statistics are known"
    for one in (fitted, quiet):
        one.fit(x)
    plain, told = quiet(x, noise), fitted(x, noise)
    assert torch.allclose(plain.mean(dim=0), torch.zeros(6), atol=1e-3)
    assert torch.allclose(plain.std(dim=0), torch.ones(6), atol=1e-3)
    assert torch.allclose((told - plain).std(dim=0), torch.full((6,), sigma), rtol=0.05)
    assert torch.allclose(told, plain + sigma * noise, atol=1e-5)


def test_asking_twice_averages_nothing_out_unlike_noise_that_is_drawn():
    (audio, samples), x = some_audio(), spread(3)
    fitted = release("noise")
    fitted.fit(spread())
    clean = fitted(x, torch.zeros_like(x))

    def error_of_the_mean(noises):
        return (torch.stack([fitted(x, noise) for noise in noises]).mean(dim=0) - clean).square().mean().sqrt().item()

    once = error_of_the_mean([content_noise(audio, samples, 6)[1]])
    assert error_of_the_mean([content_noise(audio, samples, 6)[1] for _ in range(100)]) == pytest.approx(once)
    assert error_of_the_mean([None] * 100) < 0.3 * once, "drawn anew each time"


@pytest.mark.parametrize("step", [0.5, 2.0])
def test_what_is_quantised_is_on_the_grid_and_keeps_no_sign_of_zero(step):
    fitted, x = release("quantise", step=step), spread()
    fitted.fit(x)
    told, plain = fitted(x), fitted.norm(x)
    assert torch.equal(told, (told / step).round() * step) and (told - plain).abs().max() <= step / 2 + 1e-5
    assert (told == 0).float().mean() > 0.02 and not torch.signbit(told[told == 0]).any()
    assert len(told.unique()) < 100 < len(plain.unique())


@pytest.mark.parametrize("name", ["noise", "quantise"])
def test_training_sees_the_release_only_where_it_is_to(name):
    x = spread(50).requires_grad_()
    assert release(name).train()(x) is x
    seen = release(name, in_training=True, **({"sigma": 0.0} if name == "noise" else {"step": 1e-4})).train()
    told = seen(x)
    assert torch.allclose(told.std(dim=0), torch.ones(6), atol=0.06), "by the statistics of the batch"
    (told * torch.randn(50, 6)).sum().backward()
    assert x.grad.abs().sum() > 0 and seen.norm.running_mean.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in seen.parameters())


def test_a_dimension_that_hardly_moves_is_not_blown_up():
    x = torch.cat((torch.randn(100, 1), 3 + 1e-5 * torch.randn(100, 1)), dim=1)
    fitted = release("noise", dim=2, sigma=0.0)
    fitted.fit(x)
    told = fitted(x)
    assert told[:, 0].std().item() == pytest.approx(1, abs=0.02) and told[:, 1].std() < 1e-3


# ---- in the model


def model_of(**sections):
    torch.manual_seed(0)
    parts = {"features": FeaturesSection(mels=24), "encoder": EncoderSection(channels=(4,), dim=12), "emotion": EmotionSection()}
    return SerModel(ModelSettings(labels=("a", "b", "c"), sample_rate=16_000, **parts, **sections)).eval()


def test_everything_off_is_the_model_as_it_was():
    model, mels, frames = model_of(), torch.randn(3, 24, 40), torch.tensor([40, 20, 40])
    assert {name.split(".")[0] for name in model.state_dict()} == {"logmel", "normalise", "encoder", "head"}
    before = torch.get_rng_state()
    output = model.from_mels(mels, frames)
    plain = model.encoder(model.normalise(mels, frames), frames)
    assert torch.equal(output.embedding, plain) and torch.equal(output.head_input, plain) and not output.rate.any()
    assert torch.equal(output.logits, model.head(plain)) and torch.equal(torch.get_rng_state(), before)


def test_an_unknown_name_is_an_error_that_says_what_there_is():
    for name in ("bottleneck", "erase", "release"):
        with pytest.raises(RecipeError, match=rf"unknown {name}.name 'nose'.* Expected one of: none, "):
            section(name, name="nose")


@pytest.mark.parametrize("classify", ["before", "after"])
def test_the_emotion_is_told_before_the_release_or_after(classify):
    model = model_of(release=section("release", name="noise", sigma=3.0, classify=classify))
    model.release.fit(torch.randn(500, 12))
    mels, frames = torch.randn(3, 24, 40), torch.tensor([40, 20, 40])
    quiet, loud = (model.from_mels(mels, frames, noise) for noise in (torch.zeros(2, 3, 12), torch.ones(2, 3, 12)))
    assert not torch.allclose(quiet.embedding, loud.embedding, atol=1)
    assert torch.equal(quiet.logits, loud.logits) is (classify == "before")
    assert torch.equal(loud.head_input, loud.embedding) is (classify == "after")
    assert torch.equal(loud.logits, model.head(loud.head_input))


@pytest.mark.parametrize("trained", [False, True])
def test_a_head_that_reads_what_is_released_is_told_of_its_scale(trained):
    recipe = make_recipe({"release": {"name": "noise", "classify": "after", "in_training": trained}})
    model, x = model_of(release=recipe.release), spread(300, 12)
    parts = torch.nn.ModuleDict({"release": model.release, "head": model.head})
    if trained:
        model.release.train()(2 * x + 1)
        model.release.eval()
    before = model.head(model.release(x, torch.zeros_like(x)))
    for _ in range(2):  # doing it again changes nothing
        fit_release(parts["release"], parts["head"], x, recipe)
        told = model.release(x, torch.zeros_like(x))
        assert torch.allclose(told.std(dim=0), torch.ones(12), atol=5e-3)
        assert torch.allclose(model.head(told), before, atol=2e-3 * before.abs().max().item())


def test_what_an_erased_and_released_embedding_is_compared_with():
    """What came out of the bottleneck; an untrained encoder without anything behind it."""
    off, on = model_of(), model_of(erase=section("erase", name="leace"), release=section("release", name="quantise"))
    on.release.fit(torch.randn(50, 12))
    on.eraser.fit(torch.randn(50, 12), np.arange(50) % 3, seed=0)
    audio = [np.random.default_rng(seed).uniform(-0.3, 0.3, 4000).astype(np.float32) for seed in range(4)]
    assert np.array_equal(CONTROLS["unreleased"](on, audio), apply(off, audio)[0]), "they have the same encoder"
    assert not np.allclose(apply(on, audio)[0], apply(off, audio)[0], atol=0.1)
    assert np.array_equal(CONTROLS["random_encoder"](on, audio), CONTROLS["random_encoder"](off, audio))
    assert "unreleased" in controls_for(on, quick=False) and "unreleased" not in controls_for(off, quick=False)
    assert controls_for(on, quick=True) == ["posteriors"] and controls_for(off, quick=True) == []
    assert controls_for(model_of(release=section("release", name="noise", classify="after")), quick=True) == []


def test_the_head_learns_again_from_what_is_left():
    table = emotional(make_table(600, dims=16, speakers=4, code=linear_code))
    (after,) = erased("leace", table)
    emotion = torch.from_numpy(to_indices(table.emotion))
    torch.manual_seed(0)
    head = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(32, 5)).eval()
    x = as_tensor(after)
    before = (head(x).argmax(dim=1) == emotion).float().mean().item()
    refit_head(head, x, emotion, lambda x: x, Recipe())
    assert (head(x).argmax(dim=1) == emotion).float().mean() > 0.9 > 0.5 > before and not head.training


# ---- whole runs

NAMES = {"01": "Annegret", "02": "Balthasar", "03": "Clothilde", "04": "Dietlinde", "05": "Eberhard", "06": "Friedhelm"}
RUNS = {
    "vib, leace, noise before": {
        "bottleneck": {"name": "vib"},
        "erase": {"name": "leace"},
        "release": {"name": "noise", "sigma": 0.5},
    },
    "fsq, kernel": {"bottleneck": {"name": "fsq", "levels": 8}, "erase": {"name": "kernel", "rounds": 2}},
    "noise after, trained": {"release": {"name": "noise", "in_training": True, "classify": "after"}},
    "quantise after": {"release": {"name": "quantise", "step": 0.5, "classify": "after"}},
}
TRAINED = ("Annegret", "Balthasar", "Dietlinde")


@pytest.fixture(scope="module")
def named(folder, tmp_path_factory):
    """The tones, by people with names that would be found in a file."""
    rename = lambda utterances: [replace(one, speaker=NAMES[one.speaker]) for one in utterances]  # noqa: E731
    return prepare_table(folder / "corpus.csv", tmp_path_factory.mktemp("named") / "data", rename)


@pytest.fixture(scope="module", params=RUNS)
def run(request, named, tmp_path_factory):
    """A run of three epochs with one of the settings."""
    split = {"scheme": "fixed", "test": ["Eberhard", "Friedhelm"], "dev": ["Clothilde"]}
    recipe = make_recipe({**TINY, "split": split, **RUNS[request.param]})
    return train(recipe, named, tmp_path_factory.mktemp("runs") / "run", device="cpu")


def training_clips(run, prepared, model):
    indices = run.splits[0].indices("train", prepared.utterances)
    return open_dataset(prepared, indices, model.labels, (), model.logmel, 1.0)


def test_a_model_gives_the_same_when_asked_again_alone_or_in_a_batch(run, named):
    model, audio = load_model(run.fits[0].folder), [named.clip(index) for index in range(7)]
    embedding, probability = apply(model, audio)
    again, _ = apply(model, audio)
    alone, order = apply(model, audio[3:4]), apply(model, audio[::-1], batch_size=3)
    assert np.array_equal(embedding, again) and np.isfinite(embedding).all()
    if run.recipe.release.name != "quantise":  # where a last digit may be what decides a cell
        assert np.allclose(alone[0][0], embedding[3], atol=1e-4) and np.allclose(order[0][::-1], embedding, atol=1e-4)
    assert np.allclose(probability.sum(axis=1), 1, atol=1e-5)


def test_nothing_of_the_speakers_is_in_the_files_of_a_model(run):
    folder = run.fits[0].folder
    said = (folder / DESCRIPTION).read_bytes() + (folder / WEIGHTS).read_bytes()
    assert not any(name.encode() in said for name in NAMES.values()) and b"head.0.weight" in said
    assert "Annegret" in (run.folder / "split.json").read_text()


def test_finishing_is_deterministic_and_knows_training_speakers_alone(run, named):
    """The same bits from the same clips; and none but theirs: those of other people change nothing."""
    one, two = (load_model(run.fits[0].folder) for _ in range(2))
    assert run.recipe.release.name == "none" or int(one.release.fitted) == 1, "training has done it"
    assert run.recipe.erase.name == "none" or not torch.equal(one.eraser(torch.eye(12)), torch.eye(12)), "and this"
    for model in (one, two):
        finish(model, training_clips(run, named, model), run.recipe)
    state = one.state_dict()
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in state.items())
    if run.recipe.erase.name == "leace":
        own = training_clips(run, named, one)
        x = one.eraser(torch.from_numpy(apply_to_dataset(one, own).bottleneck))
        means = torch.stack([x[own.speaker == who].mean(dim=0) for who in range(3)])
        assert len(own) == 30 and (means.amax(dim=0) - means.amin(dim=0)).max() < 1


def test_a_run_is_evaluated_and_inferred(run, named, folder):
    evaluation = evaluate(run, named, device="cpu", quick=True)
    summary, recipe = evaluation.summary, run.recipe
    speaker = summary["speaker"]
    assert summary["settings"]["threat"] == describe_threat_model(recipe) and "Not covered" in describe_threat_model(recipe)
    rate = {"none": None, "fsq": 12 * 3.0}.get(recipe.bottleneck.name, speaker["rate_bits"])
    assert speaker["rate_bits"] == (rate if rate is None else pytest.approx(rate)) and rate != 0
    two = recipe.release.name == "noise" and recipe.release.classifies_before
    assert bool(speaker["outputs"]) is two is ("second output" in describe_threat_model(recipe))
    if two:
        assert speaker["outputs"]["posteriors"] == speaker["controls"]["posteriors"]
        assert speaker["outputs"]["embedding"] == speaker["controls"]["embedding"] and speaker["outputs"]["attackers"] == "quick"
    assert speaker["learned"] == ("held-out" if recipe.erase.name != "none" else "all")
    assert set(evaluation.table.id) == set(run.splits[0].held_out) or recipe.erase.name == "none"
    report = run.folder / "report"
    write_report(summary, report)
    for text in ((report / "report.md").read_text(), (report / "report.html").read_text()):
        assert "the attacker has the embedding of one utterance" in text
        assert ("Two outputs" in text) is two and ("bounds what any attacker can get" in text) is (rate is not None)
    assert json.loads((report / "report.json").read_text())["settings"]["threat"]
    rows = list(predict(load_models(run, device="cpu"), sorted(folder.glob("05_*.wav"))))
    stored = dict(zip(evaluation.predictions.id, evaluation.predictions.probability, strict=True))
    assert len(rows) == 12 and not any(row["error"] for row in rows)
    for row in rows:
        expected = stored[row["path"].rsplit("/", 1)[-1]]
        close = 0.2 if recipe.release.name == "quantise" else 1e-4
        assert [row[f"p_{label}"] for label in evaluation.predictions.labels] == pytest.approx(expected.tolist(), abs=close)


def test_a_model_of_an_earlier_version_loads(trained, prepared, tmp_path):
    folder = trained.fits[0].folder
    model = load_model(folder)
    save_model(model, tmp_path)
    described = json.loads((tmp_path / DESCRIPTION).read_text())
    for name in ("bottleneck", "erase", "release"):
        assert described.pop(name)["name"] == "none"
    (tmp_path / DESCRIPTION).write_text(json.dumps(described))
    old, audio = load_model(tmp_path), [prepared.clip(0)]
    assert np.array_equal(apply(old, audio)[0], apply(model, audio)[0]) and old.settings == model.settings


@pytest.mark.parametrize(
    "change, said",
    [
        ({"erase": {"name": "leacee"}}, f"{DESCRIPTION} is damaged: unknown erase.name 'leacee', did you mean 'leace'"),
        (
            {"release": {"name": "noise", "sigma": -1}},
            f"{DESCRIPTION} is damaged: release.sigma = -1: .*greater than or equal to 0",
        ),
        ({"erase": {"name": "leace"}}, f"{WEIGHTS} is damaged or belongs to another model: Missing key.*eraser"),
    ],
)
def test_a_model_whose_parts_do_not_fit_is_named(trained, tmp_path, change, said):
    save_model(load_model(trained.fits[0].folder), tmp_path)
    described = json.loads((tmp_path / DESCRIPTION).read_text())
    (tmp_path / DESCRIPTION).write_text(json.dumps(described | {name: described[name] | part for name, part in change.items()}))
    with pytest.raises(RunError, match=said):
        load_model(tmp_path)


def test_a_model_that_would_answer_nan_is_not_loaded(trained, tmp_path):
    model = load_model(trained.fits[0].folder)
    model.head[0].bias.data[0] = math.nan
    save_model(model, tmp_path)
    with pytest.raises(RunError, match=f"{WEIGHTS} is damaged: head.0.bias not finite"):
        load_model(tmp_path)


# ---- the threat model in words


@pytest.mark.parametrize(
    "tables, said, unsaid",
    [
        ({}, ["as the model outputs it, and labelled embeddings", "return the same embedding."], ["noise", "second output"]),
        ({"release": {"name": "noise", "sigma": 0.5}}, ["noise of 0.5 times", "can be averaged", "second output"], ["rounded"]),
        ({"release": {"name": "quantise", "classify": "after"}}, ["rounded to steps of 1 "], ["noise", "second output"]),
        (
            {"bottleneck": {"name": "vib"}},
            ["sampled from the distribution that the bottleneck gives", "can be averaged"],
            ["second output"],
        ),
        ({"bottleneck": {"name": "fsq", "levels": 7}}, ["quantised to 7 levels"], ["noise"]),
    ],
)
def test_the_threat_model_says_what_the_attacker_is_given(tables, said, unsaid):
    text = describe_threat_model(make_recipe(tables))
    assert all(part in text for part in said) and not any(part in text for part in unsaid)
