"""`siser prepare`: decode a corpus into 16 kHz mono audio with a manifest."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speaker_invariant_ser.cli.console import show_prepared, warn
from speaker_invariant_ser.cli.options import CORES, Columns, FileJobs, Quiet, column_names, pair
from speaker_invariant_ser.cli.progress import progress_bars

if TYPE_CHECKING:
    from speaker_invariant_ser.data.manifest import Listing, Utterance
    from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus


def prepare(
    corpus: Annotated[
        str, typer.Argument(help="A known corpus (see `siser corpora`), or csv, tsv, parquet, folder, audformat, datasets.")
    ],
    source: Annotated[Path, typer.Argument(help="The corpus's folder, or your own table or folder.")],
    out: Annotated[Path, typer.Argument(help="The prepared corpus: a new folder.")],
    also: Annotated[
        list[str] | None, typer.Option(help="CORPUS=SOURCE, another corpus to add to the same manifest; may be repeated.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="COLUMN=VALUE, the utterances to keep, such as style=speech; may be repeated.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download the corpus into SOURCE first, if its licence allows that.")
    ] = False,
    pattern: Annotated[
        str, typer.Option(help='Pattern of the paths in your own folder, such as "{speaker}/{emotion}/*_{text}.wav".')
    ] = "",
    name: Annotated[str, typer.Option(help="Name of your own data (CORPUS); by default, the name of the file or folder.")] = "",
    column: Columns = None,
    unlabelled: Annotated[
        bool,
        typer.Option("--unlabelled", help="Accept utterances of your own data without an emotion; see split.unlabelled."),
    ] = False,
    trim_db: Annotated[
        float, typer.Option(min=0, max=120, help="Trim both ends where they are this many dB below the peak; 0 trims nothing.")
    ] = 0.0,
    loudness: Annotated[
        float | None, typer.Option(min=-70, max=0, help="Normalise every utterance to this loudness, in LUFS (ITU-R BS.1770).")
    ] = None,
    jobs: FileJobs = CORES,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if any file is rejected or has a warning.")] = False,
    quiet: Quiet = False,
) -> None:
    """Decode a corpus once into 16 kHz mono audio with a manifest. After an interruption, repeat the command to continue."""
    from speaker_invariant_ser.data.corpora.registry import get_corpus
    from speaker_invariant_ser.data.decoding import Treatment, workers
    from speaker_invariant_ser.data.manifest import select
    from speaker_invariant_ser.data.prepare import prepare
    from speaker_invariant_ser.files import refuse_existing, scratch_folder, sweep

    sweep(out)
    refuse_existing(out, "prepare into a new folder, or remove this one first")
    wanted = [(corpus, source), *(pair(text, "--also", "nemo=~/nemo") for text in also or ())]
    conditions = [pair(text, "--only", "style=speech") for text in only or ()]
    options = {"--pattern": pattern, "--name": name, "--column": column_names(column), "--unlabelled": unlabelled}
    require_own(wanted, options)
    with workers(jobs) as pool, scratch_folder(out) as scratch, progress_bars(quiet) as progress:
        if download:
            from speaker_invariant_ser.data.download import fetch

            fetch(get_corpus(corpus), os.path.expanduser(source), progress)
        listings = [
            find_corpus(kind, path, options if not number else {**options, "--name": ""}, scratch / str(number))
            for number, (kind, path) in enumerate(wanted)
        ]
        compare = comparison([kind for kind, _ in wanted], listings) if not conditions else lambda kept: []
        prepared = prepare(select(listings, conditions), out, Treatment(trim_db, loudness), pool, progress, compare)
    show_prepared(prepared, out)
    warn_of(prepared, out)
    counts = prepared.settings["counts"]
    if strict and (counts["rejected"] or counts["warned"]):
        raise typer.Exit(1)


def require_own(wanted: Sequence[tuple[str, object]], options: Mapping[str, object]) -> None:
    """Refuse options that would have no effect: all are about the user's own data, `--name` about CORPUS alone."""
    from speaker_invariant_ser.data.custom import OWN

    for option, value in options.items():
        if value and not any(kind in OWN for kind, _ in (wanted[:1] if option == "--name" else wanted)):
            raise typer.BadParameter(f"{option}: for your own data only, {wanted[0][0]} is a known corpus.")


def find_corpus(kind: str, path: Path | str, options: dict, scratch: Path) -> "Listing":
    """List the utterances of a known corpus, or of the user's own data, which the options describe."""
    from speaker_invariant_ser.data.corpora.base import list_corpus
    from speaker_invariant_ser.data.corpora.registry import get_corpus
    from speaker_invariant_ser.data.custom import OWN, Request

    path = Path(os.path.expanduser(path))
    if kind in OWN:
        given = (options[name] for name in ("--name", "--pattern", "--column"))
        return OWN[kind](Request(path, *given, scratch, options["--unlabelled"]))
    return list_corpus(get_corpus(kind, OWN), path)


def comparison(kinds: Sequence[str], listings: Sequence["Listing"]) -> Callable[[Sequence["Utterance"]], list[str]]:
    """Return a function that lists where the counts of the kept utterances differ from those of the known corpora."""
    from speaker_invariant_ser.data.corpora.base import UNKNOWN_FILE, count_differences
    from speaker_invariant_ser.data.corpora.registry import known_corpora

    known = known_corpora()
    useless = {
        kind: sum(not reason.startswith(UNKNOWN_FILE) for _, reason in listing.rejected)
        for kind, listing in zip(kinds, listings, strict=True)
    }

    def compare(kept: Sequence["Utterance"]) -> list[str]:
        lines = []
        for kind in kinds:
            if kind in known:
                utterances = [utterance for utterance in kept if utterance.corpus == kind]
                lines += [f"{kind}: {line}" for line in count_differences(known[kind], utterances, useless[kind])]
        return lines

    return compare


def warn_of(prepared: "PreparedCorpus", out: Path) -> None:
    """Print a warning for rejected and suspicious files, unexpected counts, and shortcuts to the emotion."""
    from speaker_invariant_ser.data.prepared_corpus import REJECTED, WARNED

    counts = prepared.settings["counts"]
    if counts["rejected"]:
        warn(f"{counts['rejected']} files rejected; the reasons are in {out / REJECTED}")
    if counts["warned"]:
        warn(f"{counts['warned']} files are suspicious but were kept; the reasons are in {out / WARNED}")
    for line in prepared.settings["differences"] + prepared.settings["shortcuts"]["warnings"]:
        warn(line)
