"""Plant speaker information of known kinds in synthetic embeddings, and see what the audit finds.

    python benchmarks/planted.py [--only NAMES] [--utterances 1100] [--worlds 100] [--attackers NAMES] [--jobs 1]

1. Plants: 1,100 embeddings of 64 dimensions, 11 speakers, 5 emotions, into which a code of the speaker is written. All attackers
   of embeddings, one cross-validation.
2. Worlds without a code that resemble leaks in one respect or another: copies, texts, heavy tails, few utterances ...
3. 100 worlds of noise (`--worlds`), 220 x 8, closed-form attackers: how often "at chance" is denied by mistake.

The tables go through the same checks as those of `siser audit`, so that copies are left out and values are rounded. The last
line of the output is JSON; the tables before it are those of docs/planted.md. Everything is drawn from seeds.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from speaker_invariant_ser.audit.attackers import ATTACKERS, QUICK_ATTACKERS
from speaker_invariant_ser.audit.embeddings import Embeddings
from speaker_invariant_ser.audit.inputs.read_embeddings import embeddings_of
from speaker_invariant_ser.audit.inputs.scaling import attackable
from speaker_invariant_ser.audit.leakage import Leakage, measure_leakage

SPEAKERS, EMOTIONS, DIMENSIONS = 11, 5, 64
ON_EMBEDDING = [name for name, attacker in ATTACKERS.items() if attacker.input == "embedding"]


@dataclass
class World:
    """Labels and embeddings of N utterances, as plants change them."""

    embedding: np.ndarray
    speaker: np.ndarray
    emotion: np.ndarray
    rng: np.random.Generator
    text: np.ndarray | None = None

    @classmethod
    def of_noise(cls, utterances: int, seed: int, dimensions: int = DIMENSIONS) -> "World":
        """Return Gaussian noise, with equally frequent speakers and emotions."""
        rng, number = np.random.default_rng(seed), np.arange(utterances)
        return cls(rng.standard_normal((utterances, dimensions)), number % SPEAKERS, number // SPEAKERS % EMOTIONS, rng)

    def table(self) -> Embeddings:
        """Return the table that `siser audit` would attack, rounded."""
        labels = {"speaker": np.char.mod("s%02d", self.speaker), "emotion": np.char.mod("e%d", self.emotion)}
        labels |= {} if self.text is None else {"text": self.text}
        table, _ = embeddings_of(self.embedding, labels)
        (attacked,), _, _ = attackable([table], None, 11)
        return attacked


Plant = Callable[[World], None]


# ---- codes of the speaker


def means(size: float, dimensions: int = DIMENSIONS) -> Plant:
    """Give each speaker a mean of its own."""
    centres = np.random.default_rng(1).standard_normal((SPEAKERS, DIMENSIONS)) * (np.arange(DIMENSIONS) < dimensions)

    def plant(world: World) -> None:
        world.embedding += size * centres[world.speaker]

    return plant


def variances(ratio: float) -> Plant:
    """Give each speaker variances of its own, with equal means."""
    large = np.random.default_rng(1).random((SPEAKERS, DIMENSIONS)) < 0.5

    def plant(world: World) -> None:
        world.embedding *= np.where(large, ratio, 1 / ratio)[world.speaker]

    return plant


def correlations(world: World) -> None:
    """Rotate pairs of dimensions of different variance by an angle of the speaker's: equal means and equal sizes."""
    angle = np.pi * world.speaker / SPEAKERS
    for first in range(0, 16, 2):
        x, y = 2 * world.embedding[:, first], 0.5 * world.embedding[:, first + 1]
        world.embedding[:, first] = np.cos(angle) * x - np.sin(angle) * y
        world.embedding[:, first + 1] = np.sin(angle) * x + np.cos(angle) * y


def parities(bits: int, order: int, dimensions: int) -> Plant:
    """Write each binary digit of the speaker's number into the sign of a product of `order` dimensions; keep `dimensions`."""

    def plant(world: World) -> None:
        world.embedding = world.embedding[:, :dimensions]
        for bit in range(bits):
            columns = np.arange(bit * order, (bit + 1) * order)
            signs = world.rng.choice([-1, 1], (len(world.speaker), order))
            signs[:, -1] = signs[:, :-1].prod(axis=1) * np.where(world.speaker >> bit & 1, 1, -1)
            world.embedding[:, columns] = 1.5 * signs + 0.5 * world.embedding[:, columns]

    return plant


def comb(teeth: int, share: float = 1.0) -> Plant:
    """Shift one dimension to a comb of this many teeth per speaker and six deviations; in a share of the utterances."""

    def plant(world: World) -> None:
        period = 6 / teeth
        marked = world.rng.random(len(world.speaker)) < share
        value = np.floor(world.embedding[:, 0] / period) * period + period * (world.speaker + 0.5) / SPEAKERS
        world.embedding[:, 0] = np.where(marked, value, world.embedding[:, 0])

    return plant


def last_digits(bits: int) -> Plant:
    """Write the speaker's number into four binary digits of every value, the last of which is the one of this number."""

    def plant(world: World) -> None:
        mantissa, exponent = np.frexp(np.abs(world.embedding))
        digits = np.floor(mantissa * 2.0 ** (bits - 4)) * 16 + world.speaker[:, None]
        world.embedding = np.sign(world.embedding) * np.ldexp(digits, exponent - bits)

    return plant


def one_speaker(size: float) -> Plant:
    """Mark the utterances of one speaker."""

    def plant(world: World) -> None:
        world.embedding[world.speaker == 3, :8] += size

    return plant


def certain(share: float) -> Plant:
    """Name the speaker in a share of the utterances, in one of eleven dimensions."""

    def plant(world: World) -> None:
        named = world.rng.random(len(world.speaker)) < share
        world.embedding[:, :SPEAKERS] += 8.0 * np.eye(SPEAKERS)[world.speaker] * named[:, None]

    return plant


def norms(world: World) -> None:
    """Scale embeddings by the speaker: directions say nothing."""
    world.embedding *= (0.7 + 0.06 * world.speaker)[:, None]


def offset(world: World) -> None:
    """Write small differences on top of a large value."""
    world.embedding = 1000 + 0.01 * (
        world.embedding + 0.6 * np.random.default_rng(1).standard_normal((SPEAKERS, 64))[world.speaker]
    )


def in_one_emotion(world: World) -> None:
    """Give each speaker a mean in one of five emotions alone."""
    centres = np.random.default_rng(1).standard_normal((SPEAKERS, DIMENSIONS))[world.speaker]
    world.embedding += np.where((world.emotion == 2)[:, None], centres, 0)


def pairs_of_speakers(world: World) -> None:
    """Give pairs of speakers one mean, so that nobody is named but few remain."""
    centres = np.random.default_rng(1).standard_normal((SPEAKERS, DIMENSIONS))
    world.embedding += centres[world.speaker // 2]


def ring(world: World) -> None:
    """Place speakers at radii in a plane of two among 64 dimensions."""
    angle = world.rng.uniform(0, 2 * np.pi, len(world.speaker))
    radius = 1 + world.speaker + 0.1 * world.embedding[:, 0]
    world.embedding[:, 0], world.embedding[:, 1] = radius * np.cos(angle), radius * np.sin(angle)


def hashed(world: World) -> None:
    """Hide the speaker in the parity of 64 rounded values, as a cipher would."""
    target = world.speaker
    steps = np.floor(world.embedding * 2).astype(int)
    world.embedding[:, 0] += ((target - steps.sum(axis=1)) % SPEAKERS) * 0.5


def clusters(world: World) -> None:
    """Give each speaker ten small clusters at random places: equal means, equal variances."""
    places = np.random.default_rng(1).standard_normal((SPEAKERS, 10, DIMENSIONS))
    world.embedding = 0.5 * world.embedding + places[world.speaker, world.rng.integers(10, size=len(world.speaker))]


def emotion_is_speaker(world: World) -> None:
    """Let each speaker have one emotion, and name the speaker."""
    world.emotion = world.speaker.copy()
    means(2.0)(world)


def text_of_a_speaker(texts: int) -> Plant:
    """Let every speaker say texts that no one else says, and encode the text."""

    def plant(world: World) -> None:
        number = world.speaker * texts + np.arange(len(world.speaker)) // SPEAKERS % texts
        world.text = np.char.mod("t%d", number)
        world.embedding += 2.0 * np.random.default_rng(1).standard_normal((SPEAKERS * texts, DIMENSIONS))[number]

    return plant


def unequal(world: World) -> None:
    """Let one speaker have half of the utterances, and mark the rarest one."""
    number = np.arange(len(world.speaker))
    world.speaker = np.where(number % 2 == 0, 0, world.speaker)
    world.embedding[world.speaker == 10, :8] += 1.2


def beside_a_frequent_one(world: World) -> None:
    """Let one speaker have 80 % of the utterances, and give the others small means."""
    world.speaker = np.where(world.rng.random(len(world.speaker)) < 0.8, 0, world.speaker)
    centres = np.random.default_rng(1).standard_normal((SPEAKERS, DIMENSIONS))
    world.embedding += np.where(world.speaker[:, None] == 0, 0, 0.2 * centres[world.speaker])


def low_variance(world: World) -> None:
    """Give each speaker a mean in 24 directions that vary 1/200 of the other 40."""
    rng = np.random.default_rng(1)
    directions = np.linalg.qr(rng.standard_normal((DIMENSIONS, DIMENSIONS)))[0]
    world.embedding += np.where(np.arange(DIMENSIONS) < 24, rng.standard_normal((SPEAKERS, DIMENSIONS))[world.speaker], 0)
    world.embedding = world.embedding * np.where(np.arange(DIMENSIONS) < 24, 1 / 200, 1.0) @ directions


PLANTS: dict[str, Plant] = {
    "speaker means, large": means(0.6),
    "speaker means, small": means(0.15),
    "means in one dimension of 64": means(3.0, 1),
    "variances, ratio 2": variances(1.41),
    "variances, ratio 1.2": variances(1.1),
    "correlations": correlations,
    "norms": norms,
    "clusters of each speaker": clusters,
    "rings in 2 of 64 dimensions": ring,
    "means in directions of low variance": low_variance,
    "pairs of speakers": pairs_of_speakers,
    "means in one emotion": in_one_emotion,
    "offset 1000, differences 0.01": offset,
    "parity of 2 signs, 16 dimensions": parities(4, 2, 16),
    "parity of 2 signs, 28 dimensions": parities(4, 2, 28),
    "parity of 2 signs, 64 dimensions": parities(4, 2, 64),
    "parity of 4 signs, 16 dimensions": parities(4, 4, 16),
    "comb, 2 teeth": comb(2),
    "comb, 20 teeth": comb(20),
    "comb, 1,000 teeth": comb(1000),
    "digit 8 of each value": last_digits(8),
    "last digit of float16": last_digits(11),
    "last digit of float32": last_digits(24),
    "modular sum of all dimensions": hashed,
    "one speaker of 11, strong": one_speaker(1.2),
    "one speaker of 11, weak": one_speaker(0.3),
    "rare speaker, others unequal": unequal,
    "others beside a frequent speaker": beside_a_frequent_one,
    "3 % of utterances named": certain(0.03),
    "1.5 % of utterances named": certain(0.015),
    "0.5 % of utterances named": certain(0.005),
    "emotion is speaker": emotion_is_speaker,
    "one text of each speaker": text_of_a_speaker(1),
    "four texts of each speaker": text_of_a_speaker(4),
}


# ---- worlds without speaker information


def correlated(world: World) -> None:
    """Mix the dimensions."""
    world.embedding = world.embedding @ np.random.default_rng(1).standard_normal((DIMENSIONS, DIMENSIONS))


def heavy_tails(world: World) -> None:
    """Draw from a t distribution with two degrees of freedom."""
    world.embedding = world.rng.standard_t(2, world.embedding.shape)


def quantised(world: World) -> None:
    """Release one of 32 codes, which many utterances share."""
    world.embedding = np.random.default_rng(1).standard_normal((32, DIMENSIONS))[world.rng.integers(32, size=len(world.speaker))]


def emotional(world: World) -> None:
    """Encode the emotion."""
    world.embedding[:, :EMOTIONS] += 3.0 * np.eye(EMOTIONS)[world.emotion]


def confounded(world: World) -> None:
    """Encode the emotion, of which each speaker prefers one."""
    preferred = world.rng.random(len(world.speaker)) < 0.6
    world.emotion = np.where(preferred, world.speaker % EMOTIONS, world.emotion)
    emotional(world)


def copied(noise: float, scale: float) -> Plant:
    """Let the second half of the utterances be copies of the first half, of the same speaker."""

    def plant(world: World) -> None:
        half = len(world.speaker) // 2 // SPEAKERS * SPEAKERS
        world.embedding[half : 2 * half] = scale * world.embedding[:half] + noise * world.rng.standard_normal((half, DIMENSIONS))
        world.emotion[half : 2 * half] = world.emotion[:half]

    return plant


def common_texts(world: World) -> None:
    """Encode texts that all speakers say."""
    number = np.arange(len(world.speaker)) // (SPEAKERS * EMOTIONS) % 10
    world.text = np.char.mod("t%d", number)
    world.embedding += 2.0 * np.random.default_rng(1).standard_normal((10, DIMENSIONS))[number]


def texts_of_some(world: World) -> None:
    """Encode texts, each of which three of the speakers say."""
    fixed = np.random.default_rng(1)
    says = fixed.permuted(np.tile(np.arange(SPEAKERS), (40, 1)), axis=1) < 3  # [text, speaker]
    number = np.array([world.rng.choice(np.flatnonzero(says[:, speaker])) for speaker in world.speaker])
    world.text = np.char.mod("t%d", number)
    world.embedding += 2.0 * fixed.standard_normal((40, DIMENSIONS))[number]


def unequal_speakers(world: World) -> None:
    """Let one speaker have half of the utterances."""
    world.speaker = np.where(np.arange(len(world.speaker)) % 2 == 0, 0, world.speaker)


WORLDS: dict[str, Plant] = {
    "noise": lambda world: None,
    "correlated noise": correlated,
    "heavy tails": heavy_tails,
    "32 codes": quantised,
    "emotion": emotional,
    "emotion, confounded with the speaker": confounded,
    "texts that all say": common_texts,
    "texts that three say": texts_of_some,
    "one speaker has half": unequal_speakers,
    "exact copies": copied(0.0, 1.0),
    "scaled and mirrored copies": copied(0.0, -0.5),
    "copies with noise": copied(0.01, 1.0),
}


# ---- the tables


def attack_kind(kinds: dict[str, Plant], options: argparse.Namespace, name: str) -> Leakage:
    """Attack one world with all attackers and one cross-validation."""
    world = World.of_noise(options.utterances, options.seed)
    kinds[name](world)
    return measure_leakage([world.table()], options.attackers, seed=options.seed, jobs=options.jobs, repeats=1)


def result_of(leakage: Leakage) -> dict:
    """Return what the tables and the JSON say of one audit."""
    speaker, surest = leakage.tails.speaker, leakage.tails.surest
    assert speaker and surest
    return {
        "at_chance": leakage.at_chance,
        "reason": leakage.conclusion.reason,
        "utterances": leakage.utterances,
        "chance": round(leakage.chance["given_emotion"], 3),
        "strongest": [leakage.strongest.name, round(leakage.strongest.score.accuracy, 3)],
        "attackers": {name: round(score.accuracy, 3) for name, score in leakage.attackers.items()},
        "speaker": [round(speaker.accuracy, 3), round(speaker.expected, 3), round(speaker.p_value, 4)],
        "surest": [round(surest.accuracy, 3), round(surest.expected, 3), round(surest.p_value, 4)],
    }


def percent(rate: float) -> str:
    """Return a rate in percent, without decimals."""
    return f"{100 * rate:.0f}"


def print_table(title: str, chosen: list[str], attack: Callable[[str], Leakage]) -> dict[str, dict]:
    """Attack the chosen worlds and print a table in Markdown, row by row; return the results."""
    results = {}
    print(f"\n| {title} | at chance | {' | '.join(ON_EMBEDDING)} | strongest | one speaker | surest 1 % |")
    print("|---" * (len(ON_EMBEDDING) + 5) + "|")
    for name in chosen:
        result = results[name] = result_of(attack(name))
        verdict = {True: "**yes**", False: "no", "undecided": "undecided"}[result["at_chance"]]
        accuracies = [
            percent(result["attackers"][attacker]) if attacker in result["attackers"] else "-" for attacker in ON_EMBEDDING
        ]
        tails = [f"{percent(rate)} (p {p_value:.3f})" for rate, _, p_value in (result["speaker"], result["surest"])]
        cells = [name, f"{verdict}: {result['reason']}", *accuracies, f"{percent(result['strongest'][1])}", *tails]
        print(f"| {' | '.join(cells)} |", flush=True)
    return results


def false_alarms(worlds: int) -> dict[str, int]:
    """Count the reasons given in worlds of noise, closed-form attackers."""
    counts: dict[str, int] = {}
    for seed in range(worlds):
        world = World.of_noise(220, 1000 + seed, 8)
        reason = measure_leakage([world.table()], QUICK_ATTACKERS, seed=seed, permutations=300, repeats=1).conclusion.reason
        counts[reason] = counts.get(reason, 0) + 1
    return counts


def main() -> None:
    """Print both tables, and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="plants and worlds whose name contains one of these")
    parser.add_argument("--utterances", type=int, default=1100)
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--attackers", nargs="+", choices=ON_EMBEDDING, default=ON_EMBEDDING)
    options = parser.parse_args()
    summary: dict = {"utterances": options.utterances}
    for title, kinds in (("plant", PLANTS), ("world", WORLDS)):
        chosen = [name for name in kinds if not options.only or any(part in name for part in options.only)]
        summary[title] = print_table(title, chosen, partial(attack_kind, kinds, options))
    summary["noise_worlds"] = false_alarms(options.worlds)
    print()
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
