"""Patterns of paths, such as `{speaker}/{emotion}_*.wav`, matched in bounded time.

A regular expression would try all divisions of a long name among many wildcards, which takes for ever. Here, no wildcard is
tried twice with the same end.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from speaker_invariant_ser.errors import CorpusError

WILDCARD = re.compile(r"(\{[^{}]*\}|\*\*/?|\*)")
MAX_PARTS = 100  # texts and wildcards in a pattern
MAX_STEPS = 50_000  # attempts for one path: about a tenth of a second

Failed = dict[tuple[int, int, tuple[str, ...]], int]


@dataclass(frozen=True)
class Pattern:
    """A pattern, taken apart.

    Attributes:
        parts: Texts, and the wildcards `*`, `**`, `**/` and `{field}`.
        text: Regular expressions of the parts that are text; upper and lower case are the same.
        repeated: Fields that occur more than once, with the same value each time.
    """

    parts: tuple[str, ...]
    text: Mapping[str, re.Pattern[str]] = field(repr=False)
    repeated: tuple[str, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, each once."""
        return tuple(dict.fromkeys(part[1:-1] for part in self.parts if part.startswith("{")))

    def match(self, path: str) -> dict[str, str] | None:
        """Return the value of each field, None if the path does not match.

        A field takes as few characters as possible, at least one, and * and ** as many as possible, from left to right.

        Raises:
            CorpusError: There are too many ways to try: fields occur several times, or the path is very long.
        """
        return self.rest(path, 0, 0, {}, {}, iter(range(MAX_STEPS)))

    def rest(
        self, path: str, number: int, begin: int, values: dict[str, str], failed: Failed, steps: Iterator[int]
    ) -> dict[str, str] | None:
        """Match the parts from `number` on with the path from `begin` on.

        Args:
            path: The whole path.
            number: Number of the first part.
            begin: Position of the first character.
            values: Values of fields in the parts before.
            failed: For wildcards that were tried in vain, the first position where they begin: what they can match from a later
                position on is a part of what they could match from there.
            steps: An element for each attempt that is allowed.
        """
        if next(steps, None) is None:
            raise CorpusError(
                f"--pattern {''.join(self.parts)}: takes too long for {path[:100]}; name no field twice, or use fewer wildcards"
            )
        if number == len(self.parts):
            return values if begin == len(path) else None
        part = self.parts[number]
        slash = -1 if part.startswith("**") else path.find("/", begin)
        stop = len(path) if slash < 0 else slash
        key = number, stop, tuple(values.get(name, "") for name in self.repeated)
        before = failed.get(key, len(path) + 1)
        for end in self.ends(part, path, begin, stop, before, values):
            known = {part[1:-1]: path[begin:end], **values} if part.startswith("{") else values
            if (found := self.rest(path, number + 1, end, known, failed, steps)) is not None:
                return found
        failed[key] = min(begin, before)
        return None

    def ends(self, part: str, path: str, begin: int, stop: int, before: int, values: Mapping[str, str]) -> Iterator[int]:
        """Yield where a part that begins at `begin` can end, in the order in which it is to be tried.

        A wildcard ends at `stop` at most, and not where it could end if it began at `before`.
        """
        if part in ("*", "**"):
            yield from range(min(stop, before - 1), begin - 1, -1)
        elif part == "**/":
            yield from (slash + 1 for slash in range(min(stop, before) - 1, begin - 1, -1) if path[slash] == "/")
            yield begin
        elif not part.startswith("{"):
            if text := self.text[part].match(path, begin):
                yield text.end()
        elif (name := part[1:-1]) in values:
            end = begin + len(values[name])
            if path[begin:end].lower() == values[name].lower():
                yield end
        else:
            yield from range(begin + 1, min(stop, before) + 1)


def parse(pattern: str) -> Pattern:
    """Take a pattern apart."""
    parts = tuple(part for part in WILDCARD.split(pattern) if part)
    fields = [part for part in parts if part.startswith("{")]
    text = {part: re.compile(re.escape(part), re.IGNORECASE) for part in parts if not WILDCARD.fullmatch(part)}
    return Pattern(parts, text, tuple(sorted({part[1:-1] for part in fields if fields.count(part) > 1})))
