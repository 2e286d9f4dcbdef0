"""One family of errors; the command line catches it in one place and exits with code 2.

SerError
|- SetupError      the installation itself: torchaudio built for another torch, a missing extra
|- RecipeError     a recipe key or value
|- AudioError      one audio file that cannot be used, with the reason
|- CorpusError     a corpus name, or a folder that does not hold that corpus
|- DownloadError   a transfer that failed, or brought another file than was expected
|- ManifestError   a table of utterances: missing columns, empty labels, repeated ids
|- SplitError      a split that would share a speaker, or has too few of them
|- PreparedCorpusError      a folder that is not a prepared corpus, or a damaged one
|- RunError        a folder that is not a run, or does not fit the recipe or the data
|- AuditError      embeddings that no attacker can be tried on
`- WriteError      no permission, no space, or something in the way
"""

import difflib
from collections.abc import Iterable


class SerError(Exception):
    """A request that cannot be met. The message names the file, the value, and what would be right."""


class SetupError(SerError):
    """The installation is incomplete or inconsistent."""


class RecipeError(SerError):
    """A recipe has an unknown key or a value out of range."""


class AudioError(SerError):
    """An audio file cannot be decoded or holds nothing to work with."""


class CorpusError(SerError):
    """The corpus is unknown, or the folder does not hold it."""


class DownloadError(SerError):
    """A corpus cannot be fetched, or what came is not it."""


class ManifestError(SerError):
    """A table of utterances is incomplete or contradicts itself."""


class SplitError(SerError):
    """The speakers cannot be divided as asked."""


class PreparedCorpusError(SerError):
    """The folder is not a prepared corpus, or is damaged."""


class RunError(SerError):
    """The folder is not a run, or belongs to another recipe or corpus."""


class AuditError(SerError):
    """The embeddings do not allow an audit."""


class WriteError(SerError):
    """A file or folder cannot be written."""


def unknown(kind: str, value: str, allowed: Iterable[str]) -> str:
    """The text for a name that is not known: the nearest right one, then all of them.

    >>> unknown("corpus", "emdb", ["emodb", "nemo"])
    "unknown corpus 'emdb', did you mean 'emodb'? Expected one of: emodb, nemo"
    """
    allowed = [str(name) for name in allowed]
    close = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f", did you mean '{close[0]}'?" if close else "."
    return f"unknown {kind} '{value}'{hint} Expected one of: {', '.join(allowed)}"


def shorten(names: Iterable[str], most: int = 5) -> str:
    """Names joined by commas, at most `most` of them, then how many are left."""
    names = [str(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
