"""The prepared corpus: a manifest next to one memory-mapped file of 16 kHz mono int16 audio.

manifest.csv    one row per utterance: its labels and the position of its audio
audio.i16       the samples of all utterances one after another, little-endian int16
f0.f32          optional: F0 and voicing confidence of all utterances, see `f0.stored`
prepare.json    settings, counts, checks for shortcuts, hashes, versions
rejected.csv    file, reason: files that are not used
warned.csv      file, reason: suspicious files that are used
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from speaker_invariant_ser.data import audio
from speaker_invariant_ser.data.f0.frames import frames_of
from speaker_invariant_ser.data.f0.stored import F0, VALUE, file_bytes, first_values
from speaker_invariant_ser.data.labels import Mapped, map_labels
from speaker_invariant_ser.data.manifest import Utterance, read_manifest, repeated_ids
from speaker_invariant_ser.errors import ManifestError, PreparedCorpusError, quoted, shorten, shown
from speaker_invariant_ser.files import sha256
from speaker_invariant_ser.json_files import read_json
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
        f0_start: Position in f0.f32, in values, by the utterance's offset in the audio; empty if there is no F0.
    """

    folder: Path
    utterances: list[Utterance]
    audio: np.ndarray
    settings: dict
    mapped: Mapped = Mapped("full")  # noqa: RUF009, the default is immutable
    unmapped: tuple[Utterance, ...] = ()
    f0_start: Mapping[int, int] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: Path | str) -> "PreparedCorpus":
        """Open a prepared corpus.

        Raises:
            PreparedCorpusError: The folder is not a prepared corpus, or its files do not fit together.
        """
        folder = Path(folder)
        missing = [name for name in (SETTINGS, MANIFEST, AUDIO) if not (folder / name).is_file()]
        if missing:
            reason = f"has no {shorten(missing)}" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
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
        if wrong := [*repeated_ids(utterances), *other_corpora(utterances, settings["corpora"])]:
            raise PreparedCorpusError(f"{folder} is damaged: {shorten(wrong, 3)} in {MANIFEST}; prepare it again")
        needed = 0
        for utterance in utterances:
            if utterance.offset != needed or utterance.samples <= 0:
                raise PreparedCorpusError(
                    f"{folder} is damaged: {shown(utterance.id)} in {MANIFEST} begins at sample {utterance.offset} and has "
                    f"{utterance.samples}, expected {needed} and at least 1; prepare it again"
                )
            needed += utterance.samples
        size = (folder / AUDIO).stat().st_size
        if size != 2 * needed or not needed:
            raise PreparedCorpusError(
                f"{folder} is damaged: {AUDIO} has {size} bytes, expected {2 * needed} by the manifest; prepare it again"
            )
        f0_start = first_values(utterances) if has_f0(folder, settings, utterances) else {}
        return cls(folder, utterances, np.memmap(folder / AUDIO, dtype="<i2", mode="r"), settings, f0_start=f0_start)

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

    def f0_batch(self, indices: Sequence[int]) -> np.ndarray:
        """Return F0 and voicing confidence of several utterances.

        Args:
            indices: Positions in `utterances`.

        Returns:
            Float32 [B, 2, T], see `f0.tracker.compute_f0`, padded with zeros.

        Raises:
            PreparedCorpusError: The corpus has no F0, or its file has become shorter since it was opened.
        """
        if not self.f0_start:
            raise PreparedCorpusError(self.f0_missing("has no F0"))
        utterances = [self.utterances[index] for index in indices]
        frames = [frames_of(utterance.samples) for utterance in utterances]
        batch = np.zeros((len(utterances), 2, max(frames)), dtype="<f4")
        with open(self.folder / F0, "rb", buffering=0) as file:
            for row, utterance, count in zip(batch, utterances, frames, strict=True):
                file.seek(VALUE * self.f0_start[utterance.offset])
                content = file.read(2 * VALUE * count)
                if len(content) != 2 * VALUE * count:
                    raise PreparedCorpusError(self.f0_missing(f"has a shorter {F0} than when it was opened"))
                row[:, :count] = np.frombuffer(content, "<f4").reshape(2, count)
        return batch

    def require_audio(self) -> None:
        """Raise PreparedCorpusError if the audio was changed since it was prepared.

        All of it is read, which takes half a second of processor time for a gigabyte: once for each training or evaluation, not
        for each of its processes.
        """
        path, expected = self.folder / AUDIO, self.settings["sha256"].get(AUDIO)
        if (found := sha256(path)) != expected:
            raise PreparedCorpusError(
                f"{path} was changed since it was prepared (its SHA-256 is {found[:12]}..., expected {str(expected)[:12]}... by "
                f"{SETTINGS}); prepare the corpus again"
            )

    def require_f0(self) -> None:
        """Raise PreparedCorpusError, which says how to add it, if the corpus has no F0 or its file was changed."""
        if not self.f0_start:
            raise PreparedCorpusError(self.f0_missing("has no F0"))
        if sha256(self.folder / F0) != self.settings["sha256"][F0]:
            raise PreparedCorpusError(self.f0_missing(f"has a changed {F0} (its hash differs)"))

    def f0_missing(self, reason: str) -> str:
        """Return the text of an error about F0."""
        return f'{self.folder} {reason}, which features.streams with "prosody" needs; add it: siser add-f0 {quoted(self.folder)}'

    def labelled(self, chosen: str | Mapping[str, str], split: SplitSection | None = None) -> "PreparedCorpus":
        """Apply a label map to the original labels and drop utterances outside it; see `labels.map_labels`."""
        original = self.unmapped or tuple(self.utterances)
        utterances, mapped = map_labels(chosen, original, split)
        return replace(self, utterances=utterances, mapped=mapped, unmapped=original)


def other_corpora(utterances: Sequence[Utterance], corpora: Sequence[str]) -> list[str]:
    """Say which corpora of utterances prepare.json does not name, and of which corpora that it names there are none."""
    there, named = {utterance.corpus for utterance in utterances}, set(corpora)
    return [
        *(f"corpus {shown(name)}, which {SETTINGS} does not name" for name in sorted(there - named)),
        *(f"no utterance of {shown(name)}, which {SETTINGS} names," for name in sorted(named - there)),
    ]


def has_f0(folder: Path, settings: Mapping, utterances: Sequence[Utterance]) -> bool:
    """Return whether a prepared corpus holds F0 of all utterances; a file of another size counts as none."""
    path = folder / F0
    return F0 in settings["sha256"] and path.is_file() and path.stat().st_size == file_bytes(utterances)


def read_settings(path: Path) -> dict:
    """Return the contents of prepare.json; raise PreparedCorpusError if it is damaged or has another format."""
    try:
        settings = read_json(path)
    except ValueError as error:
        raise PreparedCorpusError(f"{path} is damaged: not valid JSON ({error}); prepare the corpus again") from None
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise PreparedCorpusError(f"{path}: written by another version, expected format {FORMAT}; prepare the corpus again")
    hashes, corpora = settings.get("sha256"), settings.get("corpora")
    listed = isinstance(corpora, list) and all(isinstance(name, str) for name in corpora)
    if not listed or not isinstance(hashes, dict) or not all(isinstance(hashes.get(name), str) for name in (AUDIO, MANIFEST)):
        raise PreparedCorpusError(f"{path} is damaged: no hashes or no corpora in it; prepare the corpus again")
    if not isinstance(settings.get("note", ""), str) or settings.get("sample_rate", audio.SAMPLE_RATE) != audio.SAMPLE_RATE:
        raise PreparedCorpusError(
            f"{path} is damaged: expected a text as note and {audio.SAMPLE_RATE} as sample_rate; prepare the corpus again"
        )
    return settings
