"""Search a recipe's hyperparameters: an Optuna study whose trials are trained and scored on some folds.

The main process chooses configurations, records every result in Optuna's journal, and decides after each fold whether a trial
continues; folds are trained in that process or in workers (`sweep_folds`). With one job, the choice of a configuration depends
only on the seed, the number of the trial and the earlier results, so that a killed sweep continues as if it had not been killed.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speaker_invariant_ser.data.holdout import hold_out
from speaker_invariant_ser.data.prepared_corpus import AUDIO, MANIFEST, PreparedCorpus
from speaker_invariant_ser.data.splits import Split, make_splits
from speaker_invariant_ser.errors import AuditError, RecipeError, RunError, SetupError, SplitError, changes, shorten, unknown
from speaker_invariant_ser.files import locked, refuse_existing, require_no_links, write_errors
from speaker_invariant_ser.processes import TaskProgress, bounded_jobs, cores
from speaker_invariant_ser.recipe import Recipe
from speaker_invariant_ser.runs import Run
from speaker_invariant_ser.studies.sweep_folds import (
    FoldOutputs,
    FoldTask,
    Result,
    Workers,
    check_attacks,
    open_workers,
    remove_trials,
    trial_folder,
    with_same_checkpoint,
)
from speaker_invariant_ser.studies.sweep_results import SweepResult, TrialResult, write_results
from speaker_invariant_ser.studies.sweep_space import Choices, Sweep, flattened
from speaker_invariant_ser.training.checks import check_device, check_recipe
from speaker_invariant_ser.training.launcher import cache_layers, held_encoder, open_run, with_checkpoint

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial

JOURNAL, STUDY = "journal.jsonl", "sweep"


def run_sweep(
    sweep: Sweep,
    prepared: PreparedCorpus,
    out: Path | str,
    resume: bool = False,
    device: str = "auto",
    jobs: int = 1,
    trials: int | None = None,
    progress: TaskProgress | None = None,
) -> SweepResult:
    """Try configurations of a recipe, and write the results and the chosen recipe into a folder.

    Args:
        sweep: The recipe and what is searched.
        prepared: The corpus.
        out: Folder of the study.
        resume: Continue the study in `out`: finished trials are kept, and the others continue from their trained folds.
        device: "auto", "cpu" or "cuda".
        jobs: Number of trials that are trained at the same time.
        trials: Number of configurations; by default that of the table [sweep].
        progress: Called with the task's name, the folds done and the folds in total.

    Returns:
        The results.

    Raises:
        SetupError: Optuna is not installed.
        RecipeError: The recipe does not fit the corpus or the machine, or cannot be searched.
        SplitError: The corpus cannot be split so, or an explored fold does not exist.
        AuditError: The leak cannot be measured on this corpus.
        RunError: `resume` found another study, a worker was killed, or every trial failed.
        WriteError: The folder exists, or cannot be written.
    """
    require_optuna()
    plan = make_plan(with_same_checkpoint(sweep, Path(out) / JOURNAL, resume), prepared, Path(out), device)
    total = trials or sweep.settings.trials
    with open_study(plan, resume) as study:
        search = Search(plan, study, total, jobs := bounded_jobs(jobs, total), progress or (lambda name, done, total: None))
        with open_workers(jobs) as workers:
            search.run(workers)
        remove_trials(plan.out, search.finished)
        write_results(result := SweepResult(sweep, plan.out, plan.prepared, plan.all_splits, plan.splits, search.results()))
    return result


def require_optuna() -> None:
    """Raise SetupError unless Optuna is installed; it then reports errors only."""
    try:
        import optuna
    except ImportError as error:
        raise SetupError(f'Optuna is missing ({error}): pip install "speaker-invariant-ser[sweep]"') from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True)
class Plan:
    """What every trial shares.

    Attributes:
        sweep: The recipe and what is searched.
        prepared: The corpus with its labels mapped.
        all_splits: All folds of the recipe, utterances held out.
        splits: The folds that trials are trained on.
        out: Folder of the study.
        device: "cpu" or "cuda".
    """

    sweep: Sweep
    prepared: PreparedCorpus
    all_splits: list[Split]
    splits: list[Split]
    out: Path
    device: str

    @property
    def request(self) -> dict[str, Any]:
        """All that decides the result of a trial, by which a study is recognised when it is resumed."""
        settings = self.sweep.settings.model_dump(mode="json", exclude={"trials", "folds"})
        searched = {key: [type(values).__name__, *asdict(values).values()] for key, values in self.sweep.space.items()}
        request = {
            "recipe": self.sweep.recipe.model_dump(mode="json"),
            "sweep": {**settings, "folds": [split.name for split in self.splits], **searched},
            "corpus": {name: self.prepared.settings["sha256"][name] for name in (AUDIO, MANIFEST)},
        }
        return json.loads(json.dumps(request))  # as it is read again


def make_plan(sweep: Sweep, prepared: PreparedCorpus, out: Path, device: str) -> Plan:
    """Split the corpus and check the recipe, before anything is written."""
    recipe, device_type = sweep.recipe, check_device(device, 1).type
    prepared = prepared.labelled(recipe.labels.map, recipe.split)
    if not recipe.audit.holdout:
        raise RecipeError(f"{sweep.name}: a sweep scores attackers on held-out utterances; expected audit.holdout above 0")
    if recipe.train.refit:
        raise RecipeError(
            f"{sweep.name}: train.refit = true leaves no dev speakers to score configurations on; search with --set "
            "train.refit=false --set split.dev_speakers=2, and refit the chosen recipe"
        )
    prepared.require_audio()
    splits = make_splits(recipe.split, prepared.utterances)
    splits = hold_out(splits, prepared.utterances, recipe.audit.holdout, recipe.audit.seed)
    check_recipe(recipe, prepared, splits, processes=1)
    streams = sweep.space.get("features.streams")
    if isinstance(streams, Choices) and any("prosody" in value for value in streams.values):
        prepared.require_f0()
    explored = explored_splits(splits, sweep.settings.folds)
    check_attacks(sweep, prepared, explored)
    return Plan(sweep, prepared, splits, explored, out, device_type)


def explored_splits(splits: Sequence[Split], folds: int | Sequence[str]) -> list[Split]:
    """Return the folds that trials are trained on: those named, or a number of them spread evenly; at most all.

    Raises:
        SplitError: A fold does not exist or is named twice, or the number is below 1.
    """
    if isinstance(folds, int):
        if folds < 1:
            raise SplitError(f"sweep.folds = {folds}: expected 1 or more")
        count = min(folds, len(splits))
        return [splits[int((position + 0.5) * len(splits) / count)] for position in range(count)]
    by_name = {split.name: split for split in splits}
    for name in folds:
        if name not in by_name:
            raise SplitError(f"sweep.folds: {unknown('fold', name, by_name)}")
    if not folds or len(set(folds)) < len(folds):
        raise SplitError(f"sweep.folds = {list(folds)}: expected names of different folds")
    return [by_name[name] for name in folds]


# The study on disk


@contextmanager
def open_study(plan: Plan, resume: bool) -> Iterator["Study"]:
    """Open Optuna's study in the folder for this process alone; interrupted trials are queued to be asked for again.

    Raises:
        WriteError: The folder is not empty and `resume` is not set, another process works on it, or it cannot be written.
        RunError: The folder holds something else, or a study of another recipe, space or corpus.
    """
    import optuna

    out, journal = plan.out, plan.out / JOURNAL
    if not resume:
        refuse_existing(out, "continue it with --resume, or choose another --out")
    elif out.is_dir() and any(out.iterdir()) and not journal.is_file():
        raise RunError(f"{out} is not a sweep (it has no {JOURNAL}); choose another --out")
    with ExitStack() as held:
        with write_errors(out):
            held.enter_context(locked(out, "lock"))
            require_no_links([trial_folder(out, 0).parent])
            out.mkdir(parents=True, exist_ok=True)
            store = open_storage(journal)
            pruner = optuna.pruners.MedianPruner() if plan.sweep.settings.pruner else optuna.pruners.NopPruner()
            study = optuna.create_study(storage=store, study_name=STUDY, direction="maximize", pruner=pruner, load_if_exists=True)
            require_same_request(study.user_attrs.get("request", plan.request), plan)
            study.set_user_attr("request", plan.request)
            requeue_interrupted(store)
        yield study


def open_storage(journal: Path) -> "JournalStorage":
    """Open Optuna's journal, one JSON object a line; what a killed process left behind is removed: half a line, or a lock.

    Raises:
        RunError: The journal is damaged.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if journal.is_symlink():
        raise RunError(f"{journal} is a link, to which a resumed sweep would write: replace it by the file")
    journal.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)  # this process has a lock of its own
    if journal.is_file() and (content := journal.read_bytes()) and not content.endswith(b"\n"):
        journal.write_bytes(content[: content.rfind(b"\n") + 1])
    try:
        return JournalStorage(JournalFileBackend(str(journal)))
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{journal} is damaged: {error}") from None


def require_same_request(old: Mapping[str, Any], plan: Plan) -> None:
    """Raise RunError unless the study was started with the same recipe, space, folds and corpus."""
    if changed := changes(flattened(old), flattened(plan.request)):
        raise RunError(f"{plan.out} was started with another request: {shorten(changed)}. Use the same, or another --out")


def requeue_interrupted(storage: "JournalStorage") -> None:
    """Queue the trials that were running when a process was killed: they keep their number and their configuration."""
    from optuna.trial import TrialState

    study = storage.get_study_id_from_name(STUDY)
    for trial in storage.get_all_trials(study, states=(TrialState.RUNNING,)):
        identity = storage.get_trial_id_from_study_id_trial_number(study, trial.number)
        storage.set_trial_state_values(identity, state=TrialState.WAITING)


def open_trial(plan: Plan, recipe: Recipe, number: int) -> Run:
    """Create the run of a trial, or open it with the folds that it has trained before it was interrupted."""
    folder = trial_folder(plan.out, number)
    return open_run(with_checkpoint(recipe, held_encoder(folder)), plan.splits, plan.prepared, folder, resume=True)


@dataclass
class RunningTrial:
    """A trial that is being trained, with the outputs of its folds so far."""

    trial: "Trial"
    run: Run
    outputs: list[FoldOutputs] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


class Search:
    """The loop over trials.

    Args:
        plan: What all trials share.
        study: Optuna's study.
        total: Number of trials to finish.
        jobs: Number of trials at the same time.
        progress: Called after each fold.
    """

    def __init__(self, plan: Plan, study: "Study", total: int, jobs: int, progress: TaskProgress) -> None:
        self.plan, self.study, self.total, self.progress = plan, study, total, progress
        self.threads = max(1, cores() // jobs) if jobs > 1 else 0
        self.running: dict[int, RunningTrial] = {}

    def run(self, workers: Workers) -> None:
        """Run trials until as many as asked for are finished."""
        self.show_progress()
        while True:
            while len(self.running) < workers.size and self.finished + len(self.running) < self.total:
                self.start_trial(workers)
            if not self.running:
                return
            self.end_fold(*workers.next_done(), workers)

    @property
    def finished(self) -> int:
        """Number of trials that are complete, pruned or failed."""
        return sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))

    def results(self) -> list[TrialResult]:
        """Return all finished trials."""
        return [TrialResult.of(trial) for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def show_progress(self) -> None:
        """Report the number of folds that are done; a trial that was stopped or failed counts with all of its folds."""
        folds = len(self.plan.splits)
        done = folds * self.finished + sum(len(trial.outputs) for trial in self.running.values())
        self.progress("exploring folds", done, folds * max(self.total, self.finished))

    def ask(self) -> "Trial":
        """Ask Optuna for a configuration, with a sampler that depends on nothing but the seed and the number of the trial."""
        import optuna

        trials = self.study.get_trials(deepcopy=False)
        waiting = [trial.number for trial in trials if trial.state == optuna.trial.TrialState.WAITING]
        number = waiting[0] if waiting else len(trials)
        seed = np.random.SeedSequence([self.plan.sweep.settings.seed, number]).generate_state(1)[0]
        self.study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        return self.study.ask({key: values.distribution for key, values in self.plan.sweep.space.items()})

    def start_trial(self, workers: Workers) -> None:
        """Start the training of a new configuration, unless the recipe refuses it or it has been tried before."""
        trial, sweep = self.ask(), self.plan.sweep
        values = sweep.values(trial.params)
        if earlier := self.finished_with(values):
            self.repeat(trial, earlier)
            return
        trial.set_user_attr("values", values)
        try:
            recipe = sweep.recipe_with({**values, "train.seeds": 1})
            check_recipe(recipe, self.plan.prepared, self.plan.all_splits, processes=1)
            run = open_trial(self.plan, recipe, trial.number)
            cache_layers(run.recipe, self.plan.prepared, self.plan.device, self.progress)  # here: workers only read them
        except RecipeError as error:
            self.fail(trial, str(error))
            return
        self.running[trial.number] = running = RunningTrial(trial, run)
        self.start_fold(running, workers)

    def start_fold(self, running: RunningTrial, workers: Workers) -> None:
        """Start the next fold of a trial."""
        task = FoldTask(running.run, len(running.outputs), self.plan.device, running.trial.number, self.threads)
        workers.start(task, tuple(running.outputs))

    def end_fold(self, number: int, result_of: Result, workers: Workers) -> None:
        """Record the result of a fold, then finish the trial, stop it, or start its next fold."""
        running = self.running[number]
        try:
            result = result_of()
        except (RunError, AuditError) as error:  # this configuration cannot be trained, or its embeddings are not finite
            self.fail(running.trial, str(error))
            return
        running.outputs.append(result.outputs)
        running.scores.append({"fold": self.plan.splits[len(running.scores)].name, **asdict(result.scores)})
        running.seconds += result.seconds
        self.record(running, result.scores.objective(self.plan.sweep.settings.leak_weight))
        if number in self.running:
            self.start_fold(running, workers)
        self.show_progress()

    def record(self, running: RunningTrial, objective: float) -> None:
        """Report the objective so far to Optuna, and finish the trial if this was its last fold or it is to be stopped."""
        trial, step = running.trial, len(running.scores)
        trial.set_user_attr("scores", running.scores)
        trial.set_user_attr("seconds", round(running.seconds, 1))
        self.report(trial, objective, step)
        if step == len(self.plan.splits):
            self.finish(trial, objective)
        elif trial.should_prune():
            self.finish(trial, state="PRUNED")

    def report(self, trial: "Trial", objective: float, step: int) -> None:
        """Report the objective after a number of folds, unless that was done before the trial was interrupted."""
        if step not in self.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
            trial.report(objective, step)

    def fail(self, trial: "Trial", reason: str) -> None:
        """Finish a trial that cannot be trained, with the reason."""
        trial.set_user_attr("reason", " ".join(reason.split()))
        self.finish(trial, state="FAIL")

    def finish(self, trial: "Trial", objective: float | None = None, state: str = "COMPLETE") -> None:
        """Tell Optuna the end of a trial, and remove its models."""
        from optuna.trial import TrialState

        self.study.tell(trial, objective, TrialState[state])
        self.running.pop(trial.number, None)
        shutil.rmtree(trial_folder(self.plan.out, trial.number), ignore_errors=True)
        self.show_progress()

    def finished_with(self, values: Mapping[str, Any]) -> "FrozenTrial | None":
        """Return the finished trial of the same configuration, if there is one."""
        trials = [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()]
        return next((trial for trial in trials if trial.user_attrs["values"] == values), None)

    def repeat(self, trial: "Trial", earlier: "FrozenTrial") -> None:
        """Finish a trial with the results of an earlier one: training the same configuration again would give the same."""
        for name, value in {**earlier.user_attrs, "same_as": earlier.number, "seconds": 0.0}.items():
            trial.set_user_attr(name, value)
        for step, value in earlier.intermediate_values.items():
            self.report(trial, value, step)
        self.finish(trial, earlier.value if earlier.state.name == "COMPLETE" else None, earlier.state.name)
