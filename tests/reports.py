"""Synthetic reports, built from the typed model of report.json, for the tests of what shows them."""

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from speaker_invariant_ser.evaluation.claims.conclusion import concluded
from speaker_invariant_ser.evaluation.emotion import emotion_results as results_of
from speaker_invariant_ser.evaluation.part import Part
from speaker_invariant_ser.evaluation.predictions import PREDICTIONS, Predictions, read_predictions, write_predictions
from speaker_invariant_ser.evaluation.summary import (
    Against,
    AuditRecord,
    Difference,
    Fold,
    OtherEmotion,
    OtherSpeaker,
    Report,
    RunReport,
    RunSettings,
    SpeakerDifference,
    TableReport,
    TableSettings,
    UnauditedReport,
)
from speaker_invariant_ser.evaluation.summary_parts import (
    AdversaryClassifier,
    AttackerScore,
    Baseline,
    BaselineClassifier,
    Calibration,
    ChanceLevels,
    CodeLength,
    Confusion,
    Control,
    Emotion,
    GroupResult,
    Information,
    MeanUar,
    Reliability,
    ReliabilityBin,
    SelectedEpoch,
    Speaker,
    SpeakerResult,
    StrongestAttacker,
    Tail,
    Uar,
    WorstSpeaker,
)
from speaker_invariant_ser.evaluation.unseen_parts import (
    Clips,
    Identification,
    Linkage,
    PredictedEmotion,
    Ranks,
    Scorer,
    SpeakerMeans,
    Unseen,
    Verification,
    VerifiedGroups,
)
from speaker_invariant_ser.features.pretrained.checkpoint_paths import recipe_without_path
from speaker_invariant_ser.files import write_json
from speaker_invariant_ser.report.plots import Points
from speaker_invariant_ser.runs import CORPORA, Run

EMOTIONS = ("angry", "bored", "disgusted", "fearful", "happy", "neutral", "sad")
ATTACKERS = ("logistic", "lda", "qda", "knn", "svm", "mlp", "mlp_large", "boosting", "frames")
HASH = "0123456789abcdef" * 4
R = TypeVar("R", bound=Report)
AUDIT = AuditRecord(folds=5, seed=0, permutations=1000, quick=False, significant_bits=11)


def changed(report: R, **changes: Any) -> R:
    """Return the report with other values, whose keys are dotted paths with __ for the dot: speaker__scored="trained"."""
    content = deepcopy(report.to_json())
    for path, value in changes.items():
        *parents, last = path.split("__")
        table = content
        for name in parents:
            table = table[name]
        table[last] = jsonable(value)
    return type(report).model_validate(content)


def without_audit(report: RunReport, reason: str = "few") -> UnauditedReport:
    """The report of the same run as if it could not be audited."""
    content = {**report.to_json(), "speaker": None, "unaudited": reason, "verdict": ["Emotion.", "No speaker."]}
    del content["at_chance"]
    return UnauditedReport.model_validate(content)


def of_run(content: dict[str, Any], run: Run) -> dict[str, Any]:
    """The content of report.json as if it was of this run, by what a report is known by."""
    folds = [
        {**asdict(split), "held_out": len(split.held_out), "sha256": fold["sha256"]}
        for split, fold in zip(run.splits, run.record["folds"], strict=True)
    ]
    own = {"data_sha256": run.hashes, "seeds": list(run.seeds), "recipe": recipe_without_path(run.recipe), "folds": folds}
    own |= {"corpora": run.record[CORPORA]}
    return {**content, "settings": {**content["settings"], **own}}


def put_report(run: Run, content: dict[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """Write predictions and a report that follows from them into a run, or a copy of it, and return its content."""
    folder = folder or run.folder
    rows = [(spec, name, n) for spec in run.model_specs for name in spec.split.test for n in range(12)]
    truth, rng = np.array([n % 4 for *_, n in rows]), np.random.default_rng(0)
    probability = 0.8 * rng.dirichlet(np.ones(4), len(rows)) + 0.2 * np.eye(4)[truth]
    write_predictions(
        folder / PREDICTIONS,
        Predictions(
            labels=EMOTIONS[:4],
            id=np.array([f"{name}-{n}" for _, name, n in rows]),
            speaker=np.array([name for _, name, _ in rows]),
            fold=np.array([spec.split.name for spec, *_ in rows]),
            seed=np.array([spec.seed for spec, *_ in rows]),
            truth=truth,
            probability=probability.astype(np.float32),
        ),
    )
    own = results_of(read_predictions(folder / PREDICTIONS)).to_json()
    report = {**of_run(content, run), "emotion": {**content["emotion"], **own}}
    if speaker := content.get("speaker"):
        held_out = [name for split in run.splits for name in split.held_out]
        attacked = {"encoders": len(run.model_specs), "speakers": len(run.splits[0].train)}
        attacked |= {"utterances": len(set(held_out)), "decisions": len(held_out)}
        at_chance, reason = concluded(Speaker.model_validate(speaker), content["settings"]["audit"]["quick"])
        report |= {"speaker": {**speaker, **attacked, "at_chance": at_chance, "reason": reason}, "at_chance": at_chance}
    if baseline := content.get("baseline"):
        by_speaker = {key: own[key] for key in ("per_speaker", "worst_speaker", "accuracy", "uar_mean_over_speakers")}
        classifiers = {name: {**classifier, **by_speaker} for name, classifier in baseline["classifiers"].items()}
        report["baseline"] = {**baseline, "classifiers": classifiers, "chance": own["chance"], "utterances": own["utterances"]}
    (folder / "report").mkdir(exist_ok=True)
    write_json(folder / "report" / "report.json", report)
    return report


def jsonable(value: Any) -> Any:
    """Parts of a report inside dicts and lists as report.json has them."""
    if isinstance(value, Part):
        return value.to_json()
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    return [jsonable(item) for item in value] if isinstance(value, list) else value


def around(value: float, width: float = 0.05) -> dict[str, float]:
    return {"low": max(0.0, value - width), "high": min(1.0, value + width)}


def attacker(accuracy: float, reads: str = "embedding") -> AttackerScore:
    return AttackerScore(
        accuracy=accuracy,
        **around(accuracy),
        upper=min(1.0, accuracy + 0.04),
        balanced_accuracy=accuracy - 0.01,
        balanced_upper=accuracy + 0.03,
        p_value=0.0009 if accuracy > 0.3 else 0.4321,
        p_below=0.98,
        p_value_texts=0.0009 if accuracy > 0.3 else 0.5,
        p_below_texts=0.97,
        validation=accuracy + 0.01,
        reads=reads,
    )


def control(accuracy: float) -> Control:
    return Control(accuracy=accuracy, **around(accuracy), balanced_accuracy=accuracy - 0.01, attacker="logistic")


def calibration(models: list[str]) -> Calibration:
    before = [ReliabilityBin(confidence=(n + 0.5) / 15, accuracy=(n + 0.5) / 17, clips=3 * n) for n in range(15)]
    after = [ReliabilityBin(confidence=part.confidence, accuracy=part.confidence, clips=part.clips) for part in before]
    return Calibration(
        temperatures={model: 1.1 + 0.05 * number for number, model in enumerate(models)},
        before=Reliability(ece=0.087, bins=before),
        after=Reliability(ece=0.031, bins=after),
    )


def selected_epoch(fold: str, seed: int = 0) -> SelectedEpoch:
    return SelectedEpoch(fold=fold, seed=seed, epoch=31 + seed, dev_uar=0.77 - seed / 100, adversary_accuracy=0.28)


def emotion_results(speakers: list[str], labels: tuple[str, ...], folds: list[str], uar: float, seed: int) -> Emotion:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 8, (len(labels), len(labels))) + np.diag(rng.integers(25, 60, len(labels)))
    values = np.clip(rng.normal(uar, 0.09, len(speakers)), 0, 1)
    results = {
        name: SpeakerResult(uar=float(value), accuracy=max(0, float(value) - 0.01), utterances=54)
        for name, value in zip(speakers, values, strict=True)
    }
    worst = min(results, key=lambda name: results[name].uar)
    chance = 1 / len(labels)
    female = GroupResult(uar=Uar(value=uar, **around(uar)), accuracy=uar - 0.01, utterances=268, speakers=5, chance=chance)
    male = GroupResult(
        uar=Uar(value=uar - 0.03, low=None, high=None), accuracy=uar - 0.01, utterances=268, speakers=5, chance=chance
    )
    return Emotion(
        uar=Uar(value=uar, **around(uar), seeds={"0": uar}, deviation=None),
        accuracy=uar - 0.018,
        macro_f1=uar - 0.022,
        chance=chance,
        utterances=int(counts.sum()),
        per_class={name: float(counts[n, n] / counts[n].sum()) for n, name in enumerate(labels)},
        per_speaker=results,
        worst_speaker=WorstSpeaker(speaker=worst, **results[worst].to_json()),
        spread=0.083,
        confusion=Confusion(labels=list(labels), counts=counts.tolist()),
        ece=0.087,
        calibration=calibration(folds),
        groups={"sex": {"female": female, "male": male}},
        domains=None,
        folds={fold: selected_epoch(fold) for fold in folds},
        uar_mean_over_speakers=MeanUar(value=uar - 0.022, **around(uar - 0.022, 0.06)),
    )


def baseline_results(speakers: list[str], speaker: float | None = 0.349) -> Baseline:
    """A prosody baseline; without a speaker accuracy, as in a report of the features alone."""
    return Baseline(
        features="prosody",
        dimensions=22,
        headline="rbf",
        chance=1 / 7,
        utterances=535,
        classifiers={"linear": baseline_classifier(speakers, 0.656), "rbf": baseline_classifier(speakers, 0.689)},
        speaker=None if speaker is None else control(speaker),
        unavailable=None,
    )


def baseline_classifier(speakers: list[str], uar: float) -> BaselineClassifier:
    results = {
        name: SpeakerResult(uar=uar - number / 100, accuracy=uar, utterances=50 + number) for number, name in enumerate(speakers)
    }
    worst = speakers[-1]
    return BaselineClassifier(
        settings=f"an SVM at {uar}",
        uar=Uar(value=uar, **around(uar)),
        uar_mean_over_speakers=MeanUar(value=uar - 0.045, **around(uar - 0.045, 0.06)),
        accuracy=uar + 0.02,
        per_speaker=results,
        worst_speaker=WorstSpeaker(speaker=worst, **results[worst].to_json()),
    )


def unavailable_baseline(reason: str = "torchaudio does not fit torch") -> Baseline:
    return Baseline(
        features="prosody",
        dimensions=None,
        headline=None,
        chance=None,
        utterances=None,
        classifiers={},
        speaker=None,
        unavailable=reason,
    )


def unseen_results() -> Unseen:
    def scorer(eer: float) -> Scorer:
        rates = {"same_emotion": 0.28, "cross_emotion": 0.35, "linkability": 0.22}
        return Scorer(eer=eer, **around(0.31), **rates, per_encoder=[eer], cllr_min=2 * eer)

    return Unseen(
        accuracy=0.82,
        **around(0.82),
        balanced_accuracy=0.81,
        attacker="svm",
        chance=0.4,
        speakers=3,
        decisions=1605,
        eer=0.31,
        linkability=0.22,
        verification=Verification(
            eer=0.31,
            **around(0.31),
            cosine=scorer(0.36),
            trained=scorer(0.31),
            target_trials=9000,
            nontarget_trials=21000,
            same_text_left_out=True,
            per_speaker=SpeakerMeans(mean=0.29, **around(0.29), worst=0.11, speaker="08", speakers=10),
            rank=Ranks(mean=0.21, **around(0.21), worst=0.04, speaker="16", speakers=10, enrolled=3),
            judge=None,
            linkage=None,
        ),
    )


def with_judge(report: R) -> R:
    """The same report with the results of a judge."""
    judge = Scorer(eer=0.02, **around(0.02), same_emotion=0.01, cross_emotion=0.03, linkability=0.97, cllr_min=0.08)
    linkage = Linkage(auc=0.77, **around(0.77), eer=0.3, eer_low=0.25, eer_high=0.35, speakers=10, trials=3000)
    found = {"speaker__unseen__verification__judge": judge, "speaker__unseen__verification__linkage": linkage}
    return changed(report, **found, speaker__controls__judge=control(0.99))


def clips_results(accuracy: float) -> list[Clips]:
    """Five utterances reveal more than one, and no speaker has ten."""

    def clips(count: int, accuracy: float, eer: float) -> Clips:
        found = Identification(accuracy=accuracy, **around(accuracy), chance=0.21, groups=370 // count, speakers=7)
        verified = VerifiedGroups(eer=eer, **around(eer), target_trials=900, nontarget_trials=2100)
        return Clips(clips=count, identification=found, verification=verified)

    return [
        clips(1, accuracy, 0.31),
        clips(5, min(1, accuracy + 0.25), 0.12),
        Clips(clips=10, identification=None, verification=None),
    ]


def speaker_results(strongest: float, speakers: int, encoders: int, decisions: int) -> Speaker:
    steps = np.linspace(0, 0.25, len(ATTACKERS))
    scores = {
        name: attacker(max(0.02, strongest - float(step)), "frames" if name == "frames" else "embedding")
        for name, step in zip(("svm", *(name for name in ATTACKERS if name != "svm")), steps, strict=True)
    }
    chosen = {key: value for key, value in scores["svm"].to_json().items() if key not in ("validation", "reads")}
    at_chance = strongest < 1.5 / speakers
    return Speaker(
        speakers=speakers,
        emotions=7,
        encoders=encoders,
        decisions=decisions,
        utterances=decisions,
        left_out=[],
        left_out_share=0.0,
        not_tried={},
        grouped_by_text=True,
        clusters=10,
        chance=ChanceLevels(
            uniform=1 / speakers,
            majority=1.3 / speakers,
            given_emotion=1.5 / speakers,
            given_emotion_balanced=1.1 / speakers,
        ),
        attackers=scores,
        strongest=StrongestAttacker(
            name="svm", chosen={"svm": 0.7, "mlp": 0.3}, **chosen, seeds={"0": strongest}, deviation=None
        ),
        permutations=1000,
        detection_limit=1.5 / speakers + 0.05,
        margin=0.03,
        at_chance=at_chance,
        reason="within" if at_chance else "leak",
        scored="held-out",
        controls={
            "emotion": control(1.45 / speakers),
            "posteriors": control(2 / speakers),
            "shuffled": control(1.05 / speakers),
            "embedding": control(strongest - 0.02),
            "random_encoder": control(0.71),
            "logmel": control(0.93),
        },
        selectivity=strongest - 1.05 / speakers,
        information=Information(
            v_bits={"linear": 1.52, "mlp": 1.61},
            mdl=CodeLength(codelength_bits=980.4, uniform_bits=float(decisions * np.log2(speakers)), compression=1.61),
            log2_speakers=float(np.log2(speakers)),
            given_emotion_bits=float(np.log2(speakers)) - 0.1,
        ),
        unseen=unseen_results(),
        predicted_emotion=PredictedEmotion(
            accuracy=1.1 / speakers,
            low=0.9 / speakers,
            high=1.4 / speakers,
            balanced_accuracy=1 / speakers,
            attacker="logistic",
            chance=1.2 / speakers,
            speakers=speakers,
            utterances=decisions,
            decisions=decisions,
        ),
        clips=clips_results(strongest),
        rate_bits=None,
        learned="all",
        outputs=None,
        adversary_head=AdversaryClassifier(accuracy=0.2771, target="speaker", evidence=False, curve={}),
        significant_bits=11,
        nested_texts=0.0,
        best_recognised_speaker=tail(min(1, strongest + 0.1), 1.2 / speakers, 50, speaker="03"),
        surest_utterances=tail(min(1, strongest + 0.2), 1 / speakers, 6),
        balanced=tail(min(1, strongest + 0.1), 1 / speakers, decisions),
        best_recognised_model=tail(min(1, strongest + 0.1), 1 / speakers, 60, model="1"),
        same_text=None,
        scored_alone=None,
        copies=0.0,
    )


def tail(accuracy: float, expected: float, utterances: float, **of: str) -> Tail:
    """Return one of the tests of what an average hides, significant."""
    whole = {"attacker": "lda", "p_value": 0.001, "speaker": "", "model": "", "p_value_texts": 0.001, **of}
    return Tail.model_validate({"accuracy": accuracy, "expected": expected, "utterances": float(utterances), **whole})


def run_settings(folds: list[str], speakers: list[str]) -> RunSettings:
    return RunSettings(
        threat="",
        recipe={"adversary": {"name": "grl", "strength": 0.1, "target": "speaker"}, "train": {"seed": 0, "epochs": 40}},
        transductive=False,
        corpora=["emodb"],
        labels={"angry": "angry", "bored": "bored"},
        seeds=[0],
        trained={"device": "cpu", "precision": "float32", "processes": 1},
        data_sha256={"audio.i16": HASH, "manifest.csv": HASH[::-1]},
        folds=[
            Fold(
                name=fold,
                train=[speaker for speaker in speakers if speaker != fold][:7],
                dev=[speaker for speaker in speakers if speaker != fold][7:],
                test=[fold],
                texts=[],
                held_out=2,
                unlabelled=[],
                sha256=HASH,
            )
            for fold in folds
        ],
        versions={"speaker-invariant-ser": "0.1.0", "torch": "2.13.0"},
        audit=AUDIT,
        date="2026-11-29",
        judge=None,
    )


def run_report(name: str = "emodb-grl", uar: float = 0.735, strongest: float = 0.708) -> RunReport:
    """Ten folds, each with one of EMO-DB's speakers as its test."""
    speakers = ["03", "08", "09", "10", "11", "12", "13", "14", "15", "16"]
    return RunReport(
        run=name,
        note="",
        at_chance=False,
        verdict=[
            f"Emotion UAR on 10 unseen speakers: {100 * uar:.1f} % (chance 14.3).",
            f"Speaker identification accuracy of the strongest fresh attacker: {100 * strongest:.1f} % (chance 21.4).",
        ],
        emotion=emotion_results(speakers, EMOTIONS, speakers, uar, 0),
        speaker=speaker_results(strongest, 7, 10, 370),
        against=None,
        settings=run_settings(speakers, speakers),
        baseline=baseline_results(speakers),
    )


def seeded_report(seeds: int = 3) -> RunReport:
    """The same with several seeds, compared with a baseline of one seed."""
    report = against_report()
    folds = list(report.emotion.folds)
    models = {f"{fold}, seed {seed}": selected_epoch(fold, seed) for seed in range(seeds) for fold in folds}
    return changed(
        report,
        run="emodb-grl-seeds",
        emotion__folds=models,
        emotion__confusion__counts=[[seeds * cell for cell in row] for row in report.emotion.confusion.counts],
        emotion__calibration=calibration(list(models)),
        emotion__uar__seeds={str(seed): 0.723 + 0.012 * seed for seed in range(seeds)},
        emotion__uar__deviation=0.012,
        speaker__strongest__seeds={str(seed): 0.681 + 0.027 * seed for seed in range(seeds)},
        speaker__strongest__deviation=0.027,
        speaker__encoders=seeds * len(folds),
        speaker__decisions=seeds * report.speaker.decisions,
        settings__seeds=list(range(seeds)),
    )


def against_report(non_inferior: bool | str = "undecided") -> RunReport:
    """The same, compared with a baseline."""
    report, other = run_report(), run_report("emodb-baseline", 0.751, 0.93)
    against = Against(
        run="emodb-baseline",
        strength=0.0,
        transductive=False,
        speakers=10,
        difference=Difference(value=-0.016, low=-0.041, high=0.008),
        per_speaker={
            name: SpeakerDifference(this=result.uar, other=result.uar + 0.016, difference=-0.016 + 0.01 * (n - 5))
            for n, (name, result) in enumerate(report.emotion.per_speaker.items())
        },
        p_value=0.21,
        effect_size=-0.44,
        margin=0.01,
        non_inferior=non_inferior,
        lower_bound=-0.037,
        domains=None,
        emotion=OtherEmotion(uar=other.emotion.uar),
        speaker=OtherSpeaker(
            strongest=other.speaker.strongest,
            chance=other.speaker.chance,
            controls=other.speaker.controls,
            learned=other.speaker.learned,
        ),
        unaudited="",
    )
    return report.model_copy(update={"against": against})


def demo_report() -> RunReport:
    """One fold, synthetic speech, scored on utterances that the encoder was trained on; much is not defined."""
    test = ["s12", "s13", "s14", "s15"]
    fold = changed(run_report(), settings=run_settings(["fixed"], [])).settings.folds[0].to_json()
    return changed(
        run_report("adversarial", 0.617, 0.767),
        note="The speech is synthesised and its emotions are simulated as prosody: these numbers claim nothing.",
        at_chance="undecided",
        emotion=emotion_results(test, EMOTIONS[:5], ["fixed"], 0.617, 1),
        emotion__groups={},
        emotion__uar__low=None,
        emotion__uar__high=None,
        speaker=speaker_results(0.767, 11, 1, 66),
        speaker__scored="trained",
        speaker__at_chance="undecided",
        speaker__reason="few",
        speaker__unseen=None,
        speaker__selectivity=None,
        speaker__detection_limit=None,
        speaker__grouped_by_text=False,
        speaker__clusters=66,
        speaker__left_out=["s99"],
        speaker__information=None,
        speaker__controls={},
        baseline=unavailable_baseline(),
        settings__folds=[{**fold, "train": [f"s{n:02}" for n in range(1, 12)], "dev": ["s16"], "test": test}],
    )


def table_report() -> TableReport:
    """The audit of a table of embeddings: the speaker part alone."""
    speaker = speaker_results(0.12, 10, 1, 535).to_json()
    del speaker["attackers"]["frames"]
    for of_runs in ("rate_bits", "learned", "outputs", "adversary_head", "predicted_emotion"):
        del speaker[of_runs]
    speaker["controls"] = {name: speaker["controls"][name] for name in ("emotion", "shuffled", "embedding")}
    attack = ("accuracy", "low", "high", "balanced_accuracy", "chance", "attacker", "speakers", "decisions")
    speaker["unseen"] |= dict.fromkeys(attack)
    return TableReport(
        run="egemaps.csv",
        note="",
        at_chance=True,
        verdict=[
            "Speaker identification accuracy of the strongest fresh attacker: 12.0 %, at chance.",
            "With 535 decisions an attacker below 20.0 % would go unseen.",
        ],
        emotion=None,
        speaker=Speaker.model_validate({**speaker, "scored": "given", "at_chance": True}),
        against=None,
        settings=TableSettings(
            table={"sha256": HASH, "clips": 535, "dimensions": 88},
            audit=AUDIT,
            versions={"scikit-learn": "1.9.1"},
            date="2026-11-29",
            judge=None,
        ),
        baseline=None,
    )


def baseline_report() -> TableReport:
    """The report of a baseline: the speaker part is on its features."""
    baseline = baseline_results(["03", "08", "09", "10"], None)
    return changed(table_report(), run="emodb-prosody", baseline=baseline)


def curves(folds: list[str], epochs: int = 40) -> dict[str, list[dict[str, float]]]:
    """metrics.csv of each fold."""
    rng = np.random.default_rng(0)
    uninformed = float(np.log(7))
    return {
        fold: [
            {
                "epoch": float(epoch),
                "emotion_loss": 0.5 + 1.5 * np.exp(-epoch / 12) + rng.normal(0, 0.03),
                "adversary_loss": uninformed - 0.2 + rng.normal(0, 0.05),
                "adversary_loss_uninformed": uninformed,
                "adversary_accuracy": 0.25 + rng.normal(0, 0.02),
                "dev_uar": 0.8 - 0.6 * np.exp(-epoch / 9) + rng.normal(0, 0.02),
                "best": float(epoch == 1),
            }
            for epoch in range(1, epochs + 1)
        ]
        for fold in folds
    }


def points(speakers: int = 10, clips: int = 400) -> Points:
    rng = np.random.default_rng(0)
    emotion, speaker = rng.integers(0, len(EMOTIONS), clips), rng.integers(0, speakers, clips)
    centres = 12 * rng.standard_normal((len(EMOTIONS), 2))
    shifts = 3 * rng.standard_normal((speakers, 2))
    position = centres[emotion] + shifts[speaker] + rng.standard_normal((clips, 2))
    return Points(position, np.array(EMOTIONS)[emotion], np.array([f"{number:02}" for number in range(speakers)])[speaker])
