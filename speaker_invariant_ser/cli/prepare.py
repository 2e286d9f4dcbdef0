"""`siser prepare` and `siser add-f0`: decode a corpus into 16 kHz mono audio with a manifest, and track its F0."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speaker_invariant_ser.cli.console import say, show_prepared, warn
from speaker_invariant_ser.cli.options import (
    CORES,
    Channel,
    Columns,
    FileJobs,
    Quiet,
    SameSpeaker,
    column_names,
    corpus_names,
    pair,
)
from speaker_invariant_ser.cli.progress import progress_bars
from speaker_invariant_ser.errors import counted

if TYPE_CHECKING:
    from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus


def prepare(
    corpus: Annotated[
        str,
        typer.Argument(
            help="A known corpus (see `siser corpora`), or csv, tsv, parquet, folder, audformat, datasets.",
            autocompletion=corpus_names,
        ),
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
    votes: Annotated[
        str,
        typer.Option(
            metavar="PREFIX",
            help="Columns PREFIXangry, PREFIXsad ... of your table hold annotators' votes for these emotions, or shares. By "
            "default, columns that begin with votes_, where the table has such columns.",
        ),
    ] = "",
    annotators: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="Column of your table with one annotator's labels, or pattern of several; may be repeated."
        ),
    ] = None,
    same_speaker: SameSpeaker = None,
    scale: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOWEST HIGHEST",
            help="Lowest and highest value of your own data's arousal, valence and dominance, such as 1 5.",
            show_default="0 1",
        ),
    ] = None,
    channel: Annotated[
        Channel, typer.Option(help="Of files with several channels: their mean, the left (first), or the right (second).")
    ] = Channel.MIX,
    trim_db: Annotated[
        float, typer.Option(min=0, max=120, help="Trim both ends where they are this many dB below the peak; 0 trims nothing.")
    ] = 0.0,
    loudness: Annotated[
        float | None, typer.Option(min=-70, max=0, help="Normalise every utterance to this loudness, in LUFS (ITU-R BS.1770).")
    ] = None,
    f0: Annotated[
        bool,
        typer.Option("--f0/--no-f0", help='Track F0 as well, which recipes with the stream "prosody" need: the default does.'),
    ] = True,
    jobs: FileJobs = CORES,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if any file is rejected or has a warning.")] = False,
    quiet: Quiet = False,
) -> None:
    """Decode a corpus into 16 kHz mono audio with a manifest.

    After an interruption, repeat the command to continue where it stopped.
    """
    from speaker_invariant_ser.data.decoding import Treatment, workers
    from speaker_invariant_ser.data.sources import Source, prepare_sources

    others = [pair(text, "--also", "nemo=~/nemo") for text in also or ()]
    conditions = [pair(text, "--only", "style=speech") for text in only or ()]
    first = Source(
        corpus=corpus,
        path=Path(os.path.expanduser(source)),
        name=name,
        pattern=pattern,
        columns=column_names(column),
        unlabelled=unlabelled,
        same_speaker=same_speaker,
        scale=scale,
        votes=votes,
        annotators=tuple(annotators or ()),
    )
    sources = [first, *(replace(first, corpus=kind, path=Path(os.path.expanduser(path)), name="") for kind, path in others)]
    with workers(jobs) as pool, progress_bars(quiet) as progress:  # workers first: they fork, and progress bars start a thread
        prepared = prepare_sources(
            sources, out, Treatment(trim_db, loudness, channel.value), conditions, download, pool, progress, f0
        )
    show_prepared(prepared, out)
    warn_of(prepared, out)
    counts = prepared.settings["counts"]
    if strict and (counts["rejected"] or counts["warned"]):
        raise typer.Exit(1)


def add_f0(
    data: Annotated[Path, typer.Argument(help="A prepared corpus.")],
    jobs: FileJobs = CORES,
    quiet: Quiet = False,
) -> None:
    """Track F0 of a corpus that was prepared without it, and store it beside the audio.

    Recipes with the stream "prosody" need it. Audio and manifest stay as they are. After an interruption, repeat the command to
    continue where it stopped.
    """
    from speaker_invariant_ser.data.decoding import workers
    from speaker_invariant_ser.data.f0.stored import F0
    from speaker_invariant_ser.data.prepare import add_f0 as add

    with workers(jobs) as pool, progress_bars(quiet) as progress:
        prepared = add(data, pool, progress)
    say(f"F0 of {counted(len(prepared.utterances), 'utterance')} -> {prepared.folder / F0}")


def warn_of(prepared: "PreparedCorpus", out: Path) -> None:
    """Print a warning for rejected and suspicious files, unexpected counts, and shortcuts to the emotion."""
    from speaker_invariant_ser.data.prepared_corpus import REJECTED, WARNED

    counts = prepared.settings["counts"]
    if counts["rejected"]:
        warn(f"{counted(counts['rejected'], 'file')} rejected; the reasons are in {out / REJECTED}")
    if counts["warned"]:
        warn(f"{counted(counts['warned'], 'suspicious file')} kept; the reasons are in {out / WARNED}")
    for line in (
        prepared.settings.get("notes", []) + prepared.settings["differences"] + prepared.settings["shortcuts"]["warnings"]
    ):
        warn(line)
