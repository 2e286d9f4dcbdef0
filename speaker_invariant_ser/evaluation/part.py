"""What every part of report.json has in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of report.json."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def to_json(self) -> dict[str, Any]:
        """Return the keys and values of report.json; keys that were never given are absent."""
        return self.model_dump(mode="json", exclude_unset=True)
