"""Votes of annotators in the evaluation: exact small cases, known agreement, and what report and console say."""

import numpy as np
import pytest
from reports import run_report

from speaker_invariant_ser.cli.console import show_evaluation
from speaker_invariant_ser.data.tables.votes import as_text, counts_table
from speaker_invariant_ser.evaluation.votes import agreement, single_annotator, vote_results
from speaker_invariant_ser.report.sections.emotion import emotion_sections

LABELS = ("angry", "sad")
NAMED = [
    '{"r1": "angry", "r2": "angry", "r3": "angry"}',
    '{"r1": "sad", "r2": "sad", "r3": "sad"}',
    '{"r1": "angry", "r2": "angry", "r3": "sad"}',
]
COUNTED = ['{"angry": 3}', '{"sad": 3}', '{"angry": 2, "sad": 1}']


def results(texts, probability, truth=None, speaker=None, seed=None, labels=LABELS):
    number = len(texts)
    given = (np.zeros(number, int) if truth is None else np.array(truth), np.arange(number) if speaker is None else speaker)
    return vote_results(texts, *given, np.zeros(number, int) if seed is None else np.array(seed), np.array(probability), labels)


@pytest.mark.parametrize("texts, annotators", [(NAMED, 3), (COUNTED, None)], ids=["named", "counted"])
def test_each_vote_is_scored_against_the_majority_of_the_others(texts, annotators):
    """Of three votes for angry and sad by 2 to 1, the two see a tie of the others, the one sees two against it."""
    table = counts_table(texts, LABELS)
    assert agreement(table, np.zeros(3, int)).tolist() == [[[4, 1], [1, 3]]]
    single, reason = single_annotator(texts, table, np.array(["a", "b", "c"]), LABELS)
    assert single is not None and single.value == pytest.approx((4 / 5 + 3 / 4) / 2)
    assert (single.utterances, single.votes, single.annotators, reason) == (3, 9, annotators, "")
    assert single.low is not None and single.low < single.value < single.high
    two_speakers, _ = single_annotator(texts, table, np.array(["a", "b", "b"]), LABELS)
    assert two_speakers.value == single.value and two_speakers.low is None


@pytest.mark.parametrize("named", [True, False])
def test_the_uar_of_annotators_of_known_reliability_is_found(named):
    """Annotators name the emotion with 80 % and any other one otherwise; 11 others nearly always have the right majority."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 600)
    votes = (truth[:, None] + (rng.random((600, 12)) > 0.8) * rng.integers(1, 4, (600, 12))) % 4
    labels = ["a", "b", "c", "d"]
    if named:
        texts = [as_text({f"r{number}": labels[vote] for number, vote in enumerate(row)}) for row in votes]
    else:
        texts = [as_text({labels[vote]: float(count) for vote, count in enumerate(np.bincount(row)) if count}) for row in votes]
    single, _ = single_annotator(texts, counts_table(texts, labels), rng.integers(0, 20, 600), labels)
    assert single.low < 0.8 < single.high and single.value == pytest.approx(0.8, abs=0.015)
    assert (single.annotators, single.votes) == (12 if named else None, 7200)
    assert (single.lowest is not None and 0.74 < single.lowest < single.highest < 0.86) if named else single.lowest is None


def test_an_interval_resamples_speakers():
    """Votes of a speaker agree or disagree together, which 60 utterances of three speakers do not make precise."""
    texts = ['{"angry": 4}', '{"sad": 4}'] * 20 + ['{"angry": 2, "sad": 2}'] * 20
    table = counts_table(texts, LABELS)
    few, _ = single_annotator(texts, table, np.repeat(["a", "b", "c"], 20), LABELS)
    many, _ = single_annotator(texts, table, np.arange(60), LABELS)
    assert few.value == many.value and few.high - few.low > 2 * (many.high - many.low)


def test_divergences_have_their_exact_values():
    texts = ['{"angry": 3, "sad": 1}', '{"sad": 2}']
    same = results(texts, [[0.75, 0.25], [0.0, 1.0]])
    entropy = (0.75 * np.log2(4 / 3) + 0.25 * 2) / 2
    assert same.cross_entropy == pytest.approx(entropy) == pytest.approx(same.entropy)
    assert same.kl == pytest.approx(0, abs=1e-9) and same.jensen_shannon == pytest.approx(0, abs=1e-9)
    uniform = results(texts, [[0.5, 0.5], [0.5, 0.5]])
    assert uniform.cross_entropy == pytest.approx(1) and uniform.kl == pytest.approx(1 - entropy)
    opposite = results(['{"angry": 1}', '{"sad": 1}'], [[0.0, 1.0], [1.0, 0.0]])
    assert opposite.jensen_shannon == pytest.approx(1) and opposite.cross_entropy == pytest.approx(-np.log2(1e-12))
    assert opposite.uninformed == pytest.approx(1) and opposite.entropy == 0
    assert same.cross_entropy_low is None and results(texts * 2, [[0.5, 0.5]] * 4).cross_entropy_low == pytest.approx(1)


def test_utterances_count_once_whatever_the_seeds_and_emotions_of_no_class_do_not_count():
    texts = ['{"angry": 2, "bored": 5}', '{"bored": 2}', '{"sad": 2}', ""] * 2
    found = results(texts, [[0.5, 0.5]] * 8, truth=[0, 0, 0, 1] * 2, seed=[0] * 4 + [1] * 4)
    assert found.utterances == 2 and found.label_is_majority == 0.5 and found.cross_entropy == pytest.approx(1)
    assert found.single_annotator.votes == 4 and found.single_annotator.value == 1
    assert results(['{"bored": 2}', ""], [[0.5, 0.5]] * 2) is None


@pytest.mark.parametrize(
    "texts, reason",
    [
        (['{"angry": 1}', '{"sad": 1}'], "one vote per utterance"),
        (['{"r1": "angry"}', '{"r1": "sad"}'], "one vote per utterance"),
        (['{"angry": 0.5, "sad": 0.5}', '{"sad": 1}'], "votes are shares, which do not say how many annotators there were"),
    ],
)
def test_votes_that_are_too_few_for_a_single_annotator_are_said_to_be(texts, reason, capsys):
    found = results(texts, [[0.5, 0.5]] * 2)
    assert found.single_annotator is None and found.too_few == reason
    report = run_report()
    report = report.model_copy(update={"emotion": report.emotion.model_copy(update={"votes": found})})
    show_evaluation(report)
    printed = capsys.readouterr().out
    sentence = f"The UAR of a single annotator was not measured, because the votes are too few: {reason}."
    assert sentence in printed and "a single annotator, UAR" not in printed
    (section,) = [section for section in emotion_sections(report.emotion) if section.title == "Votes of annotators"]
    assert sentence in section.blocks[0].text
