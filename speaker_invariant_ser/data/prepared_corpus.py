"""The prepared corpus: a manifest beside one file of 16 kHz mono int16 audio, which is memory-mapped.

manifest.csv    who says what, and where each clip lies in the audio
audio.i16       all clips one after another, little-endian int16
prepare.json    settings, counts, shortcut checks, hashes, versions
rejected.csv    file, reason: what was left out
warned.csv      file, reason: what was kept and is odd
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.labels import Mapped, map_labels
from speaker_invariant_ser.data.manifest import Utterance, read_manifest
from speaker_invariant_ser.errors import ManifestError, PreparedCorpusError, shorten
from speaker_invariant_ser.files import sha256
from speaker_invariant_ser.recipe import SplitSection

FORMAT = 2
AUDIO, MANIFEST, SETTINGS = "audio.i16", "manifest.csv", "prepare.json"
REJECTED, WARNED = "rejected.csv", "warned.csv"


@dataclass(frozen=True)
class PreparedCorpus:
    """An opened prepared corpus. Audio stays on disk until it is asked for."""

    folder: Path
    utterances: list[Utterance]
    audio: np.ndarray  # int16 [all samples], memory-mapped
    settings: dict
    mapped: Mapped = Mapped("full")  # noqa: RUF009, it is frozen
    unmapped: tuple[Utterance, ...] = ()  # all utterances with their own labels, once a map acts

    @classmethod
    def open(cls, folder: Path | str) -> "PreparedCorpus":
        """Open a prepared corpus. Raises PreparedCorpusError if the folder is not one, or its files do not fit together."""
        folder = Path(folder)
        missing = [name for name in (SETTINGS, MANIFEST, AUDIO) if not (folder / name).is_file()]
        if missing:
            reason = f"has no {shorten(missing)}" if folder.is_dir() else "does not exist"
            raise PreparedCorpusError(f"{folder} is not a prepared corpus ({reason}); make one with `siser prepare`")
        settings = read_settings(folder / SETTINGS)
        if sha256(folder / MANIFEST) != settings["sha256"].get(MANIFEST):
            raise PreparedCorpusError(
                f"{folder / MANIFEST} was changed since it was prepared (its hash differs); prepare the corpus again"
            )
        try:
            utterances = read_manifest(folder / MANIFEST)
        except ManifestError as error:
            raise PreparedCorpusError(f"{folder} is damaged: {error}") from None
        needed = max((u.offset + u.samples for u in utterances), default=0)
        held = (folder / AUDIO).stat().st_size
        if held != 2 * needed or not needed:
            raise PreparedCorpusError(
                f"{folder} is damaged: {AUDIO} has {held} bytes, the manifest speaks of {2 * needed}; prepare it again"
            )
        return cls(folder, utterances, np.memmap(folder / AUDIO, dtype="<i2", mode="r"), settings)

    def clip(self, index: int) -> np.ndarray:
        """One utterance: float32 [S] in [-1, 1) at 16 kHz."""
        utterance = self.utterances[index]
        return audio.to_float32(self.audio[utterance.offset : utterance.offset + utterance.samples])

    def batch(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Several utterances: int16 [B, S], zero-padded, and samples [B].

        Read into memory of its own and not through the map, whose pages would pile up with all that was ever read. Raises
        PreparedCorpusError if the audio has become shorter since it was opened.
        """
        utterances = [self.utterances[index] for index in indices]
        lengths = np.array([one.samples for one in utterances])
        samples = np.zeros((len(utterances), lengths.max()), dtype="<i2")
        with open(self.folder / AUDIO, "rb", buffering=0) as file:
            for row, one in zip(samples, utterances, strict=True):
                file.seek(2 * one.offset)
                if file.readinto(row[: one.samples]) != 2 * one.samples:
                    raise PreparedCorpusError(
                        f"{self.folder / AUDIO} has become shorter since it was opened; prepare the corpus again"
                    )
        return samples, lengths

    def labelled(self, chosen: str | Mapping[str, str], split: SplitSection | None = None) -> "PreparedCorpus":
        """The same corpus under a map of labels, without what that drops: see `labels.map_labels`. Raises RecipeError."""
        own = self.unmapped or tuple(self.utterances)
        utterances, mapped = map_labels(chosen, own, split)
        return replace(self, utterances=utterances, mapped=mapped, unmapped=own)


def read_settings(path: Path) -> dict:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PreparedCorpusError(f"{path} is damaged: not valid JSON ({error}); prepare the corpus again") from None
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise PreparedCorpusError(f"{path}: written by another version; this one reads format {FORMAT}. Prepare the corpus again")
    if not isinstance(settings.get("sha256"), dict) or not isinstance(settings.get("corpora"), list):
        raise PreparedCorpusError(f"{path} is damaged: no hashes or no corpora in it; prepare the corpus again")
    return settings
