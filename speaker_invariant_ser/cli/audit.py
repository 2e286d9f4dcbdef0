"""Audits: `siser audit` of a table of embeddings, `siser embed` to make one, `siser audit-encoders` to compare encoders."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speaker_invariant_ser.cli.console import say, show_answers, show_json, show_speaker, show_table, warn, warn_of_copies
from speaker_invariant_ser.cli.options import (
    CORES,
    AttackerJobs,
    Columns,
    Device,
    Json,
    JudgeTable,
    Overrides,
    Quick,
    Quiet,
    SameSpeaker,
    SplitRecipe,
    column_names,
    require_former_report,
)
from speaker_invariant_ser.cli.progress import progress_bars
from speaker_invariant_ser.errors import AuditError, SplitError, counted, quoted

if TYPE_CHECKING:
    from speaker_invariant_ser.processes import TaskProgress
    from speaker_invariant_ser.studies.encoders.compare import Comparison
    from speaker_invariant_ser.studies.encoders.results import EncoderResult

Deviation = Annotated[
    bool,
    typer.Option("--deviation", help="Pool frame-level features by mean and standard deviation, instead of the mean alone."),
]
ENCODERS = (
    "a feature set (log-mel, prosody, functionals, egemaps, compare, resemblyzer), untrained, a run or model, the "
    "folder of a pre-trained checkpoint, hf:OWNER/NAME, or a table of embeddings with the ids of the corpus"
)


def audit(
    table: Annotated[Path, typer.Argument(help="Embeddings of any model: .npz, .csv, .tsv or .parquet.")],
    out: Annotated[Path, typer.Option(help="Folder of the report; a former report there is replaced.")] = Path("siser-audit"),
    column: Columns = None,
    dimensions: Annotated[
        list[str] | None,
        typer.Option(
            help='Columns that are dimensions, such as "f_*"; may be repeated. By default, those with a common stem and a number.'
        ),
    ] = None,
    discrete: Annotated[
        str,
        typer.Option(
            metavar="COLUMN", help="Audit this column of codes instead of dimensions, and certify it; needs a column scored."
        ),
    ] = "",
    same_speaker: SameSpeaker = None,
    judge: JudgeTable = None,
    quick: Quick = False,
    significant_bits: Annotated[
        int,
        typer.Option(min=1, max=53, help="Significant binary digits to round to before the attack; float16 has 11, float32 24."),
    ] = 11,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of folds, attackers and permutations.")] = 0,
    jobs: AttackerJobs = CORES,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the part `speaker` of report.json on standard output; write no report.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Measure the speaker information in any embeddings.

    A .npz file holds the arrays embedding [N, D] and speaker [N] and, where known, emotion, text, id and scored [N]. scored is 1
    for an utterance that the encoder was not trained on, and 0 for one that it was: attackers learn from those but are not scored
    on them. In .csv, .tsv and .parquet these are columns, and the dimensions are columns with a common stem and a number, such as
    dim_0 to dim_767; --dimensions names others. In .parquet they may also be one column of lists of numbers.

    Of a system that releases one of a few codes, --discrete names the column of codes. No attacker whatever can exceed the
    certificate that the report then has. scored has to be there: utterances that the codes were fitted on certify nothing.
    """
    columns = column_names(column)
    if not as_json:
        require_former_report(out, quick)
    with progress_bars(quiet) as progress:
        progress("loading", 0, 1)
        from speaker_invariant_ser.audit import audit as auditing
        from speaker_invariant_ser.audit.inputs.read_embeddings import read_embeddings
        from speaker_invariant_ser.audit.verification.judge import read_judge
        from speaker_invariant_ser.data.tables.dimensions import described

        embeddings, names, notes = read_embeddings(table, columns, dimensions or (), same_speaker, discrete)
        judged = read_judge(judge) if judge else None
        if judged:
            judged.require(embeddings.id)
        progress("loading", 1, 1)
        settings = auditing.AuditSettings(seed=seed, quick=quick, jobs=jobs, significant_bits=significant_bits)
        try:
            audited = auditing.audit_table(embeddings, settings, progress, judged, discrete)
        except AuditError as error:
            raise AuditError(f"{table}: {error}") from None
        speaker = audited.summary
        if audited.sample:
            notes.append(audited.sample.described)
        for note in notes:
            warn(f"{table}: {note}")
        if as_json:
            show_json({**speaker, "notes": notes})
            return
        from speaker_invariant_ser.evaluation.summary import TableReport
        from speaker_invariant_ser.report.embedding_map import map_points
        from speaker_invariant_ser.report.write import write_report

        remarks = [f"dimensions: {described(names)}", *notes]
        report = TableReport.model_validate(auditing.table_summary(table, embeddings, speaker, settings, remarks, judged))
    utterances, speakers = len(embeddings.id), len(set(embeddings.speaker))
    size = f"{counted(utterances, 'utterance')} of {counted(speakers, 'speaker')}, {counted(len(names), 'dimension')}"
    try:
        say(f"{table}: {size}: {described(names)}")
        show_answers(report)
        show_speaker(report.speaker)
        warn_of_copies(report.speaker.near_copies, "scored utterances", "attackers")
        say(*report.verdict)
    finally:  # as in `siser evaluate`
        path = write_report(report, out, points=map_points(embeddings))
    say(f"report: {path}")


def embed(
    encoder: Annotated[str, typer.Argument(help=f"The encoder: {ENCODERS}.")],
    data: Annotated[Path, typer.Argument(help="The prepared corpus.")],
    out: Annotated[Path, typer.Option(help="The table, a new .npz file.")],
    layer: Annotated[
        str | None,
        typer.Option(
            help="Layer that is the embedding; all: the last, and each as an array layer_NAME.", show_default="the last"
        ),
    ] = None,
    deviation: Deviation = False,
    significant_bits: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=53,
            help="Round embeddings to so many significant binary digits, as siser audit does (11) before its attack.",
            show_default="as they are",
        ),
    ] = None,
    fold: Annotated[str | None, typer.Option(help="Fold of a run whose model is used.")] = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Embed a prepared corpus by any encoder, into a table that `siser audit` reads.

    The table has speaker, emotion, text and id of each utterance that has an emotion, and where it is known scored: 0 for those
    that the encoder was trained on. Of runs and models it has the predicted emotion, and the code if they release codes: `siser
    audit` certifies both (--discrete). An interrupted call continues when it is repeated.
    """
    from speaker_invariant_ser.files import held, refuse_existing, remove, remove_leftovers

    if out.suffix.lower() != ".npz":
        raise typer.BadParameter(f"--out {out}: expected a name that ends with .npz.")
    remove_leftovers(out)
    refuse_existing(out, another := "remove it, or choose another --out")
    with progress_bars(quiet) as progress:
        progress("loading", 0, 1)
        from speaker_invariant_ser.audit.inputs.scaling import round_significant
        from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
        from speaker_invariant_ser.studies.encoders import embedding
        from speaker_invariant_ser.studies.encoders.sources import OUTPUT, Request, open_encoders

        prepared = PreparedCorpus.open(data)
        prepared.require_audio()
        encoders = open_encoders(Request(encoder, prepared, fold, deviation, device, decisions=True))
        embedding.require_one(encoders, encoder)
        if encoders[0].contamination:
            warn(f"{encoder} {encoders[0].contamination}; their utterances have scored = 0")
        progress("loading", 1, 1)
        with held(out):
            refuse_existing(out, another)  # another process may have written it by now
            indices, work = embedding.labelled_indices(prepared), embedding.blocks_folder(out)
            outputs = embedding.embed_utterances(
                encoders[0], prepared, indices, work, lambda done, total: progress("embedding utterances", done, total)
            )
            layers, decisions = embedding.split_decisions(encoders[0], outputs)
            if significant_bits:
                layers = {name: round_significant(values, significant_bits) for name, values in layers.items()}
            arrays = embedding.table_of_layers(encoders[0], prepared, indices, layers, layer, decisions)
            embedding.write_arrays(out, arrays)
            remove(work)
    if as_json:
        shape = {name: values.shape[1] for name, values in layers.items()}
        show_json({"encoder": encoder, "utterances": len(indices), "dimensions": arrays[OUTPUT].shape[1], "layers": shape})
        return
    size = f"{counted(len(indices), 'utterance')}, {counted(arrays[OUTPUT].shape[1], 'dimension')}"
    others = f" of layer {layer or list(layers)[-1]} ({', '.join(layers)})" if len(layers) > 1 else ""
    say(f"{encoder}: {size}{others} -> {out}   next: siser audit {quoted(out)}")


def audit_encoders(
    data: Annotated[Path, typer.Argument(help="The prepared corpus.")],
    encoders: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Encoders: {ENCODERS}; NAME=ENCODER gives one another name in the table. Without any, the table is made again "
            "from the results in --out.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the results, a file for each encoder; those that are there are kept.")
    ] = Path("siser-encoders"),
    page: Annotated[
        Path | None,
        typer.Option(help="Page in Markdown, new or with marks for the table.", show_default="encoders.md in --out"),
    ] = None,
    recipe: SplitRecipe = None,
    overrides: Overrides = None,
    deviation: Deviation = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Measure again what has a result of another encoder, recipe or corpus.")
    ] = False,
    device: Device = "auto",
    jobs: AttackerJobs = CORES,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare encoders: what each says about emotion on unseen speakers, and about the speaker.

    A linear classifier and a network recognise emotion from the embeddings, on the folds of a recipe or of the run that is
    compared; closed-form attackers recognise the speakers of the same utterances. Each layer of an encoder is measured. Results
    are written encoder by encoder; the next call measures what is missing. One table and one picture show all of them. Where the
    speakers have too few utterances to attack, the emotion results stand alone, with the reason and exit code 1.
    """
    with progress_bars(quiet) as progress:
        progress("loading", 0, 1)
        from speaker_invariant_ser.cli.baseline import settings_of
        from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
        from speaker_invariant_ser.studies.encoders.compare import Comparison, require_different_names, without_folder
        from speaker_invariant_ser.studies.encoders.page import PAGE, marks, notes, table_of, unaudited, write_page
        from speaker_invariant_ser.studies.encoders.results import read_all
        from speaker_invariant_ser.studies.page import require_marks

        prepared = PreparedCorpus.open(data)
        require_different_names(encoders or ())
        if encoders:
            prepared.require_audio()
        settings = settings_of(prepared, recipe, overrides or [])
        labelled = prepared.labelled(settings.labels.map, settings.split)
        words = [data, "{}", "--out", out, *(["--recipe", recipe] if recipe else [])]
        words += [word for text in overrides or () for word in ("--set", text)] + ["--deviation"] * deviation
        command = " ".join(["siser audit-encoders", *("{}" if word == "{}" else quoted(without_folder(word)) for word in words)])
        comparison = Comparison(labelled, settings, out, command, refresh, deviation, device, jobs)
        page = page or out / PAGE
        if encoders:
            require_marks(page, marks("-".join(prepared.settings["corpora"])))
            read_all(out)  # a file there that is no result is found before anything is measured
        progress("loading", 1, 1)
        measured = [measure(comparison, text, data, progress) for text in encoders or ()]
    results = write_page(out, page)
    missing = unaudited([result for result, _ in measured])
    if as_json:
        show_json([result.to_json() for result in results])
    else:
        if there := [result.encoder for result, was_there in measured if was_there]:
            say(f"measured before: {', '.join(there)}")
        show_table(table_of(results))
        for line in notes(results):
            say(line)
        say(f"page: {page}")
    for text in missing:
        warn(text)
    if missing:
        raise typer.Exit(1)


def measure(comparison: "Comparison", encoder: str, data: Path, progress: "TaskProgress") -> tuple["EncoderResult", bool]:
    """Measure one encoder; a split that the corpus does not allow is an error that names the options."""
    from speaker_invariant_ser.studies.encoders.compare import audit_encoder

    try:
        return audit_encoder(comparison, encoder, progress)
    except SplitError as error:
        raise SplitError(f"{data}: {error}; choose another split with --recipe or --set split.scheme=...") from None
    except AuditError as error:
        raise AuditError(f"{encoder}: {error}") from None
