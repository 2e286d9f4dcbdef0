"""The application `siser`: its commands, its exit codes, and the one place that turns errors into messages.

Exit codes: 0 done; 1 finished, but some inputs failed (they are listed); 2 the request was wrong, one `error:` line on standard
error; 130 interrupted.
"""

import errno
import gc
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from speaker_invariant_ser import __version__
from speaker_invariant_ser.cli.audit import audit, audit_encoders, embed
from speaker_invariant_ser.cli.baseline import baseline
from speaker_invariant_ser.cli.console import one_line, say
from speaker_invariant_ser.cli.corpora import corpora, models, recipes
from speaker_invariant_ser.cli.demo import demo
from speaker_invariant_ser.cli.evaluate import compare, evaluate
from speaker_invariant_ser.cli.export import card, export, push
from speaker_invariant_ser.cli.infer import infer
from speaker_invariant_ser.cli.prepare import add_f0, prepare
from speaker_invariant_ser.cli.progress import is_first_process
from speaker_invariant_ser.cli.study import study, sweep
from speaker_invariant_ser.cli.train import train
from speaker_invariant_ser.data.formats.quiet import move_stderr
from speaker_invariant_ser.errors import SerError, explain_addresses
from speaker_invariant_ser.processes import memory_errors, memory_is_low, reserve_blas

WRONG_REQUEST = 2
INTERRUPTED = 130  # as shells number it: 128 + SIGINT
HINTS = {  # what an interrupted command leaves behind
    "train": "; trained models and checkpoints are kept, continue with --resume",
    "sweep": "; finished trials and trained folds are kept, continue with --resume",
    "prepare": "; decoded audio is kept, repeat the command to continue",
    "add-f0": "; F0 tracked so far is kept, repeat the command to continue",
    "infer": "; with --out, the rows that are done are kept, repeat the command to continue",
    "embed": "; embeddings computed so far are kept, repeat the command to continue",
    "audit-encoders": "; results and embeddings computed so far are kept, repeat the command to continue",
    "study": "; results, trained models and checkpoints are kept, repeat the command to continue",
}
MAX_MESSAGE = 10_000  # characters of an error
MAX_REASON = 200  # characters of what a library says
REMEDIES = {  # what to lower, or to leave out, where memory runs out
    "prepare": "try --jobs 1, or cut long recordings into segments",
    "train": "lower train.batch_size or --jobs, or prepare shorter utterances",
    "evaluate": "try --jobs 1, or --quick for fewer attackers",
    "audit": "try --jobs 1, or --quick for fewer attackers",
    "audit-encoders": "try --jobs 1, or an encoder with fewer dimensions",
    "baseline": "try --jobs 1, or --quick for fewer attackers",
    "infer": "try --jobs 1, or --window for long recordings",
}
OTHER_REMEDY = "free some, or raise the limit (ulimit -v)"
COMMANDS = (
    demo,
    corpora,
    recipes,
    models,
    prepare,
    add_f0,
    train,
    sweep,
    evaluate,
    audit,
    embed,
    audit_encoders,
    baseline,
    compare,
    study,
    infer,
    export,
    push,
    card,
)

app = typer.Typer(
    name="siser",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def print_version(requested: bool) -> None:
    """Print the version of the package and end, if `--version` was given."""
    if requested:
        say(f"siser {__version__}")
        raise typer.Exit


@app.callback()
def siser(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Speech emotion recognition for unseen speakers, with an audit of the speaker information left in the embedding."""


VERBS = {command.__name__.replace("_", "-"): command for command in COMMANDS}
for verb, command in VERBS.items():
    app.command(verb)(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its exit code: the entry point of `siser`.

    Args:
        arguments: Words after `siser`; those of this process by default.
    """
    open_standard_files()
    move_stderr()
    signal.signal(signal.SIGTERM, interrupt)
    silence_libraries()
    keep_current_folder_off_path()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may have characters that the terminal's encoding lacks
    code = run(sys.argv[1:] if arguments is None else arguments)
    if code == WRONG_REQUEST and memory_is_low():  # libraries that are loaded in part may crash when they are unloaded
        sys.stdout.flush()
        os._exit(code)
    gc.freeze()  # nothing is searched for cycles before it is freed, which takes a quarter of a second where torch is imported
    sys.exit(code)


def silence_libraries() -> None:
    """Show no warnings of libraries, here and in worker processes, unless Python was started with its own wishes (-W)."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        os.environ["PYTHONWARNINGS"] = "ignore"


def keep_current_folder_off_path() -> None:
    """Let worker processes import nothing from the current folder, which may be a corpus from anybody."""
    os.environ["PYTHONSAFEPATH"] = "1"


def open_standard_files() -> None:
    """Open what a caller has closed of standard input, output and error, for nothing to be read or written.

    A file of ours would otherwise get the number of standard error, and what a decoder prints there would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # print would write to standard output instead
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w"))  # noqa: SIM115, for good


def interrupt(*_: object) -> None:
    """Handle SIGTERM like Ctrl-C, so that workers end and partial files are removed.

    Shells start background jobs with SIGINT ignored; SIGTERM reaches those too.
    """
    raise KeyboardInterrupt


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; a user's mistake is printed as one `error:` line on standard error.

    Args:
        arguments: Words after `siser`, such as `["corpora", "--json"]`; without any, the help is printed.

    Returns:
        0 done, 1 some inputs failed, 2 wrong request, 130 interrupted.
    """
    try:
        with memory_errors():
            if VERBS.keys() & arguments[:1]:
                reserve_blas()
            code = app(args=list(arguments) or ["--help"], prog_name="siser", standalone_mode=False) or 0
        if code == INTERRUPTED and is_first_process():
            say(f"stopped{HINTS.get(arguments[0], '')}", error=True)
        return int(code)
    except typer.TyperException as error:
        verb = f" {arguments[0]}" if arguments[0] in VERBS else ""
        message = error.format_message().replace("argument(s)", "argument").replace(": Value error, ", ": ")
        return fail(f"{message}{'' if message.endswith(('.', '?')) else '.'} Try `siser{verb} --help`.")
    except SerError as error:
        return fail(str(error))
    except BrokenPipeError:
        discard_output()  # the program that read our output has ended: there is no one to report to
        return 1
    except MemoryError as error:
        return fail(f"memory ran out; {REMEDIES.get(arguments[0], OTHER_REMEDY)} ({shortened(error)})")
    except OSError as error:
        return fail_on_system_error(error)


def fail(message: str) -> int:
    """Print an error line and return the exit code of a wrong request."""
    text, hint = explain_addresses(one_line(message))
    text += f"; {hint}" if hint and hint not in text else ""
    say(f"error: {text if len(text) <= MAX_MESSAGE else f'{text[:MAX_MESSAGE]}...'}", error=True)
    return WRONG_REQUEST


def shortened(error: MemoryError) -> str:
    """Return the first sentence of what a library says, without its own traceback."""
    return (str(error).strip().splitlines() or ["out of memory"])[0][:MAX_REASON]


def fail_on_system_error(error: OSError) -> int:
    """Report an error of the operating system: of a file that it names, or of standard output where that is full."""
    if error.filename is not None:
        return fail(f"{error.filename}: {error.strerror}")
    if error.errno is None:
        raise error
    from speaker_invariant_ser.files import REASONS

    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return fail(f"the system refused: {error.strerror}")
    discard_output()
    return fail(f"standard output or another file cannot be written: {REASONS[error.errno]}")


def discard_output() -> None:
    """Send what is still buffered for standard output nowhere, so that closing it does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
