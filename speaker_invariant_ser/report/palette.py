"""Colours and markers of plots: the one place that defines them.

All colours but INK have a contrast of 3 or more to the backgrounds of the light and the dark theme. Classes of a scatter plot
differ in colour and marker. Two of the first eight with the same marker have colours that people with any of the three kinds of
dichromacy (deuteranopia, protanopia, tritanopia) can tell apart, and so have any two of the first four classes, for lines.
"""

INK = "#22303c"  # text and axes
BLUE, RUST, GREY = "#3f80a8", "#c25b3f", "#7c8791"
COLOURS = (BLUE, RUST, "#846ce4", "#9c7878", "#9c900c", "#6060a8", "#cc789c", "#3c840c")
MARKERS = ("o", "^", "s", "D")
MAX_CLASSES = len(COLOURS) * len(MARKERS)


def class_style(index: int) -> tuple[str, str]:
    """Return colour and marker of a class; the first `MAX_CLASSES` have different ones, and later ones repeat them.

    >>> class_style(0), class_style(4), class_style(8)
    (('#3f80a8', 'o'), ('#9c900c', 'o'), ('#3f80a8', '^'))
    """
    return COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
