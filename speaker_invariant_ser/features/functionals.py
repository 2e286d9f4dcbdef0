"""Utterance-level features that need no training: what `siser baseline`, `siser embed` and `siser audit-encoders` know by name.

Add a set of features by an entry in FEATURE_SETS: a function that returns `(clip, f0) -> [D]`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.data.f0.tracker import track_f0
from speaker_invariant_ser.data.prepared_corpus import PreparedCorpus
from speaker_invariant_ser.errors import SetupError
from speaker_invariant_ser.features.prosody import deltas
from speaker_invariant_ser.features.prosody_functionals import PROSODY, log_mel, prosody_functionals

if TYPE_CHECKING:
    import opensmile

PERCENTILES = (5, 25, 50, 75, 95)

Progress = Callable[[int, int], None]  # utterances done, utterances in total
Functionals = Callable[[np.ndarray, np.ndarray | None], np.ndarray]  # audio [S] and, where needed, F0 [2, T] -> features [D]


@dataclass(frozen=True)
class FeatureSet:
    """One set of features.

    Attributes:
        about: What it holds, in a few words.
        open: Returns the function that computes it; raises SetupError where a package is missing.
        needs_f0: Whether that function is given F0.
        network: Whether a trained network computes it.
    """

    about: str
    open: Callable[[], Functionals]
    needs_f0: bool = False
    network: bool = False


def compute_features(name: str, prepared: PreparedCorpus, indices: Sequence[int], progress: Progress | None = None) -> np.ndarray:
    """Compute a set of features for utterances of a prepared corpus.

    Args:
        name: A key of FEATURE_SETS.
        prepared: The prepared corpus.
        indices: Positions of N utterances.
        progress: Called after each utterance.

    Returns:
        Features, float64 [N, D].

    Raises:
        SetupError: A package that the set needs is not installed; the message has the command that installs it.
        PreparedCorpusError: The corpus's file of F0 has become shorter since it was opened.
    """
    features, rows = open_features(name, prepared), []
    for done, index in enumerate(indices, start=1):
        rows.append(features(index))
        if progress:
            progress(done, len(indices))
    return np.array(rows, dtype=np.float64)


def open_features(name: str, prepared: PreparedCorpus) -> Callable[[int], np.ndarray]:
    """Return the function that computes a set of features [D] of one utterance, given by its position.

    Raises:
        SetupError: As `compute_features`.
    """
    chosen = FEATURE_SETS[name]
    functionals = chosen.open()
    return lambda index: functionals(prepared.clip(index), f0_of(prepared, index) if chosen.needs_f0 else None)


def f0_of(prepared: PreparedCorpus, index: int) -> np.ndarray:
    """Return F0 and confidence [2, T] of one utterance, as stored in the corpus or tracked now: the same values."""
    return prepared.f0_batch([index])[0] if prepared.f0_start else track_f0(prepared.clip(index))


def open_prosody() -> Functionals:
    """Return the 22 prosody numbers."""

    def functionals(clip: np.ndarray, f0: np.ndarray | None) -> np.ndarray:
        assert f0 is not None
        return prosody_functionals(clip, f0)

    return functionals


def open_log_mel() -> Functionals:
    """Return mean and standard deviation over time of each log-mel band [80]: what any spectral encoder starts from."""

    def functionals(clip: np.ndarray, f0: np.ndarray | None) -> np.ndarray:
        mels = log_mel(clip)
        return np.concatenate([mels.mean(axis=1), mels.std(axis=1)])

    return functionals


def open_percentiles() -> Functionals:
    """Return percentiles of log-mels, deltas and delta-deltas."""
    return lambda clip, f0: percentile_functionals(clip)


def percentile_functionals(clip: np.ndarray) -> np.ndarray:
    """Compute percentiles 5, 25, 50, 75 and 95 of log-mels, of their deltas and of the deltas of these.

    Every band is centred on its own mean over the utterance first, so that neither the channel nor a speaker's average spectrum
    is in the numbers. A change of level changes nothing.

    Args:
        clip: Float32 [S] in [-1, 1] at 16 kHz, S at least 1.

    Returns:
        Float64 [600]: for each of the three, for each percentile, 40 bands.
    """
    import torch

    mels = log_mel(clip)
    frames = torch.tensor([mels.shape[1]])
    first = deltas(torch.from_numpy(mels)[None], frames)
    second = deltas(first, frames)
    centred = mels - mels.mean(axis=1, keepdims=True)
    return np.concatenate([np.percentile(x, PERCENTILES, axis=1).ravel() for x in (centred, first[0].numpy(), second[0].numpy())])


def open_opensmile(name: str) -> Functionals:
    """Return the functionals of one of openSMILE's feature sets.

    openSMILE (Eyben et al., ACM Multimedia 2010) is free for research and personal use only; see its licence.

    Args:
        name: eGeMAPSv02 (Eyben et al., IEEE Transactions on Affective Computing 7 (2), 2016) or ComParE_2016 (Schuller et al.,
            Interspeech 2016).

    Raises:
        SetupError: The package opensmile is not installed.
    """
    smile = import_opensmile(name)

    def functionals(clip: np.ndarray, f0: np.ndarray | None) -> np.ndarray:
        values = np.asarray(smile.process_signal(clip, SAMPLE_RATE), dtype=np.float64).ravel()
        return np.nan_to_num(values, posinf=0.0, neginf=0.0)  # an utterance shorter than a window has no functionals

    return functionals


def import_opensmile(name: str) -> "opensmile.Smile":
    """Return openSMILE's extractor of a feature set's functionals; raise SetupError if the package is missing."""
    try:
        import opensmile
    except ImportError as error:
        raise SetupError(
            "openSMILE is not installed, which the features egemaps and compare need: "
            f'pip install "speaker-invariant-ser[opensmile]" ({error})'
        ) from None
    return opensmile.Smile(feature_set=getattr(opensmile.FeatureSet, name), feature_level=opensmile.FeatureLevel.Functionals)


def open_resemblyzer() -> Functionals:
    """Return the embedding [256] of Resemblyzer's speaker encoder.

    It was trained on LibriSpeech and VoxCeleb to distinguish speakers, with the loss of Wan et al. (ICASSP 2018). Silence is cut
    out first, by its own rules; an utterance in which it finds no speech is embedded as it is.

    Raises:
        SetupError: The package resemblyzer is not installed, or lacks one that it needs.
    """
    try:
        from resemblyzer import VoiceEncoder, preprocess_wav
    except ImportError as error:
        raise SetupError(
            "Resemblyzer is not installed, which the features resemblyzer need: "
            f'pip install "speaker-invariant-ser[judge]" ({error})'
        ) from None
    encoder = VoiceEncoder("cpu", verbose=False)

    def functionals(clip: np.ndarray, f0: np.ndarray | None) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):  # digital silence has no level to normalise
            speech = preprocess_wav(clip, SAMPLE_RATE)
            return np.nan_to_num(encoder.embed_utterance(speech if len(speech) else clip))

    return functionals


FEATURE_SETS = {
    "log-mel": FeatureSet("mean and deviation of log-mel bands", open_log_mel),
    "prosody": FeatureSet(f"{len(PROSODY)} utterance-relative prosody functionals", open_prosody, needs_f0=True),
    "functionals": FeatureSet("percentiles of centred log-mels, deltas and delta-deltas", open_percentiles),
    "egemaps": FeatureSet("eGeMAPSv02 functionals of openSMILE", lambda: open_opensmile("eGeMAPSv02")),
    "compare": FeatureSet("ComParE 2016 functionals of openSMILE", lambda: open_opensmile("ComParE_2016")),
    "resemblyzer": FeatureSet("Resemblyzer's speaker encoder", open_resemblyzer, network=True),
}
