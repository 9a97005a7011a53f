"""Constant kernels of which each channel is what it is: a system, one behind other taps, or a filter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssmc.frontend.mixing import fitting
from ssmc.frontend.mixing import identified as identification
from ssmc.frontend.mixing.generators import Generator
from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, lift, on_targets
from tests.frontend.net import Net
from tests.frontend.test_kernel_tables import filtered


def modes(channels: int, length: int, seed: int = 0, last: float = 20.0) -> np.ndarray:
    """Two modes each that last for some 20 steps, as taps (channels, length)."""
    rng = np.random.default_rng(seed)
    poles = np.exp(-rng.uniform(0.6, 2, (channels, 2)) / last) * np.exp(1j * rng.uniform(0.1, 2, (channels, 2)))
    gains = np.exp(2j * np.pi * rng.random((channels, 2, 1)))
    return np.asarray((gains * poles[..., None] ** np.arange(length)).real.sum(axis=1))


@pytest.mark.parametrize("form", ["back", "ahead", "both"])
def test_a_filter_among_systems_is_a_filter_alone(tmp_path: Path, form: str) -> None:
    taps = modes(5, 64)
    taps[[1, 3]] = RNG.standard_normal((2, 64))
    net = Net()
    model = lift(net, filtered(net, taps, form), ["b", 64, 5], tmp_path, (2, 64))
    assert sorted(kinds(model)) == sorted([LINEAR, "fir"] * (2 if form == "both" else 1))
    for system in model.systems:
        assert system.replacement is not None
        assert system.replacement.kernels == (2 if system.kind == "fir" else 3)
        assert ("stay FIR filters" if system.kind == "fir" else "became systems") in system.replacement.how
        assert system.kind == "fir" or system.states == 2
    on_targets(model, 2, 64)


def test_filters_end_where_their_taps_are_as_good_as_zero(tmp_path: Path) -> None:
    """As in the spectrum of a kernel cut off after 20 steps, which a tool folded in float32."""
    taps = 1e-10 * RNG.standard_normal((3, 64))
    taps[:, :20] = RNG.standard_normal((3, 20))
    net = Net()
    model = lift(net, filtered(net, taps, "back"), ["b", 64, 3], tmp_path, (2, 64))
    (system,) = model.systems
    assert (system.kind, system.states) == ("fir", 19) and system.replacement is not None
    assert 0 < system.replacement.residual < 1e-9 and "the last 44 taps" in system.replacement.how
    on_targets(model, 2, 64)


def test_a_layer_of_filters_is_told_by_a_few_of_them(tmp_path: Path) -> None:
    net = Net()
    model = lift(net, filtered(net, RNG.standard_normal((24, 64)), "back"), ["b", 64, 24], tmp_path, (1, 64))
    (system,) = model.systems
    assert system.kind == "fir" and system.replacement is not None
    assert "of 8 that were tried none became a system" in system.replacement.how


def test_delays_that_differ_are_in_front_of_their_own_channels(tmp_path: Path) -> None:
    taps = np.zeros((4, 64))
    for channel, delay in enumerate((0, 9, 9, 14)):
        taps[channel, delay:] = modes(1, 64 - delay, channel)
    net = Net()
    model = lift(net, filtered(net, taps, "back"), ["b", 64, 4], tmp_path, (2, 64))
    assert kinds(model) == [LINEAR] * 3 and {system.states for system in model.systems} == {2}
    on_targets(model, 2, 64)


@pytest.mark.parametrize("length", [256, 1024])
@pytest.mark.parametrize("spikes", [1, 6])
def test_a_system_beside_taps_of_their_own(tmp_path: Path, length: int, spikes: int) -> None:
    """A skip connection from some steps before, or a short filter, is no state of the system beside it."""
    at = RNG.choice(np.arange(length // 8, length // 4 - 1), spikes, replace=False)
    taps = modes(2, length, last=length / 8)
    taps[:, at] += RNG.standard_normal((2, spikes))
    net = Net()
    model = lift(net, filtered(net, taps, "back"), ["b", length, 2], tmp_path, (2, length))
    assert LINEAR in kinds(model)
    system = next(system for system in model.systems if system.kind == LINEAR)
    assert system.states == 2 and system.replacement is not None
    assert f"without the first {at.max() + 1}, which have taps of their own" in system.replacement.how
    assert system.replacement.residual <= 1e-6
    on_targets(model, 2, length)


def test_poles_that_coincide_take_as_many_states_as_there_are(tmp_path: Path) -> None:
    """k a^k, and a conjugate pair of it, beside plain modes: states that feed each other, on both targets."""
    k = np.arange(200)
    taps = modes(3, 200)
    taps[0], taps[2] = k * 0.9**k / 4, k * 0.93**k * np.cos(0.3 * k) / 4
    net = Net()
    model = lift(net, filtered(net, taps, "back"), ["b", 200, 3], tmp_path, (2, 200))
    assert kinds(model) == [LINEAR, LINEAR]
    coupled = next(s for s in model.systems if s.replacement is not None and "feed each other" in s.replacement.how)
    assert coupled.replacement is not None
    assert coupled.states == 4 and coupled.groups == 2 and coupled.replacement.residual <= 1e-6
    on_targets(model, 2, 200)


def test_a_way_that_serves_none_of_a_few_is_not_tried_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """All kernels of a layer have taps of their own in front: that no whole one is a system is learnt from eight."""
    rng, length, tried = np.random.default_rng(4), 256, []
    taps = modes(40, length, last=30.0)
    taps[:, :12] += rng.standard_normal((40, 12))
    whole = identification.identify

    def counted(kernels: np.ndarray, *rest: object) -> object:
        tried.append(kernels.shape)
        return whole(kernels, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(identification, "identify", counted)
    parts, _ = identification.identified(taps, 1e-6)
    assert sum(len(part.channels) for part in parts) == 40
    assert max(part.fit.error for part in parts) <= 1e-6 and all(part.fit.system.states <= 2 for part in parts)
    assert (8, length) in tried and (40, length) not in tried


def test_poles_that_are_not_the_kernels_are_given_up_at_the_first_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poles that a table rounded are moved in all channels; others, as of some other table, in one."""
    taps, tried, solved = RNG.standard_normal((40, 1, 12)), [], []
    refine, least_squares = fitting.refine, fitting.least_squares
    monkeypatch.setattr(fitting, "refine", lambda *given: (tried.append(1), refine(*given))[1])
    monkeypatch.setattr(fitting, "least_squares", lambda *given: (solved.append(1), least_squares(*given))[1])
    poles = np.exp(RNG.uniform(-1, 0, (40, 2)) + 1j * RNG.uniform(0.1, 3, (40, 2)))
    assert fitting.generated(taps, Generator(poles, 1e-7), 1e-6) is None
    assert len(tried) == len(solved) == 1
    gains = np.exp(2j * np.pi * RNG.random((40, 2, 1)))
    taps = (gains * poles[..., None] ** np.arange(12)).real.sum(axis=1)[:, None]
    rounded = poles * (1 + 1e-4 * RNG.standard_normal(poles.shape))
    found = fitting.generated(taps, Generator(rounded, 1e-4), 1e-6)
    assert found is not None and found.error <= 1e-6
    assert len(tried) == 42
