"""The steps of the command line as functions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speaker_invariant_ser.processes import EpochProgress, TaskProgress

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
    from speaker_invariant_ser.evaluation.summary import RunReport
    from speaker_invariant_ser.inference.rows import Row
    from speaker_invariant_ser.recipe import Recipe
    from speaker_invariant_ser.runs import Run


def prepare(
    corpus: str,
    source: Path | str,
    out: Path | str,
    *,
    only: Iterable[tuple[str, str]] = (),
    download: bool = False,
    pattern: str = "",
    name: str = "",
    columns: Mapping[str, str] | None = None,
    unlabelled: bool = False,
    votes: str = "",
    annotators: Sequence[str] = (),
    same_speaker: bool | None = None,
    scale: tuple[float, float] | None = None,
    channel: str = "mix",
    trim_db: float = 0.0,
    loudness: float | None = None,
    f0: bool = True,
    jobs: int = 1,
    progress: TaskProgress | None = None,
) -> "PreparedCorpus":
    """Decode a corpus once into 16 kHz mono audio with a manifest, as `siser prepare` does.

    Args:
        corpus: A known corpus such as `emodb`, or the kind of yours: `csv`, `tsv`, `parquet`, `folder`, `audformat`, `datasets`.
        source: The corpus's folder, or your own table or folder.
        out: The prepared corpus: a new folder.
        only: (column, value) pairs; only utterances with one of the values in each column are kept.
        download: Download the corpus into `source` first, if its licence allows that.
        pattern: Pattern of the paths in your own folder, such as `{speaker}/{emotion}/*.wav`.
        name: Name of your own data; by default that of the file or folder.
        columns: Your table's name of each column, by ours, such as `{"speaker": "spk_id"}`.
        unlabelled: Accept utterances of your own data without an emotion.
        votes: Columns of your table that begin so hold the annotators' votes for an emotion, such as `votes_` for
            `votes_angry`, which is also the default if there are any.
        annotators: Names or patterns of columns of your table that hold one annotator's labels each.
        same_speaker: Whether speaker names that are alike, such as `3` and `03`, are one speaker. By default
            such names are an error.
        scale: Lowest and highest value of your own data's arousal, valence and dominance; by default 0 and 1.
        channel: Of files with several channels: `mix` for their mean, `left` (the first) or `right` (the second).
        trim_db: Trim both ends where they are this many dB below the peak, 0 to 120; 0 trims nothing.
        loudness: Normalise every utterance to this loudness, -70 to 0 LUFS (ITU-R BS.1770).
        f0: Track F0 as well, which the default recipe needs; it takes more than ten times as long as decoding.
        jobs: Processes that decode in parallel; above 1, a script needs `if __name__ == "__main__":`.
        progress: Called with task, steps done and steps in total.

    Returns:
        The prepared corpus; `prepared.settings` has its counts and warnings.

    Raises:
        CorpusError: The corpus is unknown, or the folder does not hold it.
        DownloadError: The download failed.
        ManifestError: Your table or folder cannot be used.
        WriteError: `out` holds anything, or cannot be written.

    Example:
        ```python
        prepared = siser.prepare("emodb", "corpora/emodb", "data/emodb")
        ```
    """
    from speaker_invariant_ser.data.decoding import Treatment, workers
    from speaker_invariant_ser.data.formats.channels import require_choice
    from speaker_invariant_ser.data.sources import Source, prepare_sources

    require_at_least(1, jobs=jobs)
    wanted = Source(
        corpus=corpus,
        path=Path(source).expanduser(),
        name=name,
        pattern=pattern,
        columns=columns or {},
        unlabelled=unlabelled,
        same_speaker=same_speaker,
        scale=scale,
        votes=votes,
        annotators=tuple(annotators),
    )
    treatment = Treatment(trim_db, loudness, require_choice(channel))
    with workers(jobs) as pool:
        return prepare_sources([wanted], Path(out), treatment, tuple(only), download, pool, progress, f0)


def add_f0(data: Path | str, *, jobs: int = 1, progress: TaskProgress | None = None) -> "PreparedCorpus":
    """Add F0 to a prepared corpus that has none, as `siser add-f0` does; recipes with the prosody stream need it.

    Args:
        data: Folder of the prepared corpus.
        jobs: Processes that track F0 in parallel; above 1, a script needs `if __name__ == "__main__":`.
        progress: Called with task, steps done and steps in total.

    Returns:
        The prepared corpus with F0; audio and manifest are as they were.

    Raises:
        PreparedCorpusError: `data` is not a prepared corpus.
        WriteError: The folder cannot be written.

    Example:
        ```python
        siser.add_f0("data/emodb", jobs=2)
        ```
    """
    from speaker_invariant_ser.data import prepare
    from speaker_invariant_ser.data.decoding import workers

    with workers(jobs) as pool:
        return prepare.add_f0(data, pool, progress)


def read_recipe(path: Path | str, overrides: Iterable[str] = ()) -> "Recipe":
    """Read and check a recipe.

    Args:
        path: Recipe in TOML, or the name of a recipe that `siser recipes` lists, such as `default` or `methods/hsic`.
        overrides: `section.key=value` texts that replace values of the recipe, as `--set` does.

    Returns:
        The recipe, with defaults for what the file leaves out.

    Raises:
        RecipeError: The file cannot be read, or a key or value is not allowed.

    Example:
        ```python
        recipe = siser.read_recipe("default", ["train.seeds=3"])
        ```
    """
    from speaker_invariant_ser import config

    return config.read_recipe(path, overrides)


def train(
    recipe: "Recipe | Path | str | None",
    data: "PreparedCorpus | Path | str",
    out: Path | str,
    *,
    final: bool = False,
    resume: bool = False,
    device: str = "auto",
    devices: int = 1,
    jobs: int = 1,
    progress: EpochProgress | None = None,
) -> "Run":
    """Train every fold and seed of a recipe, as `siser train` does.

    Args:
        recipe: A recipe, the path of one, or the name of one that `siser recipes` lists; None is `default`.
        data: A prepared corpus, or its folder.
        out: The run: a new folder.
        final: Train one model on all speakers, to be used: no speaker is left to evaluate it on. Its epoch and temperature come
            from three inner folds.
        resume: Continue the run in `out`: keep trained models, resume those with a checkpoint.
        device: `auto` (the first GPU, otherwise the CPU), `cpu` or `cuda`.
        devices: Processes that share each batch.
        jobs: Models trained in parallel; above 1, a script needs `if __name__ == "__main__":`.
        progress: Called after every epoch with the model's name and its row of metrics.csv; rows of inner folds (`train.refit`)
            have the fold's number as `inner_fold`.

    Returns:
        The trained run.

    Raises:
        RecipeError: The recipe is wrong, or does not fit the corpus.
        SplitError: The speakers cannot be divided as the recipe asks.
        PreparedCorpusError: `data` is not a prepared corpus, or is damaged.
        RunError: Training diverged, or the run to resume is of another recipe or corpus.
        WriteError: `out` holds anything, or cannot be written.

    Example:
        ```python
        run = siser.train("default", "data/emodb", "runs/emodb")
        ```
    """
    from speaker_invariant_ser.config import DEFAULT_RECIPE, make_recipe, read_recipe
    from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
    from speaker_invariant_ser.training import launcher
    from speaker_invariant_ser.training.refit import FINAL

    require_at_least(1, jobs=jobs, devices=devices)
    recipe = read_recipe(recipe or DEFAULT_RECIPE) if isinstance(recipe, Path | str | None) else recipe
    recipe = make_recipe(recipe.model_dump(exclude_defaults=True), FINAL) if final else recipe
    prepared = PreparedCorpus.open(data) if isinstance(data, Path | str) else data
    return launcher.train(recipe, prepared, out, resume, device, jobs, progress, devices)


def evaluate(
    run: "Run | Path | str",
    *,
    data: Path | str | None = None,
    against: "Run | Path | str | None" = None,
    by: Sequence[str] = (),
    quick: bool = False,
    baseline: bool = True,
    telephone: bool = False,
    judge: Path | str | None = None,
    device: str = "auto",
    jobs: int = 1,
    progress: TaskProgress | None = None,
) -> "RunReport":
    """Score a run on its test speakers and audit its embeddings, as `siser evaluate` does; write its report.

    Args:
        run: A run, fully trained, or its folder. Writes `predictions.csv` and `report` (quick: beside a full one) into it.
        data: The run's prepared corpus, if it was moved since training.
        against: Another run, evaluated, to compare with.
        by: Columns of the manifest to break results down by.
        quick: Use closed-form attackers only: fast, never claims chance.
        baseline: Measure what the 22 prosody functionals and an SVM reach on the same folds; takes seconds.
        telephone: Also score the test utterances as heard over a telephone: `emotion.by_telephone` of the report.
        judge: Table of embeddings of the same utterances by a speaker encoder, joined by id: what the recordings reveal.
        device: `auto` (the first GPU, otherwise the CPU), `cpu` or `cuda`.
        jobs: Attackers fitted in parallel.
        progress: Called with task, steps done and steps in total.

    Returns:
        The content of report.json, typed: its keys are attributes, and `to_json()` returns it as a dictionary.

    Raises:
        RunError: The run is not fully trained or damaged, or `against` was tested on other utterances.
        PreparedCorpusError: The run's corpus is not there, or is damaged.
        AuditError: The speakers have too few utterances for an audit; the attribute `emotion` has the results on emotion.

    Example:
        ```python
        print(siser.evaluate("runs/emodb").emotion.uar.value)
        ```
    """
    from speaker_invariant_ser.evaluation import evaluate as evaluation
    from speaker_invariant_ser.report.write import write_run_report, write_unaudited_report

    require_at_least(1, jobs=jobs)
    opened, other = open_run(run), against if against is None else open_run(against)
    prepared, judged = opened.open_data(None if data is None else Path(data)), None if judge is None else Path(judge)
    try:
        result = evaluation.evaluate(opened, prepared, device, progress, by, other, quick, jobs, baseline, telephone, judged)
    except evaluation.UnauditedError as error:
        write_unaudited_report(error.report, error.curves, opened.folder)
        raise
    write_run_report(result, opened.folder)
    return result.report


def audit(
    embeddings: "ArrayLike | Path | str",
    speaker: "ArrayLike | None" = None,
    emotion: "ArrayLike | None" = None,
    text: "ArrayLike | None" = None,
    scored: "ArrayLike | None" = None,
    *,
    columns: Mapping[str, str] | None = None,
    dimensions: Sequence[str] = (),
    discrete: str = "",
    same_speaker: bool | None = None,
    judge: Path | str | None = None,
    quick: bool = False,
    seed: int = 0,
    jobs: int = 1,
    progress: TaskProgress | None = None,
) -> dict[str, Any]:
    """Measure how much speaker information embeddings of any model hold, as `siser audit` does; writes nothing.

    Args:
        embeddings: Real numbers, [N, D], or the path of a .npz, .csv, .tsv or .parquet table that has the labels, too.
        speaker: Speaker of each utterance, text or whole numbers, [N].
        emotion: Emotion of each utterance, [N]; without, no chance level given the emotion is known.
        text: Spoken text of each utterance, [N]; attackers are then scored on texts that they were not trained on.
        scored: 1 for utterances that the encoder was not trained on, 0 for others, [N]; attackers are scored on the first only.
        columns: A table's name of each column, by ours, such as `{"speaker": "spk_id"}`.
        dimensions: Patterns of a table's columns that are dimensions, such as `["f_*"]`; by default, those with a common stem.
        discrete: A table's column of codes, to be audited instead of dimensions and certified; the table needs a column `scored`.
        same_speaker: As in `prepare`.
        judge: As in `evaluate`; a table with the ids of `embeddings`.
        quick: Use closed-form attackers only, of a large table a sample (`sample` in the result): fast, never claims chance.
        seed: Seed of folds, attackers and permutations, 0 to 2^31 - 1.
        jobs: Attackers fitted in parallel.
        progress: Called with task, steps done and steps in total.

    Returns:
        The part `speaker` of report.json: accuracy of every attacker, chance levels, confidence intervals, controls.

    Raises:
        AuditError: The embeddings or labels are incomplete, or there are fewer than two speakers.

    Example:
        Embeddings of three speakers, whose first dimension gives the speaker away:

        >>> import numpy as np
        >>> import speaker_invariant_ser as siser
        >>> rng, speakers = np.random.default_rng(0), np.repeat(["ann", "bob", "eve"], 20)
        >>> embeddings = rng.standard_normal((60, 8))
        >>> embeddings[:, 0] += 4 * (speakers == "bob") - 4 * (speakers == "eve")
        >>> result = siser.audit(embeddings, speaker=speakers, quick=True)
        >>> result["strongest"]["accuracy"] > 0.9, result["at_chance"]
        (True, False)
        >>> f"chance {result['chance']['uniform']:.1%}"
        'chance 33.3%'
    """
    from speaker_invariant_ser.audit import audit as auditing
    from speaker_invariant_ser.audit.inputs.read_embeddings import embeddings_of, read_embeddings
    from speaker_invariant_ser.audit.verification.judge import read_judge
    from speaker_invariant_ser.errors import AuditError

    require_at_least(1, jobs=jobs)
    require_at_least(0, seed=seed)
    given = {"speaker": speaker, "emotion": emotion, "text": text, "scored": scored}
    labels = {label: values for label, values in given.items() if values is not None}
    if isinstance(embeddings, Path | str):
        if labels:
            words = f"omit the arguments {', '.join(labels)}, or pass an array"
            raise AuditError(f"{embeddings}: the table file already contains its labels; {words}")
        table, _, notes = read_embeddings(embeddings, columns, dimensions, same_speaker, discrete)
    elif speaker is None or columns or dimensions or discrete:
        raise AuditError("embeddings as an array need the argument speaker, and no columns, dimensions or discrete")
    else:
        table, notes = embeddings_of(embeddings, labels, same_speaker)
    settings = auditing.AuditSettings(seed=seed, quick=quick, jobs=jobs)
    audited = auditing.audit_table(table, settings, progress, None if judge is None else read_judge(judge), discrete)
    return {**audited.summary, "notes": [*notes, *([audited.sample.described] if audited.sample else [])]}


def predict(
    run: "Run | Path | str",
    files: Path | str | Sequence[Path | str],
    *,
    fold: str | None = None,
    one_speaker: bool = False,
    channel: str = "mix",
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> "list[Row]":
    """Predict the emotion of audio files with the models of a run, as `siser infer` does.

    Args:
        run: A run, its folder, a folder or ONNX file that `siser export` wrote, the name of a model that comes with the package,
            or `hf:OWNER/NAME`.
        files: Audio files, folders, globs, or .txt lists with one path a line.
        fold: Use the models of this fold alone; by default, average all folds.
        one_speaker: All files are of one speaker; required by runs that normalise by speaker.
        channel: Of files with several channels: `mix` for their mean, `left`, `right`, or `each` for a row for each channel.
        device: `auto` (the first GPU, otherwise the CPU), `cpu` or `cuda`.
        progress: Called with files done and files in total.

    Returns:
        A row for each file, with the columns of the table that `siser infer` writes; `error` is empty if it could be used.

    Raises:
        RunError: The run has no trained model, or needs `one_speaker`.
        SerError: A folder or glob has no audio file.

    Example:
        ```python
        for row in siser.predict("runs/emodb", ["call.wav", "more/"]):
            print(row["file"], row["emotion"], row["confidence"], row["error"])
        ```
    """
    from speaker_invariant_ser.inference.inputs import find_inputs
    from speaker_invariant_ser.inference.loading import load_models
    from speaker_invariant_ser.inference.predict import predict as predict_files
    from speaker_invariant_ser.inference.settings import Settings

    settings = Settings(channel)
    inputs = find_inputs([files] if isinstance(files, Path | str) else files)
    name = str(getattr(run, "folder", run))
    return list(predict_files(load_models(run, fold, device, one_speaker), inputs, progress, settings, name))


def open_run(run: "Run | Path | str") -> "Run":
    """Return the run, or open it if a folder is given."""
    from speaker_invariant_ser.runs import Run

    return run if isinstance(run, Run) else Run.open(run)


def require_at_least(minimum: int, **numbers: int) -> None:
    """Raise SerError unless every number is whole, at least `minimum` and below 2^31."""
    from speaker_invariant_ser.errors import SerError

    for name, number in numbers.items():
        if not isinstance(number, int) or not minimum <= number < 2**31:
            raise SerError(f"{name} = {number!r}: expected a whole number, {minimum} to {2**31 - 1}")
