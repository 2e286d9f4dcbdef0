"""Made-up embeddings with a known speaker code, or none."""

import numpy as np

from speaker_invariant_ser.audit.embeddings import Embeddings

SPEAKERS, EMOTIONS = 11, 5


def make_table(clips=1100, dims=16, speakers=SPEAKERS, seed=0, texts=0, code=None, confound=0.0) -> Embeddings:
    """Noise [clips, dims], speakers and emotions in equal numbers, and whatever `code(embedding, speaker, rng)` adds to it.

    With `confound`, that share of each speaker's clips is of the speaker's own emotion, and the embedding shows the emotion.
    """
    rng = np.random.default_rng(seed)
    speaker = np.arange(clips) % speakers
    emotion = np.arange(clips) // speakers % EMOTIONS
    embedding = rng.standard_normal((clips, dims))
    if confound:
        emotion = np.where(rng.random(clips) < confound, speaker % EMOTIONS, emotion)
        embedding[:, :EMOTIONS] += 3.0 * np.eye(EMOTIONS)[emotion]
    if code:
        embedding = code(embedding, speaker, rng)
    text = np.char.mod("t%d", np.arange(clips) // (speakers * EMOTIONS) % texts) if texts else np.full(clips, "")
    return Embeddings(
        embedding,
        np.char.mod("clip%d", np.arange(clips)),
        np.char.mod("s%02d", speaker),
        np.char.mod("e%d", emotion),
        text,
        np.ones(clips, dtype=bool),
    )


def linear(embedding, speaker, rng, size=2.0):
    """A place of its own for each speaker."""
    return embedding + size * np.random.default_rng(1).standard_normal((speaker.max() + 1, embedding.shape[1]))[speaker]


def told_now_and_then(share):
    """A code that gives the speaker away in this share of the clips: then 1/K + share * (1 - 1/K) can be named."""

    def code(embedding, speaker, rng):
        embedding[:, : speaker.max() + 1] += (
            8.0 * np.eye(speaker.max() + 1)[speaker] * (rng.random(len(speaker)) < share)[:, None]
        )
        return embedding

    return code


def xor(embedding, speaker, rng):
    """Speakers are told by which pairs of dimensions agree in sign; each dimension alone is the same for all."""
    for bit in range(2):
        sign = rng.choice([-1, 1], len(speaker))
        embedding[:, 2 * bit] = 1.5 * sign + 0.5 * embedding[:, 2 * bit]
        embedding[:, 2 * bit + 1] = 1.5 * sign * np.where(speaker >> bit & 1, 1, -1) + 0.5 * embedding[:, 2 * bit + 1]
    return embedding


def variance(embedding, speaker, rng):
    """Each speaker is loud in dimensions of their own and quiet in the others; all means are zero."""
    loud = np.random.default_rng(1).random((speaker.max() + 1, embedding.shape[1])) < 0.5
    return embedding * np.where(loud, 2.0, 0.5)[speaker]
