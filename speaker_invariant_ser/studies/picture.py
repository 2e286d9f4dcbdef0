"""The picture of a study on one corpus, as SVG: emotion UAR against the strongest attacker, one point for each arm.

It is drawn here and not by a plotting library, so that the same results give the same file everywhere. Networks and baselines
differ in colour and shape, closed-form attackers and all attackers in filling.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from speaker_invariant_ser.studies.labels import Box, place
from speaker_invariant_ser.studies.rows import Mean, Row

WIDTH, HEIGHT = 760, 570
FRAME = Box(64, 34, 744, 466)  # of the plot
SIZE, RADIUS, BAR = 13, 5.5, 1.5  # of letters, points and error bars, pixels
NETWORK, BASELINE, INK, GREY = "#0072b2", "#c1440e", "#22303c", "#6b7680"
PADDING, TICKS = 0.05, 8  # share of the range that is added at each end; about how many ticks
FONT = "font-family='Helvetica, Arial, sans-serif'"


@dataclass(frozen=True)
class Axis:
    """A linear scale: values in percent to pixels, with its ticks."""

    low: float
    high: float
    start: float
    end: float

    def pixel(self, value: float) -> float:
        """Return the position of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Values of the ticks, multiples of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        return [step * number for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def axis(values: Sequence[float], start: float, end: float) -> Axis:
    """Return an axis that holds values in percent."""
    span = max(values) - min(values) or 10.0
    low, high = min(values) - PADDING * span, max(values) + PADDING * span
    return Axis(max(0.0, low), min(100.0, high), start, end)


def draw(corpus: str, rows: Sequence[Row]) -> str:
    """Return the picture of a corpus.

    Args:
        corpus: Its name.
        rows: Its arms with their results.
    """
    chances = [100 * row.chance for row in rows]
    across = axis([*ends([row.attacker for row in rows]), *chances], FRAME.left, FRAME.right)
    up = axis(ends([row.uar for row in rows]), FRAME.bottom, FRAME.top)
    points = [(across.pixel(100 * row.attacker.value), up.pixel(100 * row.uar.value)) for row in rows]
    bars = [bar for row, point in zip(rows, points, strict=True) for bar in error_bars(row, point, across, up)]
    boxes = place(points, [row.arm.name for row in rows], bars, FRAME, SIZE, RADIUS)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}' role='img'>",
        f"<title>{escape(caption(corpus, rows))}</title>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' rx='8' fill='#ffffff'/>",
        *chance_band(chances, across),
        *draw_axes(corpus, rows, across, up),
        *draw_front(points),
        *(
            f"<path d='M{bar.left:.1f} {bar.top:.1f}H{bar.right:.1f}V{bar.bottom:.1f}H{bar.left:.1f}z' fill='{colour}' "
            "fill-opacity='0.4'/>"
            for bar, colour in zip(bars, [colour_of(row) for row in rows for _ in range(2)], strict=True)
        ),
        *(part for row, point, box in zip(rows, points, boxes, strict=True) for part in draw_label(row, point, box)),
        *(draw_point(point, row.baseline, row.quick) for row, point in zip(rows, points, strict=True)),
        *legend(rows),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def caption(corpus: str, rows: Sequence[Row]) -> str:
    """Return the text alternative of the picture."""
    arms = "; ".join(f"{row.arm.name}: UAR {100 * row.uar.value:.1f}, attacker {100 * row.attacker.value:.1f}" for row in rows)
    return f"{corpus}: emotion UAR against the strongest attacker's accuracy, in percent. {arms}."


def ends(scores: Sequence[Mean]) -> list[float]:
    """Return the values of scores and the ends of their intervals, in percent."""
    return [100 * end for mean in scores for end in (mean.value, mean.low, mean.high) if end is not None]


def error_bars(row: Row, point: tuple[float, float], across: Axis, up: Axis) -> list[Box]:
    """Return the two error bars of an arm, of no length where there is no interval."""
    (x, y), half = point, BAR / 2
    attacker, uar = row.attacker, row.uar
    left, right = (x if end is None else across.pixel(100 * end) for end in (attacker.low, attacker.high))
    bottom, top = (y if end is None else up.pixel(100 * end) for end in (uar.low, uar.high))
    return [Box(left, y - half, right, y + half), Box(x - half, top, x + half, bottom)]


def chance_band(chances: Sequence[float], across: Axis) -> list[str]:
    """Return the band of the chance levels, which differ with the number of speakers."""
    left, right = across.pixel(min(chances)), across.pixel(max(chances))
    text = f"chance {min(chances):.1f}" + (f" to {max(chances):.1f}" if max(chances) - min(chances) >= 0.05 else "")
    box = f"x='{left - 0.75:.1f}' y='{FRAME.top}' width='{right - left + 1.5:.1f}' height='{FRAME.bottom - FRAME.top}'"
    return [
        f"<rect {box} fill='{GREY}' fill-opacity='{0.3 if right - left > 3 else 0.7}'/>",
        label_text(max(left - 2, FRAME.left), FRAME.top - 8, text, colour=GREY),
    ]


def draw_axes(corpus: str, rows: Sequence[Row], across: Axis, up: Axis) -> list[str]:
    """Return frame lines, ticks and the names of the axes."""
    parts = [
        f"<path d='M{FRAME.left} {FRAME.top}V{FRAME.bottom}H{FRAME.right}' fill='none' stroke='{INK}' stroke-width='1'/>",
    ]
    for value in across.ticks:
        x = across.pixel(value)
        parts.append(f"<path d='M{x:.1f} {FRAME.bottom}v5' stroke='{INK}'/>")
        parts.append(label_text(x, FRAME.bottom + 19, f"{value:g}", "middle"))
    for value in up.ticks:
        y = up.pixel(value)
        parts.append(f"<path d='M{FRAME.left} {y:.1f}h-5' stroke='{INK}'/>")
        parts.append(label_text(FRAME.left - 9, y + 4, f"{value:g}", "end"))
    name = f"emotion UAR on unseen speakers, % (chance {100 * rows[0].emotion_chance:.1f})"
    middle = (FRAME.top + FRAME.bottom) / 2
    parts += [
        label_text((FRAME.left + FRAME.right) / 2, FRAME.bottom + 41, "speaker accuracy of the strongest attacker, %", "middle"),
        f"<g transform='rotate(-90 20 {middle})'>{label_text(20, middle, name, 'middle')}</g>",
        label_text(FRAME.right, FRAME.top - 14, corpus, "end", weight="bold"),
    ]
    return parts


def draw_front(points: Sequence[tuple[float, float]]) -> list[str]:
    """Return the line through the Pareto front: no other arm has a higher UAR and a weaker attacker."""
    front = sorted(point for point in points if not any(x <= point[0] and y <= point[1] and (x, y) != point for x, y in points))
    if len(front) < 2:
        return []
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in front)
    return [
        f"<polyline points='{line}' fill='none' stroke='{INK}' stroke-width='1' stroke-dasharray='1 4' stroke-linecap='round'/>"
    ]


def draw_label(row: Row, point: tuple[float, float], box: Box) -> list[str]:
    """Return a label, and a line that leads to it from its point where it is not beside it."""
    x, y = point
    near = (min(max(x, box.left), box.right), min(max(y, box.top), box.bottom))
    distance = math.dist(point, near)
    colour = colour_of(row)
    parts = [label_text((box.left + box.right) / 2, box.bottom - 4, row.arm.name, "middle", colour)]
    if distance > 2 * RADIUS + 6:
        parts.insert(0, f"<path d='M{x:.1f} {y:.1f}L{near[0]:.1f} {near[1]:.1f}' stroke='{colour}' stroke-width='0.7'/>")
    return parts


def draw_point(point: tuple[float, float], baseline: bool, quick: bool) -> str:
    """Return a point: a circle for a network, a square for a baseline; open if only closed-form attackers were tried."""
    x, y = point
    colour = BASELINE if baseline else NETWORK
    style = f"fill='{'#ffffff' if quick else colour}' stroke='{colour}' stroke-width='2'"
    if baseline:
        side = 2 * RADIUS - 1
        return f"<rect x='{x - side / 2:.1f}' y='{y - side / 2:.1f}' width='{side}' height='{side}' {style}/>"
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{RADIUS}' {style}/>"


def legend(rows: Sequence[Row]) -> list[str]:
    """Return the legend, of the kinds of points that occur."""
    kinds = (
        (False, False, "network, all attackers"),
        (False, True, "network, closed-form attackers"),
        (True, False, "baseline, all attackers"),
        (True, True, "baseline, closed-form attackers"),
    )
    shown = {(row.baseline, row.quick) for row in rows}
    networks = any(not row.baseline for row in rows)
    parts = []
    for baseline, quick, text in kinds:
        if (baseline, quick) in shown:
            x, y = FRAME.left + 260 * quick, FRAME.bottom + (92 if baseline and networks else 72)
            parts += [draw_point((x + 6, y - 4), baseline, quick), label_text(x + 18, y, text, size=12)]
    return parts


def colour_of(row: Row) -> str:
    """Return the colour of an arm."""
    return BASELINE if row.baseline else NETWORK


def label_text(
    x: float, y: float, text: str, anchor: str = "start", colour: str = INK, size: int = SIZE, weight: str = "normal"
) -> str:
    """Return a text element."""
    position = f"x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'"
    return f"<text {position} {FONT} font-size='{size}' font-weight='{weight}' fill='{colour}'>{escape(text)}</text>"
