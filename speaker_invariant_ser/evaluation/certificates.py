"""Certificates of a run whose models release codes, and the part `speaker.certificate` of report.json, typed."""

import numpy as np

from speaker_invariant_ser.audit.certificates.certificate import Certificate, Population, certify
from speaker_invariant_ser.evaluation.model_outputs import ModelOutputs
from speaker_invariant_ser.recipe_methods import CodesSettings, DecisionSettings
from speaker_invariant_ser.runs import Run

NOT_HELD_OUT = (
    "the codes were fitted on all utterances of the training speakers (audit.holdout = 0), and utterances that codes were fitted "
    "on certify nothing"
)
NOT_INDEPENDENT = (
    "each code depends on all utterances of its speaker (features.normalise = speaker), which are not independent of each other"
)


def certify_run(run: Run, outputs: ModelOutputs) -> Certificate | None:
    """Certify the codes of a run's models.

    Each model has codes of its own, fitted on its training utterances. They are certified on the held-out utterances of its
    training speakers, and on its test speakers.

    Args:
        run: The run.
        outputs: Outputs of its models.

    Returns:
        The certificates; None where the models release no codes.
    """
    release, seed = run.recipe.release, run.recipe.audit.seed
    if not isinstance(release, CodesSettings | DecisionSettings):
        return None
    cells = release.cells if isinstance(release, CodesSettings) else len(outputs.predictions.labels)
    if run.recipe.features.transductive:
        nothing = (Population("held-out", unavailable=NOT_INDEPENDENT), Population("unseen", unavailable=NOT_INDEPENDENT))
        return Certificate("code", cells, nothing)
    names, splits = [spec.name for spec in run.model_specs], [spec.split for spec in run.model_specs]
    unseen = [table.select(np.isin(table.speaker, split.test)) for table, split in zip(outputs.unseen, splits, strict=True)]
    held_out = Population("held-out", unavailable=NOT_HELD_OUT)
    if all(split.held_out for split in splits):
        held_out = certify(outputs.tables, names, "held-out", seed)
    return Certificate("code", cells, (held_out, certify(unseen, names, "unseen", seed)))
