"""What is told of an error, and of what it was raised from."""

from __future__ import annotations

from itertools import islice

import pytest
from omegaconf import OmegaConf

from sparse_lightning.errors import causes_of, told_to_the_user
from sparse_lightning.instantiation import instantiated


def test_errors_that_are_raised_from_each_other_are_told_once():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__context__ = second, first
    assert [*islice(causes_of(first), 9)] == [first, second]
    assert told_to_the_user(first) is None


def test_what_a_part_raises_is_raised_from_nothing_that_is_raised_from_it():
    with pytest.raises(ZeroDivisionError) as raised:
        instantiated(OmegaConf.create({"_target_": "operator.truediv", "_args_": [1, 0]}))
    assert [*islice(causes_of(raised.value), 9)] == [raised.value]
