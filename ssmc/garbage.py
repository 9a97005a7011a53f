"""How often Python looks for objects that only hold each other."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = 20_000, 10, 10  # new objects before the young are looked through, then such rounds before older ones are


@contextmanager
def seldom_searched() -> Iterator[None]:
    """Inside, Python looks for garbage in cycles some thirty times less often; the setting is the process's.

    Instructions and nodes are many, hold no cycles and stay: looking through them took a sixth of the time that a large
    model is compiled in. Who has switched the search off, or set it to be rarer still, is left alone.
    """
    before = gc.get_threshold()
    if 0 < before[0] < SELDOM[0]:
        gc.set_threshold(*SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)
