"""Labels as integers."""

import numpy as np
import pytest

from speaker_invariant_ser.indexing import to_indices


def test_classes_are_the_sorted_distinct_values_by_default():
    assert to_indices(np.array(["b", "c", "a", "b"])).tolist() == [1, 2, 0, 1]
    assert to_indices([10, 9, 10]).tolist() == [1, 0, 1], "numbers are sorted as numbers"


def test_given_classes_define_the_indices_also_of_no_value():
    assert to_indices(["a", "c"], classes=("c", "b", "a")).tolist() == [2, 0]
    empty = to_indices([], classes=("c", "b"))
    assert empty.shape == (0,) and empty.dtype == np.int64


def test_a_value_outside_the_classes_is_an_error():
    with pytest.raises(ValueError, match="not among the classes c, b: a, d"):
        to_indices(["d", "c", "a"], classes=("c", "b"))
