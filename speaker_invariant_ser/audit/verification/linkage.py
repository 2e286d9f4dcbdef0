"""Linkage: does an embedding match the voice print of the same person, who was never seen before?

An attacker who has recordings of a person can make a voice print of them, with an encoder that recognises speakers (the judge).
From other speakers, whose embeddings and voice prints are both known, the attacker learns to predict a voice print from an
embedding, and compares the prediction with the voice prints of people.

Shapes: N utterances, D dimensions of the embedding, V of the voice print, P probes, K speakers.
"""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.verification.enrolment import Enrolment
from speaker_invariant_ser.audit.verification.scorers import inner_products
from speaker_invariant_ser.audit.verification.trials import Trials

PENALTIES = tuple(10.0**power for power in range(6))  # of the ridge regression, times the number of utterances / 100
FOLDS = 5  # over speakers, to choose the penalty
MAX_DIMENSIONS = 256  # of the embedding; principal components of more
LINKAGE = "linkage"


def fit_map(embedding: np.ndarray, print_of_speaker: np.ndarray, speaker: np.ndarray) -> Pipeline:
    """Fit the prediction of voice prints from embeddings: a ridge regression whose penalty is chosen on left-out speakers.

    Args:
        embedding: Embeddings [N, D].
        print_of_speaker: Voice print of each utterance's speaker [N, V].
        speaker: Speaker of each utterance [N], at least two.
    """
    steps = [StandardScaler()]
    if embedding.shape[1] > MAX_DIMENSIONS:
        steps.append(PCA(min(MAX_DIMENSIONS, len(embedding)), svd_solver="covariance_eigh"))
    folds = GroupKFold(min(FOLDS, len(np.unique(speaker))))
    penalties = [penalty * len(embedding) / 100 for penalty in PENALTIES]
    search = GridSearchCV(Ridge(), {"alpha": penalties}, scoring="neg_mean_squared_error", cv=folds)
    model = make_pipeline(*steps, search)
    return model.fit(embedding, print_of_speaker, gridsearchcv__groups=speaker)


def link(
    table: Embeddings, judged: np.ndarray, background: Embeddings, background_judged: np.ndarray, enrolment: Enrolment
) -> Trials | None:
    """Compare the voice print predicted from each probe's embedding with the voice print of every enrolled speaker.

    Args:
        table: Embeddings of speakers that nothing was fitted on.
        judged: Their embeddings by the judge [N, V].
        background: Embeddings of other speakers.
        background_judged: Their embeddings by the judge.
        enrolment: Probes and enrolled utterances of `table`.

    Returns:
        The trials, one for each probe and enrolled speaker; None with a single other speaker, of whom no map can be learned.
    """
    names, index = np.unique(background.speaker, return_inverse=True)
    if len(names) < 2:
        return None
    prepare = make_pipeline(StandardScaler(with_std=False), Normalizer()).fit(background_judged)
    other_prints = prepare.transform(background_judged)
    print_of_speaker = np.stack([other_prints[index == speaker].mean(axis=0) for speaker in range(len(names))])[index]
    predicted = fit_map(background.embedding, print_of_speaker, background.speaker).predict(table.embedding[enrolment.probes])
    prints = Normalizer().transform(enrolment.vectors(prepare.transform(judged)))
    left = np.repeat(np.arange(len(predicted)), len(enrolment.speakers))
    vectors = np.concatenate([Normalizer().transform(predicted), prints])
    return trials_of_probes(inner_products(vectors, left, len(predicted) + enrolment.enrolled.ravel()), enrolment)


def trials_of_probes(score: np.ndarray, enrolment: Enrolment) -> Trials:
    """Return scores of each probe with every enrolled speaker [P K], probe by probe, as trials."""
    probes, speakers = enrolment.enrolled.shape
    pair = np.column_stack([np.repeat(enrolment.speaker, speakers), np.tile(np.arange(speakers), probes)])
    return Trials(
        score={LINKAGE: score},
        target=pair[:, 0] == pair[:, 1],
        same_emotion=np.zeros(len(pair), dtype=bool),
        speaker_pair=pair,
        speakers=enrolment.speakers,
        utterances=probes,
        same_text_left_out=False,
    )
