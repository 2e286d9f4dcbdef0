"""Place the labels of points in a picture so that they cover neither each other nor a point."""

from collections.abc import Sequence
from dataclasses import dataclass

CHARACTER, HEIGHT = 0.6, 1.15  # width of an average letter and height of a line, by font size
DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1))
STEPS = range(9, 100, 9)  # distances of a label from its point, pixels
PASSES = 4


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """Return the area that two boxes share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    def outside(self, frame: "Box") -> float:
        """Return by how much it exceeds a frame, pixels."""
        ends = (frame.left - self.left, self.right - frame.right, frame.top - self.top, self.bottom - frame.bottom)
        return sum(max(0.0, end) for end in ends)


def place(
    points: Sequence[tuple[float, float]], texts: Sequence[str], bars: Sequence[Box], frame: Box, size: float, radius: float
) -> list[Box]:
    """Return the box of each label.

    Each label in turn takes the cheapest of several positions around its point, given where the others are, and all of them are
    placed anew a few times. Covering a label or a point costs most, then error bars, then distance.

    Args:
        points: Centres of the points, pixels.
        texts: Their labels.
        bars: Boxes around error bars and other lines.
        frame: What labels shall stay in.
        size: Font size, pixels.
        radius: Radius of a point, pixels.
    """
    discs = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    boxes: dict[int, Box] = {}
    for _ in range(PASSES):
        for position, (point, text) in enumerate(zip(points, texts, strict=True)):
            solid = [box for other, box in boxes.items() if other != position] + discs
            choices = candidates(point, text, size)
            _, _, boxes[position] = min(
                (cost(box, solid, bars, frame) + away, rank, box) for rank, (away, box) in enumerate(choices)
            )
    return [boxes[position] for position in range(len(points))]


def candidates(point: tuple[float, float], text: str, size: float) -> list[tuple[float, Box]]:
    """Return positions of a label around its point, each with the cost of its distance."""
    width, height = CHARACTER * size * len(text), HEIGHT * size
    positions = []
    for step in STEPS:
        for horizontal, vertical in DIRECTIONS:
            reach = step if not (horizontal and vertical) else 0.75 * step
            x, y = point[0] + horizontal * (reach + width / 2), point[1] + vertical * (reach + height / 2)
            positions.append((float(step), Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)))
    return positions


def cost(box: Box, solid: Sequence[Box], bars: Sequence[Box], frame: Box) -> float:
    """Return what a position of a label costs, without its distance."""
    covered = sum(100 * min(1.0, box.overlap(other)) + box.overlap(other) for other in solid)
    crossed = sum(4 * min(1.0, box.overlap(bar)) + 0.4 * box.overlap(bar) for bar in bars)
    return covered + crossed + 100 * box.outside(frame)
