"""Models on the Hugging Face Hub, named `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`, by huggingface_hub (extra `hub`)."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speaker_invariant_ser.errors import RunError
from speaker_invariant_ser.features.pretrained.hub import REPOSITORY, snapshot

PREFIX = "hf:"
MAX_BYTES = 1_000_000_000  # of an export; a model with its weights is a few MB
NAME = re.compile(rf"{PREFIX}(?P<repository>{REPOSITORY.pattern})(?:@(?P<revision>\w[\w./-]*))?", re.ASCII)


def is_hub(source: object) -> bool:
    """Return whether a model is named as one of the hub; an existing folder of such a name is written `./hf:...`."""
    return str(source).startswith(PREFIX)


def download(source: str, patterns: Sequence[str], options: Mapping[str, Any] | None = None) -> Path:
    """Download files of a repository, or find them in the cache (see `features.pretrained.hub.snapshot`).

    Args:
        source: `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`: a branch, a tag, or the hash of a commit, which alone never changes.
        patterns: Patterns of the files to download; no other file is.
        options: As for `snapshot`.

    Returns:
        The folder that holds the files.

    Raises:
        RunError: The name is none, the repository or revision does not exist or is not open to this user, its files are
            too many or too large, or there is no connection.
        SetupError: huggingface_hub is not installed.
    """
    match = NAME.fullmatch(source)
    if not match:
        raise RunError(f"{source}: expected {PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION")
    return snapshot(source, match["repository"], match["revision"], patterns, "hub", MAX_BYTES, options)
