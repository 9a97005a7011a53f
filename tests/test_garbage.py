"""Python looks for garbage less often inside, and as before afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from ssmc.garbage import SELDOM, seldom_searched


@pytest.fixture(autouse=True)
def setting() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_inside_and_afterwards() -> None:
    gc.set_threshold(700, 10, 10)
    with pytest.raises(KeyError), seldom_searched():
        assert gc.get_threshold() == SELDOM
        with seldom_searched():
            assert gc.get_threshold() == SELDOM
        assert gc.get_threshold() == SELDOM
        raise KeyError
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("own", [(0, 10, 10), (10**6, 5, 5)])
def test_who_asked_for_less_is_left_alone(own: tuple[int, int, int]) -> None:
    gc.set_threshold(*own)
    with seldom_searched():
        assert gc.get_threshold() == own
    assert gc.get_threshold() == own


def test_a_model_is_compiled_so() -> None:
    import samples
    from ssmc import driver

    gc.set_threshold(700, 10, 10)
    seen = list[tuple[int, int, int]]()
    model = samples.load("realdecay-vowels").model_path
    driver.compile_model(model, "cim", ideal=True, observers=[lambda step: seen.append(gc.get_threshold())])
    assert set(seen) == {SELDOM} and gc.get_threshold() == (700, 10, 10)
