"""Sections on what fresh attackers identify of the speaker, and on what to compare it with."""

from functools import partial

from speaker_invariant_ser.errors import counted, shorten
from speaker_invariant_ser.evaluation.dimensions.parts import GivenEmotion
from speaker_invariant_ser.evaluation.summary_parts import Outputs, Speaker
from speaker_invariant_ser.report import plots
from speaker_invariant_ser.report.figure import Plot
from speaker_invariant_ser.report.formatting import (
    HasAccuracy,
    decimal,
    interval,
    percent,
    points,
    seed_deviation,
)
from speaker_invariant_ser.report.plots import Score, rows_height
from speaker_invariant_ser.report.sections.blocks import Plots, Section, Text
from speaker_invariant_ser.report.sections.certificate import certificate_section
from speaker_invariant_ser.report.sections.unseen import clips_section, predicted_emotion_section, unseen_section
from speaker_invariant_ser.report.table import Table
from speaker_invariant_ser.report.tables import (
    CHANCE_LEVELS,
    MAX_UNFOLDED_ROWS,
    attackers_table,
    by_accuracy,
    chance_table,
    not_converged,
    not_tried,
)
from speaker_invariant_ser.report.unseen_tables import clips_table

CONTROLS = {
    "emotion": "floor: true emotion",
    "posteriors": "floor: emotion posteriors",
    "shuffled": "floor: shuffled speakers",
    "embedding": "embedding",
    "unreleased": "before erasure and release",
    "random_encoder": "untrained encoder",
    "logmel": "ceiling: log-mel",
    "without_adversary": "lambda = 0 baseline",
    "prosody": "prosody baseline",
    "judge": "ceiling: the recording itself (judge)",
}
ABOUT_CONTROLS = {
    "emotion": "The true emotion alone is a floor.",
    "posteriors": "The model's emotion posteriors are a second floor.",
    "shuffled": "With shuffled speaker labels, accuracy should be at chance.",
    "unreleased": "The embedding before erasure and release shows what these removed.",
    "random_encoder": "An untrained encoder shows what training added or removed.",
    "logmel": "Mean and standard deviation of each utterance's log-mel show what can be identified before any encoder.",
    "prosody": "The 22 numbers of the prosody baseline show what recognising emotion without a network reveals.",
    "judge": "The embeddings of the judge, a speaker encoder, show what the recordings themselves reveal.",
}
SCORED = {
    "held-out": "Only utterances that the encoder was not trained on are scored.",
    "trained": "The scored utterances include some that the encoder was trained on.",
    "given": "All utterances are scored; the table does not say which of them its encoder was trained on.",
}
LEARNED_HELD_OUT = (
    " The attackers also learn from such utterances alone: the eraser was fitted on the others and makes the speakers alike on "
    "them, which says nothing about new utterances."
)
WARNING = (
    "Warning: the attackers were scored on utterances that the encoder was trained on, because none were held out. Their "
    "accuracy on new utterances of the same speakers may be higher or lower. Train again with audit.holdout above 0 before "
    "relying on it."
)
KNOWLEDGE = (
    "In the words of the VoicePrivacy challenges, with the embedding in the place of anonymised speech: the attackers below and "
    "the trained scorer of verification are semi-informed (they learned from labelled embeddings of this encoder); the cosine is "
    "lazy-informed (it compares embeddings, but learned nothing about speakers from any); linkage to voice prints has recordings "
    "of the speaker alone, like an ignorant attacker, but learned from embeddings of others; a judge's embeddings are those of "
    "the unprotected recordings."
)
NO_BITS = 0.1  # that the emotion leaves unknown of the speaker, below which usable bits say nothing
AT_CHANCE = {
    True: "the speaker is at chance",
    False: "the speaker is not at chance",
    "undecided": "undecided",
}


def speaker_sections(speaker: Speaker, with_plot: bool, threat: str = "") -> list[Section]:
    """Return all sections on the speaker.

    Args:
        speaker: The speaker part of a report.
        with_plot: Plot the attackers; not needed where the overview has the plot.
        threat: What the attackers are given.
    """
    return [
        attackers_section(speaker, with_plot, threat),
        *([certificate_section(speaker.certificate)] if speaker.certificate else []),
        *([outputs_section(speaker.outputs)] if speaker.outputs else []),
        *([controls_section(speaker)] if speaker.controls else []),
        *([information_section(speaker)] if speaker.information else []),
        unseen_section(speaker.unseen),
        *([predicted_emotion_section(speaker.predicted_emotion)] if speaker.predicted_emotion else []),
        *([clips_section(speaker)] if clips_table(speaker) else []),
    ]


def attackers_section(speaker: Speaker, with_plot: bool, threat: str) -> Section:
    """Return every attacker's accuracy, how it was measured, and what counts as chance."""
    left_out = speaker.left_out
    return Section(
        "Speaker identification by fresh attackers",
        [
            Text(about_attackers(speaker)),
            *([Text(threat)] if threat else []),
            Text(KNOWLEDGE),
            Text(about_chance(speaker)),
            *([Plots([attackers_plot(speaker, "attackers")])] if with_plot else []),
            attackers_table(speaker),
            Text(about_strongest(speaker)),
            *([Text(about_tails(speaker))] if about_tails(speaker) else []),
            chance_table(speaker),
            *([Text(about_given(speaker.given))] if speaker.given else []),
            *([Text(f"Left out, with a single utterance or recording: {shorten(left_out, 20)}.")] if left_out else []),
        ],
    )


def about_attackers(speaker: Speaker) -> str:
    """Say what was measured, on which speakers, with which sample size."""
    encoders = "the encoder" if speaker.encoders == 1 else f"{speaker.encoders} encoders, each attacked on its own"
    texts = "no text in two parts" if speaker.grouped_by_text else "texts unknown, or in several parts"
    learned = LEARNED_HELD_OUT if speaker.learned == "held-out" else ""
    clusters = counted(speaker.clusters, "text" if speaker.grouped_by_text else "utterance")
    copies = about_copies(speaker.near_copies)
    return (
        f"{counted(len(speaker.attackers), 'classifier')}, trained from scratch, identify the speaker from the output of "
        f"{encoders}: {counted(speaker.speakers, 'speaker')}, {counted(speaker.decisions, 'decision')} on "
        f"{counted(speaker.utterances, 'utterance')}, cross-validated ({texts}). {SCORED[speaker.scored]}{learned}{copies} "
        f"Intervals resample {clusters}; p values are from {counted(speaker.permutations, 'permutation')} of the speakers within "
        "each emotion."
    )


def about_copies(share: float | None) -> str:
    """Say how many scored utterances have a near copy among those learned from; nothing where that is unknown."""
    if share is None:
        return ""
    return f" Of the scored utterances, {percent(share)} share audio or a recording with one that was learned from."


def about_strongest(speaker: Speaker) -> str:
    """Say how the strongest attacker was chosen, and which attackers are no candidates."""
    strongest = speaker.strongest
    chosen = shorten((f"{name} for {100 * share:.0f} % of the folds" for name, share in strongest.chosen.items()), 6)
    text = f"The strongest attacker is chosen on validation utterances, not on those it is scored on: {chosen}."
    if strongest.deviation is not None:
        text += f" Its accuracy is {percent(strongest.accuracy)}{seed_deviation(strongest)}."
    if any(score.reads == "frames" for score in speaker.attackers.values()):
        text += " Attackers of frame-level features are no candidates: a recipient of embeddings does not have these features."
    notes = (*not_tried(speaker), *not_converged(speaker))
    return text + "".join(f" {note[0].upper()}{note[1:]}." for note in notes)


def about_chance(speaker: Speaker) -> str:
    """Say what "at chance" means, what the result is, and how large a leak could be missed."""
    limit, margin = speaker.detection_limit, 100 * speaker.margin
    missed = (
        f" With {counted(speaker.utterances, 'utterance')} scored, a significance test would probably miss a leak below "
        f"{percent(limit)}; this is why a claim of chance rests on the upper bound."
    )
    return (
        "At chance means: on average over speakers and utterances, the one-sided 95 % upper bounds of the strongest attacker, "
        f"for accuracy and balanced accuracy, are below chance given the emotion plus {margin:.2g} points, no attacker is far "
        "above chance, or significantly below it (a leak as well, if emotions are known and texts are kept apart), and neither "
        "one speaker, nor those of one model, nor the utterances that attackers are surest about are recognised significantly. "
        "Where texts are known, a leak has to be more than they may explain. "
        "Result: "
        f"{AT_CHANCE[speaker.at_chance]}."
        f"{'' if limit is None else missed}{about_precision(speaker)}"
    )


def about_precision(speaker: Speaker) -> str:
    """Say at which precision embeddings were attacked; nothing in reports of older versions."""
    if speaker.significant_bits is None:
        return ""
    return (
        f" Embeddings were rounded to {speaker.significant_bits} significant binary digits (float16 has 11) before they were "
        "attacked; the result holds for embeddings that are released so."
    )


def about_tails(speaker: Speaker) -> str:
    """Say which speaker and model stand out most from chance, and how often attackers are right where they are surest."""
    best, surest, model = speaker.best_recognised_speaker, speaker.surest_utterances, speaker.best_recognised_model
    if best is None or surest is None:
        return ""
    text = (
        f"Speaker that stands out most from chance: {best.speaker}, {percent(best.accuracy)} of "
        f"{counted(round(best.utterances), 'utterance')} by {best.attacker} (expected {percent(best.expected)}, "
        f"p = {best.p_value:.3f}). Of the {counted(round(surest.utterances), 'utterance')} that {surest.attacker} is surest "
        "about, about 1 %, it names "
        f"{percent(surest.accuracy)} correctly (expected {percent(surest.expected)}, p = {surest.p_value:.3f})."
    )
    if model:
        text += (
            f" Model that stands out most: number {model.model}, {percent(model.accuracy)} by {model.attacker} "
            f"(expected {percent(model.expected)}, p = {model.p_value:.3f})."
        )
    text += " Expected is what permuted speakers give; p values are corrected for the number of attackers, speakers and models."
    if speaker.nested_texts:
        text += (
            f" Of the utterances, {percent(speaker.nested_texts)} have a text that one speaker alone says, repeatedly: what is "
            "recognised there may be the text and not the voice."
        )
    return text


def about_given(given: GivenEmotion) -> str:
    """Say what chance given emotion is conditioned on where a model predicts dimensions."""
    cells = max(each.cells for each in given.cells.values())
    smallest = max(each.minimum for each in given.cells.values())
    return (
        f"Given emotion, here, means given the true emotion and the ratings of {' and '.join(given.dimensions)}, in {given.bins} "
        "bins of each, whose edges are quantiles of the training utterances. Cells of fewer than "
        f"{smallest} training utterances are joined, first over the last dimension. There are up to {counted(cells, 'cell')} in "
        f"a fold; {percent(given.share)} of the scored utterances are in one; of the others the emotion alone is given."
    )


def score_of(result: HasAccuracy) -> Score:
    """Return an accuracy as plots take it."""
    return Score(result.accuracy, result.low, result.high)


def attackers_plot(speaker: Speaker, name: str) -> Plot:
    """Return a plot of the most accurate attackers; `name` is the plot's."""
    attackers = speaker.attackers
    ranked = by_accuracy(attackers)[:MAX_UNFOLDED_ROWS]
    hollow = [attacker for attacker in ranked if attackers[attacker].reads == "frames"]
    chances = {CHANCE_LEVELS[key]: getattr(speaker.chance, key) for key in ("uniform", "majority", "given_emotion")}
    caption = "Speaker identification accuracy of fresh attackers, with 95 % confidence intervals and three chance levels."
    caption += f" The {MAX_UNFOLDED_ROWS} strongest of {len(attackers)}." if len(attackers) > MAX_UNFOLDED_ROWS else ""
    caption += " Open circles: attackers of frame-level features." if hollow else ""
    scores = {attacker: score_of(attackers[attacker]) for attacker in ranked}
    draw = partial(plots.plot_scores, scores=scores, chances=chances, hollow=hollow)
    return Plot(name, caption, draw, rows_height(len(ranked)) + 0.2)


def outputs_section(outputs: Outputs) -> Section:
    """Return both outputs of a model whose emotion is predicted before the release."""
    about = (
        "The emotion is predicted from the embedding before its release, so the model has two outputs, and the posteriors may "
        "reveal more of the speaker than the released embedding does. Both are attacked by the closed-form attackers, of which "
        "the strongest is shown; all attackers of the released embedding are in the table above."
    )
    rows = [
        [name, percent(output.accuracy), interval(output), output.attacker]
        for name, output in (("released embedding", outputs.embedding), ("emotion posteriors", outputs.posteriors))
    ]
    return Section("Two outputs", [Text(about), Table(["output", "accuracy", "95 % CI", "attacker"], rows)], 3)


def controls_section(speaker: Speaker) -> Section:
    """Return the accuracy of closed-form attackers on other inputs than the embedding."""
    controls = {CONTROLS.get(name, name): control for name, control in speaker.controls.items()}
    sentences = ["The strongest of the closed-form attackers on the embedding and on other inputs."]
    sentences += [text for name, text in ABOUT_CONTROLS.items() if name in speaker.controls]
    if speaker.selectivity is not None:
        sentences.append(f"Selectivity, the gain over shuffled labels (Hewitt and Liang, 2019): {points(speaker.selectivity)}.")
    draw = partial(
        plots.plot_scores,
        scores={name: score_of(control) for name, control in controls.items()},
        chances={"chance given the true emotion": speaker.chance.given_emotion},
        marked=CONTROLS["embedding"],
    )
    caption = "Speaker identification accuracy of closed-form attackers; red: from the embedding, blue: from other inputs."
    rows = [[name, percent(control.accuracy), interval(control), control.attacker] for name, control in controls.items()]
    table = Table(["input", "accuracy", "95 % CI", "attacker"], rows)
    plot = Plot("controls", caption, draw, rows_height(len(controls)))
    return Section("Controls", [Text(" ".join(sentences)), Plots([plot], table)], 3)


def information_section(speaker: Speaker) -> Section:
    """Return usable bits, the online code and the rate of the bottleneck."""
    information, rate = speaker.information, speaker.rate_bits
    assert information
    bits, code, full = information.v_bits, information.mdl, information.log2_speakers
    trained = "" if speaker.learned == "held-out" else ", also those that an encoder was trained on"
    about = (
        f"Identifying one of K speakers takes log2 K = {decimal(full)} bits. Usable bits are what a family of attackers gains "
        "from the embedding when the emotion is known; values slightly below 0 are noise. The online code transmits the speaker "
        "labels to a receiver who has the embeddings: compression 1 means that the embeddings do not help. It uses all "
        f"utterances of these speakers{trained}, but neither emotion nor text."
    )
    left = information.given_emotion_bits
    if left is not None:
        about += f" The emotion leaves {decimal(left)} of these bits unknown, which no usable bits can exceed."
        about += " So little is left that they say nothing." if left < NO_BITS else ""
    rows = [[f"usable bits per utterance, {family}", f"{decimal(value)} of {decimal(full)}"] for family, value in bits.items()]
    if rate is not None:
        rows.append(["rate of the bottleneck per utterance, bits", decimal(rate)])
        about += (
            f" The rate of the bottleneck, {decimal(rate)} bits on average, bounds what any attacker can learn from one released "
            "embedding without its audio, the speaker or other side information"
        )
        about += "; at log2 K or more, it rules nothing out." if rate >= full else "."
    rows += [
        ["online code", f"{code.codelength_bits:,.0f} of {code.uniform_bits:,.0f} bits"],
        ["compression", f"{decimal(code.compression)} ×"],
    ]
    return Section("Information", [Text(about), Table(["measure", "value"], rows, numbers=False)], 3)
