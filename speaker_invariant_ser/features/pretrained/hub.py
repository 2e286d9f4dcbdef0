"""Download files of a repository of the Hugging Face Hub, by huggingface_hub, with an error of one line for whatever fails."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speaker_invariant_ser.errors import RunError, SetupError, counted, first_line

REPOSITORY = re.compile(r"(?!.*\.\.)[\w.-]+/[\w.-]+", re.ASCII)  # OWNER/NAME, no way upwards
LOG_IN = "`hf auth login`"
MAX_FILES = 1000
TIMEOUT = 10.0  # seconds without an answer; downloads have the same by default (HF_HUB_DOWNLOAD_TIMEOUT)
UNUSABLE = (  # what huggingface_hub raises of an answer that is not the hub's, such as the page of a network to log in to
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    RecursionError,
)


def snapshot(
    source: str,
    repository: str,
    revision: str | None,
    patterns: Sequence[str],
    extra: str,
    limit: int,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Download files of a repository into the cache of huggingface_hub, or find them there.

    Their number and sizes are checked before. Without a connection, a repository that was downloaded completely before is taken
    from the cache.

    Args:
        source: How the user has named it.
        repository: OWNER/NAME.
        revision: A branch, a tag, or the hash of a commit; None for the main branch.
        patterns: Patterns of the files to download; no other file is.
        extra: Extra of this package that huggingface_hub belongs to.
        limit: Maximum number of bytes of all files together.
        options: Of huggingface_hub's own: `token`, `cache_dir`, `force_download` and `local_files_only`.

    Returns:
        The folder that holds the files; its name is the hash of the commit.

    Raises:
        RunError: The repository or revision does not exist or is not open to this user, its files are too many or too large,
            or there is no connection.
        SetupError: huggingface_hub is not installed.
    """
    huggingface_hub, errors = open_library(source, extra)
    remedy = "check the connection, or download it elsewhere and name its folder"
    options = {**(options or {})}
    access = {"token": options["token"]} if "token" in options else {}
    with hub_errors(source, repository, revision, "cannot be downloaded and is not in the cache", remedy):
        unreachable, local = None, options.pop("local_files_only", False)
        try:
            if not local:
                about = huggingface_hub.model_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT, **access)
                sizes = {file.rfilename: max(0, file.size or 0) for file in about.siblings or []}
                require_small(source, sizes, patterns, limit)
        except (errors.RevisionNotFoundError, errors.HFValidationError):
            raise
        except (OSError, errors.HTTPError, *UNUSABLE) as error:
            unreachable = error
        with progress_on_terminals():
            try:
                folder = huggingface_hub.snapshot_download(
                    repository,
                    revision=revision,
                    allow_patterns=list(patterns),
                    library_name="speaker_invariant_ser",
                    local_files_only=local or unreachable is not None,
                    **options,
                )
            except errors.LocalEntryNotFoundError as error:
                raise unreachable or error from None
    return Path(folder)


def open_library(source: str, extra: str) -> tuple[Any, Any]:
    """Return huggingface_hub and its errors; raise SetupError with the extra if it is not installed."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise SetupError(f'{source} needs huggingface_hub: pip install "speaker-invariant-ser[{extra}]" ({error})') from None
    return huggingface_hub, errors


@contextmanager
def hub_errors(source: str, repository: str, revision: str | None, failed: str, remedy: str) -> Iterator[None]:
    """Turn errors of huggingface_hub, which is installed, into RunError of one line.

    Args:
        source: How the user has named the repository.
        repository: OWNER/NAME.
        revision: A branch, a tag, or the hash of a commit; None for the main branch.
        failed: What failed, where the reason is none that is known.
        remedy: What to do then.
    """
    _, errors = open_library(source, "hub")
    try:
        yield
    except errors.GatedRepoError:
        page = f"https://huggingface.co/{repository}"
        raise RunError(f"{source}: access is restricted; accept its conditions at {page}, then log in with {LOG_IN}") from None
    except errors.RepositoryNotFoundError:
        raise RunError(f"{source}: no such model on the hub, or a private one; check the name, or log in with {LOG_IN}") from None
    except errors.RevisionNotFoundError:
        raise RunError(f"{source}: the repository has no revision {revision}; expected a branch, a tag or a commit") from None
    except errors.HFValidationError as error:
        raise RunError(f"{source}: {first_line(error)}") from None
    except (OSError, errors.HTTPError) as error:
        raise RunError(f"{source}: {failed} ({first_line(error)}); {remedy}") from None
    except UNUSABLE as error:
        raise RunError(f"{source}: {failed}: the server's answer cannot be used ({first_line(error)}); {remedy}") from None


def require_small(source: str, sizes: Mapping[str, int], patterns: Sequence[str], limit: int) -> None:
    """Raise RunError where the files of a repository to download, of these sizes, are too many or too large."""
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]  # public, but not marked so

    names = list(filter_repo_objects(sizes, allow_patterns=list(patterns)))
    if len(names) > MAX_FILES:
        raise RunError(f"{source}: {counted(len(names), 'file')} to download, expected at most {MAX_FILES:,}")
    if (total := sum(sizes[name] for name in names)) > limit:
        raise RunError(
            f"{source}: {total / 1e9:.1f} GB to download, expected at most {limit / 1e9:g} GB; to use it nevertheless, "
            "download it and name its folder"
        )


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
