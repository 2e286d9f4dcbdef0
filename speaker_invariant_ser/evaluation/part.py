"""What every part of report.json has in common, and the ranges of its numbers."""

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

ROUNDING = 1e-5  # by which a mean of shares may leave 0 to 1, and an interval cross itself


def in_share(value: float) -> float:
    """Return a share; raise ValueError unless it is from 0 to 1."""
    if not -ROUNDING <= value <= 1 + ROUNDING:
        raise ValueError("expected a number from 0 to 1")
    return value


def in_difference(value: float) -> float:
    """Return a difference of two shares, or a correlation; raise ValueError unless it is from -1 to 1."""
    if not abs(value) <= 1 + ROUNDING:
        raise ValueError("expected a number from -1 to 1")
    return value


def in_size(value: float) -> float:
    """Return a deviation, a time, or a number of bits; raise ValueError if it is below 0."""
    if not value >= -ROUNDING:
        raise ValueError("expected a number of 0 or more")
    return value


Share = Annotated[float, AfterValidator(in_share)]
Signed = Annotated[float, AfterValidator(in_difference)]
Size = Annotated[float, AfterValidator(in_size)]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """A part of report.json.

    Attributes:
        centre: Name of the number that lies between `low` and `high`; "" where resamples may all be on one side of it, as those
            of a UAR, which can lack an emotion.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    centre: ClassVar[str] = ""

    @model_validator(mode="after")
    def require_interval(self) -> Self:
        """Raise ValueError for an interval whose ends are exchanged, or that does not hold its centre."""
        ends = {name: getattr(self, name, None) for name in ("low", self.centre, "high") if name}
        known = {name: end for name, end in ends.items() if end is not None}
        if {"low", "high"} <= known.keys() and any(first > second + ROUNDING for first, second in pairwise(known.values())):
            raise ValueError(f"expected {' <= '.join(known)}, not {' <= '.join(f'{end:g}' for end in known.values())}")
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the keys and values of report.json; keys that were never given are absent."""
        return self.model_dump(mode="json", exclude_unset=True)
