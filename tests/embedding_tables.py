"""Synthetic tables of embeddings that contain a known amount of speaker information."""

from collections.abc import Callable

import numpy as np

from speaker_invariant_ser.audit.embeddings import Embeddings

SPEAKERS, EMOTIONS = 11, 5

SpeakerCode = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]  # (embedding, speaker, rng) -> embedding


def make_table(
    utterances: int = 1100,
    dims: int = 16,
    speakers: int = SPEAKERS,
    seed: int = 0,
    texts: int = 0,
    code: SpeakerCode | None = None,
    confound: float = 0.0,
) -> Embeddings:
    """Make Gaussian noise with equally frequent speakers and emotions, into which `code` writes the speaker.

    Args:
        utterances: Utterances N.
        dims: Embedding dimension D.
        speakers: Speakers K.
        seed: Seed of the noise.
        texts: Number of texts; 0 for unknown texts.
        code: Adds speaker information.
        confound: Share of each speaker's utterances that have the same emotion, which the embedding then encodes.

    Returns:
        The table; all utterances are scored.
    """
    rng = np.random.default_rng(seed)
    speaker = np.arange(utterances) % speakers
    emotion = np.arange(utterances) // speakers % EMOTIONS
    embedding = rng.standard_normal((utterances, dims))
    if confound:
        emotion = np.where(rng.random(utterances) < confound, speaker % EMOTIONS, emotion)
        embedding[:, :EMOTIONS] += 3.0 * np.eye(EMOTIONS)[emotion]
    if code:
        embedding = code(embedding, speaker, rng)
    text = np.char.mod("t%d", np.arange(utterances) // (speakers * EMOTIONS) % texts) if texts else np.full(utterances, "")
    return Embeddings(
        embedding,
        np.char.mod("clip%d", np.arange(utterances)),
        np.char.mod("s%02d", speaker),
        np.char.mod("e%d", emotion),
        text,
        np.ones(utterances, dtype=bool),
    )


def linear_code(embedding: np.ndarray, speaker: np.ndarray, rng: np.random.Generator, size: float = 2.0) -> np.ndarray:
    """Give each speaker a different mean, which linear classifiers find."""
    return embedding + size * np.random.default_rng(1).standard_normal((speaker.max() + 1, embedding.shape[1]))[speaker]


def occasional_code(share: float) -> SpeakerCode:
    """Return a code that reveals the speaker in this share of utterances: accuracy 1/K + share * (1 - 1/K) can be reached."""

    def code(embedding: np.ndarray, speaker: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        revealed = rng.random(len(speaker)) < share
        embedding[:, : speaker.max() + 1] += 8.0 * np.eye(speaker.max() + 1)[speaker] * revealed[:, None]
        return embedding

    return code


def xor_code(embedding: np.ndarray, speaker: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Encode four speakers in whether pairs of dimensions agree in sign; every single dimension has the same distribution."""
    for bit in range(2):
        sign = rng.choice([-1, 1], len(speaker))
        embedding[:, 2 * bit] = 1.5 * sign + 0.5 * embedding[:, 2 * bit]
        embedding[:, 2 * bit + 1] = 1.5 * sign * np.where(speaker >> bit & 1, 1, -1) + 0.5 * embedding[:, 2 * bit + 1]
    return embedding


def variance_code(embedding: np.ndarray, speaker: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give each speaker different variances; all means are zero."""
    large = np.random.default_rng(1).random((speaker.max() + 1, embedding.shape[1])) < 0.5
    return embedding * np.where(large, 2.0, 0.5)[speaker]
