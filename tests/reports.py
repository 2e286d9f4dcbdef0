"""Made-up summaries as report.json holds them, for the tests of what shows them."""

import numpy as np

from speaker_invariant_ser.report.plots import Points

EMOTIONS = ("angry", "bored", "disgusted", "fearful", "happy", "neutral", "sad")
ATTACKERS = ("logistic", "lda", "qda", "knn", "svm", "mlp", "mlp_large", "boosting", "frames")
HASH = "0123456789abcdef" * 4


def spread_around(value: float, width: float = 0.05) -> dict:
    return {"low": max(0.0, value - width), "high": min(1.0, value + width)}


def uar_of(value: float, width: float = 0.05) -> dict:
    return {"value": value, **spread_around(value, width)}


def attacker(accuracy: float, reads: str = "embedding") -> dict:
    return {
        "accuracy": accuracy,
        **spread_around(accuracy),
        "upper": min(1.0, accuracy + 0.04),
        "balanced_accuracy": accuracy - 0.01,
        "balanced_upper": accuracy + 0.03,
        "p_value": 0.0009 if accuracy > 0.3 else 0.4321,
        "p_below": 0.98,
        "validation": accuracy + 0.01,
        "reads": reads,
    }


def calibration(folds: list[str]) -> dict:
    before = [{"confidence": (n + 0.5) / 15, "accuracy": (n + 0.5) / 17, "clips": 3 * n} for n in range(15)]
    after = [{**one, "accuracy": one["confidence"]} for one in before]
    return {
        "temperatures": {fold: 1.1 + 0.05 * number for number, fold in enumerate(folds)},
        "before": {"ece": 0.087, "bins": before},
        "after": {"ece": 0.031, "bins": after},
    }


def kept_of(fold: str, seed: int = 0) -> dict:
    return {"fold": fold, "seed": seed, "epoch": 31 + seed, "dev_uar": 0.77 - seed / 100, "adversary_accuracy": 0.28}


def emotion_part(speakers: list[str], labels: tuple[str, ...], folds: list[str], uar: float, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 8, (len(labels), len(labels))) + np.diag(rng.integers(25, 60, len(labels)))
    values = np.clip(rng.normal(uar, 0.09, len(speakers)), 0, 1)
    each = {
        name: {"uar": float(value), "accuracy": float(value) - 0.01, "utterances": 54}
        for name, value in zip(speakers, values, strict=True)
    }
    worst = min(each, key=lambda name: each[name]["uar"])
    group = {"uar": uar_of(uar), "accuracy": uar - 0.01, "utterances": 268, "speakers": 5}
    return {
        "uar": {**uar_of(uar), "seeds": {"0": uar}, "deviation": None},
        "accuracy": uar - 0.018,
        "macro_f1": uar - 0.022,
        "chance": 1 / len(labels),
        "utterances": int(counts.sum()),
        "per_class": {name: float(counts[n, n] / counts[n].sum()) for n, name in enumerate(labels)},
        "per_speaker": each,
        "worst_speaker": {"speaker": worst, **each[worst]},
        "spread": 0.083,
        "confusion": {"labels": list(labels), "counts": counts.tolist()},
        "ece": 0.087,
        "calibration": calibration(folds),
        "groups": {"sex": {"female": group, "male": {**group, "uar": {"value": uar - 0.03, "low": None, "high": None}}}},
        "folds": {fold: kept_of(fold) for fold in folds},
    }


def speaker_part(strongest: float, speakers: int, encoders: int, decisions: int) -> dict:
    steps = np.linspace(0, 0.25, len(ATTACKERS))
    scores = {
        name: attacker(max(0.02, strongest - float(step)), "frames" if name == "frames" else "embedding")
        for name, step in zip(("svm", *(one for one in ATTACKERS if one != "svm")), steps, strict=True)
    }
    control = {"attacker": "logistic"}
    verification = {"eer": 0.31, **spread_around(0.31), "same_emotion": 0.28, "cross_emotion": 0.35, "linkability": 0.22}
    return {
        "speakers": speakers,
        "encoders": encoders,
        "decisions": decisions,
        "utterances": decisions,
        "emotions": 7,
        "not_tried": {},
        "left_out": [],
        "grouped_by_text": True,
        "clusters": 10,
        "scored": "held-out",
        "chance": {
            "uniform": 1 / speakers,
            "majority": 1.3 / speakers,
            "given_emotion": 1.5 / speakers,
            "given_emotion_balanced": 1.1 / speakers,
        },
        "attackers": scores,
        "strongest": {
            **{"name": "svm", "chosen": {"svm": 0.7, "mlp": 0.3}, **scores["svm"]},
            **{"seeds": {"0": strongest}, "deviation": None},
        },
        "permutations": 1000,
        "detection_limit": 1.5 / speakers + 0.05,
        "margin": 0.03,
        "at_chance": strongest < 1.5 / speakers,
        "reason": "within" if strongest < 1.5 / speakers else "leak",
        "controls": {
            "emotion": {"accuracy": 1.45 / speakers, **spread_around(1.45 / speakers), **control},
            "posteriors": {"accuracy": 2 / speakers, **spread_around(2 / speakers), **control},
            "shuffled": {"accuracy": 1.05 / speakers, **spread_around(1.05 / speakers), **control},
            "embedding": {"accuracy": strongest - 0.02, **spread_around(strongest - 0.02), **control},
            "random_encoder": {"accuracy": 0.71, **spread_around(0.71), **control},
            "logmel": {"accuracy": 0.93, **spread_around(0.93), **control},
        },
        "selectivity": strongest - 1.05 / speakers,
        "information": {
            "v_bits": {"linear": 1.52, "mlp": 1.61},
            "mdl": {"codelength_bits": 980.4, "uniform_bits": decisions * np.log2(speakers), "compression": 1.61},
            "log2_speakers": float(np.log2(speakers)),
        },
        "unseen": {
            "accuracy": 0.82,
            **spread_around(0.82),
            "chance": 0.4,
            "attacker": "svm",
            "speakers": 3,
            "decisions": 1605,
            "eer": 0.31,
            "linkability": 0.22,
            "verification": {
                "eer": 0.31,
                **spread_around(0.31),
                "cosine": {**verification, "eer": 0.36},
                "trained": verification,
                "target_trials": 9000,
                "nontarget_trials": 21000,
                "same_text_left_out": True,
            },
        },
        "adversary_head": {"accuracy": 0.2771, "target": "speaker", "evidence": False},
    }


def settings(folds: list[str], speakers: list[str]) -> dict:
    return {
        "recipe": {"adversary": {"name": "grl", "strength": 0.1, "target": "speaker"}, "train": {"seed": 0, "epochs": 40}},
        "seeds": [0],
        "corpora": ["emodb"],
        "labels": {"angry": "angry", "bored": "bored"},
        "data_sha256": {"audio.i16": HASH, "manifest.csv": HASH[::-1]},
        "folds": [
            {
                "name": fold,
                "train": [one for one in speakers if one != fold][:7],
                "dev": [one for one in speakers if one != fold][7:],
                "test": [fold],
                "texts": [],
                "held_out": 2,
                "sha256": HASH,
            }
            for fold in folds
        ],
        "versions": {"speaker-invariant-ser": "0.1.0", "torch": "2.13.0"},
    }


def run_summary(name: str = "emodb-grl", uar: float = 0.735, strongest: float = 0.708) -> dict:
    """Ten folds, each with one of EMO-DB's speakers as its test."""
    speakers = ["03", "08", "09", "10", "11", "12", "13", "14", "15", "16"]
    return {
        "run": name,
        "note": "",
        "at_chance": False,
        "verdict": [
            f"Emotion on unseen speakers: UAR {uar:.1%}, against 14.3% by chance, on 535 clips of 10 speakers.",
            f"The speaker is not hidden: the strongest fresh attacker names {strongest:.1%} of the clips' speakers rightly, "
            "against 21.4% by chance.",
        ],
        "emotion": emotion_part(speakers, EMOTIONS, speakers, uar, 0),
        "speaker": speaker_part(strongest, 7, 10, 370),
        "against": None,
        "settings": settings(speakers, speakers),
    }


def seeded_summary(seeds: int = 3) -> dict:
    """The same, every fold trained from several seeds, beside a baseline of one."""
    summary = against_summary()
    emotion, speaker, folds = summary["emotion"], summary["speaker"], list(summary["emotion"]["folds"])
    counts = [[seeds * cell for cell in row] for row in emotion["confusion"]["counts"]]
    emotion |= {"folds": {f"{fold}, seed {seed}": kept_of(fold, seed) for seed in range(seeds) for fold in folds}}
    emotion |= {"confusion": {**emotion["confusion"], "counts": counts}, "calibration": calibration(list(emotion["folds"]))}
    emotion["uar"] |= {"seeds": {str(seed): 0.723 + 0.012 * seed for seed in range(seeds)}, "deviation": 0.012}
    speaker["strongest"] |= {"seeds": {str(seed): 0.681 + 0.027 * seed for seed in range(seeds)}, "deviation": 0.027}
    speaker |= {"encoders": seeds * len(folds), "decisions": seeds * speaker["decisions"]}
    return {**summary, "run": "emodb-grl-seeds", "settings": {**summary["settings"], "seeds": list(range(seeds))}}


def against_summary(non_inferior: object = "undecided") -> dict:
    """The same, compared with a baseline."""
    summary, other = run_summary(), run_summary("emodb-baseline", 0.751, 0.93)
    each = summary["emotion"]["per_speaker"]
    against = {
        "run": "emodb-baseline",
        "speakers": 10,
        "difference": {"value": -0.016, "low": -0.041, "high": 0.008},
        "per_speaker": {
            name: {"this": one["uar"], "other": one["uar"] + 0.016, "difference": -0.016 + 0.01 * (n - 5)}
            for n, (name, one) in enumerate(each.items())
        },
        "p_value": 0.21,
        "effect_size": -0.44,
        "margin": 0.01,
        "non_inferior": non_inferior,
        "lower_bound": -0.037,
        "emotion": {"uar": other["emotion"]["uar"]},
        "speaker": {"strongest": other["speaker"]["strongest"], "chance": other["speaker"]["chance"]},
    }
    return {**summary, "against": against}


def demo_summary() -> dict:
    """One fold, synthetic speech, scored on clips that the encoder trained on; much is not defined."""
    test = ["s12", "s13", "s14", "s15"]
    summary = run_summary("adversarial", 0.617, 0.767)
    emotion = emotion_part(test, EMOTIONS[:5], ["fixed"], 0.617, 1)
    speaker = speaker_part(0.767, 11, 1, 66)
    speaker |= {"scored": "trained", "at_chance": "undecided", "unseen": None, "selectivity": None, "detection_limit": None}
    speaker |= {"grouped_by_text": False, "clusters": 66, "left_out": ["s99"], "information": None, "controls": {}}
    fold = {**settings(["fixed"], [])["folds"][0], "train": [f"s{n:02}" for n in range(1, 12)], "dev": ["s16"], "test": test}
    return {
        **summary,
        "note": "The speech is synthesised and its emotions are simulated as prosody: these numbers claim nothing.",
        "at_chance": "undecided",
        "emotion": {**emotion, "groups": {}, "uar": {**emotion["uar"], "low": None, "high": None}},
        "speaker": speaker,
        "settings": {**summary["settings"], "folds": [fold]},
    }


def table_summary() -> dict:
    """What the audit of a table of embeddings gives: the speaker alone."""
    speaker = speaker_part(0.12, 10, 1, 535) | {"scored": "given", "at_chance": True, "adversary_head": None}
    speaker["attackers"].pop("frames")
    speaker["controls"] = {name: speaker["controls"][name] for name in ("emotion", "shuffled", "embedding")}
    speaker["unseen"] |= dict.fromkeys(("accuracy", "low", "high", "chance", "attacker", "speakers", "decisions"))
    return {
        "run": "egemaps.csv",
        "note": "",
        "at_chance": True,
        "verdict": [
            "The speaker is at chance: the strongest fresh attacker names 12.0% of the clips' speakers rightly.",
            "With 535 decisions an attacker below 20.0% would go unseen.",
        ],
        "emotion": None,
        "speaker": speaker,
        "against": None,
        "settings": {"table": "egemaps.csv", "sha256": HASH, "seed": 0, "versions": {"scikit-learn": "1.9.1"}},
    }


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
    place = centres[emotion] + shifts[speaker] + rng.standard_normal((clips, 2))
    return Points(place, np.array(EMOTIONS)[emotion], np.array([f"{one:02}" for one in range(speakers)])[speaker])
