"""Section on certificates: what no attacker can exceed who gets one of a few codes."""

from functools import partial

from speaker_invariant_ser.audit.certificates.words import CERTIFIED, at_most
from speaker_invariant_ser.errors import counted, shorten
from speaker_invariant_ser.evaluation.certificate_parts import CertificatePart, CertifiedModel, CertifiedPopulation
from speaker_invariant_ser.report import plots
from speaker_invariant_ser.report.figure import Plot
from speaker_invariant_ser.report.formatting import decimal, percent
from speaker_invariant_ser.report.sections.blocks import Block, Plots, Section, Text
from speaker_invariant_ser.report.table import Table

LIMITS = {"mcdiarmid": "McDiarmid", "chernoff": "Chernoff", "bentkus": "Bentkus", "binomial": "binomial"}


def certificate_section(certificate: CertificatePart) -> Section:
    """Return the bounds on each kind of utterances, with a plot of the first."""
    confidence = f"{100 * (1 - certificate.delta):.0f} % confidence"
    about = (
        f"What is released is one of {certificate.cells} codes ({certificate.column}), so that counting bounds every attacker. "
        "The best attacker there can be knows how often each speaker has each code, and names the one who has the given code "
        "most often. Plug-in is its balanced accuracy with the shares of these utterances; the bound adds what chance can hide. "
        "It is the smallest of several limits, and the column limit says which: McDiarmid's and Chernoff's always hold, "
        "Bentkus's is lower where all utterances count alike, and the binomial one is for independent utterances, equally many "
        f"of each speaker. All bounds of a table hold together with {confidence}. Smallest is the bound that these utterances "
        "would give on average if codes revealed nothing: only more utterances or fewer codes make it smaller. All of this is "
        "about these speakers, each as likely as the others, and holds for utterances that are drawn independently of each "
        "other and were not used to choose the model."
    )
    blocks: list[Block] = [Text(about)]
    for population in certificate.populations:
        blocks += population_blocks(population)
    return Section("Certificate", blocks, 3)


def population_blocks(population: CertifiedPopulation) -> list[Block]:
    """Return the bounds on one kind of utterances, or why there are none."""
    clips = CERTIFIED[population.clips]
    if not population.models:
        return [Text(f"No certificate on {clips}: {population.unavailable}.")]
    worst = worst_model(population)
    several = len(population.models)
    mean = "" if several == 1 else f", on average over {counted(several, 'model')} {at_most(population.mean or 0)}"
    text = f"On {clips}: at most {at_most(worst.bound)}{mean}, where chance is {percent(1 / worst.speakers)}."
    plot = Plot(
        f"certificate-{population.clips}",
        f"Balanced accuracy from the codes of 1, 5 and 10 utterances of one of {counted(worst.speakers, 'speaker')}, on {clips}"
        f"{f' (model {worst.name})' if worst.name else ''}: the bound for every attacker, and the estimate for one who knows how "
        "often each speaker has each code.",
        partial(plots.plot_certificate, curve=worst.curve, chance=1 / worst.speakers),
        2.6,
    )
    rows = [
        [f"{several.clips}", "none" if several.bound >= 1 else at_most(several.bound), percent(several.estimate)]
        for several in worst.curve
    ]
    curve = Table(["clips", "bound", "estimate"], rows)
    return [Text(text + about_several(worst)), Plots([plot], curve), models_table(population)]


def about_several(worst: CertifiedModel) -> str:
    """Say what is known of several utterances of one person."""
    nothing = [str(several.clips) for several in worst.curve if several.bound >= 1]
    text = " With r utterances of one person it is at most (K * bound)^r / K; the estimate is one attacker's, and no certificate."
    return text + (f" For {' and '.join(nothing)} utterances there is no bound." if nothing else "")


def models_table(population: CertifiedPopulation) -> Table:
    """Return a row for each model."""
    head = [
        "model",
        "speakers",
        "clips",
        "utterances per speaker",
        "codes used",
        "perplexity",
        "plug-in",
        "bound",
        "limit",
        "smallest",
    ]
    rows = [
        [
            model.name or "table",
            str(model.speakers),
            f"{model.utterances:,}",
            per_speaker(model),
            str(model.cells_used),
            decimal(model.perplexity, 1),
            percent(model.plug_in),
            at_most(model.bound),
            LIMITS.get(model.limit, model.limit),
            percent(model.smallest),
        ]
        for model in population.models
    ]
    return Table(head, rows)


def per_speaker(model: CertifiedModel) -> str:
    """Return the number of utterances per speaker, or the smallest and the largest."""
    counts = sorted(set(model.clips_per_speaker.values()))
    return shorten(map(str, counts), 1) if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def worst_model(population: CertifiedPopulation) -> CertifiedModel:
    """Return the model with the highest bound."""
    return max(population.models, key=lambda model: model.bound)
