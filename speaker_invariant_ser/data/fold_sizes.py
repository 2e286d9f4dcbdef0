"""How many speakers the folds have, in words, and a warning where they are trained on few."""

from collections.abc import Callable, Sequence

from speaker_invariant_ser.data.splits import Split
from speaker_invariant_ser.errors import counted
from speaker_invariant_ser.recipe import SplitSection

MIN_SPEAKERS = 3  # two to train on, one to test
MIN_TRAINING_SPEAKERS = 5  # with fewer, a network learns these speakers rather than emotion


def describe_folds(splits: Sequence[Split]) -> str:
    """Say how many folds there are, and how many speakers each has to train on, to select the epoch on, and to test on.

    Args:
        splits: The folds.

    Returns:
        A line such as "6 folds: 4 speakers to train on, 1 to select the epoch on, 1 to test on".
    """
    parts = {
        "to train on": numbers(splits, lambda split: split.train),
        "without labels": numbers(splits, lambda split: split.unlabelled),
        "to select the epoch on": numbers(splits, lambda split: split.dev),
        "to test on": numbers(splits, lambda split: split.test),
    }
    first, *others = [f"{number} {role}" for role, number in parts.items() if number != "0"]
    number, role = first.split(" to train", 1)
    speakers = "speaker" if number == "1" else "speakers"
    return f"{counted(len(splits), 'fold')}: {', '.join([f'{number} {speakers} to train{role}', *others])}"


def numbers(splits: Sequence[Split], part: Callable[[Split], Sequence[str]]) -> str:
    """Return the number of speakers of a part of the folds, or its range."""
    counts = {len(part(split)) for split in splits}
    return f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def about_few_speakers(settings: SplitSection, splits: Sequence[Split]) -> str:
    """Return a warning where a fold is trained on few speakers, with what would leave more; "" elsewhere.

    Args:
        settings: The recipe's split section.
        splits: The folds.
    """
    smallest = min(splits, key=lambda split: len(split.train))
    speakers = len(smallest.train)
    if speakers >= MIN_TRAINING_SPEAKERS:
        return ""
    text = (
        f"only {speakers} speakers to train on in fold {smallest.name}: with fewer than {MIN_TRAINING_SPEAKERS}, expect poor "
        "results on new speakers"
    )
    ways = []
    if settings.dev_speakers > 1 and len(smallest.dev) > 1:
        ways.append(f"`split.dev_speakers = 1` leaves {speakers + len(smallest.dev) - 1}")
    if smallest.dev:
        ways.append("`split.dev_speakers = 0` with `train.refit = true` trains on every speaker that is not tested")
    if settings.scheme == "group-kfold" and len(smallest.test) > 1:
        ways.append(f'`split.scheme = "loso"` tests one speaker at a time and leaves {speakers + len(smallest.test) - 1}')
    if not ways:
        ways.append("every speaker that is not tested is trained on, so that only recordings of more speakers help")
    return f"{text}; {', and '.join(ways)}"
