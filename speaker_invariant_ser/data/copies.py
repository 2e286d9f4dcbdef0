"""Find utterances that share audio: overlapping segments of one file, and near copies, whatever their files are named.

A near copy is the same sound in another encoding, at another level or of opposite polarity, or a window of the same recording. A
model that learned from one is not tested by the other, so that splits keep them together.

Candidates are found by fingerprints: the spectral envelope around the loudest moments of each utterance, which a copy has as
well, and around its middle, because the loudest moments of steady noise are others after coding. Waveforms then decide: two
utterances are near copies if they correlate where they overlap. So does periodic sound, such as tones of one pitch. The time is
nearly linear in the amount of audio.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.ndimage import maximum_filter1d, uniform_filter1d
from scipy.spatial import cKDTree

from speaker_invariant_ser.data.audio import SAMPLE_RATE
from speaker_invariant_ser.data.manifest import Utterance
from speaker_invariant_ser.errors import counted, shorten

WINDOW = 4096  # samples around a moment, 256 ms
HOP = 80  # resolution of the envelope in which moments are found, 5 ms
SPACING = 10  # moments are at least as many hops apart, 50 ms; more where fewer are taken
BANDS = 24  # between 100 and 3400 Hz, which the telephone keeps
MAX_MOMENTS = 40  # of an utterance, the loudest and the middle
MAX_POINTS = 600_000  # moments of all utterances
FLOOR = 1e-4  # energy below -40 dB of the window counts as none
RADIUS = 1.5 * BANDS**0.5  # distance of two fingerprints: 1.5 dB in every band
NEIGHBOURS = 7
MAX_LAG = 400  # samples, 25 ms, by which moments of copies may differ
MAX_COMPARED = 2 * SAMPLE_RATE  # samples of the overlap that are compared, around the moments
MIN_OVERLAP = 0.25  # seconds, or 80 % of the shorter utterance
MIN_ENERGY = 0.01  # share of an utterance's energy that the overlap has: hum in the pauses of two recordings correlates, too
SIMILAR = 0.85  # correlation of two waveforms from which one is a copy
MIN_SAMPLES = WINDOW // 4


class Groups:
    """Disjoint groups of the integers 0 to n - 1 (union-find)."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def find(self, item: int) -> int:
        """Return the first member of an item's group."""
        while self.parent[item] != item:
            self.parent[item] = self.parent[self.parent[item]]
            item = self.parent[item]
        return item

    def join(self, first: int, second: int) -> None:
        """Make one group of two."""
        low, high = sorted((self.find(first), self.find(second)))
        self.parent[high] = low

    def join_equal(self, keys: Sequence[str]) -> None:
        """Join items with the same key; empty keys join nothing."""
        first: dict[str, int] = {}
        for item, key in enumerate(keys):
            if key:
                self.join(item, first.setdefault(key, item))


def with_copies(utterances: Sequence[Utterance], audio: np.ndarray) -> list[Utterance]:
    """Set `copies` of utterances that share audio to the id of the first of them.

    Args:
        utterances: Utterances with their positions in the audio.
        audio: All audio, int16.
    """
    groups = Groups(len(utterances))
    for first, second in overlapping_segments(utterances):
        groups.join(first, second)
    for first, second in near_copies(utterances, audio, groups):
        groups.join(first, second)
    members = defaultdict(list)
    for index in range(len(utterances)):
        members[groups.find(index)].append(index)
    names = {index: utterances[first].id for first, group in members.items() if len(group) > 1 for index in group}
    return [replace(u, copies=names[index]) if index in names else u for index, u in enumerate(utterances)]


def copies_note(utterances: Sequence[Utterance]) -> list[str]:
    """Return the note on utterances that share audio; empty if none does."""
    copies = [utterance.copies for utterance in utterances if utterance.copies]
    if not copies:
        return []
    return [
        f"{counted(len(copies), 'utterance shares', 'utterances share')} audio with others, "
        f"as overlapping segments or near copies ({counted(len(set(copies)), 'group')}): each group stays on one side of every "
        "split; synthetic sound that repeats, such as tones of one pitch, counts as copied, too",
        *same_people_note(utterances),
    ]


def same_people_note(utterances: Sequence[Utterance]) -> list[str]:
    """Return the note on speakers of whom other speakers have the same recordings; empty if there are none."""
    speakers = {utterance.speaker for utterance in utterances}
    known = sorted(known_by_copies(utterances, speakers, speakers))
    if not known:
        return []
    return [
        f"recordings of {shorten(known)} occur under the names of other speakers, too: where two names are one person, a split "
        "by speaker tests somebody who is trained on; give them one name"
    ]


def known_by_copies(utterances: Sequence[Utterance], learned: Collection[str], tested: Collection[str]) -> set[str]:
    """Return the tested speakers who have a copy of a recording of another speaker that was learned from.

    Segments of one file that overlap are no copies: two people may speak at once.
    """
    files: defaultdict[str, defaultdict[str, set[tuple[str, str]]]] = defaultdict(lambda: defaultdict(set))
    for utterance in utterances:
        if utterance.copies:
            files[utterance.copies][utterance.speaker].add((utterance.corpus, utterance.source))
    return {
        speaker
        for group in files.values()
        for speaker in group.keys() & set(tested)
        if any(other != speaker and len(group[other] | group[speaker]) > 1 for other in group.keys() & set(learned))
    }


def overlapping_segments(utterances: Sequence[Utterance]) -> Iterator[tuple[int, int]]:
    """Yield pairs of segments of one file that overlap; together they connect all that do."""
    files = defaultdict(list)
    for index, utterance in enumerate(utterances):
        files[utterance.corpus, utterance.source].append(index)
    for segments in (segments for segments in files.values() if len(segments) > 1):
        segments.sort(key=lambda index: utterances[index].start)
        latest = segments[0]  # the segment that ends last so far
        for index in segments[1:]:
            if utterances[index].start < end_of(utterances[latest]) - 1 / SAMPLE_RATE:
                yield latest, index
            latest = max(latest, index, key=lambda index: end_of(utterances[index]))


def end_of(utterance: Utterance) -> float:
    """Return the end of an utterance in its file, seconds."""
    return utterance.end or float("inf")


def near_copies(utterances: Sequence[Utterance], audio: np.ndarray, groups: Groups) -> Iterator[tuple[int, int]]:
    """Yield pairs of near copies that are not in one group yet."""
    owner, position, prints = fingerprints(utterances, audio)
    if len(owner) < 2:
        return
    tree = cKDTree(prints)
    distance, neighbour = tree.query(prints, k=min(NEIGHBOURS, len(prints)), distance_upper_bound=RADIUS)
    candidates = np.argwhere(np.isfinite(distance))
    compared: set[tuple[int, int, int]] = set()
    for point, rank in candidates[np.argsort(distance[tuple(candidates.T)], kind="stable")].tolist():
        other = int(neighbour[point, rank])
        first, second = sorted((point, other), key=lambda at: (owner[at], at))
        pair = (int(owner[first]), int(owner[second]), int(position[second] - position[first]) // MAX_LAG)
        if pair[0] == pair[1] or pair in compared or groups.find(pair[0]) == groups.find(pair[1]):
            continue
        compared.add(pair)
        a, b = (samples_of(utterances[index], audio) for index in pair[:2])
        if share_audio(a, b, int(position[first]), int(position[second])):
            yield pair[0], pair[1]


def samples_of(utterance: Utterance, audio: np.ndarray) -> np.ndarray:
    """Return the samples of an utterance."""
    return audio[utterance.offset : utterance.offset + utterance.samples]


def fingerprints(utterances: Sequence[Utterance], audio: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the utterance [P], the position in its samples [P] and the fingerprint [P, BANDS] in dB of every moment."""
    maximum = max(2, min(MAX_MOMENTS, MAX_POINTS // max(1, len(utterances)))) - 1
    owners, positions, prints = [], [], []
    for index, utterance in enumerate(utterances):
        if utterance.samples < MIN_SAMPLES:
            continue
        samples = samples_of(utterance, audio).astype(np.float32)
        samples -= samples.mean()
        at = np.union1d(loudest_moments(samples, maximum), len(samples) // 2)
        owners.append(np.full(len(at), index))
        positions.append(at)
        prints.append(envelopes(samples, at))
    if not owners:
        return np.zeros(0, int), np.zeros(0, int), np.zeros((0, BANDS))
    return np.concatenate(owners), np.concatenate(positions), np.concatenate(prints)


def loudest_moments(samples: np.ndarray, maximum: int) -> np.ndarray:
    """Return the positions of the highest local maxima of the energy, at most `maximum`, whose windows are inside the samples."""
    if len(samples) <= WINDOW:
        return np.array([len(samples) // 2])
    hops = len(samples) // HOP
    energy = uniform_filter1d((samples[: hops * HOP].reshape(hops, HOP) ** 2).mean(axis=1), 9, mode="constant")
    spacing = SPACING * MAX_MOMENTS // (maximum + 1)
    peaks = np.flatnonzero((energy == maximum_filter1d(energy, 2 * spacing + 1)) & (energy > 0))
    at = peaks * HOP + HOP // 2
    inside = (at >= WINDOW // 2) & (at <= len(samples) - WINDOW // 2)
    loudest = np.argsort(-energy[peaks[inside]], kind="stable")[:maximum]
    return np.sort(at[inside][loudest]) if inside.any() else np.array([len(samples) // 2])


def envelopes(samples: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the level of each band in dB around positions [P], without the mean: [P, BANDS]."""
    padded = np.pad(samples, WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[at] * np.hanning(WINDOW).astype(np.float32)
    power = np.abs(rfft(windows, axis=1)) ** 2
    bands = np.add.reduceat(power, band_edges(), axis=1)[:, :-1]
    levels = 10 * np.log10(bands + FLOOR * bands.sum(axis=1, keepdims=True) + 1e-9)
    return levels - levels.mean(axis=1, keepdims=True)


@cache
def band_edges() -> np.ndarray:
    """Return the first bin of every band and the end of the last, equally spaced on a logarithmic scale."""
    edges = np.geomspace(100, 3400, BANDS + 1) * WINDOW / SAMPLE_RATE
    return np.round(edges).astype(int)


def share_audio(first: np.ndarray, second: np.ndarray, at: int, other: int) -> bool:
    """Return whether two waveforms correlate where they overlap.

    Args:
        first: Samples at 16 kHz, [S].
        second: Samples of another utterance, [S'].
        at: A sample of the first.
        other: The sample of the second that is at about the same moment.
    """
    before, after = min(at, other), min(len(first) - at, len(second) - other)
    needed = min(MIN_OVERLAP * SAMPLE_RATE, 0.8 * min(len(first), len(second)))
    if before + after < needed:
        return False
    if max(energy_share(first, at - before, at + after), energy_share(second, other - before, other + after)) < MIN_ENERGY:
        return False
    near = min(WINDOW // 2, before), min(WINDOW // 2, after)
    taper = np.hanning(sum(near))  # what is loud at an edge may lie in one window alone
    if correlation(first[at - near[0] : at + near[1]] * taper, second[other - near[0] : other + near[1]] * taper) < SIMILAR / 1.2:
        return False
    before, after = min(before, MAX_COMPARED // 2), min(after, MAX_COMPARED // 2)
    return correlation(first[at - before : at + after], second[other - before : other + after]) >= SIMILAR


def energy_share(samples: np.ndarray, start: int, end: int) -> float:
    """Return the share of the energy, without a constant offset, that lies from `start` to `end`."""
    centred = samples - samples.mean(dtype=np.float32)
    return float(np.sum(centred[start:end] ** 2) / max(np.sum(centred**2), 1e-9))


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest absolute correlation of two waveforms of equal length in the bands, shifted by up to MAX_LAG samples."""
    size = next_fast_len(len(first) + MAX_LAG, real=True)
    low, high = (int(edge * size / WINDOW) for edge in band_edges()[[0, -1]])
    spectra = [rfft(samples.astype(np.float64), size) for samples in (first, second)]
    for spectrum in spectra:
        spectrum[:low], spectrum[high:] = 0, 0
    norm = np.sqrt(np.prod([np.sum(np.abs(spectrum) ** 2) for spectrum in spectra]))
    if not norm:
        return 0.0
    products = (
        irfft(spectra[0] * np.conj(spectra[1]), size) * size / 2
    )  # by Parseval, `norm` is the sum of squares times size / 2
    return float(np.abs(np.concatenate([products[: MAX_LAG + 1], products[-MAX_LAG:]])).max() / norm)
