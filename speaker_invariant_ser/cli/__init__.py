"""The verbs. The only place that prints, exits or catches SerError; heavy imports live inside the commands.

Exit codes: 0 done; 1 finished, but some inputs failed (they are listed); 2 the request was wrong, one `error:` line;
130 stopped from the keyboard.
"""

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speaker_invariant_ser.cli.console import (
    bars,
    show_comparison,
    show_evaluation,
    show_outcomes,
    show_predictions,
    show_prepared,
    show_speaker,
    show_trained,
    training_bars,
    warn,
)
from speaker_invariant_ser.errors import AuditError, RecipeError, SerError
from speaker_invariant_ser.processes import cores

app = typer.Typer(
    name="siser",
    help="Speech emotion recognition for speakers the model has never heard, with an audit of how much of the speaker is left.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

if TYPE_CHECKING:
    from speaker_invariant_ser.data.manifest import Listing, Utterance
    from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
    from speaker_invariant_ser.recipe import Recipe
    from speaker_invariant_ser.runs import Run
    from speaker_invariant_ser.training.trainer import Progress

CORES = cores()
OWN_DATA = """your own data
    csv, tsv, parquet    a table with the columns path, speaker, emotion and, if known, text, sex, language, session, style,
                         intensity, repetition, partition, id, and start and end in seconds for segments of recordings
    folder               with --pattern "{speaker}/{emotion}/*_{text}.wav"
    audformat            the folder of an audformat database
    datasets             a folder that Hugging Face datasets wrote with save_to_disk"""
STOPPED = 130  # exit code after Ctrl-C, as shells have it
KEPT = {
    "train": "; what was trained is kept, continue with --resume",
    "prepare": "; what is decoded is kept, the same command goes on",
}

Files = Annotated[int, typer.Option("--jobs", min=1, help="Files decoded at once.")]
Folds = Annotated[int, typer.Option("--jobs", min=1, help="Models trained at once.")]
Devices = Annotated[int, typer.Option(min=1, help="Processes that share each batch, with a GPU each where there are GPUs.")]
Device = Annotated[str, typer.Option(help="auto (the first GPU if there is one), cpu or cuda.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything random in training; overrides train.seed.")]
Attackers = Annotated[int, typer.Option("--jobs", min=1, help="Attackers fitted at once.")]
QuickAudit = Annotated[
    bool, typer.Option("--quick", help="Logistic regression, LDA, QDA and k-NN only: seconds, and no claim of chance.")
]
Data = Annotated[Path | None, typer.Option(help="The prepared corpus, if it has moved since training.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that is made; a former demo there is replaced.")] = Path(
        "siser-demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the voices' jitter and of training.")] = 0,
    device: Device = "auto",
    jobs: Files = CORES,
    quiet: Quiet = False,
) -> None:
    """Everything below on the built-in corpus of synthesised speech, in minutes on two CPU cores."""
    with bars(quiet) as progress:
        progress("loading", 0, 1)
        from speaker_invariant_ser.demos.speech import run_demo

        progress("loading", 1, 1)
        result = run_demo(out, seed, device, jobs, progress)
    show_comparison([evaluation.summary for evaluation in result.evaluations])
    print("\nAn unseen voice, as the first run reads it:")
    show_predictions(result.predictions)
    print(f"report: {result.report}")


@app.command()
def corpora(as_json: Json = False) -> None:
    """Known corpora: licence, layout, counts, where to get them."""
    from speaker_invariant_ser.data.corpora.base import corpus_facts
    from speaker_invariant_ser.data.corpora.registry import known_corpora

    facts = {name: corpus_facts(corpus) for name, corpus in known_corpora().items()}
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for name, fact in facts.items():
        print(name)
        for key, value in fact.items():
            for line in value if isinstance(value, list) else [value]:
                print(f"    {key + ':':10} {line}")
    print(OWN_DATA)


@app.command()
def prepare(
    corpus: Annotated[
        str, typer.Argument(help="A known corpus (see `siser corpora`), or csv, tsv, parquet, folder, audformat, datasets.")
    ],
    source: Annotated[Path, typer.Argument(help="The corpus's folder, or your own table or folder.")],
    out: Annotated[Path, typer.Argument(help="The prepared corpus: a new folder.")],
    also: Annotated[
        list[str] | None, typer.Option(help="CORPUS=SOURCE, one more corpus into the same manifest; may be repeated.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="COLUMN=VALUE, such as style=speech; may be repeated.")] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Get the corpus into SOURCE first, where its licence lets it be fetched.")
    ] = False,
    pattern: Annotated[str, typer.Option(help='Of the paths in a folder, such as "{speaker}/{emotion}/*_{text}.wav".')] = "",
    name: Annotated[str, typer.Option(help="What your own data (the first) is called; by default as the file or folder.")] = "",
    column: Annotated[
        list[str] | None, typer.Option(help="OURS=THEIRS, such as speaker=spk_id, for your own tables; may be repeated.")
    ] = None,
    unlabelled: Annotated[
        bool,
        typer.Option("--unlabelled", help="Your own data may lack emotions: such clips are trained on as split.unlabelled says."),
    ] = False,
    trim_db: Annotated[
        float, typer.Option(min=0, max=120, help="Cut from both ends what is this many dB below the peak; 0: nothing.")
    ] = 0.0,
    loudness: Annotated[float | None, typer.Option(min=-70, max=0, help="Bring every clip to this loudness, LUFS.")] = None,
    jobs: Files = CORES,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if any file is rejected or warned of.")] = False,
    quiet: Quiet = False,
) -> None:
    """Decode a corpus once into 16 kHz mono audio with a manifest. Stopped at any moment, the same command goes on."""
    from speaker_invariant_ser.data.corpora.registry import get_corpus
    from speaker_invariant_ser.data.decoding import Treatment, workers
    from speaker_invariant_ser.data.manifest import select
    from speaker_invariant_ser.data.prepare import prepare
    from speaker_invariant_ser.data.prepared_corpus import REJECTED, WARNED
    from speaker_invariant_ser.files import refuse_existing, scratch_folder, sweep

    sweep(out)
    refuse_existing(out, "prepare into a new folder, or remove this one first")
    wanted = [(corpus, source), *(pair(text, "--also", "nemo=~/nemo") for text in also or ())]
    conditions = [pair(text, "--only", "style=speech") for text in only or ()]
    columns = dict(pair(text, "--column", "speaker=spk_id") for text in column or ())
    options = {"--pattern": pattern, "--name": name, "--column": columns, "--unlabelled": unlabelled}
    require_own(wanted, options)
    with workers(jobs) as pool, scratch_folder(out) as scratch, bars(quiet) as progress:
        if download:
            from speaker_invariant_ser.data.download import fetch

            fetch(get_corpus(corpus), os.path.expanduser(source), progress)
        found = [
            find_corpus(kind, place, options if not at else {**options, "--name": ""}, scratch / str(at))
            for at, (kind, place) in enumerate(wanted)
        ]
        compare = comparison([kind for kind, _ in wanted], found) if not conditions else lambda kept: []
        made = prepare(select(found, conditions), out, Treatment(trim_db, loudness), pool, progress, compare)
    show_prepared(made, out)
    if made.settings["counts"]["rejected"]:
        warn(f"{made.settings['counts']['rejected']} files rejected; the reasons are in {out / REJECTED}")
    if made.settings["counts"]["warned"]:
        warn(f"{made.settings['counts']['warned']} files are odd and were kept; what is odd is in {out / WARNED}")
    for line in made.settings["differences"] + made.settings["shortcuts"]["warnings"]:
        warn(line)
    if strict and (made.settings["counts"]["rejected"] or made.settings["counts"]["warned"]):
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe in TOML, such as recipes/emodb.toml.")],
    data: Annotated[Path | None, typer.Option(help="The prepared corpus; recipes/digits.toml alone brings its own.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run: a new folder.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, over the recipe; may be repeated.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what is trained in --out, go on with what was begun, train the others.")
    ] = False,
    preview: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="Draw what the network sees into this .png or .svg; train nothing.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write every epoch as TensorBoard events, too, into tensorboard/ of the run.")
    ] = False,
    seed: Seed = None,
    device: Device = "auto",
    devices: Devices = 1,
    jobs: Folds = CORES,
    quiet: Quiet = False,
) -> None:
    """Train every fold of a recipe: speakers to train on, others to select the epoch, others kept for the test."""
    from speaker_invariant_ser.config import read_recipe

    if not (out or preview):
        raise typer.BadParameter("expected --out RUN, or --preview PICTURE, which trains nothing.")
    seeded = [] if seed is None else [f"train.seed={seed}"]
    settings, speaks = read_recipe(recipe, [*(overrides or []), *seeded]), speaks_for_all()
    if preview and settings.features.front != "log-mel":
        raise typer.BadParameter("--preview draws log-mels; the clips of this recipe are pictures already.")
    with prepared_corpus(settings, data, out, resume) as prepared:
        mapped = prepared.labelled(settings.labels.map, settings.split).mapped
        if mapped.words and speaks:
            print(f"labels ({mapped.name}): {mapped.words}")
        if preview:
            from speaker_invariant_ser.report.augmentation_preview import sights, write_preview

            write_preview(preview, sights(settings, prepared), settings.features)
            print(f"what the network sees: {preview}")
            return
        with training_bars(quiet or not speaks, out, settings.train.epochs) as shown:
            from speaker_invariant_ser.training import launcher

            start = partial(launcher.train, settings, prepared, out, resume, device, jobs, devices=devices)
            run = with_board(start, out, shown) if tensorboard and speaks else start(shown)
        if speaks:
            show_trained(run)
        if not data:
            with training_bars(quiet, out / "twin", settings.train.epochs) as shown:
                from speaker_invariant_ser.demos.digits import CURVES, compare_with_twin

                outcomes = compare_with_twin(run, prepared, resume, device, jobs, shown)
            show_outcomes(outcomes, CURVES)
            print(f"curves: {out / 'curves.png'}")
        if speaks:
            print(f"run: {out}   next: siser evaluate {out}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Data = None,
    against: Annotated[
        Path | None, typer.Option(help="Another run, evaluated already: speakers are compared in pairs, leaks side by side.")
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="A column of the manifest to break results down by; may be repeated.")
    ] = None,
    quick: QuickAudit = False,
    device: Device = "auto",
    jobs: Attackers = CORES,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Emotion on the test speakers, fresh attackers on the embeddings; writes the report into the run."""
    from speaker_invariant_ser.runs import Run

    opened, other = Run.open(run), Run.open(against) if against else None
    prepared = opened.open_data(data)
    with bars(quiet) as progress:
        from speaker_invariant_ser.evaluation import evaluate as evaluation
        from speaker_invariant_ser.report import write as report
        from speaker_invariant_ser.report.embedding_map import map_points

        result = evaluation.evaluate(opened, prepared, device, progress, by or (), other, quick, jobs)
        summary = result.summary
        path = report.write_report(summary, run / evaluation.REPORT, result.curves, map_points(result.table))
    if as_json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    show_evaluation(summary)
    print(f"report: {path}")


@app.command()
def audit(
    table: Annotated[Path, typer.Argument(help="Embeddings of any origin: .npz, .csv, .tsv or .parquet.")],
    out: Annotated[Path, typer.Option(help="Folder of the report; a former report there is replaced.")] = Path("siser-audit"),
    column: Annotated[list[str] | None, typer.Option(help="OURS=THEIRS, such as speaker=spk_id; may be repeated.")] = None,
    quick: QuickAudit = False,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of folds, attackers and permutations.")] = 0,
    jobs: Attackers = CORES,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the part `speaker` of report.json on standard output; no report is written.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """How much of the speaker is left in anyone's embeddings.

    .npz holds embedding [N, D] and speaker [N]; where known emotion, text, id [N], and scored [N]: 1 where the encoder did not
    train on the clip, 0 where it did (then only learned from). In .csv, .tsv and .parquet these are columns, and every other
    column of numbers is a dimension.
    """
    columns = dict(pair(text, "--column", "speaker=spk_id") for text in column or ())
    if not as_json:
        require_former_report(out)
    with bars(quiet) as progress:
        progress("loading", 0, 1)
        from speaker_invariant_ser.audit import audit as auditing
        from speaker_invariant_ser.audit.read_embeddings import read_embeddings

        embeddings, left_out = read_embeddings(table, columns)
        progress("loading", 1, 1)
        settings = auditing.Settings(seed=seed, quick=quick, jobs=jobs)
        try:
            scored = "given" if embeddings.scored.all() else "held-out"
            speaker = auditing.audit([embeddings], scored, settings=settings, progress=progress).summary
        except AuditError as error:
            raise AuditError(f"{table}: {error}") from None
        if left_out:
            warn(f"{table}: not taken as dimensions: {', '.join(left_out)}")
        if as_json:
            print(json.dumps(speaker, indent=2, ensure_ascii=False))
            return
        from speaker_invariant_ser.report import write as report
        from speaker_invariant_ser.report.embedding_map import map_points

        summary = auditing.table_summary(table, embeddings, speaker, settings)
        path = report.write_report(summary, out, points=map_points(embeddings))
    people, (clips, dimensions) = len(set(embeddings.speaker)), embeddings.embedding.shape
    print(f"{table}: {clips} clips of {people} speakers, {dimensions} dimensions")
    show_speaker(summary["speaker"])
    print(*summary["verdict"])
    print(f"report: {path}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, evaluated already.")],
    out: Annotated[Path, typer.Option(help="Folder of the comparison; a former one there is replaced.")] = Path("siser-compare"),
) -> None:
    """One table and one picture over several runs: emotion on unseen speakers against what is left of the speaker."""
    from speaker_invariant_ser.evaluation.evaluate import read_report
    from speaker_invariant_ser.runs import Run

    require_former_report(out)
    summaries = [read_report(Run.open(run)) for run in runs]
    if len({one["settings"]["audit"]["quick"] for one in summaries}) > 1:
        warn("some of these runs were evaluated with --quick and some without: their strongest attackers are not alike")
    from speaker_invariant_ser.report import write as report

    path = report.write_comparison(summaries, out)
    show_comparison(summaries)
    print(f"report: {path}")


@app.command()
def infer(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    inputs: Annotated[list[str], typer.Argument(help="Audio files, folders, globs, or .txt lists with one path a line.")],
    out: Annotated[Path, typer.Option(help="Table to write: .csv, .jsonl or .parquet.")],
    fold: Annotated[str | None, typer.Option(help="Use this fold's model alone; otherwise the mean over all folds.")] = None,
    one_speaker: Annotated[
        bool,
        typer.Option("--one-speaker", help="One person speaks in all inputs, which runs that normalise by speaker have to know."),
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Label, confidence and probability of each emotion for any audio files; a bad file gives a row with its error."""
    from speaker_invariant_ser.runs import Run

    opened = Run.open(run)
    with bars(quiet) as progress:
        from speaker_invariant_ser.inference import predict as inference

        paths = inference.find_inputs(inputs)
        models = inference.load_models(opened, fold, device, one_speaker)
        if fold is None and len(models) < len(opened.fits):
            warn(f"{run}: only {len(models)} of {len(opened.fits)} models are trained; the mean is over these")
        failed = []
        with inference.open_table(out, models[0].labels) as write:
            for row in inference.predict(models, paths, lambda done, total: progress("reading emotions", done, total)):
                write(row)
                if row["error"]:
                    failed.append(row["error"])
    print(f"{len(paths) - len(failed)} of {len(paths)} files{' of one speaker (transductive)' * one_speaker} -> {out}")
    for reason in failed[:10]:
        warn(reason)
    if failed:
        warn(f"{len(failed)} files failed; column `error` of {out} has every reason")
        raise typer.Exit(1)


@contextmanager
def prepared_corpus(settings: "Recipe", data: Path | None, run: Path | None, resume: bool) -> Iterator["PreparedCorpus"]:
    """The corpus at --data. A recipe of pictures has one without it, which is made beside the run."""
    from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus

    if data:
        yield PreparedCorpus.open(data)
        return
    if settings.features.front == "log-mel":
        raise typer.BadParameter("expected --data FOLDER, a prepared corpus; recipes/digits.toml alone brings its own.")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise typer.BadParameter("expected --data FOLDER: of several processes each would make the digits.")
    from speaker_invariant_ser.demos.digits import SIDE, corpus_beside
    from speaker_invariant_ser.files import refuse_existing

    if settings.features.mels != SIDE:  # two columns on top of each other are no picture
        raise RecipeError(f"features.mels = {settings.features.mels}: the digits have {SIDE} rows, expected {SIDE}")
    if not resume:
        refuse_existing(run, "continue it with --resume, or choose another --out")
    with corpus_beside(run) as prepared:
        yield prepared


def with_board(start: Callable[["Progress"], "Run"], run: Path, shown: "Progress") -> "Run":
    """Train, and write every epoch as TensorBoard events as well."""
    from speaker_invariant_ser.training.tensorboard import board

    with closing(board(run)) as log:

        def both(name: str, row: dict[str, float]) -> None:
            shown(name, row)
            log(name, row)

        trained = start(both)
        log.finish()
    return trained


def speaks_for_all() -> bool:
    """Whether this process is to tell how things go: of those that torchrun started, the first."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK") == "0"


def pair(text: str, option: str, example: str) -> tuple[str, str]:
    """("a", "b") of a=b. Raises typer's usage error."""
    left, sign, right = text.partition("=")
    if not (left and sign and right):
        raise typer.BadParameter(f"{option} {text}: expected two words with = between, such as {example}.")
    return left, right


def require_own(wanted: Sequence[tuple[str, object]], options: dict) -> None:
    """Refuse options that would do nothing: all are about somebody's own data, --name about the first."""
    from speaker_invariant_ser.data.custom import OWN

    for option, value in options.items():
        if value and not any(kind in OWN for kind, _ in (wanted[:1] if option == "--name" else wanted)):
            raise typer.BadParameter(f"{option}: for your own data only, {wanted[0][0]} is a known corpus.")


def find_corpus(kind: str, place: Path | str, options: dict, scratch: Path) -> "Listing":
    """A known corpus, or somebody's own data, which the options are about."""
    from speaker_invariant_ser.data.corpora import registry
    from speaker_invariant_ser.data.corpora.base import list_corpus
    from speaker_invariant_ser.data.custom import OWN, Request

    place = Path(os.path.expanduser(place))
    if kind in OWN:
        asked = (options[name] for name in ("--name", "--pattern", "--column"))
        return OWN[kind](Request(place, *asked, scratch, options["--unlabelled"]))
    return list_corpus(registry.get_corpus(kind, OWN), place)


def comparison(kinds: Sequence[str], found: Sequence["Listing"]) -> Callable[..., list[str]]:
    """What `prepare` asks at the end: where the counts of what is kept differ from those of the known corpora."""
    from speaker_invariant_ser.data.corpora.base import UNKNOWN_FILE, count_differences
    from speaker_invariant_ser.data.corpora.registry import known_corpora

    known = known_corpora()
    useless = {
        kind: sum(not reason.startswith(UNKNOWN_FILE) for _, reason in listing.rejected)
        for kind, listing in zip(kinds, found, strict=True)
    }

    def compare(kept: Sequence["Utterance"]) -> list[str]:
        told = []
        for kind in (kind for kind in kinds if kind in known):
            mine = [one for one in kept if one.corpus == kind]
            told += [f"{kind}: {line}" for line in count_differences(known[kind], mine, useless[kind])]
        return told

    return compare


def require_former_report(out: Path) -> None:
    """Refuse to replace a folder that holds anything but a report."""
    from speaker_invariant_ser.files import refuse_existing

    if not (out / "report.json").is_file():
        refuse_existing(out, "choose another --out; only a former report is replaced")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `siser`: runs a verb and exits with its code."""
    signal.signal(signal.SIGTERM, stop)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def stop(*_: object) -> None:
    """End workers and partial files as Ctrl-C does; also where that is ignored, as a shell has it for what runs behind."""
    raise KeyboardInterrupt


def run(arguments: Sequence[str]) -> int:
    """Run a verb; its exit code. User errors become one `error:` line on standard error."""
    try:
        code = app(args=list(arguments) or ["--help"], prog_name="siser", standalone_mode=False) or 0
        if code == STOPPED and speaks_for_all():
            print(f"stopped{KEPT.get(arguments[0], '')}", file=sys.stderr)
        return code
    except typer.TyperException as error:
        return fail(f"{error.format_message()} Try `siser --help`.")
    except SerError as error:
        return fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone: nothing to complain to
        return 1
    except OSError as error:
        if error.filename is None and error.errno == errno.ENOSPC:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return fail("standard output cannot be written: no space left on the disk")
        if error.filename is None:
            raise
        return fail(f"{error.filename}: {error.strerror}")


def fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
