"""What fresh attackers read of the speaker, and what that must be read against."""

from collections.abc import Mapping
from functools import partial

from speaker_invariant_ser.errors import shorten
from speaker_invariant_ser.report import plots as pictures
from speaker_invariant_ser.report.plots import Picture, rows_height
from speaker_invariant_ser.report.sections.blocks import (
    LONG,
    Chapter,
    Pictures,
    Table,
    Text,
    count,
    decimal,
    deviation,
    folded,
    interval,
    p_value,
    percent,
    points,
    score,
)

CHANCES = {
    "uniform": "uniform, 1/K",
    "majority": "always the most frequent speaker",
    "given_emotion": "given the true emotion",
    "given_emotion_balanced": "given the true emotion, balanced accuracy",
}
CONTROLS = {
    "emotion": "floor: the true emotion",
    "posteriors": "floor: emotion posteriors",
    "shuffled": "floor: shuffled speakers",
    "embedding": "the embedding",
    "unreleased": "before erasure and release",
    "random_encoder": "untrained encoder",
    "logmel": "ceiling: log-mel",
    "without_adversary": "twin without adversary",
}
ABOUT = {
    "emotion": "The true emotion alone is a floor.",
    "posteriors": "So are the model's own probabilities of the emotions.",
    "shuffled": "With the speakers' names shuffled, all that is named rightly is luck.",
    "unreleased": "The embedding before its erasure and release shows what these took.",
    "random_encoder": "An encoder that was never trained shows what training added or removed.",
    "logmel": "Mean and deviation of each clip's log-mel show what could be read before any encoder.",
}
SCORED = {
    "held-out": "Only clips that the encoder did not train on are scored.",
    "trained": "The clips that are scored are some that the encoder trained on.",
    "given": "All clips are scored; the table does not say which ones its encoder did not train on.",
}
LEARNED = {
    "held-out": (
        " The attackers learn from such clips alone, too: the eraser was fitted on the others and has made everyone alike on "
        "them, which says nothing of new clips."
    )
}
WARNING = (
    "Warning: the attackers were scored on clips that the encoder itself trained on, since none were held out. What they reach "
    "on new clips of the same people may be more or less. Train again with audit.holdout above 0 before relying on it."
)
AT_CHANCE = {
    True: "the speaker is at chance",
    False: "the speaker is not at chance",
    "undecided": "undecided, there are too few clips to say",
}


def speaker_chapters(speaker: Mapping, drawn: bool, threat: str | None = None) -> list[Chapter]:
    """With a picture of the attackers if `drawn`; without one where the front shows it already. `threat`: what they are given."""
    return [
        attackers_chapter(speaker, drawn, threat),
        *([outputs_chapter(speaker["outputs"])] if speaker.get("outputs") else []),
        *([controls_chapter(speaker)] if speaker["controls"] else []),
        *([information_chapter(speaker)] if speaker["information"] else []),
        unseen_chapter(speaker["unseen"]),
    ]


def attackers_chapter(speaker: Mapping, drawn: bool, threat: str | None) -> Chapter:
    left_out = speaker["left_out"]
    chances = [[CHANCES[name], percent(value)] for name, value in speaker["chance"].items()]
    return Chapter(
        "What is left of the speaker",
        [
            Text(about_attackers(speaker)),
            *([Text(threat)] if threat else []),
            Text(about_claim(speaker)),
            *([Pictures([attackers_picture(speaker, "attackers")])] if drawn else []),
            attackers_table(speaker),
            Text(about_strongest(speaker)),
            Table(["chance: what is named rightly without any embedding", "share"], chances),
            *([Text(f"Left out, since they have a single clip: {shorten(left_out, 20)}.")] if left_out else []),
        ],
    )


def about_attackers(speaker: Mapping) -> str:
    """What was measured, on whom, with which sample size."""
    encoders = " of the encoder" if speaker["encoders"] == 1 else f" of {speaker['encoders']} encoders, one by one"
    texts = "no text on both sides" if speaker["grouped_by_text"] else "texts unknown, or on both sides"
    learned = LEARNED.get(speaker.get("learned"), "")
    units = count(speaker["clusters"], "text" if speaker["grouped_by_text"] else "clip")
    return (
        f"{count(len(speaker['attackers']), 'classifier')}, fitted afresh, try to name the speaker from what comes out"
        f"{encoders}: {count(speaker['speakers'], 'speaker')}, {count(speaker['decisions'], 'decision')} about "
        f"{count(speaker['utterances'], 'clip')}, cross-validated "
        f"({texts}). {SCORED[speaker['scored']]}{learned} Intervals resample {units}; p values are from "
        f"{count(speaker['permutations'], 'permutation')} of the speakers within each emotion."
    )


def about_strongest(speaker: Mapping) -> str:
    """Who it was, how it was chosen, and what is not among the candidates."""
    chosen = speaker["strongest"]["chosen"].items()
    told = "The strongest attacker is chosen on validation clips, other ones than those it is scored on: "
    told += shorten((f"{name} for {100 * share:.0f} % of the folds" for name, share in chosen), 6) + "."
    if speaker["strongest"].get("deviation") is not None:
        told += f" It names {percent(speaker['strongest']['accuracy'])} rightly{deviation(speaker['strongest'])}."
    mapped = [name for name, one in speaker["attackers"].items() if one["reads"] == "frames"]
    if mapped:
        told += " What reads the encoder before its pooling is not a candidate: whoever is given embeddings does not have that."
    for name, reason in speaker["not_tried"].items():
        told += f" Not tried: {name}, which {reason}."
    return told


def about_claim(speaker: Mapping) -> str:
    """What "at chance" means here, what came out, and what would go unseen."""
    limit, margin = speaker["detection_limit"], 100 * speaker["margin"]
    seen = (
        f" With {count(speaker['utterances'], 'clip')} scored, a leak below {percent(limit)} would likely go unseen in a test "
        "for leaks; that is why chance has to be shown by its bound."
    )
    return (
        "At chance would mean: the one-sided 95 % upper bounds of the strongest attacker, in accuracy and in balanced accuracy, "
        f"are below chance given the emotion plus {margin:.0f} points, and no attacker is far above chance, or significantly "
        f"below it, which is a leak as well. Here: {AT_CHANCE[speaker['at_chance']]}.{'' if limit is None else seen}"
    )


def attackers_picture(speaker: Mapping, name: str) -> Picture:
    attackers = speaker["attackers"]
    ranked = by_accuracy(attackers)[:LONG]
    rings = [one for one in ranked if attackers[one]["reads"] == "frames"]
    chances = {CHANCES[key]: value for key, value in speaker["chance"].items() if key != "given_emotion_balanced"}
    scores = {one: score(attackers[one]) for one in ranked}
    words = (
        "Speakers named rightly by fresh attackers, with 95 % intervals, against three kinds of chance."
        f"{f' The {LONG} strongest of {len(attackers)}.' if len(attackers) > LONG else ''}"
        f"{' Rings read the encoder before its pooling.' if rings else ''}"
    )
    return Picture(
        name, words, partial(pictures.paint_scores, scores=scores, chances=chances, hollow=rings), rows_height(len(ranked)) + 0.2
    )


def by_accuracy(attackers: Mapping[str, Mapping]) -> list[str]:
    return sorted(attackers, key=lambda name: -attackers[name]["accuracy"])


def attackers_table(speaker: Mapping) -> Table:
    attackers = speaker["attackers"]
    ranked = by_accuracy(attackers)
    rows = [attacker_row("strongest, chosen for each fold", speaker["strongest"])]
    for name in ranked:
        reads = " (before pooling)" if attackers[name]["reads"] == "frames" else ""
        rows.append(attacker_row(name + reads, attackers[name]))
    head = ["attacker", "named rightly", "95 % interval", "95 % upper bound", "balanced", "p above chance", "p below chance"]
    return Table(head, rows, folded(ranked, "attackers"), strong=[0])


def attacker_row(name: str, one: Mapping) -> list[str]:
    return [
        name,
        percent(one["accuracy"]),
        interval(one),
        percent(one["upper"]),
        percent(one["balanced_accuracy"]),
        p_value(one["p_value"]),
        p_value(one["p_below"]),
    ]


def outputs_chapter(outputs: Mapping) -> Chapter:
    """The released embedding and the posteriors, where the emotion is told before the release."""
    told = (
        "The emotion is told before the embedding is released, so that two things leave the model, and the posteriors may know "
        "of the speaker what the embedding no longer does. Both under the quick attackers alone, the strongest of them; what "
        "else was tried on the released embedding stands above."
    )
    names = {"embedding": "the released embedding", "posteriors": "emotion posteriors"}
    rows = [
        [name, percent(outputs[key]["accuracy"]), interval(outputs[key]), outputs[key]["attacker"]] for key, name in names.items()
    ]
    return Chapter("Two outputs", [Text(told), Table(["output", "named rightly", "95 % interval", "attacker"], rows)], 3)


def controls_chapter(speaker: Mapping) -> Chapter:
    named = {CONTROLS.get(name, name): one for name, one in speaker["controls"].items()}
    told = [
        "The quick attackers alone, the strongest of them, on other inputs too.",
        *(ABOUT[name] for name in ABOUT if name in speaker["controls"]),
    ]
    if speaker["selectivity"] is not None:
        told.append(f"Selectivity, the gain over shuffled names (Hewitt and Liang, 2019): {points(speaker['selectivity'])}.")
    paint = partial(
        pictures.paint_scores,
        scores={name: score(one) for name, one in named.items()},
        chances={"chance given the true emotion": speaker["chance"]["given_emotion"]},
        marked=CONTROLS["embedding"],
    )
    words = "Speakers named rightly by quick attackers; red: from the embedding, blue: from other inputs."
    rows = [[name, percent(one["accuracy"]), interval(one), one["attacker"]] for name, one in named.items()]
    table = Table(["input", "named rightly", "95 % interval", "attacker"], rows)
    return Chapter(
        "Controls", [Text(" ".join(told)), Pictures([Picture("controls", words, paint, rows_height(len(named)))], table)], 3
    )


def information_chapter(speaker: Mapping) -> Chapter:
    information, rate = speaker["information"], speaker.get("rate_bits")
    bits, code, full = information["v_bits"], information["mdl"], information["log2_speakers"]
    also = "" if speaker.get("learned") == "held-out" else ", also those that an encoder trained on"
    told = (
        f"Naming a speaker takes log2 K = {decimal(full)} bits. Usable bits are what a family of attackers gains from the "
        "embedding once the emotion is known; slightly below 0 is noise. The online code sends the speaker of every clip to "
        "someone who has the embeddings: compression 1 means that they do not help. It counts all clips of these speakers"
        f"{also}, and knows neither emotion nor text."
    )
    rows = [[f"usable bits per clip, {family}", f"{decimal(value)} of {decimal(full)}"] for family, value in bits.items()]
    rows += [
        ["online code", f"{code['codelength_bits']:,.0f} of {code['uniform_bits']:,.0f} bits"],
        ["compression", f"{decimal(code['compression'])} ×"],
    ]
    if rate is not None:
        rows.insert(len(bits), ["rate of the bottleneck per clip, bits", decimal(rate)])
        nothing = "; at log2 K or more, it rules nothing out" if rate >= full else ""
        told += (
            f" The rate of the bottleneck, {decimal(rate)} bits on average, bounds what any attacker can get from one released "
            f"embedding without its audio, the speaker or anything else{nothing}."
        )
    return Chapter("Information", [Text(told), Table(["measure", "value"], rows, numbers=False)], 3)


def unseen_chapter(unseen: Mapping | None) -> Chapter:
    """Pairs of clips, and attackers fitted on people whom the encoder was not trained on; of a table, pairs alone."""
    title = "Verification" if unseen and unseen["accuracy"] is None else "People the encoder never met"
    if unseen is None:
        return Chapter(title, [Text("Not measured: there are too few people for it.")], 3)
    trials = unseen["verification"]
    told = (
        "Verification asks whether two clips are of one person: an equal error rate of 50 % means that nothing can be told, 0 % "
        "that everyone can be told apart. Both scorers know other people only; the trained one was chosen beforehand as the "
        "headline. Linkability goes from 0, two clips cannot be linked, to 1."
    )
    measures = [
        ["equal error rate", percent(unseen["eer"])],
        ["linkability", decimal(unseen["linkability"])],
        ["pairs of clips", f"{trials['target_trials']:,} of one person, {trials['nontarget_trials']:,} of two"],
    ]
    if unseen.get("accuracy") is not None:
        whom = f"{count(unseen['speakers'], 'speaker')} whom the encoder was not trained on"
        told += f" The quick attackers were also fitted on {whom}, {count(unseen['decisions'], 'decision')}."
        told += " These are a fold's test and dev speakers; the dev speakers chose the epoch."
        measures.append([f"strongest attacker ({unseen['attacker']})", f"{percent(unseen['accuracy'])} ({interval(unseen)})"])
        measures.append(["its chance", percent(unseen["chance"])])
    rows = [[name, *verified(trials[name])] for name in ("cosine", "trained")]
    table = Table(["scorer", "EER, all pairs", "95 % interval", "same emotion", "across emotions", "linkability"], rows)
    return Chapter(title, [Text(told), Table(["measure", "value"], measures, numbers=False), table], 3)


def eer_interval(scorer: Mapping) -> str:
    """Resamples speakers, of whom it needs three."""
    return "-" if scorer["low"] is None else interval(scorer)


def verified(scorer: Mapping) -> list[str]:
    rates = [percent(scorer[kind]) for kind in ("same_emotion", "cross_emotion")]
    return [percent(scorer["eer"]), eer_interval(scorer), *rates, decimal(scorer["linkability"])]
