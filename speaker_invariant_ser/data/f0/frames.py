"""The frames of F0."""

HOP = 256  # samples between frames: 16 ms at 16 kHz


def frames_of(samples: int) -> int:
    """Return the number of F0 frames of an utterance: frame t is centred on sample 256 t.

    >>> frames_of(255), frames_of(256)
    (1, 2)
    """
    return 1 + samples // HOP
