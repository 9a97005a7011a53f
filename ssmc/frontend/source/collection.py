"""Python's search for reference cycles, put off while a graph is built."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Nothing is collected inside but what reference counts free.

    Every pass over all objects finds those of a large graph alive, and there are more passes the larger it is.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def built_aside() -> Iterator[Callable[[], None]]:
    """Inside, nothing is collected until the given function is called: what was built until then is left alone after.

    Full collections while tens of thousands of nodes are built take a third of an import, and more the more nodes.
    """
    if not gc.isenabled() or gc.get_freeze_count():  # somebody else arranges these things
        yield lambda: None
        return
    gc.disable()

    def built() -> None:
        gc.freeze()
        gc.enable()

    try:
        yield built
    finally:
        gc.enable()
        gc.unfreeze()
