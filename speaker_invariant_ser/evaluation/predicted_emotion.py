"""How much the predicted emotions alone say about test speakers: the part `speaker.predicted_emotion` of report.json."""

from collections.abc import Sequence

import numpy as np

from speaker_invariant_ser.audit.audit import AuditSettings, control_summary
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.leakage import measure_leakage
from speaker_invariant_ser.data.holdout import independent_units
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.errors import AuditError
from speaker_invariant_ser.evaluation.predictions import Predictions
from speaker_invariant_ser.evaluation.unseen_parts import PredictedEmotion

ATTACKER = "logistic"  # of one category it learns how often each speaker has each value, and there is no more to learn


def attack_predictions(
    predictions: Predictions, utterances: Sequence[Utterance], settings: AuditSettings
) -> PredictedEmotion | None:
    """Attack the predicted emotions of the test speakers of all folds together.

    An emotion that is recognised worse for one speaker than for another tells the two apart, and whoever sees predictions sees
    that: no release of a model reveals less. Models of different folds predict the same emotions, so that the test speakers of
    all folds can be compared, each predicted by a model that was not trained on this speaker. Where the models differ in what
    they predict, that identifies speakers of different folds as well.

    Args:
        predictions: Predictions for the test utterances of all folds and seeds.
        utterances: The corpus, for texts and recordings.
        settings: Folds, seed and processes of the attack.

    Returns:
        The attacker's accuracy, pooled over seeds; None with fewer than two test speakers that have two utterances.
    """
    by_id, emotions = {utterance.id: utterance for utterance in utterances}, np.array(predictions.labels)
    tables = []
    for seed in predictions.seeds:
        rows = predictions.rows(predictions.seed == seed)
        tested = [by_id[name] for name in rows.id]
        table = Embeddings(
            embedding=np.eye(len(emotions))[rows.predicted],
            id=rows.id,
            speaker=rows.speaker,
            emotion=emotions[rows.truth],
            text=np.array([utterance.text for utterance in tested]),
            scored=np.ones(len(tested), dtype=bool),
            group=independent_units(tested),
        )
        tables.append(table)
    try:
        leakage = measure_leakage(tables, [ATTACKER], settings.folds, settings.seed, permutations=0, jobs=settings.jobs)
    except AuditError:
        return None
    sizes = {"speakers": leakage.speakers, "utterances": leakage.utterances, "decisions": leakage.decisions}
    return PredictedEmotion.model_validate({**control_summary(leakage), "chance": leakage.chance["given_emotion"], **sizes})
