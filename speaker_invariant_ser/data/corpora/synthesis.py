"""Generate the built-in corpus: 17 eSpeak NG speakers x 5 emotions x 12 sentences as wav files.

The emotions are *simulated prosody*: each shifts pitch, pitch range, speaking rate, loudness and spectral tilt relative to the
speaker's neutral values, with seeded random variation for every utterance. The corpus demonstrates and tests the package without
a download. Results on it say nothing about human speech.

The direction of each shift follows acoustic and perception studies: anger, joy and fear have higher pitch and rate than neutral
speech, anger and joy also a wider pitch range, higher level and more energy at high frequencies; sadness is lower, slower, less
varied, softer and has less high-frequency energy (Scherer 2003, Speech Communication 40; Burkhardt & Sendlmeier 2000, ISCA
Workshop on Speech and Emotion). The sizes of the shifts, and the narrow pitch range of fear, are our choice: similar emotions
such as happy and angry are meant to be confused at times.

An utterance depends on seed, speaker, emotion and sentence only. eSpeak NG keeps state between utterances (the phase of its pitch
flutter, its breath noise, the Scottish rolled r) that neither `espeak_Terminate` nor `espeak_ng_SetRandSeed` resets. The
synthesiser voices are therefore defined here without these three; most variants that come with eSpeak NG use some of them.
"""

import ctypes
import os
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.errors import SerError, SetupError, unknown
from speaker_invariant_ser.files import writing

LEVEL = -28.0  # dB relative to full scale: RMS of an utterance without loudness shift
NOISE_FLOOR = -68.0  # dB relative to full scale: added noise, because digital silence would identify the synthesiser


@dataclass(frozen=True)
class SynthesiserVoice:
    """The parameters of one synthetic speaker."""

    accent: str  # eSpeak NG language file, e.g. "en-US"
    sex: str  # "female" or "male"
    pitch: float  # centre of the pitch range in Hz
    span: float  # width of the pitch range, as a share of the pitch
    rate: float  # words per minute
    formants: tuple[int, int, int, int]  # F1, F2, F3 and all higher formants, in percent of eSpeak's adult male voice
    tilt: float  # dB per octave around 1 kHz


@dataclass(frozen=True)
class Prosody:
    """The change of a speaker's neutral values for an emotion."""

    pitch: float  # semitones
    span: float  # ratio of pitch ranges
    rate: float  # ratio of speaking rates
    loudness: float  # dB
    tilt: float  # dB per octave


SPEAKERS: dict[str, SynthesiserVoice] = {
    "s01": SynthesiserVoice("en-US", "female", 196, 0.36, 172, (112, 114, 113, 112), 0.0),
    "s02": SynthesiserVoice("en-US", "male", 112, 0.36, 168, (100, 100, 100, 100), 0.5),
    "s03": SynthesiserVoice("en-GB-x-rp", "female", 214, 0.42, 165, (118, 111, 117, 116), -0.8),
    "s04": SynthesiserVoice("en-GB-x-gbcwmd", "male", 124, 0.42, 178, (96, 104, 98, 101), -0.6),
    "s05": SynthesiserVoice("en-029", "female", 183, 0.40, 170, (107, 119, 110, 108), 0.9),
    "s06": SynthesiserVoice("en-GB-x-rp", "male", 98, 0.32, 160, (94, 95, 96, 95), -0.2),
    "s07": SynthesiserVoice("en-GB-x-gbclan", "female", 228, 0.34, 176, (121, 120, 121, 119), 0.4),
    "s08": SynthesiserVoice("en-029", "male", 134, 0.38, 174, (104, 97, 103, 104), 1.0),
    "s09": SynthesiserVoice("en-US-nyc", "female", 205, 0.44, 182, (109, 108, 119, 115), -1.2),
    "s10": SynthesiserVoice("en-GB-x-gbclan", "male", 106, 0.40, 164, (92, 101, 104, 98), -1.1),
    "s11": SynthesiserVoice("en", "male", 144, 0.34, 180, (106, 106, 99, 103), 0.1),
    "s12": SynthesiserVoice("en-GB-x-gbcwmd", "female", 201, 0.38, 169, (115, 116, 115, 113), -0.4),
    "s13": SynthesiserVoice("en", "male", 118, 0.36, 171, (98, 99, 102, 102), 0.3),
    "s14": SynthesiserVoice("en-US", "female", 219, 0.40, 174, (111, 117, 118, 117), 0.6),
    "s15": SynthesiserVoice("en-029", "male", 129, 0.34, 166, (102, 103, 97, 99), -0.8),
    "s16": SynthesiserVoice("en-GB-x-gbclan", "female", 210, 0.37, 168, (114, 113, 112, 117), -0.3),
    "s17": SynthesiserVoice("en-US-nyc", "male", 121, 0.39, 177, (101, 98, 100, 97), 0.7),
}
UNSEEN_SPEAKERS = ("s12", "s13", "s14", "s15")
DEV_SPEAKERS = ("s16", "s17")  # select the epoch, so that all 11 others can be trained on
TRAIN_SPEAKERS = tuple(speaker for speaker in SPEAKERS if speaker not in UNSEEN_SPEAKERS + DEV_SPEAKERS)

EMOTIONS: dict[str, Prosody] = {
    "neutral": Prosody(pitch=0.0, span=1.0, rate=1.0, loudness=0.0, tilt=0.0),
    "happy": Prosody(pitch=4.0, span=1.7, rate=1.07, loudness=1.5, tilt=0.8),
    "sad": Prosody(pitch=-2.0, span=0.55, rate=0.86, loudness=-3.0, tilt=-1.8),
    "angry": Prosody(pitch=2.5, span=1.5, rate=1.12, loudness=3.0, tilt=2.4),
    "fearful": Prosody(pitch=7.0, span=0.8, rate=1.18, loudness=0.5, tilt=0.4),
}
JITTER = Prosody(pitch=1.8, span=0.3, rate=0.13, loudness=4.5, tilt=1.0)  # largest random change of one utterance, either way

SENTENCES: tuple[str, ...] = (
    "The blue folder is on the second shelf.",
    "We will meet beside the library at noon.",
    "She put the keys next to the lamp.",
    "The bus to the harbour stops here.",
    "There are eleven chairs in the hall.",
    "He wrote the number on a card.",
    "The window in the kitchen faces east.",
    "They moved the table closer to the wall.",
    "My brother takes the early train.",
    "The shop around the corner sells paper.",
    "It is a quarter past three.",
    "You can leave the parcel next door.",
)

_INSTALL = "install it with: pip install espeakng-loader (the extra [demo] of this package)"
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)  # samples, count, events
_SYNCHRONOUS, _NO_EXIT, _UTF8, _RATE = 2, 0x8000, 1, 1  # from espeak-ng/speak_lib.h
_MAX_PATH = 150  # bytes: beyond 160 eSpeak NG ignores the path and would use the data of the system


def file_name(speaker: str, emotion: str, text_index: int) -> str:
    """Return the file name of an utterance: speaker, emotion and index of the sentence.

    >>> file_name("s03", "angry", 7)
    's03_angry_t07.wav'
    """
    return f"{speaker}_{emotion}_t{text_index:02d}.wav"


def generate(folder: Path, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> int:
    """Write the corpus as 16-bit mono wav files at 16 kHz.

    Args:
        folder: Folder of the files; created if needed.
        seed: Seed of the random variation, 0 or above; the same seed gives the same bytes.
        progress: Called after every utterance with the number done and in total.

    Returns:
        The number of files.

    Raises:
        SetupError: eSpeak NG is not installed (the extra [demo]).
        WriteError: The folder cannot be written.
    """
    utterances = [(s, e, t) for s in SPEAKERS for e in EMOTIONS for t in range(len(SENTENCES))]
    for done, utterance in enumerate(utterances, start=1):
        _write(folder / file_name(*utterance), speak(*utterance, seed=seed))
        if progress is not None:
            progress(done, len(utterances))
    return len(utterances)


def speak(speaker: str, emotion: str, text_index: int, seed: int = 0) -> np.ndarray:
    """Synthesise one utterance.

    eSpeak NG has one state per process: call this function from one thread at a time.

    Args:
        speaker: Key of SPEAKERS.
        emotion: Key of EMOTIONS.
        text_index: Index into SENTENCES.
        seed: Seed of the random variation, 0 or above.

    Returns:
        Samples as float32 [S] at 16 kHz, with absolute values below 1.

    Raises:
        SerError: Speaker, emotion or sentence is unknown.
        SetupError: eSpeak NG is not installed (the extra [demo]).
    """
    voice, prosody = _known("speaker", speaker, SPEAKERS), _known("emotion", emotion, EMOTIONS)
    text = _known("sentence", text_index, dict(enumerate(SENTENCES)))
    # Seeded by name and not by a counter, so that an utterance does not depend on those synthesised before it.
    rng = np.random.default_rng([seed, zlib.crc32(file_name(speaker, emotion, text_index).encode())])
    prosody = _jittered(prosody, rng)
    samples = _synthesise(text, voice, prosody)
    samples = _tilted(samples, voice.tilt + prosody.tilt)
    return _levelled(samples, LEVEL + prosody.loudness, rng)


def _known(kind: str, name: Any, table: dict[Any, Any]) -> Any:
    """Return the entry of a table; raise SerError with the allowed names."""
    if name not in table:
        raise SerError(unknown(kind, name, table))
    return table[name]


def _jittered(prosody: Prosody, rng: np.random.Generator) -> Prosody:
    """Add random variation to a prosody."""
    change = np.array(astuple(JITTER)) * rng.uniform(-1, 1, size=len(astuple(JITTER)))
    return Prosody(*(np.array(astuple(prosody)) + change).tolist())


def _synthesise(text: str, voice: SynthesiserVoice, prosody: Prosody) -> np.ndarray:
    """Return the output of eSpeak NG as float64 [S] at 16 kHz, before tilt and level are applied."""
    library, data = _espeak()
    chunks: list[bytes] = []

    @_CALLBACK
    def receive(samples: int | None, count: int, _events: int | None) -> int:
        if samples:  # a null pointer marks the end of the speech
            chunks.append(ctypes.string_at(samples, count * ctypes.sizeof(ctypes.c_short)))
        return 0

    # Started and ended for every utterance, so that this module holds no state; it takes about a millisecond.
    with tempfile.TemporaryDirectory() as folder:
        rate = _start(library, data, Path(folder))
        try:
            library.espeak_SetSynthCallback(receive)
            _set_voice(library, _voice_file(voice, prosody, data), Path(folder))
            library.espeak_SetParameter(_RATE, round(voice.rate * prosody.rate), 0)
            encoded = text.encode()
            library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _UTF8, None, None)
            library.espeak_Synchronize()
        finally:
            library.espeak_Terminate()
    return soxr.resample(np.frombuffer(b"".join(chunks), np.int16) / 2**15, rate, SAMPLE_RATE)


def _espeak() -> tuple[ctypes.CDLL, Path]:
    """Load eSpeak NG from the espeakng-loader wheel, never that of the system, because versions sound different."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise SetupError(f"the built-in corpus needs eSpeak NG, {_INSTALL}") from error
    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except OSError as error:
        raise SetupError(f"eSpeak NG cannot be loaded ({error}), {_INSTALL}") from error
    size, pointer, number = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_uint
    library.espeak_Synth.argtypes = [ctypes.c_char_p, size, number, ctypes.c_int, number, number, pointer, pointer]
    return library, Path(espeakng_loader.get_data_path())


def _start(library: ctypes.CDLL, data: Path, folder: Path) -> int:
    """Start eSpeak NG with its data; return the sample rate of its output in Hz."""
    path = data
    if len(os.fsencode(data)) > _MAX_PATH:
        path = folder / "data"
        path.symlink_to(data, target_is_directory=True)
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(path), _NO_EXIT)
    if rate <= 0:
        raise SetupError(f"eSpeak NG cannot read its data in {data}, {_INSTALL}")
    return rate


def _set_voice(library: ctypes.CDLL, lines: str, folder: Path) -> None:
    """Set the voice of eSpeak NG from the text of a voice file."""
    path = folder / "voice"
    path.write_text(lines, encoding="utf-8")
    if library.espeak_SetVoiceByFile(os.fsencode(path)) != 0:
        raise SetupError(f"eSpeak NG cannot load the voice file {path}, {_INSTALL}")


def _voice_file(voice: SynthesiserVoice, prosody: Prosody, data: Path) -> str:
    """Return the text of a voice file: the accent, then the speaker's parameters, which override it."""
    centre = voice.pitch * 2 ** (prosody.pitch / 12)
    half = centre * voice.span * prosody.span / 2
    above = [voice.formants[-1]] * 5  # F4 to F8 are shifted together
    formants = [f"formant {n} {percent}" for n, percent in enumerate((*voice.formants[:-1], *above), start=1)]
    accent = (data / "lang" / "gmw" / voice.accent).read_text(encoding="utf-8")
    return "\n".join([accent, f"pitch {centre - half:.0f} {centre + half:.0f}", "flutter 0", "roughness 0", *formants, ""])


def _tilted(samples: np.ndarray, slope: float) -> np.ndarray:
    """Tilt the spectrum of the samples by `slope` dB per octave around 1 kHz, with a constant gain below 100 Hz."""
    spectrum = np.fft.rfft(samples)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE), 100) / 1000)
    return np.fft.irfft(spectrum * _amplitude(slope * octaves), n=len(samples))


def _levelled(samples: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Scale the samples to an RMS of `level` dB relative to full scale and add faint noise; prevent clipping."""
    samples = samples * _amplitude(level) / np.sqrt(np.mean(samples**2))
    samples = samples + _amplitude(NOISE_FLOOR) * rng.standard_normal(len(samples))
    return (samples / max(1.0, np.abs(samples).max() / 0.98)).astype(np.float32)


def _amplitude(decibels: Any) -> Any:
    """Convert dB to an amplitude ratio."""
    return 10 ** (decibels / 20)


def _write(path: Path, samples: np.ndarray) -> None:
    """Write samples as a 16-bit wav file."""
    wav = BytesIO()  # not the file: soundfile takes an incomplete write, as on a full disk, for a fault of its own
    soundfile.write(wav, samples, SAMPLE_RATE, subtype="PCM_16", format="WAV")
    with writing(path, "wb") as file:
        file.write(wav.getbuffer())
