"""Chips to test on."""

from __future__ import annotations

from functools import cache
from typing import Any

from backends.cim import BACKEND
from backends.cim.arch import Architecture

from . import graphs


def changed(**sections: dict[str, Any]) -> Architecture:
    """The default architecture with some numbers changed."""
    raw = BACKEND.load_arch(None).model_dump()
    for section, values in sections.items():
        raw[section].update(values)
    return Architecture(**raw)


@cache
def small() -> Architecture:
    """Small arrays and few state nodes a core, so that layers spread over many cores."""
    return changed(
        mesh={"cores": 150},
        crossbar={"rows": graphs.ARRAY_ROWS, "cols": graphs.ARRAY_COLS, "per_core": graphs.PER_CORE},
        volatile={"per_core": 5, "time_constants": 64},  # what share-decays would bring down
        digital={"per_core": 7},
    )
