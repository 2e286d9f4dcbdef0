"""Speaker verification on embeddings: can two utterances be recognised as spoken by the same, previously unknown speaker?

An attacker who cannot identify a speaker may still link utterances. Every pair of utterances is a trial, a target trial if one
speaker speaks both; see `trials`.

Shapes: N utterances, D dimensions, P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from speaker_invariant_ser.audit.verification.error_rates import (
    eer_interval,
    linkability,
    minimum_cost,
    pool_trials,
    pooled_eer,
)
from speaker_invariant_ser.audit.verification.scorers import HEADLINE, SCORERS
from speaker_invariant_ser.audit.verification.trials import Trials


@dataclass(frozen=True)
class Verification:
    """Error rates and linkability, pooled over encoders.

    Attributes:
        scorers: Results of each scorer, as `evaluate_scorer` returns them.
        target_trials: Number of pairs spoken by one speaker.
        nontarget_trials: Number of pairs spoken by two speakers.
        same_text_left_out: Whether pairs with the same text were left out for all encoders.
    """

    scorers: dict[str, dict]
    target_trials: int
    nontarget_trials: int
    same_text_left_out: bool

    @property
    def summary(self) -> dict:
        """Content of report.json; None where undefined. `eer`, `low` and `high` are those of the trained back-end."""
        return {
            **{key: self.scorers[HEADLINE][key] for key in ("eer", "low", "high")},
            **self.scorers,
            "target_trials": self.target_trials,
            "nontarget_trials": self.nontarget_trials,
            "same_text_left_out": self.same_text_left_out,
        }


def verify(trials_by_encoder: Sequence[Trials | None]) -> Verification | None:
    """Evaluate the trials of one or several encoders together.

    Target and nontarget trials of an encoder each weigh as much as it has utterances. If trials were merely concatenated, an
    encoder with high scores and many target trials (few speakers) would seem to separate its speakers.

    Args:
        trials_by_encoder: Trials of each encoder; None is skipped.

    Returns:
        The results; None without any trials.
    """
    tables = [trials for trials in trials_by_encoder if trials is not None]
    if not tables:
        return None
    return Verification(
        scorers={name: evaluate_scorer(tables, name) for name in SCORERS},
        target_trials=int(sum(trials.target.sum() for trials in tables)),
        nontarget_trials=int(sum((~trials.target).sum() for trials in tables)),
        same_text_left_out=all(trials.same_text_left_out for trials in tables),
    )


def evaluate_scorer(tables: Sequence[Trials], name: str) -> dict:
    """Compute the results of one scorer, pooled over encoders.

    Args:
        tables: Trials of each encoder.
        name: Name of the scorer.

    Returns:
        Equal error rate with its 95 % confidence interval over all trials, over trials with the same emotion and across
        emotions; C_llr^min; linkability; the equal error rate of each encoder. None where undefined.
    """
    low, high = eer_interval(tables, name)
    return {
        "eer": pooled_eer(tables, name),
        "low": low,
        "high": high,
        "same_emotion": pooled_eer([trials.select(trials.same_emotion) for trials in tables], name),
        "cross_emotion": pooled_eer([trials.select(~trials.same_emotion) for trials in tables], name),
        "cllr_min": minimum_cost(*pool_trials(tables, name)),
        "linkability": linkability(*pool_trials(tables, name)),
        "per_encoder": [pooled_eer([trials], name) for trials in tables],
    }
