"""Print results: tables on standard output, warnings on standard error. The tables are those of the report."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

from speaker_invariant_ser.errors import counted

if TYPE_CHECKING:
    from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
    from speaker_invariant_ser.demos.digits import Outcome
    from speaker_invariant_ser.evaluation.summary import (
        AnyRunReport,
        Report,
        RunReport,
        TableReport,
        UnauditedReport,
        UnauditedTableReport,
    )
    from speaker_invariant_ser.evaluation.summary_parts import Speaker
    from speaker_invariant_ser.inference.exported import Export
    from speaker_invariant_ser.inference.rows import Row
    from speaker_invariant_ser.report.table import Table
    from speaker_invariant_ser.runs import Run


UNPRINTABLE = re.compile(  # control characters, line separators, changes of the direction of text, halves of characters
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
MAX_WIDTH = 1000  # columns of a table where standard output is not a terminal: no cell is wrapped


def printable(text: str) -> str:
    r"""Return a text with its control characters as escapes, which are also those of JSON.

    Names of files, cells of tables and values of recipes may hold line breaks, and sequences that a terminal obeys.

    >>> print(printable("a\nb\x1b[2J"))
    a\nb\u001b[2J
    """
    return UNPRINTABLE.sub(lambda match: SHORT.get(match[0], f"\\u{ord(match[0]):04x}"), text)


def say(*words: object, error: bool = False) -> None:
    """Print one line, on standard error if it is about an error; control characters become escapes."""
    print(printable(" ".join(map(str, words))), file=sys.stderr if error else sys.stdout, flush=True)


def one_line(text: str) -> str:
    """Return the lines of a text as one; blanks within a line are those of a name."""
    return " ".join(stripped for line in text.splitlines() if (stripped := line.strip()))


def show_json(value: object) -> None:
    """Print a value as indented JSON."""
    for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n"):
        say(line)


def show_trained(run: "Run") -> None:
    """Print each fold's selected epoch and dev UAR, with several seeds their mean."""
    from speaker_invariant_ser.runs import best_epoch

    if run.recipe.train.refit:
        show_refit(run)
        return
    mark = " (transductive)" if run.recipe.features.transductive else ""
    for split in run.splits:
        selected = [best_epoch(spec.metrics()) for spec in run.model_specs if spec.split == split]
        epochs, uars = ", ".join(f"{row['epoch']:.0f}" for row in selected), [row["dev_uar"] for row in selected]
        if len(selected) == 1:
            say(f"fold {split.name}: epoch {epochs} kept, dev UAR {uars[0]:.3f}{mark}")
        else:
            seeds = f"SD {stdev(uars):.3f} over {len(selected)} seeds, epochs {epochs} kept"
            say(f"fold {split.name}: dev UAR {mean(uars):.3f}{mark}, {seeds}")


def show_refit(run: "Run") -> None:
    """Print for how many epochs each model was trained on all training speakers, and the UAR of its inner folds."""
    from speaker_invariant_ser.runs import best_epoch

    mark, folds = " (transductive)" if run.recipe.features.transductive else "", run.recipe.train.inner_folds
    for spec in run.model_specs:
        row = best_epoch(spec.metrics())
        selected = f"UAR of {folds} inner folds {row['dev_uar']:.3f}{mark}" if folds else "not selected: no inner folds"
        speakers = f"all {counted(len(spec.split.train), 'training speaker')}"
        say(f"fold {spec.name}: trained on {speakers} for {counted(int(row['epoch']), 'epoch')}, {selected}")


def show_prepared(prepared: "PreparedCorpus", out: Path) -> None:
    """Print what was prepared, and how well emotion is recognised from properties that should not matter."""
    from speaker_invariant_ser.data.fold_sizes import MIN_SPEAKERS, MIN_TRAINING_SPEAKERS
    from speaker_invariant_ser.errors import counted

    settings = prepared.settings
    nouns = {name: name.removesuffix("s") for name in ("utterances", "speakers", "emotions", "texts")}
    counts = ", ".join(counted(count, nouns.get(name, name), name) for name, count in settings["counts"].items())
    say(f"{counts}, {settings['seconds'] / 60:.1f} minutes of audio -> {out}")
    speakers = len({utterance.speaker for utterance in prepared.utterances})
    if settings["counts"]["emotions"] == 1:
        say("1 emotion: too few to train; at least 2 are needed")
    if speakers < MIN_SPEAKERS:
        say(f"{counted(speakers, 'speaker')}: too few to train; at least {MIN_SPEAKERS} are needed: two to train on, one to test")
    elif speakers <= MIN_TRAINING_SPEAKERS:
        say(f"{counted(speakers, 'speaker')}: few to train on where others are tested; results on new speakers will be poor")
    if settings.get("unlabelled"):
        number = counted(settings["unlabelled"], "utterance has", "utterances have")
        say(f"{number} no emotion: they can be trained on where split.unlabelled names them")
    for name, text in (("length", "utterance length"), ("padding", "digital silence at start and end"), ("level", "level")):
        if shortcut := settings["shortcuts"][name]:
            say(f"emotion of unseen speakers from {text} alone: {shortcut['uar']:.1%} UAR, chance {shortcut['chance']:.1%}")


def warn(message: str) -> None:
    """Print a warning on standard error."""
    say(f"warning: {message}", error=True)


def opened(folder: Path) -> "Run":
    """Open a run, and warn if its models hold no hashes to check it against."""
    from speaker_invariant_ser.runs import Run

    run = Run.open(folder)
    if run.unbound:
        warn(run.about_unbound)
    return run


def opened_models(folder: Path) -> "Run | Export":
    """Open a run as `opened` does, an export, or a model that comes with the package."""
    from speaker_invariant_ser.inference.exported import Export, open_models

    source = open_models(folder)
    return source if isinstance(source, Export) else opened(folder)


def show_evaluation(report: "RunReport") -> None:
    """Print the tables of a run's report, then its verdict, and how a refit chose its epochs."""
    from speaker_invariant_ser.report.tables import about_refit, key_table
    from speaker_invariant_ser.report.vote_tables import about_votes

    mark = report.transductive
    show_answers(report)
    show_table(key_table(report), mark)
    show_speaker(report.speaker, mark)
    refit = about_refit(report.emotion.refit) if report.emotion.refit else ""
    votes = about_votes(report.emotion.votes) if report.emotion.votes else ""
    for line in (*report.verdict, votes, refit, report.note):
        if line:
            say(line)
    warn_of_copies(report.emotion.near_copies, "test utterances", "the model")
    warn_of_copies(report.speaker.near_copies, "scored utterances", "attackers")
    if report.speaker.scored == "trained":
        warn("attackers are scored on utterances that the encoder was trained on: set audit.holdout and train again")


def show_answers(report: "Report") -> None:
    """Print the conclusion, the answers in words, and what was measured when, before any table."""
    from speaker_invariant_ser.report.headline import answers, badge, provenance

    speaker, *emotion = answers(report)
    for line in (f"{badge(report).upper()}: {speaker}", *emotion, provenance(report)):
        say(line)


def warn_of_copies(share: float | None, scored: str, learner: str) -> None:
    """Warn if utterances are scored that share audio with one that was learned from."""
    if share:
        warn(f"{share:.1%} of the {scored} share audio or a recording with an utterance that {learner} learned from")


def show_unaudited(report: "UnauditedReport", run: Path, page: Path, as_json: bool) -> None:
    """Print what is known of a run that cannot be audited, and why it cannot."""
    from speaker_invariant_ser.audit.words.verdict import emotion_answer
    from speaker_invariant_ser.report.tables import emotion_table

    if as_json:
        show_json(report.to_json())
    else:
        emotion = report.emotion
        say(emotion_answer(emotion.uar.value, emotion.chance, len(emotion.per_speaker), emotion.uar.low))
        show_table(emotion_table(emotion))
        say(report.verdict[0])
        say(f"report: {page}")
    warn(f"{run}: speaker information is not measured: {report.unaudited}")


def show_paired(report: "AnyRunReport", as_json: bool) -> None:
    """Print how a run compares with the other one of its report, if there is one, and why their leakage is not compared."""
    from speaker_invariant_ser.report.sections.paired import about_unaudited, paired_sentence

    if not report.against:
        return
    if not as_json:
        say(paired_sentence(report, report.against))
    if missing := about_unaudited(report, report.against):
        warn(missing)


def show_baseline(report: "TableReport") -> None:
    """Print the tables of a baseline's report, then its verdict."""
    from speaker_invariant_ser.report.tables import classifiers_table

    assert report.baseline
    show_answers(report)
    show_table(classifiers_table(report.baseline))
    show_speaker(report.speaker)
    for line in (*report.verdict, report.note):
        if line:
            say(line)


def show_unaudited_baseline(report: "UnauditedTableReport") -> None:
    """Print what is known of features that cannot be audited."""
    from speaker_invariant_ser.audit.words.verdict import emotion_answer
    from speaker_invariant_ser.report.tables import classifiers_table

    if (first := report.baseline.first) and report.baseline.chance:
        say(emotion_answer(first.uar.value, report.baseline.chance, len(first.per_speaker), first.uar.low))
    show_table(classifiers_table(report.baseline))
    for line in (report.verdict[0], report.note):
        if line:
            say(line)


def show_speaker(speaker: "Speaker", transductive: bool = False) -> None:
    """Print the attackers' accuracies, the chance levels, and what is known of unseen speakers and of several utterances."""
    from speaker_invariant_ser.report.tables import adversary_table, attackers_table, chance_table, not_converged, not_tried
    from speaker_invariant_ser.report.unseen_tables import clips_table, predicted_emotion_table, unseen_table

    unseen = unseen_table(speaker.unseen) if speaker.unseen else None
    predicted = predicted_emotion_table(speaker.predicted_emotion) if speaker.predicted_emotion else None
    of_speakers = (attackers_table(speaker), chance_table(speaker), adversary_table(speaker))
    for table in (*of_speakers, unseen, predicted, clips_table(speaker)):
        if table:
            show_table(table, transductive)
    for text in (*not_tried(speaker), *not_converged(speaker)):
        say(text)


def show_comparison(reports: Sequence["AnyRunReport"]) -> None:
    """Print one row for each run, and a table for each corpus."""
    from speaker_invariant_ser.report.sections.comparison_table import by_corpus, comparison_table, notes_of, pareto_front
    from speaker_invariant_ser.report.tables import run_name

    groups = by_corpus(reports)
    for corpus, runs in groups.items():
        if len(groups) > 1:
            say(f"corpus {corpus}:")
        show_table(comparison_table(runs, [run_name(report) for report in runs], pareto_front(runs)))
        for note in notes_of(runs):
            say(note)


def show_outcomes(outcomes: Sequence["Outcome"], columns: Mapping[str, str]) -> None:
    """Print the accuracies of the selected epoch, `columns` of metrics.csv, and that of the strongest fresh attacker."""
    from speaker_invariant_ser.report.formatting import against_chance, percent
    from speaker_invariant_ser.report.table import Table

    level = outcomes[0].leakage.chance

    def cell(column: str, accuracy: float | None) -> str:
        if column != "adversary_accuracy" or accuracy is None:
            return percent(accuracy)
        return against_chance(accuracy, level["uniform"])

    numbers = [[cell(column, outcome.number(column)) for column in columns] for outcome in outcomes]
    strongest = [outcome.leakage.strongest for outcome in outcomes]
    attackers = [f"{percent(attacker.score.accuracy)} {attacker.name}" for attacker in strongest]
    rows = [(text, *row) for text, row in zip(columns.values(), zip(*numbers, strict=True), strict=True)]
    rows.append(("the other digit: strongest of four fresh attackers", *attackers))
    rows.append(("chance, a zero", *[percent(1 / 2)] * len(outcomes)))
    rows.append((f"chance, the other digit of {outcomes[0].leakage.speakers}", *[percent(level["uniform"])] * len(outcomes)))
    show_table(Table(["accuracy", *(outcome.name for outcome in outcomes)], rows))


def show_predictions(predictions: Sequence["Row"]) -> None:
    """Print the emotion and the confidence of each file."""
    from speaker_invariant_ser.report.formatting import percent
    from speaker_invariant_ser.report.table import Table

    rows = [(Path(str(row["file"])).name, str(row["emotion"]), percent(float(row["confidence"] or 0))) for row in predictions]
    show_table(Table(["file", "emotion", "confidence"], rows))


def show_table(table: "Table", transductive: bool = False) -> None:
    """Print a table on standard output, as wide as its text where that is not a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Rendered
    from rich.text import Text

    if transductive:
        from speaker_invariant_ser.report.tables import mark_transductive

        table = mark_transductive(table)
    rendered = Rendered(box=box.SIMPLE_HEAD)
    for header in table.head:
        rendered.add_column(Text(printable(header)))  # Text: square brackets in a name are no markup
    for position, row in enumerate(table.rows):
        rendered.add_row(*(Text(printable(cell)) for cell in row), style="bold" if position in table.strong else None)
    console = Console()
    Console(width=None if console.is_terminal else MAX_WIDTH).print(rendered)
