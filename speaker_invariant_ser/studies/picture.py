"""Pictures of emotion UAR against the strongest attacker, as SVG: one point for each arm of a study, or for each encoder.

They are drawn here and not by a plotting library, so that the same results give the same file everywhere. Networks and what
needs none differ in colour and shape, closed-form attackers and all attackers in filling. Of many points, only some have a name
and error bars: see `labelled`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from speaker_invariant_ser.files import MAX_SETTINGS, read_bytes
from speaker_invariant_ser.studies.labels import Box, place
from speaker_invariant_ser.studies.rows import Mean, Row

WIDTH, HEIGHT = 760, 570
FRAME = Box(64, 34, 744, 466)  # of the plot
SIZE, RADIUS, BAR, DOT = 13, 5.5, 1.5, 2.5  # of letters, points, error bars and layers, pixels
LAYER_SIZE = 10  # of the names of layers
NETWORK, BASELINE, INK, GREY = "#0072b2", "#c1440e", "#22303c", "#6b7680"
SMALL_RADIUS = 3.5  # of points without a name
MAX_NAMES = 12  # of points that all have a name
PADDING, TICKS = 0.05, 8  # share of the range that is added at each end; about how many ticks
SUBJECT = "emotion UAR against the strongest attacker"
FONT = "font-family='Helvetica, Arial, sans-serif'"


@dataclass(frozen=True)
class Point:
    """What is drawn of an arm or an encoder.

    Attributes:
        name: Its label.
        uar: Emotion UAR.
        attacker: Accuracy of the strongest attacker.
        chance: Speaker accuracy by chance.
        baseline: Whether it is drawn as one without a network.
        quick: Whether only closed-form attackers were tried, and others may be stronger.
        path: Names, attackers' accuracies and UARs of the layers below, from the first to the one before the point.
    """

    name: str
    uar: Mean
    attacker: Mean
    chance: float
    baseline: bool
    quick: bool
    path: tuple[tuple[str, float, float], ...] = ()


Kind = tuple[bool, bool, str]  # baseline, quick, and their text in the legend
KINDS: tuple[Kind, ...] = (
    (False, False, "network, all attackers"),
    (False, True, "network, closed-form attackers"),
    (True, False, "baseline, all attackers"),
    (True, True, "baseline, closed-form attackers"),
)


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
    """Return the picture of the arms of a study on a corpus; "" where none has an audit."""
    rows = [row for row in rows if row.speaker]
    if not rows:
        return ""
    points = [Point(row.arm.name, row.uar, row.attacker, row.chance, row.baseline, row.quick) for row in rows]
    return draw_points(corpus, points, rows[0].emotion_chance)


def draw_points(
    title: str, points: Sequence[Point], emotion_chance: float, kinds: Sequence[Kind] = KINDS, chance_line: bool = False
) -> str:
    """Return a picture.

    Args:
        title: Its title.
        points: What is drawn.
        emotion_chance: UAR of guessing.
        kinds: What the legend calls the kinds of points.
        chance_line: Draw a line at `emotion_chance`, and the vertical axis down to it.
    """
    chances = [100 * point.chance for point in points]
    layers = [layer for point in points for layer in point.path]
    accuracies = [*ends([point.attacker for point in points]), *(100 * accuracy for _, accuracy, _ in layers), *chances]
    uars = [*ends([point.uar for point in points]), *(100 * uar for _, _, uar in layers), *[100 * emotion_chance] * chance_line]
    across, up = axis(accuracies, FRAME.left, FRAME.right), axis(uars, FRAME.bottom, FRAME.top)
    places = [(across.pixel(100 * point.attacker.value), up.pixel(100 * point.uar.value)) for point in points]
    paths = [path_of(point, place, across, up) for point, place in zip(points, places, strict=True)]
    named = labelled(places)
    bars = [bar for position in named for bar in error_bars(points[position], places[position], across, up)]
    dots = [
        dot_box(layer[0], at)
        for point, path in zip(points, paths, strict=True)
        for layer, at in zip(point.path, path, strict=False)
    ]
    other = [position for position in range(len(points)) if position not in named]
    around = [*bars, *dots, *(disc(places[position]) for position in other)]
    boxes = place(
        [places[position] for position in named], [points[position].name for position in named], around, FRAME, SIZE, RADIUS
    )
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}' role='img'>",
        f"<title>{escape(caption(title, points))}</title>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' rx='8' fill='#ffffff'/>",
        *chance_band(chances, across),
        *(chance_across(emotion_chance, up) if chance_line else ()),
        *draw_axes(title, emotion_chance, across, up),
        *draw_front(places),
        *(
            f"<path d='M{bar.left:.1f} {bar.top:.1f}H{bar.right:.1f}V{bar.bottom:.1f}H{bar.left:.1f}z' fill='{colour}' "
            "fill-opacity='0.4'/>"
            for bar, colour in zip(bars, [colour_of(points[position]) for position in named for _ in range(2)], strict=True)
        ),
        *(part for point, path in zip(points, paths, strict=True) for part in draw_path(point, path)),
        *(draw_point(places[position], points[position], SMALL_RADIUS) for position in other),
        *(
            part
            for position, box in zip(named, boxes, strict=True)
            for part in draw_label(points[position], places[position], box)
        ),
        *(draw_point(places[position], points[position]) for position in named),
        *legend(points, kinds),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def caption(title: str, points: Sequence[Point]) -> str:
    """Return the text alternative of the picture."""
    arms = "; ".join(
        f"{point.name}: UAR {100 * point.uar.value:.1f}, attacker {100 * point.attacker.value:.1f}" for point in points
    )
    return f"{title}: {SUBJECT}'s accuracy, in percent. {arms}."


def is_picture(path: Path) -> bool:
    """Return whether a file is a picture that was drawn here, by its title."""
    if not path.is_file():
        return False
    try:
        head = read_bytes(path, MAX_SETTINGS)[:1000].decode(errors="replace")
    except (OSError, ValueError):  # unreadable, or larger than any picture
        return False
    return head.startswith("<svg") and f": {SUBJECT}" in head.partition("<title>")[2]


def path_of(point: Point, end: tuple[float, float], across: Axis, up: Axis) -> list[tuple[float, float]]:
    """Return the pixels of the layers below a point, and the point's own at the end."""
    return [*((across.pixel(100 * accuracy), up.pixel(100 * uar)) for _, accuracy, uar in point.path), end]


def dot_box(name: str, at: tuple[float, float]) -> Box:
    """Return what the dot of a layer and the name above it cover."""
    (x, y), half = at, max(DOT, 0.3 * LAYER_SIZE * len(name))
    return Box(x - half, y - 5 - LAYER_SIZE, x + half, y + DOT)


def draw_path(point: Point, path: Sequence[tuple[float, float]]) -> list[str]:
    """Return the line through the layers of an encoder, with a dot and a name for each; nothing for one without layers."""
    if len(path) < 2:
        return []
    colour, line = colour_of(point), " ".join(f"{x:.1f},{y:.1f}" for x, y in path)
    parts = [f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='1.2' stroke-opacity='0.7'/>"]
    for (name, _, _), (x, y) in zip(point.path, path[:-1], strict=True):
        parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{DOT}' fill='{colour}'/>")
        parts.append(label_text(x, y - 5, name, "middle", colour, size=LAYER_SIZE))
    return parts


def ends(scores: Sequence[Mean]) -> list[float]:
    """Return the values of scores and the ends of their intervals, in percent."""
    return [100 * end for mean in scores for end in (mean.value, mean.low, mean.high) if end is not None]


def error_bars(point: Point, at: tuple[float, float], across: Axis, up: Axis) -> list[Box]:
    """Return the two error bars of a point, of no length where there is no interval."""
    (x, y), half = at, BAR / 2
    attacker, uar = point.attacker, point.uar
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


def chance_across(chance: float, up: Axis) -> list[str]:
    """Return the line of the UAR of guessing."""
    y = up.pixel(100 * chance)
    return [
        f"<path d='M{FRAME.left} {y:.1f}H{FRAME.right}' stroke='{GREY}' stroke-width='1.5' stroke-opacity='0.7'/>",
        label_text(FRAME.right, y - 5, f"chance {100 * chance:.1f}", "end", colour=GREY),
    ]


def draw_axes(title: str, emotion_chance: float, across: Axis, up: Axis) -> list[str]:
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
    name = f"emotion UAR on unseen speakers, % (chance {100 * emotion_chance:.1f})"
    middle = (FRAME.top + FRAME.bottom) / 2
    parts += [
        label_text((FRAME.left + FRAME.right) / 2, FRAME.bottom + 41, "speaker accuracy of the strongest attacker, %", "middle"),
        f"<g transform='rotate(-90 20 {middle})'>{label_text(20, middle, name, 'middle')}</g>",
        label_text(FRAME.right, FRAME.top - 14, title, "end", weight="bold"),
    ]
    return parts


def labelled(places: Sequence[tuple[float, float]]) -> list[int]:
    """Return the positions of the points that have a name and error bars: all, or of many the first, the front and the extremes.

    The first is the one that a table compares the others with; extremes have the highest or lowest UAR or attacker's accuracy.
    """
    if len(places) <= MAX_NAMES:
        return list(range(len(places)))
    extremes = [choose(range(len(places)), key=lambda n: places[n][axis]) for choose in (min, max) for axis in (0, 1)]
    on_front = set(front(places))
    return [position for position, at in enumerate(places) if position == 0 or position in extremes or at in on_front]


def front(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points of the Pareto front from left to right: no other arm has a higher UAR and a weaker attacker."""
    return sorted(at for at in places if not any(x <= at[0] and y <= at[1] and (x, y) != at for x, y in places))


def draw_front(places: Sequence[tuple[float, float]]) -> list[str]:
    """Return the line through the Pareto front."""
    if len(front(places)) < 2:
        return []
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in front(places))
    return [
        f"<polyline points='{line}' fill='none' stroke='{INK}' stroke-width='1' stroke-dasharray='1 4' stroke-linecap='round'/>"
    ]


def draw_label(point: Point, at: tuple[float, float], box: Box) -> list[str]:
    """Return a label, and a line that leads to it from its point where it is not beside it."""
    x, y = at
    near = (min(max(x, box.left), box.right), min(max(y, box.top), box.bottom))
    distance = math.dist(at, near)
    colour = colour_of(point)
    parts = [label_text((box.left + box.right) / 2, box.bottom - 4, point.name, "middle", colour)]
    if distance > 2 * RADIUS + 6:
        parts.insert(0, f"<path d='M{x:.1f} {y:.1f}L{near[0]:.1f} {near[1]:.1f}' stroke='{colour}' stroke-width='0.7'/>")
    return parts


def disc(at: tuple[float, float]) -> Box:
    """Return what a point without a name covers."""
    x, y = at
    return Box(x - SMALL_RADIUS, y - SMALL_RADIUS, x + SMALL_RADIUS, y + SMALL_RADIUS)


def draw_point(at: tuple[float, float], point: Point, radius: float = RADIUS) -> str:
    """Return a point that shows its name where the pointer is on it."""
    return draw_mark(at, point.baseline, point.quick, radius, f"<title>{escape(point.name)}</title>")


def draw_mark(at: tuple[float, float], baseline: bool, quick: bool, radius: float = RADIUS, inside: str = "") -> str:
    """Return a circle for a network, a square for a baseline; open if only closed-form attackers were tried."""
    x, y = at
    colour = BASELINE if baseline else NETWORK
    style = f"fill='{'#ffffff' if quick else colour}' stroke='{colour}' stroke-width='{2 if radius == RADIUS else 1.2}'"
    if baseline:
        side = 2 * radius - 1
        return f"<rect x='{x - side / 2:.1f}' y='{y - side / 2:.1f}' width='{side}' height='{side}' {style}>{inside}</rect>"
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius}' {style}>{inside}</circle>"


def legend(points: Sequence[Point], kinds: Sequence[Kind]) -> list[str]:
    """Return the legend, of the kinds of points that occur."""
    shown = {(point.baseline, point.quick) for point in points}
    networks = any(not point.baseline for point in points)
    parts = []
    for baseline, quick, text in kinds:
        if (baseline, quick) in shown:
            x, y = FRAME.left + 260 * quick, FRAME.bottom + (92 if baseline and networks else 72)
            parts += [draw_mark((x + 6, y - 4), baseline, quick), label_text(x + 18, y, text, size=12)]
    return parts


def colour_of(point: Point) -> str:
    """Return the colour of a point."""
    return BASELINE if point.baseline else NETWORK


def label_text(
    x: float, y: float, text: str, anchor: str = "start", colour: str = INK, size: int = SIZE, weight: str = "normal"
) -> str:
    """Return a text element."""
    position = f"x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'"
    return f"<text {position} {FONT} font-size='{size}' font-weight='{weight}' fill='{colour}'>{escape(text)}</text>"
