"""Published laws of the devices, as functions, and presets of them by name.

`g` is a conductance in uS, `g_max` the largest one. Everything is in uS and seconds unless said.
"""

from __future__ import annotations

import re

import numpy as np
from pydantic import ValidationError

from backends.cim.arch import Architecture, Devices
from ssmc.diagnostics import UserError
from ssmc.ir.op import Array

# Ascending polynomials of the programming error, uS at g_max 40 uS (Wan 2022, Nature 608, as in aihwkit).
_WAN_SECOND = (0.348, 16.030, -43.853, 45.393, -16.815)
_WAN_DAY = (0.701, 22.086, -50.773, 47.095, -16.458)
_DAY = 86400.0
DRIFT_START = 20.0  # s, aihwkit's t0
READ_PULSE = 250e-9  # s, aihwkit's t_read


def programming_sigma(law: str, g: Array, g_max: float, age: float = 1.0) -> Array:
    """Standard deviation of the programming error, uS.

    `pcm`: (g_max/25)(0.26348 + 1.9650 r - 1.1731 r^2), r = g/g_max (Nandakumar 2020, as in aihwkit).
    `rram-wan`: polynomial in r scaled from 40 uS, at one second or (from `age` of a day on) one day (Wan 2022, as
    in aihwkit). `rram-milo`: max(4.782321 - 0.009107 g, 0), for 50 to 225 uS (Milo 2021, as in CrossSim).
    """
    r = g / g_max
    match law:
        case "none":
            return np.zeros_like(g)
        case "pcm":
            return np.asarray((g_max / 25.0) * np.maximum(0.26348 + 1.9650 * r - 1.1731 * r**2, 0.0))
        case "rram-wan":
            terms = _WAN_DAY if age >= _DAY else _WAN_SECOND
            return np.asarray((g_max / 40.0) * np.maximum(sum(c * r**i for i, c in enumerate(terms)), 0.0))
        case "rram-milo":
            return np.asarray(np.maximum(4.782321 - 0.009107 * g, 0.0))
    raise UserError(f"there is no programming law '{law}'")


def written_sigma(devices: Devices, g: Array, g_max: float) -> Array:
    """Standard deviation of what a device is programmed to, uS.

    A published law (`programming_sigma`), or `independent`: G + s g_max N; `proportional`: G (1 + s N); `uniform`:
    G + s g_max U, U even in -1..1 (CrossSim), s the `programming_sigma` of the devices.
    """
    size = devices.programming_sigma
    match devices.programming:
        case "independent":
            sigma = np.full_like(g, size * g_max)
        case "proportional":
            sigma = size * g
        case "uniform":
            sigma = np.full_like(g, size * g_max / np.sqrt(3.0))
        case law:
            sigma = programming_sigma(law, g, g_max, devices.age_seconds)
    return np.asarray(devices.programming_scale * sigma)


def with_window(arch: Architecture, devices: Devices) -> Architecture:
    """The architecture with the devices' own conductances in its crossbars, where they have some."""
    if not devices.g_max:
        return arch
    box = arch.crossbar.model_copy(update={"g_min": devices.g_min, "g_max": devices.g_max})
    return arch.model_copy(update={"crossbar": box})


def drift_exponent(g: Array, g_max: float, drawn: Array) -> Array:
    """PCM drift exponent nu of each device, `drawn` standard normal (Joshi 2020, as in aihwkit).

    mean clip(-0.0155 ln r + 0.0244, 0.049, 0.1), sigma clip(-0.0125 ln r - 0.0059, 0.008, 0.045), r = g/g_max.
    """
    log = np.log(np.maximum(g / g_max, 1e-12))
    mean = np.clip(-0.0155 * log + 0.0244, 0.049, 0.1)
    sigma = np.clip(-0.0125 * log - 0.0059, 0.008, 0.045)
    return np.asarray(np.maximum(mean + sigma * drawn, 0.0))


def drifted(g: Array, nu: Array, age: float) -> Array:
    """g ((t + t0)/t0)^-nu with t0 = 20 s (aihwkit)."""
    return np.asarray(g * ((age + DRIFT_START) / DRIFT_START) ** -nu)


def read_sigma(devices: Devices, g: Array, g_max: float) -> Array:
    """Standard deviation of a device's conductance from read to read, uS.

    `pcm`: g Q sqrt(ln((t + tr)/(2 tr))), Q = min(0.0088/max(r^0.65, 1e-3), 0.2), tr = 250 ns, t the age
    (Nandakumar 2020, as in aihwkit). `independent`: read_sigma g_max; `proportional`: read_sigma g (CrossSim).
    """
    match devices.read_noise:
        case "pcm":
            q = np.minimum(0.0088 / np.maximum((g / g_max) ** 0.65, 1e-3), 0.2)
            sigma = g * q * np.sqrt(np.log((max(devices.age_seconds, READ_PULSE) + READ_PULSE) / (2 * READ_PULSE)))
        case "independent":
            sigma = np.full_like(g, devices.read_sigma * g_max)
        case "proportional":
            sigma = devices.read_sigma * g
        case _:
            sigma = np.zeros_like(g)
    return np.asarray(devices.read_scale * sigma)


def product_sigma(largest: Array, bits: float) -> Array:
    """Error of a whole product with so many effective bits: the rms of a quantiser over -largest..largest.

    2 largest / (2^bits sqrt(12)); `largest` is the product's own largest output. How the published figure of 4.6
    bits was taken is not known to us; this reading is ours.
    """
    return np.asarray(2.0 * largest / (2.0**bits * np.sqrt(12.0)))


# What each name stands for. Everything that is not said is off; converters and levels are on.
PRESETS: dict[str, Devices] = {
    # perfect devices and converters
    "ideal": Devices(converters=False, levels=False),
    # converters and levels alone
    "quantized": Devices(),
    # phase change memory after 20 s, as in aihwkit
    "pcm": Devices(levels=False, programming="pcm", drift="pcm", read_noise="pcm", age_seconds=20.0),
    # oxide RRAM a second after programming (Wan 2022)
    "rram-wan": Devices(levels=False, programming="rram-wan", age_seconds=1.0),
    # HfO2 RRAM (Milo 2021), in the window of 50 to 225 uS that its law is for
    "rram-milo": Devices(levels=False, programming="rram-milo", g_min=50.0, g_max=225.0),
    # volatile WOx: spread of the time constants. 5 % and 2 % are ours, the published spread is not known to us. The
    # saturating write (RN-Net, arXiv 2303.10770) is an option, `wox-stm{write_saturation=1}`: it is not linear. The
    # nodes decay while the program runs, too
    "wox-stm": Devices(decay_sigma=0.05, cycle_sigma=0.02, latency_scale=1.0),
    # the published chip's figure for a whole product (second-hand)
    "lumped-4.6-bit": Devices(product_bits=4.6),
}


_CHANGED = re.compile(r"(?P<name>[^{}]+)(?:\{(?P<changes>[^{}]*)\})?")


def preset(text: str, own: Devices) -> Devices:
    """A preset by name, or `arch` for `own`, with changes as in `pcm{read_scale=0.5,stuck_low=0.01}`.

    Raises UserError that lists what there is.
    """
    known = {**PRESETS, "arch": own}
    found = _CHANGED.fullmatch(text.strip())
    if found is None or found["name"].strip() not in known:
        raise UserError(f"there is no noise preset '{text}'", hint=f"the presets are: {', '.join(known)}")
    values = known[found["name"].strip()].model_dump()
    for change in filter(None, (part.strip() for part in (found["changes"] or "").split(","))):
        name, equal, value = (part.strip() for part in change.partition("="))
        if not equal or name not in values:
            raise UserError(
                f"'{change}' is not a change to devices",
                where=f"noise '{text}'",
                hint=f"give NAME=VALUE; the names are: {', '.join(values)}",
            )
        values[name] = value
    try:
        return Devices(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name, why = ".".join(map(str, first["loc"])), str(first["msg"]).removeprefix("Value error, ")
        what = f"'{name}' cannot be {first['input']!r}" if name else "the changes do not fit together"
        raise UserError(what, where=f"noise '{text}'", why=why[:1].lower() + why[1:]) from None
