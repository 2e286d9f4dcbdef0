"""The table and the picture of all encoders on a corpus, and the page that holds them, from the result files alone."""

from collections.abc import Sequence
from pathlib import Path

from speaker_invariant_ser.audit.statistics import leaves_room
from speaker_invariant_ser.errors import StudyError, shorten
from speaker_invariant_ser.evaluation.summary_parts import Uar
from speaker_invariant_ser.report.table import Table, cell
from speaker_invariant_ser.studies.encoders.results import (
    CLASSIFIER_NAMES,
    AttackerNumbers,
    EncoderResult,
    LayerNumbers,
    plain_name,
    read_all,
)
from speaker_invariant_ser.studies.page import with_block, write_files
from speaker_invariant_ser.studies.picture import SUBJECT, Point, draw_points
from speaker_invariant_ser.studies.rows import Mean
from speaker_invariant_ser.studies.tables import TRAINED, about_measurement, markdown, score, share

PAGE = "encoders.md"  # beside the results, where no other page is named
HEAD = ("encoder", "dimensions", "UAR, linear", "UAR, MLP", "strongest attacker", "chance", "excess")
CONTAMINATED = "§"
KINDS = ((False, False, "trained network"), (True, False, "without training"))
ABOUT = (
    "In %, with 95 % CI. UAR: emotion on speakers that the classifier was not trained on, nor, as far as is known, the encoder, "
    "pooled over them; the interval is over speakers. Strongest attacker: speaker accuracy of the closed-form attackers in one "
    "cross-validation, the strongest selected on validation utterances; all attackers may be stronger. Chance: speaker accuracy "
    "given the true emotion. Excess: attacker minus chance. The order is that of the linear classifier. Picture: the linear "
    "classifier; lines join the layers of an encoder."
)


def marks(corpus: str) -> tuple[str, str]:
    """Return the lines between which the results on a corpus are written into a page."""
    begin, end = (f"<!-- siser audit-encoders {cell(corpus)}: {word} -->" for word in ("begin", "end"))
    return begin, end


def read_results(folder: Path) -> list[EncoderResult]:
    """Read the results in a folder; raise StudyError unless all are of one corpus and one recipe."""
    results = read_all(folder)
    for key in ("corpus", "data_sha256", "recipe", "chance", "utterances", "speakers"):
        values = [getattr(result, key) for result in results]
        other = next((result for result in results if getattr(result, key) != values[0]), None)
        if other:
            raise StudyError(
                f"{folder}: the results of {results[0].encoder} and {other.encoder} differ in {key}: expected those of one "
                "corpus and recipe in a folder"
            )
    return results


def table_of(results: Sequence[EncoderResult]) -> Table:
    """Return the table, a row for each encoder, or for each layer of one that has several."""
    return Table(HEAD, [cells(result, layer) for result in results for layer in result.layers])


def cells(result: EncoderResult, layer: LayerNumbers) -> list[str]:
    """Return the cells of a layer."""
    name = f"{result.encoder}, {layer.layer}" if len(result.layers) > 1 else result.encoder
    mark = CONTAMINATED * bool(result.contamination)
    return [
        f"{name}: {result.about}" if layer is result.layers[0] else name,
        f"{layer.dimensions:,}",
        *(score(mean_of(layer.emotion[kind].uar)) + mark for kind in CLASSIFIER_NAMES),
        *(speaker_cells(layer.speaker) if layer.speaker else ["-"] * 3),
    ]


def speaker_cells(speaker: AttackerNumbers) -> list[str]:
    """Return the cells about the speaker."""
    attacker, chance = speaker.strongest, speaker.chance
    return [
        f"{score(attacker_of(speaker))} {attacker.name}{TRAINED * (speaker.scored == 'trained')}",
        f"{share(chance)} of {speaker.speakers}",
        share(attacker.accuracy - chance) if leaves_room(chance) else "-",
    ]


def mean_of(uar: Uar) -> Mean:
    """Return a UAR as tables show it."""
    return Mean(uar.value, uar.low, uar.high, None)


def attacker_of(speaker: AttackerNumbers) -> Mean:
    """Return the accuracy of the strongest attacker."""
    strongest = speaker.strongest
    return Mean(strongest.accuracy, strongest.low, strongest.high, None)


def notes(results: Sequence[EncoderResult]) -> list[str]:
    """Return the lines below the table: chance, what its marks mean, and where it was measured."""
    first = results[0]
    lines = [f"{first.utterances:,} utterances of {first.speakers} speakers; UAR by chance: {share(first.chance)}."]
    lines += [f"{CLASSIFIER_NAMES[kind]}: {numbers.settings}." for kind, numbers in first.output.emotion.items()]
    if any(layer.speaker and layer.speaker.scored == "trained" for result in results for layer in result.layers):
        lines.append(f"{TRAINED} attackers were scored on utterances that the encoder was trained on.")
    lines += [
        f"{CONTAMINATED} {result.encoder} {result.contamination}. This is no result on unseen speakers."
        for result in results
        if result.contamination
    ]
    if folds := [result.encoder for result in results if result.models > 1]:
        lines.append(f"One model for each fold, which attackers learn from the training speakers of: {', '.join(folds)}.")
    return [*lines, about_measurement(results)]


def unaudited(results: Sequence[EncoderResult]) -> list[str]:
    """Say of which encoders, or which of their layers, speaker information was not measured, and why."""
    texts = []
    for result in results:
        layers = [layer for layer in result.layers if not layer.speaker]
        of = f"layers {shorten(layer.layer for layer in layers)} of " if len(layers) < len(result.layers) else ""
        texts += [f"{of}{result.encoder}: speaker information is not measured: {layer.unaudited}." for layer in layers[:1]]
    return texts


def picture(results: Sequence[EncoderResult]) -> str:
    """Return the picture, as SVG; "" where speaker information was not measured of any encoder."""
    points = [point for result in results if (point := point_of(result))]
    return draw_points(results[0].corpus, points, results[0].chance, KINDS, chance_line=True) if points else ""


def point_of(result: EncoderResult) -> Point | None:
    """Return what is drawn of an encoder: its last layer, and the way there; None where attackers were not measured on it."""
    path = tuple(
        (layer.layer, layer.speaker.strongest.accuracy, layer.emotion["linear"].uar.value)
        for layer in result.layers[:-1]
        if layer.speaker
    )
    output = result.output
    if not output.speaker:
        return None
    uar = mean_of(output.emotion["linear"].uar)
    name = f"{result.encoder}{f' {CONTAMINATED}' * bool(result.contamination)}"
    return Point(name, uar, attacker_of(output.speaker), output.speaker.chance, not result.network, False, path)


def files(folder: Path, page: Path) -> dict[Path, str]:
    """Return the page and the picture beside it, with the results in a folder, by path.

    Raises:
        StudyError: A result is damaged, they cannot be compared, or the page has no marks for them.
    """
    results = read_results(folder)
    if not results:
        raise StudyError(f"{folder} has no results of `siser audit-encoders`; name encoders to measure")
    corpus = results[0].corpus
    drawn, svg = page.with_name(f"{page.stem}-{plain_name(corpus)}.svg"), picture(results)
    lines = [
        markdown(table_of(results)),
        "\n".join(f"{cell(line)}<br>" for line in (*notes(results), *unaudited(results))),
        *([f"![{cell(corpus)}: {SUBJECT}, by encoder]({drawn.name})"] if svg else []),
        ABOUT,
    ]
    return {page: with_block(page, marks(corpus), "\n\n".join(lines), "Encoders"), **({drawn: svg} if svg else {})}


def write_page(folder: Path, page: Path) -> list[EncoderResult]:
    """Write the page and its picture; return the results that they show."""
    text, *drawn = files(folder, page).items()
    write_files(page, text[1], dict(drawn))
    return read_results(folder)
