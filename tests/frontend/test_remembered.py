"""Runs of regions that were made before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssmc.frontend.mixing import remembered
from ssmc.frontend.mixing.remembered import Remembered
from ssmc.ir.op import Array


def test_the_same_numbers_are_asked_once() -> None:
    asked = []

    def run(arrays: Sequence[Array]) -> Array:
        asked.append(1)
        return arrays[0] * 2

    region = Remembered(run)
    x = np.arange(6.0)
    first = region([x])
    assert region([x.copy()]) is first and len(asked) == 1
    assert region([x.reshape(2, 3)]).shape == (2, 3) and len(asked) == 2
    x[0] = 7
    assert region([x])[0] == 14 and first[0] == 0


def test_answers_that_are_the_operands_stay_what_they_were() -> None:
    region = Remembered(lambda arrays: arrays[0].reshape(2, 3))
    x = np.arange(6.0)
    region([x])
    asked = x.copy()
    x[:] = 0
    assert region([asked]).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_large_operands_and_many_answers_are_not_kept() -> None:
    asked = []

    def run(arrays: Sequence[Array]) -> Array:
        asked.append(1)
        return np.zeros(remembered.KEPT // 16)

    region = Remembered(run)
    for _ in range(2):
        for k in range(4):
            region([np.full(1, float(k))])
    assert len(asked) == 6  # two answers fit
    large = np.zeros(remembered.ASKED // 8 + 1)
    region([large]), region([large])
    assert len(asked) == 8


def test_what_is_forgotten_is_asked_again() -> None:
    asked = []

    def run(arrays: Sequence[Array]) -> Array:
        asked.append(1)
        return arrays[0] + 1

    region = Remembered(run)
    for _ in range(2):
        region([np.ones(3)]), region([np.ones(3)])
        region.forget()
    assert len(asked) == 2
