"""The report of a run, checked to be of that run: of its recipe, data and folds.

A report is no signature. Numbers in it that were changed are not noticed; a report that was copied from another run is.
"""

from speaker_invariant_ser.errors import RunError, quoted
from speaker_invariant_ser.evaluation.summary import JSON, REPORT, RunReport, UnauditedReport, read_report, read_results
from speaker_invariant_ser.features.pretrained.places import recipe_without_path
from speaker_invariant_ser.runs import Run


def report_of(run: Run) -> RunReport:
    """Read the report of an audited run; raise RunError as `read_report` does, or if it is of another run."""
    report = read_report(run.folder)
    require_own(run, report)
    return report


def results_of(run: Run) -> RunReport | UnauditedReport | None:
    """Read the report of a run, also one without an audit, as `report_of` does; None for a run that is not evaluated."""
    report = read_results(run.folder)
    if report:
        require_own(run, report)
    return report


def require_own(run: Run, report: RunReport | UnauditedReport) -> None:
    """Raise RunError if a report is of another recipe, other data, folds or seeds than the run."""
    folds = {fold["name"]: fold.get("sha256", "-") for fold in run.record["folds"]}
    reported = {fold.name: fold.sha256 for fold in report.settings.folds}
    known = {name: digest for name, digest in reported.items() if digest != "-" and folds.get(name) != "-"}
    differs = {
        "other data": report.settings.data_sha256 != run.hashes,
        "other folds": reported.keys() != folds.keys() or any(folds[name] != digest for name, digest in known.items()),
        "other seeds": bool(report.settings.seeds) and report.settings.seeds != list(run.seeds),
        "another recipe": not agrees(report.settings.recipe, recipe_without_path(run.recipe)),
    }
    if of := [what for what, other in differs.items() if other]:
        raise RunError(
            f"{run.folder / REPORT / JSON} is of {' and '.join(of)} than {run.folder}: evaluate the run again with "
            f"`siser evaluate {quoted(run.folder)}`"
        )


def agrees(reported: object, own: object) -> bool:
    """Return whether values are equal, in tables those that both have: versions of the program add keys.

    >>> agrees({"a": 1, "old": 2}, {"a": 1, "new": 3}), agrees([{"a": 1}], [{"a": 2}])
    (True, False)
    """
    if isinstance(reported, dict) and isinstance(own, dict):
        return all(agrees(reported[key], own[key]) for key in reported.keys() & own.keys())
    if isinstance(reported, list) and isinstance(own, list):
        return len(reported) == len(own) and all(map(agrees, reported, own))
    return isinstance(reported, dict | list) != isinstance(own, dict | list) or reported == own
