"""One family of errors for user mistakes; the command line catches it in one place and exits with code 2.

SerError
|- SetupError      the installation itself: torchaudio built for another torch, a missing extra
|- RecipeError     a recipe key or value
|- AudioError      one audio file that cannot be used, with the reason
|- CorpusError     a corpus name, or a folder that does not hold that corpus
|- DownloadError   a transfer that failed, or a file that is not the expected one
|- ManifestError   a table of utterances: missing columns, empty labels, repeated ids
|- SplitError      a split that would share a speaker between its parts, or has too few speakers
|- PreparedCorpusError   a folder that is not a prepared corpus, or a damaged one
|- RunError        a folder that is not a run, or does not match the recipe or the data
|- AuditError      embeddings that cannot be attacked
|- StudyError      a study's file, one of its arms, or a file of results
`- WriteError      no permission, no space, or a file that exists
"""

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping

# Of what a message shows of a file: problems, names, and characters of a value
MAX_PROBLEMS, MAX_NAMES, MAX_SHOWN = 20, 500, 200
NOT_REGULAR = (  # why what is neither a file nor a folder is not read, and what to do
    "is not a regular file: a pipe, such as <(...), or a device is not read; write the content into a file, with the ending of "
    "its kind, and name that"
)


ADDRESS = re.compile(r"(?<![^\s/'\"=])(https?|ftp|s3|gs|hf|file):/(?!/)", re.IGNORECASE)  # as pathlib writes it: one slash
WEB_ADDRESS = "a web address is not opened: download the file and write where it is on this machine"
FILE_ADDRESS = "a file: address is not opened: write the path without file:// in front"


class SerError(Exception):
    """A request that cannot be met; the message names the file, the value, and what is allowed."""


class SetupError(SerError):
    """The installation is incomplete or inconsistent."""


class RecipeError(SerError):
    """A recipe has an unknown key or a value out of range."""


class AudioError(SerError):
    """An audio file cannot be decoded or is unusable."""


class CorpusError(SerError):
    """The corpus is unknown, or the folder does not contain it."""


class DownloadError(SerError):
    """A corpus cannot be downloaded, or the file is not the expected one."""


class ManifestError(SerError):
    """A table of utterances is incomplete or contradictory."""


class SplitError(SerError):
    """The speakers cannot be divided as requested."""


class PreparedCorpusError(SerError):
    """The folder is not a prepared corpus, or is damaged."""


class RunError(SerError):
    """The folder is not a run, or was made with another recipe or corpus."""


class AuditError(SerError):
    """The embeddings do not allow an audit."""


class StudyError(SerError):
    """A study is wrong, or a file is not one of its results."""


class WriteError(SerError):
    """A file or folder cannot be written."""


def unknown(kind: str, value: str, allowed: Iterable[str]) -> str:
    """Return the message about an unknown name: the closest allowed one, then all of them.

    Args:
        kind: What the name is of, such as "corpus".
        value: The unknown name.
        allowed: The allowed names.

    >>> unknown("corpus", "emdb", ["emodb", "nemo"])
    "unknown corpus 'emdb', did you mean 'emodb'? Expected one of: emodb, nemo"
    """
    names, text = [str(name) for name in allowed], str(value)[:MAX_SHOWN]
    by_spelling = {name.casefold(): name for name in reversed(names[:MAX_NAMES])}
    close = difflib.get_close_matches(text.casefold(), by_spelling, n=1)
    hint = f", did you mean '{by_spelling[close[0]]}'?" if close else "."
    return f"unknown {kind} '{text}'{hint} Expected one of: {shorten(names, MAX_NAMES) or 'none, there is no other'}"


def explain_addresses(text: str) -> tuple[str, str]:
    """Return a text in which addresses have their slashes again, and why what it names is not opened; "" without an address.

    >>> explain_addresses("no such table: s3:/bucket/a.csv")[0], explain_addresses("file:/data: gone")[0]
    ('no such table: s3://bucket/a.csv', 'file:///data: gone')
    >>> explain_addresses("a.wav")
    ('a.wav', '')
    """
    schemes = [scheme.lower() for scheme in ADDRESS.findall(text)]
    hint = (FILE_ADDRESS if schemes[0] == "file" else WEB_ADDRESS) if schemes else ""
    return ADDRESS.sub(lambda match: match[0] + ("//" if match[1].lower() == "file" else "/"), text), hint


def shown(value: object) -> str:
    """Return a value of a file as a message shows it, cut if it is long.

    >>> shown("a"), len(shown([0] * 1000))
    ("'a'", 203)
    """
    try:
        text = repr(value)
    except ValueError:  # a number of more digits than Python writes
        text = "a very large number"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def changes(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Return what differs between two tables, as a message shows it.

    >>> changes({"a": 1, "b": 2}, {"b": 3})
    ['a was 1, now None', 'b was 2, now 3']
    """
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{key} was {shown(old.get(key))}, now {shown(new.get(key))}" for key in keys]


def shorten(names: Iterable[object], maximum: int = 5) -> str:
    """Return names joined by commas, at most `maximum` of them, then the number of the others.

    >>> shorten("abcd", maximum=2), shorten(["", "a"])
    ('a, b and 2 more', "'' (empty), a")
    """
    listed = [str(name) or "'' (empty)" for name in names]
    more = f" and {len(listed) - maximum} more" if len(listed) > maximum else ""
    return ", ".join(listed[:maximum]) + more


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    Args:
        number: The number.
        noun: What is counted, one of it.
        plural: More than one, where that is not the noun with an s.

    >>> counted(1, "fold"), counted(1200, "fold"), counted(2, "file is", "files are")
    ('1 fold', '1,200 folds', '2 files are')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def quoted(path: object) -> str:
    """Return a path as a shell needs it, for commands that are printed to be copied.

    >>> quoted("runs/a"), quoted("my runs/a")
    ('runs/a', "'my runs/a'")
    """
    return shlex.quote(str(path))
