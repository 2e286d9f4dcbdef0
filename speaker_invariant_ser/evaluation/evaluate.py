"""A run -> an Evaluation: emotion on speakers that their fold has never heard, and what is left of those it was trained on."""

import functools
import json
import operator
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import compress

import numpy as np

from speaker_invariant_ser.audit.audit import Audit, AuditSettings, Scored, audit
from speaker_invariant_ser.audit.controls import CONTROLS, controls_for
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.threat_model import describe_threat_model, posteriors_bypass_release
from speaker_invariant_ser.audit.verdict import verdict
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.data.splits import Split
from speaker_invariant_ser.errors import RunError, shorten
from speaker_invariant_ser.evaluation.comparison import compare, require_same_clips
from speaker_invariant_ser.evaluation.domains import domain_differences, domain_results, domains_of, headline
from speaker_invariant_ser.evaluation.predictions import (
    PREDICTIONS,
    Predictions,
    by_group,
    emotion_summary,
    fit_temperature,
    group_columns,
    join,
    over_seeds,
    read_predictions,
    uar_by_seed,
    uar_with_interval,
    write_predictions,
)
from speaker_invariant_ser.features.speaker_means import SpeakerMeans, compute_speaker_means
from speaker_invariant_ser.indexing import to_indices
from speaker_invariant_ser.models.apply import apply, apply_to_clips
from speaker_invariant_ser.models.model import SerModel, choose_device, load_model
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.runs import Fit, Run, kept, split_hash

REPORT, JSON = "report", "report.json"  # in the run folder
MOST_MAP = 1e9  # bytes of all encoders' maps before pooling; where they would take more, the attacker that reads them is left out

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class Evaluation:
    """All that a report needs."""

    name: str
    predictions: Predictions
    audit: Audit
    fits: list[Fit]  # the models, in the order of the audit's encoders
    groups: dict[str, dict]  # column -> value -> results
    domains: dict | None  # results of source and target apart; the predictions are then the target's alone
    against: dict | None  # paired with another run
    curves: dict[str, list[dict[str, float]]]  # name of a fit -> metrics.csv
    table: Embeddings  # of the first fold, for a map
    rate_bits: float | None  # mean over the scored clips: what one embedding carries at most
    two_outputs: bool  # posteriors are told from more than what is released
    learned: str  # "all" or "held-out": the clips that attackers learn from
    settings: dict
    note: str

    @property
    def summary(self) -> dict:
        """The content of report.json; its keys are stable."""
        folds = {fit.name: selected(fit, self.curves[fit.name]) for fit in self.fits}
        emotion = {**emotion_summary(self.predictions), "groups": self.groups, "domains": self.domains, "folds": folds}
        speaker = self.audit.summary if self.learned == "all" else unless_starved(self.audit.summary)
        speaker["strongest"] |= over_seeds(self.accuracy_by_seed)
        if self.against and self.against["strength"] == 0:
            speaker["controls"]["without_adversary"] = self.against["speaker"]["controls"]["embedding"]
        return {
            "run": self.name,
            "note": self.note,
            "at_chance": speaker["at_chance"],
            "verdict": verdict({"emotion": emotion, "speaker": speaker, "settings": self.settings}),
            "emotion": emotion,
            "speaker": {
                **speaker,
                "rate_bits": self.rate_bits,
                "learned": self.learned,
                "outputs": self.outputs(speaker["controls"]),
                "adversary_head": self.adversary_head(folds.values()),
            },
            "against": self.against,
            "settings": self.settings,
        }

    def outputs(self, controls: Mapping) -> dict | None:
        """What leaves the model, where that is more than one thing, each under the quick attackers."""
        names = ("embedding", "posteriors")
        return {"attackers": "quick", **{name: controls[name] for name in names}} if self.two_outputs else None

    def adversary_head(self, folds: Collection[Mapping]) -> dict | None:
        """The first adversary's own reader, in training; None for an adversary that has none."""
        if not all("adversary_accuracy" in fold for fold in folds):
            return None
        own = float(np.mean([fold["adversary_accuracy"] for fold in folds]))
        target = self.settings["recipe"]["adversary"]["target"]
        return {"accuracy": own, "target": target, "evidence": False, "curve": mean_curve(self.curves)}

    @property
    def accuracy_by_seed(self) -> dict[int, float]:
        """The strongest attacker's accuracy on the encoders of each seed."""
        encoders = defaultdict(list)
        for encoder, fit in enumerate(self.fits):
            encoders[fit.seed].append(encoder)
        return {seed: self.audit.leakage.strongest.accuracy(mine) for seed, mine in encoders.items()}


def evaluate(
    run: Run,
    prepared: PreparedCorpus,
    device: str = "auto",
    progress: Progress | None = None,
    by: Sequence[str] = (),
    against: Run | None = None,
    quick: bool = False,
    jobs: int = 1,
) -> Evaluation:
    """Apply every model to its test speakers, audit every model's embeddings of its training speakers and of all others.

    Writes predictions.csv into the run. `by` names columns of the manifest by whose values results are broken down, beside
    those that always are (`group_columns`); `against` is another run, evaluated already, of the same test clips; `quick` takes
    the short battery. Raises RunError if folds are missing or damaged, for an unknown column, or if the runs do not match.
    """
    fits = run.all_done()
    splits = [fit.split for fit in fits]
    prepared = prepared.labelled(run.recipe.labels.map, run.recipe.split)
    means = speaker_means(run, prepared, device)
    listed = [prepared.utterances[index] for split in splits for index in split.indices("test", prepared.utterances)]
    domains = domains_of(run.recipe.split, listed)
    first = headline(domains)
    columns = group_columns(list(compress(listed, first)), by)
    require_held_out(run, prepared, splits)
    other = against and read_report(against)
    told = progress or (lambda what, done, total: None)
    parts = attacked_parts(run.recipe)
    mapped = not quick and map_bytes(run, prepared, splits, means) <= MOST_MAP
    tested, tables, rates, unseen, controls = [], [], [], [], defaultdict(list)
    for done, fit in enumerate(fits, start=1):
        split = fit.split
        model = load_model(fit.folder, str(choose_device(device)))
        tested.append(test(model, prepared, fit, means))
        table, rate = embed_rated(model, prepared, split, parts, mapped, means)
        tables.append(table)
        rates.append(rate[table.scored])
        unseen.append(embed(model, prepared, split, ("dev", "test"), means))
        _, clips, clip_means = clips_of(prepared, split, parts, means)
        for name in controls_for(model, quick):
            controls[name].append(CONTROLS[name](model, clips, clip_means))
        told("applying models", done, len(splits))
    predictions = join(tested)
    paired = against and paired_with(other, predictions, against, domains)
    write_predictions(run.folder / PREDICTIONS, predictions)
    section = run.recipe.audit
    scored: Scored = "held-out" if all(split.held_out for split in splits) else "trained"
    settings = AuditSettings(section.folds, section.seed, quick=quick, jobs=jobs)
    return Evaluation(
        name=run.folder.resolve().name,
        predictions=predictions.rows(first),
        audit=audit(tables, scored, controls, unseen, settings, told),
        fits=fits,
        groups=by_group(predictions.rows(first), columns),
        domains=domain_results(run.recipe.split, predictions, domains),
        against=paired or None,
        curves={fit.name: fit.metrics() for fit in fits},
        table=tables[0],
        rate_bits=None if run.recipe.bottleneck.name == "none" else float(np.concatenate(rates).mean() / np.log(2)),
        two_outputs=posteriors_bypass_release(run.recipe.release),
        learned="all" if "train" in parts else "held-out",
        settings={**describe(run, prepared), "audit": settings.described},
        note=prepared.settings.get("note", ""),
    )


def attacked_parts(recipe: Recipe) -> tuple[str, ...]:
    """The parts of a fold that attackers learn from and are scored on: no clips that an eraser was fitted on.

    It has made all people alike on these, so that nothing is to be learned from them, and it would seem as if nothing were left.
    """
    return ("train", "held_out") if recipe.erase.name == "none" else ("held_out",)


def unless_starved(speaker: Mapping) -> dict:
    """The part `speaker` of a report whose attackers learned from few clips: that they are at chance is a claim only where as few
    were enough to read the embedding before its erasure. Five clips of each speaker are not, whatever there is to read.
    """
    before = speaker["controls"].get("unreleased")
    read = before is not None and (before["low"] or 0) > speaker["chance"]["given_emotion"]
    return {**speaker, **({"at_chance": "undecided", "reason": "starved"} if speaker["at_chance"] is True and not read else {})}


def map_bytes(run: Run, prepared: PreparedCorpus, splits: Sequence[Split], means: SpeakerMeans | None) -> float:
    """What the maps before pooling of all models would take; `splits` has a fold as often as it has models."""
    model = load_model(run.fits[0].folder)
    speaker_mean = means.of([prepared.utterances[0].speaker]) if means else None
    output = apply_to_clips(model, [prepared.clip(0)], speaker_mean, frame_features=True)
    features, frames = output.frame_features[0].shape
    a_sample = 2 * features * frames / prepared.utterances[0].samples  # 2 bytes a value
    parts = attacked_parts(run.recipe)
    indices = [index for split in splits for part in parts for index in split.indices(part, prepared.utterances)]
    return a_sample * sum(prepared.utterances[index].samples for index in indices)


def require_held_out(run: Run, prepared: PreparedCorpus, splits: Sequence[Split]) -> None:
    """Raise RunError if a fold holds out clips that the data do not have."""
    known = {one.id for one in prepared.utterances}
    for split in splits:
        if strange := sorted(set(split.held_out) - known):
            raise RunError(
                f"{run.folder} is damaged: fold {split.name} holds out clips that the data do not have: {shorten(strange)}"
            )


NEEDED = (  # by compare and --against
    "run",
    "note",
    "at_chance",
    "emotion.uar.value",
    "emotion.uar.low",
    "emotion.chance",
    "emotion.per_speaker",
    "speaker.speakers",
    "speaker.chance.uniform",
    "speaker.chance.given_emotion",
    "speaker.strongest.accuracy",
    "speaker.strongest.name",
    "speaker.controls.embedding.accuracy",
    "speaker.adversary_head",
    "settings.audit.quick",
)


def read_report(run: Run) -> dict:
    """report.json of a run. Raises RunError if it is missing or damaged."""
    path = run.folder / REPORT / JSON
    again = f"evaluate it again with `siser evaluate {run.folder}`"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        for key in NEEDED:
            functools.reduce(operator.getitem, key.split("."), summary)
        return summary
    except FileNotFoundError:
        raise RunError(f"{run.folder} has no {REPORT}/{JSON}: evaluate it first with `siser evaluate {run.folder}`") from None
    except (KeyError, TypeError):
        raise RunError(f"{path} is damaged or of another version, it has no {key}: {again}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}): {again}") from None


def paired_with(report: Mapping, predictions: Predictions, other: Run, domains: np.ndarray) -> dict:
    """The part `against` of report.json."""
    theirs = read_predictions(other.folder / PREDICTIONS)
    require_same_clips(predictions, theirs)
    ours = predictions.rows(headline(domains))
    same = theirs.rows(np.isin(theirs.id, ours.id))
    return {
        "run": other.folder.resolve().name,
        "strength": max(one.strength for one in other.recipe.adversaries),
        "transductive": other.recipe.features.transductive,
        **compare(ours, same).summary,
        "domains": domain_differences(predictions, theirs, domains),
        "emotion": {"uar": {**uar_with_interval(same), **over_seeds(uar_by_seed(same))}},
        "speaker": {key: report["speaker"].get(key) for key in ("strongest", "chance", "controls", "learned")},  # or none known
    }


def test(model: SerModel, prepared: PreparedCorpus, fit: Fit, means: SpeakerMeans | None) -> Predictions:
    """A model's predictions for its fold's test speakers, with the temperature that suits its dev speakers."""
    dev, dev_probability = classify(model, prepared, fit.split, "dev", means)
    utterances, probability = classify(model, prepared, fit.split, "test", means)
    return Predictions(
        labels=model.labels,
        id=np.array([utterance.id for utterance in utterances]),
        speaker=np.array([utterance.speaker for utterance in utterances]),
        fold=np.full(len(utterances), fit.split.name),
        seed=np.full(len(utterances), fit.seed),
        truth=to_indices([utterance.emotion for utterance in utterances], model.labels),
        probability=probability,
        temperatures={
            fit.name: fit_temperature(to_indices([utterance.emotion for utterance in dev], model.labels), dev_probability)
        },
    )


def classify(
    model: SerModel, prepared: PreparedCorpus, split: Split, part: str, means: SpeakerMeans | None
) -> tuple[list[Utterance], np.ndarray]:
    """The utterances of a part of the fold, and their emotion probabilities [N, C]."""
    utterances, clips, clip_means = clips_of(prepared, split, (part,), means)
    return utterances, apply(model, clips, clip_means)[1]


def clips_of(
    prepared: PreparedCorpus, split: Split, parts: Sequence[str], means: SpeakerMeans | None
) -> tuple[list[Utterance], list[np.ndarray], np.ndarray | None]:
    """Return utterances, audio and speaker means [N, M], if needed, of these parts of a fold, one part after another."""
    indices = [index for part in parts for index in split.indices(part, prepared.utterances)]
    utterances = [prepared.utterances[index] for index in indices]
    clips = [prepared.clip(index) for index in indices]
    return utterances, clips, means.of([utterance.speaker for utterance in utterances]) if means else None


def speaker_means(run: Run, prepared: PreparedCorpus, device: str) -> SpeakerMeans | None:
    """Compute all speakers' mean log-mels where the run's models take them off (features.normalise = "speaker")."""
    if not run.recipe.features.transductive:
        return None
    logmel = load_model(run.fits[0].folder, str(choose_device(device))).logmel
    return compute_speaker_means(prepared, logmel, {utterance.speaker for utterance in prepared.utterances})


def embed(
    model: SerModel, prepared: PreparedCorpus, split: Split, parts: Sequence[str], means: SpeakerMeans | None = None
) -> Embeddings:
    """Embeddings of these parts of a fold. What was trained on is not scored, unless nothing is held out."""
    return embed_rated(model, prepared, split, parts, False, means)[0]


def embed_rated(
    model: SerModel,
    prepared: PreparedCorpus,
    split: Split,
    parts: Sequence[str],
    mapped: bool,
    means: SpeakerMeans | None,
) -> tuple[Embeddings, np.ndarray]:
    """The same, and the rate of each clip [N], nats."""
    utterances, clips, clip_means = clips_of(prepared, split, parts, means)
    columns = {key: np.array([getattr(one, key) for one in utterances]) for key in ("id", "speaker", "emotion", "text")}
    trained = set(split.train) if split.held_out else set()
    held_out = set(split.held_out)
    scored = np.array([one.speaker not in trained or one.id in held_out for one in utterances])
    output = apply_to_clips(model, clips, clip_means, frame_features=mapped)
    frames = output.frame_features if mapped else None
    return Embeddings(output.embedding, **columns, scored=scored, frames=frames), output.rate


def selected(fit: Fit, rows: list[dict[str, float]]) -> dict:
    """Whose model it is, and what metrics.csv says of the epoch that was kept."""
    row = kept(rows)
    made = {"fold": fit.split.name, "seed": fit.seed, "epoch": int(row["epoch"])}
    return {**made, **{name: row[name] for name in ("dev_uar", "adversary_accuracy") if name in row}}


OF_CURVE = ("adversary_loss", "adversary_loss_uninformed", "adversary_accuracy", "adversary_gradient", "emotion_gradient")


def mean_curve(curves: Mapping[str, Sequence[Mapping]]) -> dict[str, list[float]]:
    """Columns of metrics.csv about the adversary, epoch by epoch, averaged over the models that went so far."""
    longest = max(len(rows) for rows in curves.values())
    epochs = [[rows[epoch] for rows in curves.values() if epoch < len(rows)] for epoch in range(longest)]
    names = [name for name in (*OF_CURVE, "attacker_accuracy") if all(name in row for rows in epochs for row in rows)]
    return {name: [float(np.mean([row[name] for row in rows])) for rows in epochs] for name in names}


def describe(run: Run, prepared: PreparedCorpus) -> dict:
    names = ("speaker-invariant-ser", "torch", "torchaudio", "scikit-learn", "numpy")
    return {
        "threat": describe_threat_model(run.recipe),
        "recipe": run.recipe.model_dump(mode="json"),
        "transductive": run.recipe.features.transductive,
        "corpora": prepared.settings["corpora"],
        "labels": prepared.mapped.table(),
        "seeds": list(run.seeds),
        "trained": run.fits[0].trained,
        "data_sha256": run.hashes,
        "folds": [
            {**asdict(split), "held_out": len(split.held_out), "sha256": split_hash(split, prepared)} for split in run.splits
        ],
        "versions": {name: version(name) for name in names},
    }
