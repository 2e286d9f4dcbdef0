"""`siser audit`: measure the speaker information in a table of embeddings."""

from pathlib import Path
from typing import Annotated

import typer

from speaker_invariant_ser.cli.console import say, show_answers, show_json, show_speaker, warn, warn_of_copies
from speaker_invariant_ser.cli.options import (
    CORES,
    AttackerJobs,
    Columns,
    JudgeTable,
    Quick,
    Quiet,
    SameSpeaker,
    column_names,
    require_former_report,
)
from speaker_invariant_ser.cli.progress import progress_bars
from speaker_invariant_ser.errors import AuditError, counted


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
    """
    columns = column_names(column)
    if not as_json:
        require_former_report(out, quick)
    with progress_bars(quiet) as progress:
        progress("loading", 0, 1)
        from speaker_invariant_ser.audit import audit as auditing
        from speaker_invariant_ser.audit.read_embeddings import read_embeddings
        from speaker_invariant_ser.audit.verification.judge import read_judge
        from speaker_invariant_ser.data.tables.dimensions import described

        embeddings, names, notes = read_embeddings(table, columns, dimensions or (), same_speaker)
        judged = read_judge(judge) if judge else None
        if judged:
            judged.require(embeddings.id)
        progress("loading", 1, 1)
        settings = auditing.AuditSettings(seed=seed, quick=quick, jobs=jobs, significant_bits=significant_bits)
        try:
            audited = auditing.audit_table(embeddings, settings, progress, judged)
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
    say(f"{table}: {size}: {described(names)}")
    show_answers(report)
    show_speaker(report.speaker)
    warn_of_copies(report.speaker.near_copies, "scored utterances", "attackers")
    say(*report.verdict)
    path = write_report(report, out, points=map_points(embeddings))  # last, so that a full disk does not cost the results
    say(f"report: {path}")
