"""Keep what decoders print off the terminal: libmpg123 writes a line to standard error for every damaged frame of an MP3.

It writes to descriptor 2 from C. That is redirected while it decodes, which nothing else may notice: only where Python's own
standard error has another descriptor, as in the command line.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STDERR = 2
_redirecting = threading.Lock()


def move_stderr() -> None:
    """Give Python's standard error a descriptor of its own, if it is descriptor 2."""
    if writes_to_descriptor_2():
        encoding, errors = sys.stderr.encoding, sys.stderr.errors
        sys.stderr = open(os.dup(STDERR), "w", buffering=1, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115, for good


def writes_to_descriptor_2() -> bool:
    """Return whether what Python prints on standard error goes through descriptor 2."""
    try:
        return sys.stderr is not None and sys.stderr.fileno() == STDERR
    except (OSError, ValueError):  # a buffer in memory, or closed
        return False


@contextmanager
def silenced() -> Iterator[None]:
    """Drop what is written to descriptor 2, unless Python writes there too."""
    if writes_to_descriptor_2():
        yield
        return
    with _redirecting:
        copy, null = os.dup(STDERR), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, STDERR)
        os.close(null)
        try:
            yield
        finally:
            os.dup2(copy, STDERR)
            os.close(copy)
