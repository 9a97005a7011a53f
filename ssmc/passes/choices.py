"""What passes chose between, as they tell it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BankChoice:
    """One bank as a place for a layer's states. `joules` is the energy of a step (None: the target does not say);
    `error` what the bank's spread of decays, or its products fed back, do to the states' response, rms, relative (H2,
    expected); `objection` says why it cannot hold them, empty where it can. `whole_joules` and `whole_error` count B
    and C too, in the basis of states that the bank takes (see `surroundings`)."""

    node: str
    bank: str
    joules: float | None
    error: float
    objection: str
    whole_joules: float | None = None
    whole_error: float = 0.0
    chosen: bool = False


@dataclass(frozen=True)
class Alternative:
    """One bank for a layer's states, as `choose-banks` weighs it.

    `joules` is the energy of a step (None: the target does not tell), B and C included: `kept_joules` of it for holding
    the states until the next one, less the `spared_joules` of conversions that coupling spares. `error` is the
    response's, rms, relative, expected; `shared_error` the part of it that sharing decays has, None where they are not
    shared, or where that was not worth looking at. `objection` says why it cannot hold them, empty where it can; `why`
    it was chosen or not.
    """

    node: str
    bank: str
    joules: float | None
    error: float
    kept_joules: float = 0.0
    spared_joules: float = 0.0
    shared_error: float | None = None
    objection: str = ""
    chosen: bool = False
    why: str = ""


@dataclass(frozen=True)
class CouplingChoice:
    """One side of a layer's states: `side` "in" (columns charge nodes) or "out" (nodes drive rows), `product` the
    matrix there. `joules` is what a step's conversions take that coupling spares; `converted` and `coupled` are the
    errors of the sums either way, rms, relative, expected (None where there is no data to tell); `objection` says why
    it cannot be, empty where it can."""

    node: str
    side: str
    product: str
    joules: float
    converted: float | None
    coupled: float | None
    objection: str
    chosen: bool = False


@dataclass(frozen=True)
class UnitChoice:
    """The units of a layer's states. `source` is what tells how far they go: calibration data, random inputs, or a
    bound that no input exceeds; `least` and `most` how far states are expected to go, `room` how many times that fits
    at least; `finest` and `coarsest` are the units, powers of two."""

    node: str
    source: str
    least: float
    most: float
    room: float
    finest: float
    coarsest: float
