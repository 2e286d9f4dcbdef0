"""`siser baseline`: emotion and speaker information of features that need no network."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speaker_invariant_ser.cli.console import say, show_baseline, show_json, show_unaudited_baseline, warn
from speaker_invariant_ser.cli.options import CORES, AttackerJobs, Overrides, Quick, Quiet, SplitRecipe, require_former_report
from speaker_invariant_ser.cli.progress import progress_bars
from speaker_invariant_ser.errors import SplitError

if TYPE_CHECKING:
    from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
    from speaker_invariant_ser.recipe import Recipe


class Features(StrEnum):
    """Sets of features, the keys of `features.functionals.FEATURE_SETS`."""

    PROSODY = "prosody"
    FUNCTIONALS = "functionals"
    EGEMAPS = "egemaps"
    COMPARE = "compare"
    LOG_MEL = "log-mel"
    RESEMBLYZER = "resemblyzer"


def baseline(
    data: Annotated[Path, typer.Argument(help="The prepared corpus.")],
    features: Annotated[
        Features,
        typer.Option(
            help="prosody: 22 utterance-relative functionals; functionals: percentiles of the log-mel and its deltas; egemaps "
            "and compare: sets of openSMILE, with the extra opensmile; log-mel: mean and deviation of 40 bands; resemblyzer: a "
            "speaker encoder, with the extra judge."
        ),
    ] = Features.PROSODY,
    recipe: SplitRecipe = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder of the report; a former report there is replaced.")] = Path("siser-baseline"),
    quick: Quick = False,
    jobs: AttackerJobs = CORES,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the content of report.json on standard output; write no report.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Measure what support vector machines reach without a network.

    A linear SVM and one with a Gaussian kernel recognise emotion on unseen speakers from features of each utterance, on the folds
    of a recipe. The features are audited as embeddings are. Hyperparameters are fixed: nothing is selected on test speakers.
    """
    from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus

    if not as_json:
        require_former_report(out, quick)
    prepared = PreparedCorpus.open(data)
    settings = settings_of(prepared, recipe, overrides or [])
    with progress_bars(quiet) as progress:
        from speaker_invariant_ser.audit.audit import AuditSettings
        from speaker_invariant_ser.evaluation.baseline import UnauditedBaselineError, measure_baseline
        from speaker_invariant_ser.report.write import write_report, write_unaudited_baseline

        audit_settings = AuditSettings(settings.audit.folds, settings.audit.seed, quick=quick, jobs=jobs)
        try:
            report = measure_baseline(prepared, settings, features.value, audit_settings, progress)
        except SplitError as error:
            raise SplitError(f"{data}: {error}; choose another split with --recipe or --set split.scheme=...") from None
        except UnauditedBaselineError as error:
            try:
                if as_json:
                    show_json(error.report.to_json())
                else:
                    show_unaudited_baseline(error.report)
                warn(f"{data}: speaker information is not measured: {error}")
            finally:  # as in `siser evaluate`
                path = None if as_json else write_unaudited_baseline(error.report, out)
            if path:
                say(f"report: {path}")
            raise typer.Exit(1) from None
        if as_json:
            show_json(report.to_json())
            return
    try:
        show_baseline(report)
    finally:  # as in `siser evaluate`
        path = write_report(report, out)
    say(f"report: {path}")


def settings_of(prepared: "PreparedCorpus", recipe: Path | None, overrides: list[str]) -> "Recipe":
    """Return the recipe that gives split, labels and audit; without a file, that of `default_split` with the overrides."""
    from speaker_invariant_ser.cli.train import read_with_warnings
    from speaker_invariant_ser.config import make_recipe
    from speaker_invariant_ser.evaluation.baseline import default_split

    if recipe:
        return read_with_warnings(recipe, overrides)
    split = default_split(prepared.utterances).model_dump(exclude_unset=True)
    return make_recipe({"split": split}, overrides, source="the corpus's default split")
