"""Messages show the beginning of a value of a file, however long it is."""

from pathlib import Path

import pytest

from speaker_invariant_ser.audit.inputs.read_embeddings import label_texts
from speaker_invariant_ser.data.tables.cells import require_seconds
from speaker_invariant_ser.data.tables.dimensions import to_numbers
from speaker_invariant_ser.data.tables.names import number_of
from speaker_invariant_ser.data.tables.ratings import without_ratings_of_another_scale
from speaker_invariant_ser.data.tables.vectors import to_mask
from speaker_invariant_ser.errors import SerError, changes
from speaker_invariant_ser.inference.parts import segments
from speaker_invariant_ser.models.model import read_description
from speaker_invariant_ser.training.checkpoints import LoopState

LONG, PATH = "x_" * 5000, Path("table.csv")


def read_another_format(text: str) -> None:
    """Read model.json of a format of 4,000 digits, from the working folder."""
    Path("model.json").write_text(f'{{"format": {len(text)}{"0" * 4000}}}')
    read_description(Path("model.json"))


MESSAGES = {
    "a step of a checkpoint": lambda _: LoopState(step=10**4000).require_possible(10),
    "an epoch of a checkpoint": lambda _: LoopState(epoch=10**4000).require_possible(10),
    "a format": read_another_format,
    "a number": number_of,
    "seconds": lambda text: require_seconds({"start": [text]}, PATH),
    "a rating": lambda text: without_ratings_of_another_scale({"arousal": [text]}, (1.0, 5.0), PATH, ()),
    "a dimension": lambda text: to_numbers([text], PATH),
    "a mark": lambda text: to_mask([text], PATH),
    "a label": lambda text: label_texts([{text}], "speaker"),
    "a segment": lambda text: segments.number_of(PATH, 1, text),
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_a_message_shows_the_beginning_of_a_long_value(message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((SerError, ValueError)) as error:
        message(LONG)
    assert "..." in str(error.value) and len(str(error.value)) < 800


def test_changes_of_recipes_are_shortened():
    assert max(map(len, changes({"a": LONG}, {"a": [LONG]}))) < 450
