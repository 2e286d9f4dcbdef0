"""Download files of a repository of the Hugging Face Hub, by huggingface_hub, with an error of one line for whatever fails."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from speaker_invariant_ser.errors import RunError, SetupError, first_line

REPOSITORY = re.compile(r"(?!.*\.\.)[\w.-]+/[\w.-]+", re.ASCII)  # OWNER/NAME, no way upwards
LOG_IN = "`hf auth login`"


def snapshot(source: str, repository: str, revision: str | None, patterns: Sequence[str], extra: str) -> Path:
    """Download files of a repository into the cache of huggingface_hub, or find them there.

    Without a connection, a repository that was downloaded completely before is taken from the cache.

    Args:
        source: How the user has named it.
        repository: OWNER/NAME.
        revision: A branch, a tag, or the hash of a commit; None for the main branch.
        patterns: Patterns of the files to download; no other file is.
        extra: Extra of this package that huggingface_hub belongs to.

    Returns:
        The folder that holds the files; its name is the hash of the commit.

    Raises:
        RunError: The repository or revision does not exist or is not open to this user, or there is no connection.
        SetupError: huggingface_hub is not installed.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise SetupError(f'{source} needs huggingface_hub: pip install "speaker-invariant-ser[{extra}]" ({error})') from None
    try:
        with progress_on_terminals():
            folder = huggingface_hub.snapshot_download(
                repository, revision=revision, allow_patterns=list(patterns), library_name="speaker_invariant_ser"
            )
    except errors.GatedRepoError:
        page = f"https://huggingface.co/{repository}"
        raise RunError(f"{source}: access is restricted; accept its conditions at {page}, then log in with {LOG_IN}") from None
    except errors.RepositoryNotFoundError:
        raise RunError(f"{source}: no such model on the hub, or a private one; check the name, or log in with {LOG_IN}") from None
    except errors.RevisionNotFoundError:
        raise RunError(f"{source}: the repository has no revision {revision}; expected a branch, a tag or a commit") from None
    except errors.HFValidationError as error:
        raise RunError(f"{source}: {first_line(error)}") from None
    except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # base class of its HTTP library, whichever that is
        raise RunError(
            f"{source}: cannot be downloaded and is not in the cache ({first_line(error)}); check the connection, or download it "
            "elsewhere and name its folder"
        ) from None
    return Path(folder)


@contextmanager
def progress_on_terminals() -> Iterator[None]:
    """Let huggingface_hub show its progress bars only where standard error is a terminal."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public by its documentation, but not marked so
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    hidden = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if hidden:
        disable_progress_bars()
    try:
        yield
    finally:
        if hidden:
            enable_progress_bars()
