"""Whole numbers that double precision does not hold to the last digit."""

from pathlib import Path

import numpy as np

from speaker_invariant_ser.errors import AuditError

MAX_WHOLE = 2**53  # up to which double precision holds every whole number


def require_exact(numbers: np.ndarray, source: Path | str) -> None:
    """Raise AuditError for whole numbers whose last digits, which are released, double precision would not hold."""
    if numbers.dtype.kind in "iu" and numbers.size and max(int(numbers.max()), -int(numbers.min())) > MAX_WHOLE:
        raise inexact(source)


def inexact(source: Path | str) -> AuditError:
    """Return the error about whole numbers that are too large."""
    return AuditError(
        f"{source}: whole numbers beyond 2^53 = {MAX_WHOLE}, whose last digits would not be audited; release smaller ones, or "
        "save them in floating point as they are released"
    )
