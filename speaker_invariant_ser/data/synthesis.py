"""The built-in corpus: 17 eSpeak NG speakers x 5 emotions x 12 sentences, made on the spot as wav files.

The emotions are *simulated prosody*: each is a shift of pitch, pitch range, speaking rate, loudness and spectral tilt relative
to the speaker's own habit, blurred by a seeded jitter for every clip. The corpus shows that the package works and lets it be
tested without a download. Nothing measured on it says anything about human speech.

The direction of each shift follows what acoustic and perception studies agree on: anger, joy and fear are higher and faster
than neutral speech, anger and joy also wider in pitch, louder and richer in high frequencies; sadness is lower, slower,
flatter, softer and duller (Scherer 2003, Speech Communication 40; Burkhardt & Sendlmeier 2000, ISCA Workshop on Speech and
Emotion). The sizes, and the narrow range of fear, are ours: neighbours such as happy and angry are meant to be confused at times.

A clip depends on (seed, speaker, emotion, sentence) alone. eSpeak NG carries hidden state from clip to clip (the phase of its
pitch flutter, the noise of its breath, the Scottish rolled r) that neither `espeak_Terminate` nor `espeak_ng_SetRandSeed` resets.
The voices here are therefore our own, without any of the three: most of the variants that come with eSpeak NG have some of them.
"""

import ctypes
import os
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.errors import SerError, SetupError, unknown
from speaker_invariant_ser.files import writing

LEVEL = -28.0  # dB below full scale: RMS of a clip whose loudness shift is 0
NOISE_FLOOR = -68.0  # dB below full scale: digital silence would be a fingerprint of the synthesiser


@dataclass(frozen=True)
class Voice:
    """One synthetic speaker."""

    accent: str  # eSpeak NG language file, e.g. "en-US"
    sex: str  # "female" or "male"
    pitch: float  # centre of the pitch range in Hz
    span: float  # width of the pitch range, as a share of the pitch
    rate: float  # words per minute
    formants: tuple[int, int, int, int]  # frequencies of F1, F2, F3 and of all above, in percent of eSpeak's adult male
    tilt: float  # dB per octave around 1 kHz


@dataclass(frozen=True)
class Prosody:
    """How an emotion departs from the speaker's neutral habit."""

    pitch: float  # semitones
    span: float  # ratio of pitch ranges
    rate: float  # ratio of speaking rates
    loudness: float  # dB
    tilt: float  # dB per octave


SPEAKERS: dict[str, Voice] = {
    "s01": Voice("en-US", "female", 196, 0.36, 172, (112, 114, 113, 112), 0.0),
    "s02": Voice("en-US", "male", 112, 0.36, 168, (100, 100, 100, 100), 0.5),
    "s03": Voice("en-GB-x-rp", "female", 214, 0.42, 165, (118, 111, 117, 116), -0.8),
    "s04": Voice("en-GB-x-gbcwmd", "male", 124, 0.42, 178, (96, 104, 98, 101), -0.6),
    "s05": Voice("en-029", "female", 183, 0.40, 170, (107, 119, 110, 108), 0.9),
    "s06": Voice("en-GB-x-rp", "male", 98, 0.32, 160, (94, 95, 96, 95), -0.2),
    "s07": Voice("en-GB-x-gbclan", "female", 228, 0.34, 176, (121, 120, 121, 119), 0.4),
    "s08": Voice("en-029", "male", 134, 0.38, 174, (104, 97, 103, 104), 1.0),
    "s09": Voice("en-US-nyc", "female", 205, 0.44, 182, (109, 108, 119, 115), -1.2),
    "s10": Voice("en-GB-x-gbclan", "male", 106, 0.40, 164, (92, 101, 104, 98), -1.1),
    "s11": Voice("en", "male", 144, 0.34, 180, (106, 106, 99, 103), 0.1),
    "s12": Voice("en-GB-x-gbcwmd", "female", 201, 0.38, 169, (115, 116, 115, 113), -0.4),
    "s13": Voice("en", "male", 118, 0.36, 171, (98, 99, 102, 102), 0.3),
    "s14": Voice("en-US", "female", 219, 0.40, 174, (111, 117, 118, 117), 0.6),
    "s15": Voice("en-029", "male", 129, 0.34, 166, (102, 103, 97, 99), -0.8),
    "s16": Voice("en-GB-x-gbclan", "female", 210, 0.37, 168, (114, 113, 112, 117), -0.3),
    "s17": Voice("en-US-nyc", "male", 121, 0.39, 177, (101, 98, 100, 97), 0.7),
}
UNSEEN_SPEAKERS = ("s12", "s13", "s14", "s15")
DEV_SPEAKERS = ("s16", "s17")  # they select the epoch, so that all 11 others train
TRAIN_SPEAKERS = tuple(speaker for speaker in SPEAKERS if speaker not in UNSEEN_SPEAKERS + DEV_SPEAKERS)

EMOTIONS: dict[str, Prosody] = {
    "neutral": Prosody(pitch=0.0, span=1.0, rate=1.0, loudness=0.0, tilt=0.0),
    "happy": Prosody(pitch=4.0, span=1.7, rate=1.07, loudness=1.5, tilt=0.8),
    "sad": Prosody(pitch=-2.0, span=0.55, rate=0.86, loudness=-3.0, tilt=-1.8),
    "angry": Prosody(pitch=2.5, span=1.5, rate=1.12, loudness=3.0, tilt=2.4),
    "fearful": Prosody(pitch=7.0, span=0.8, rate=1.18, loudness=0.5, tilt=0.4),
}
JITTER = Prosody(pitch=1.8, span=0.3, rate=0.13, loudness=4.5, tilt=1.0)  # largest departure, either way, of one clip

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
_LONGEST_PATH = 150  # bytes: eSpeak NG gives up at 160, and would then look for the system's data


def file_name(speaker: str, emotion: str, text_index: int) -> str:
    """Name of a clip: speaker, emotion and the number of its sentence, counted from 0.

    >>> file_name("s03", "angry", 7)
    's03_angry_t07.wav'
    """
    return f"{speaker}_{emotion}_t{text_index:02d}.wav"


def generate(folder: Path, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> int:
    """Write the corpus into `folder` as 16-bit mono wav files at 16 kHz and return their number.

    The same seed (0 or above) gives the same bytes. `progress(done, total)` is called after every clip. Raises SetupError
    without the demo extra, WriteError where the folder cannot be written.
    """
    clips = [(s, e, t) for s in SPEAKERS for e in EMOTIONS for t in range(len(SENTENCES))]
    for done, clip in enumerate(clips, start=1):
        _write(folder / file_name(*clip), speak(*clip, seed=seed))
        if progress is not None:
            progress(done, len(clips))
    return len(clips)


def speak(speaker: str, emotion: str, text_index: int, seed: int = 0) -> np.ndarray:
    """One clip as float32 [S] at 16 kHz, every |sample| below 1.

    `speaker` is a key of SPEAKERS, `emotion` of EMOTIONS, `text_index` counts SENTENCES from 0; anything else
    raises SerError. Raises SetupError without the demo extra. eSpeak NG is one per process: call it from one thread at a time.
    """
    voice, prosody = _known("speaker", speaker, SPEAKERS), _known("emotion", emotion, EMOTIONS)
    text = _known("sentence", text_index, dict(enumerate(SENTENCES)))
    # The name, not a counter, seeds the clip: its sound must not depend on which clips were made before it.
    rng = np.random.default_rng([seed, zlib.crc32(file_name(speaker, emotion, text_index).encode())])
    prosody = _jittered(prosody, rng)
    samples = _synthesise(text, voice, prosody)
    samples = _tilted(samples, voice.tilt + prosody.tilt)
    return _levelled(samples, LEVEL + prosody.loudness, rng)


def _known(kind: str, name: Any, table: dict[Any, Any]) -> Any:
    if name not in table:
        raise SerError(unknown(kind, name, table))
    return table[name]


def _jittered(prosody: Prosody, rng: np.random.Generator) -> Prosody:
    departure = np.array(astuple(JITTER)) * rng.uniform(-1, 1, size=len(astuple(JITTER)))
    return Prosody(*(np.array(astuple(prosody)) + departure).tolist())


def _synthesise(text: str, voice: Voice, prosody: Prosody) -> np.ndarray:
    """What eSpeak NG says, as float64 [S] at 16 kHz, before tilt and level."""
    library, data = _espeak()
    heard: list[bytes] = []

    @_CALLBACK
    def listen(samples, count, _events):
        if samples:  # a null pointer marks the end of the speech
            heard.append(ctypes.string_at(samples, count * ctypes.sizeof(ctypes.c_short)))
        return 0

    # Started and ended for every clip, so that this module holds no state; it takes about a millisecond.
    with tempfile.TemporaryDirectory() as folder:
        rate = _start(library, data, Path(folder))
        try:
            library.espeak_SetSynthCallback(listen)
            _set_voice(library, _voice_file(voice, prosody, data), Path(folder))
            library.espeak_SetParameter(_RATE, round(voice.rate * prosody.rate), 0)
            encoded = text.encode()
            library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _UTF8, None, None)
            library.espeak_Synchronize()
        finally:
            library.espeak_Terminate()
    return soxr.resample(np.frombuffer(b"".join(heard), np.int16) / 2**15, rate, SAMPLE_RATE)


def _espeak() -> tuple[ctypes.CDLL, Path]:
    """ESpeak NG from the espeakng-loader wheel, never the system's: another version sounds different."""
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
    """Start eSpeak NG on its data; the sampling rate in Hz of what it will say."""
    short = data
    if len(os.fsencode(data)) > _LONGEST_PATH:
        short = folder / "data"
        short.symlink_to(data, target_is_directory=True)
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(short), _NO_EXIT)
    if rate <= 0:
        raise SetupError(f"eSpeak NG cannot read its data in {data}, {_INSTALL}")
    return rate


def _set_voice(library: ctypes.CDLL, lines: str, folder: Path) -> None:
    path = folder / "voice"
    path.write_text(lines, encoding="utf-8")
    if library.espeak_SetVoiceByFile(os.fsencode(path)) != 0:
        raise SetupError(f"eSpeak NG does not take a voice from {path}, {_INSTALL}")


def _voice_file(voice: Voice, prosody: Prosody, data: Path) -> str:
    """The text that eSpeak NG reads a voice from: its accent, then the speaker's own lines, which win."""
    centre = voice.pitch * 2 ** (prosody.pitch / 12)
    half = centre * voice.span * prosody.span / 2
    above = [voice.formants[-1]] * 5  # F4 to F8 move together
    formants = [f"formant {n} {percent}" for n, percent in enumerate((*voice.formants[:-1], *above), start=1)]
    accent = (data / "lang" / "gmw" / voice.accent).read_text(encoding="utf-8")
    return "\n".join([accent, f"pitch {centre - half:.0f} {centre + half:.0f}", "flutter 0", "roughness 0", *formants, ""])


def _tilted(samples: np.ndarray, slope: float) -> np.ndarray:
    """The samples with their spectrum tilted by `slope` dB per octave around 1 kHz; flat below 100 Hz."""
    spectrum = np.fft.rfft(samples)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE), 100) / 1000)
    return np.fft.irfft(spectrum * _amplitude(slope * octaves), n=len(samples))


def _levelled(samples: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """The samples at an RMS of `level` dB below full scale over a faint noise; softer where a peak would clip."""
    samples = samples * _amplitude(level) / np.sqrt(np.mean(samples**2))
    samples = samples + _amplitude(NOISE_FLOOR) * rng.standard_normal(len(samples))
    return (samples / max(1.0, np.abs(samples).max() / 0.98)).astype(np.float32)


def _amplitude(decibels: Any) -> Any:
    return 10 ** (decibels / 20)


def _write(path: Path, samples: np.ndarray) -> None:
    with writing(path, "wb") as file:
        soundfile.write(file, samples, SAMPLE_RATE, subtype="PCM_16", format="WAV")
