"""JSON that others may have written: of bounded size and depth, no key twice, no half character, typed where a model is given."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from speaker_invariant_ser.errors import MAX_SHOWN, shown
from speaker_invariant_ser.files import MAX_TEXT, read_bytes
from speaker_invariant_ser.processes import memory_limited

M = TypeVar("M", bound=BaseModel)

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # half a character of UTF-16, which JSON can write alone and UTF-8 cannot


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text, bytes of which are UTF-8.

    Raises:
        ValueError: It is no JSON, nested too deeply, has a key twice in one object: readers differ in which they take; or has
            text that UTF-8 cannot hold, so that it could not be written or printed.

    >>> parse_json('{"angry": 1}')
    {'angry': 1}
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(text, object_pairs_hook=without_repeats)
        if SURROGATE.search(text):
            require_characters(value)
        return value
    except RecursionError:
        raise ValueError("nested too deeply") from None


def require_characters(value: Any) -> None:
    """Raise ValueError for a value of JSON with half a character of UTF-16 in a text."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a text has the code {ord(error.object[error.start]):#x}, which is half a character") from None


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the keys and values of a JSON object as a dict; raise ValueError that names a key that occurs twice."""
    table = dict(pairs)
    if len(table) < len(pairs):
        repeated, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {shown(repeated)} occurs twice")
    return table


def read_json(path: Path, maximum: int = MAX_TEXT) -> Any:
    """Read a JSON file in UTF-8.

    Raises:
        FileNotFoundError: There is no such file.
        SerError: It is a pipe or a device.
        ValueError: It is no JSON, too large, nested too deeply, or has a key twice.
    """
    with memory_limited():  # objects of Python may take 20 times the bytes of the file
        return parse_json(read_bytes(path, maximum))


def read_typed(model: type[M], path: Path) -> M:
    """Read a JSON file as a pydantic model: a text is no number, and no number is rounded.

    Raises:
        FileNotFoundError: There is no such file.
        SerError: It is a pipe or a device.
        ValueError: Of `read_json`; pydantic's ValidationError, whose text `why_invalid` shortens, for another content.
    """
    content = read_bytes(path)
    with memory_limited():
        parse_json(content)  # pydantic takes the last of two values of a key
    return model.model_validate_json(content, strict=True)


def why_invalid(error: OSError | ValueError) -> str:
    """Return in one line why a file cannot be read: of the first invalid value its key, the value, and what is expected."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"]))[:MAX_SHOWN]
    value = "" if first["type"] == "missing" or isinstance(first["input"], dict | list) else f" = {shown(first['input'])}"
    reason = first["msg"].removeprefix("Value error, ")
    return f"{key}{value}: {reason}" if key else reason
