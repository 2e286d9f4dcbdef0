"""The prepared corpus: a manifest next to one memory-mapped file of 16 kHz mono int16 audio.

manifest.csv    one row per utterance: its labels and the position of its audio
audio.i16       the samples of all utterances one after another, little-endian int16
prepare.json    settings, counts, checks for shortcuts, hashes, versions
rejected.csv    file, reason: files that are not used
warned.csv      file, reason: suspicious files that are used
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
    """An opened prepared corpus; audio stays on disk until it is requested.

    Attributes:
        folder: Folder of the prepared corpus.
        utterances: The utterances, in the order of the manifest.
        audio: Samples of all utterances, int16, memory-mapped.
        settings: Contents of prepare.json.
        mapped: What a label map changed.
        unmapped: All utterances with their original labels, if a label map was applied.
    """

    folder: Path
    utterances: list[Utterance]
    audio: np.ndarray
    settings: dict
    mapped: Mapped = Mapped("full")  # noqa: RUF009, the default is immutable
    unmapped: tuple[Utterance, ...] = ()

    @classmethod
    def open(cls, folder: Path | str) -> "PreparedCorpus":
        """Open a prepared corpus.

        Raises:
            PreparedCorpusError: The folder is not a prepared corpus, or its files do not fit together.
        """
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
        size = (folder / AUDIO).stat().st_size
        if size != 2 * needed or not needed:
            raise PreparedCorpusError(
                f"{folder} is damaged: {AUDIO} has {size} bytes, expected {2 * needed} by the manifest; prepare it again"
            )
        return cls(folder, utterances, np.memmap(folder / AUDIO, dtype="<i2", mode="r"), settings)

    def clip(self, index: int) -> np.ndarray:
        """Return the samples of one utterance: float32 [S] in [-1, 1) at 16 kHz."""
        utterance = self.utterances[index]
        return audio.to_float32(self.audio[utterance.offset : utterance.offset + utterance.samples])

    def batch(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the samples of several utterances.

        The file is read directly and not through the memory map, because the pages of the map would accumulate in memory.

        Args:
            indices: Positions in `utterances`.

        Returns:
            Samples as int16 [B, S], padded with zeros, and the number of samples of each utterance [B].

        Raises:
            PreparedCorpusError: The audio file was truncated while in use.
        """
        utterances = [self.utterances[index] for index in indices]
        lengths = np.array([utterance.samples for utterance in utterances])
        samples = np.zeros((len(utterances), lengths.max()), dtype="<i2")
        with open(self.folder / AUDIO, "rb", buffering=0) as file:
            for row, utterance in zip(samples, utterances, strict=True):
                file.seek(2 * utterance.offset)
                if file.readinto(row[: utterance.samples]) != 2 * utterance.samples:
                    raise PreparedCorpusError(f"{self.folder / AUDIO} was truncated while in use; prepare the corpus again")
        return samples, lengths

    def labelled(self, chosen: str | Mapping[str, str], split: SplitSection | None = None) -> "PreparedCorpus":
        """Apply a label map to the original labels and drop utterances outside it; see `labels.map_labels`."""
        original = self.unmapped or tuple(self.utterances)
        utterances, mapped = map_labels(chosen, original, split)
        return replace(self, utterances=utterances, mapped=mapped, unmapped=original)


def read_settings(path: Path) -> dict:
    """Return the contents of prepare.json; raise PreparedCorpusError if it is damaged or has another format."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PreparedCorpusError(f"{path} is damaged: not valid JSON ({error}); prepare the corpus again") from None
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise PreparedCorpusError(f"{path}: written by another version, expected format {FORMAT}; prepare the corpus again")
    if not isinstance(settings.get("sha256"), dict) or not isinstance(settings.get("corpora"), list):
        raise PreparedCorpusError(f"{path} is damaged: no hashes or no corpora in it; prepare the corpus again")
    return settings
