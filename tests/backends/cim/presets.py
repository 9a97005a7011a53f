"""A preset with every effect on, for the tests alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backends.cim.arch import Devices
from backends.cim.simulate import devices

EVERYTHING = Devices(
    programming="rram-wan",
    drift="pcm",
    read_noise="pcm",
    product_bits=5.0,
    decay_sigma=0.05,
    cycle_sigma=0.05,
)


@contextmanager
def everything() -> Iterator[None]:
    """While it lasts, the preset 'all' exists."""
    devices.PRESETS["all"] = EVERYTHING
    try:
        yield
    finally:
        del devices.PRESETS["all"]
