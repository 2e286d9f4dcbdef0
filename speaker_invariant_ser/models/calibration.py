"""Temperature scaling: one number per model that corrects its confidence without changing any decision."""

import math

import numpy as np

TEMPERATURE_RANGE = 0.05, 20.0


def apply_temperature(probability: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    """Divide the logarithms of probabilities by a temperature and normalise again.

    Args:
        probability: Probabilities [N, C].
        temperature: One value, or one for each row [N, 1]; above 1 lowers the confidence, below 1 raises it.

    Returns:
        Probabilities [N, C].
    """
    scaled = log_probability(probability) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def log_probability(probability: np.ndarray) -> np.ndarray:
    """Return logarithms that stay finite where a float32 probability has underflowed to 0."""
    return np.log(np.maximum(np.asarray(probability, dtype=float), np.finfo(np.float32).tiny))


def fit_temperature(truth: np.ndarray, probability: np.ndarray) -> float:
    """Fit the temperature that maximises the likelihood of the true classes (Guo et al., ICML 2017).

    Fit it on utterances that are neither trained on nor tested on. The bounds keep it finite where every row is correct.

    Args:
        truth: True classes [N].
        probability: Probabilities [N, C].

    Returns:
        A temperature from 0.05 to 20.
    """
    from scipy.optimize import minimize_scalar  # here, because inference does without
    from scipy.special import log_softmax

    logits = log_probability(probability)

    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / math.exp(log_temperature), axis=1)[np.arange(len(truth)), truth].mean()

    return math.exp(minimize_scalar(loss, bounds=[math.log(bound) for bound in TEMPERATURE_RANGE], method="bounded").x)
