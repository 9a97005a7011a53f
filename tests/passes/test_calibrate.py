"""calibrate: ranges that lose least, windows that hold both devices of a pair, bounds that no input leaves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.ir import interpret
from ssmc.passes import Context, Converters, PassManager
from ssmc.passes.bounds import largest_values
from ssmc.passes.calibrate import pair_level
from ssmc.passes.clipping import best_range
from ssmc.passes.probe import probe
from tests.examples import examples

from .graphs import MACHINES, activation, asynchronous, build, glu, layer_norm, linear, s4d, s4d_real, s5

MACHINE = replace(MACHINES["crossbar"], converters=Converters(8, 8, each_vector=False))
PLACED = "discretize,tile,map-weights"


def test_a_rare_large_value_is_clipped_and_a_common_one_is_not() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(20000)
    even = best_range(values, 12)
    assert even > 0.9 * np.abs(values).max()
    outlier = np.append(values, 20.0)
    assert best_range(outlier, 4) < 10
    assert best_range(outlier, 4, np.append(np.ones(20000), 1e6)) == pytest.approx(20.0)
    assert best_range(values, 8, ceiling=1.0) <= 1.0
    assert best_range(np.zeros(3), 8) == 0.0


def test_what_is_clipped_counts_sixteen_times() -> None:
    """Against every range that is tried, the error summed up value by value."""
    values, words = np.random.default_rng(1).standard_normal(300), 7
    errors = []
    for full in np.abs(values).max() * np.geomspace(1.0, 0.05, 40):
        missed = [x - full / words * max(-words, min(words, round(x * words / full))) for x in values]
        errors.append((sum(e**2 * (16 if abs(x) > full else 1) for x, e in zip(values, missed, strict=True)), full))
    assert best_range(values, 4) == pytest.approx(min(errors)[1])


@given(st.integers(0, 2**16), st.booleans())
@settings(max_examples=examples(20), deadline=None)
def test_a_pair_stays_at_its_level_and_reaches_it(seed: int, timed: bool) -> None:
    """Against two devices of every state, followed one by one in their rotating frame."""
    rng = np.random.default_rng(seed)
    steps, states = 40, 3
    rate = -np.exp(rng.uniform(-3, 0, states)) + 1j * rng.uniform(-2, 2, states)
    decay = rate if timed else np.exp(rate)
    v = rng.standard_normal((2, steps, 2 * states))
    dt = rng.exponential(1.0, (2, steps)) if timed else None
    level = pair_level(decay, v, dt)
    most, gaps = 0.0, np.ones((2, steps)) if dt is None else dt
    for b in range(2):
        for s in range(states):
            devices, at = np.zeros(4), 0.0
            for k in range(steps):
                at += gaps[b, k]
                turned = (v[b, k, s] + 1j * v[b, k, states + s]) * np.exp(-1j * rate[s].imag * at)
                pulses = [max(turned.real, 0), max(-turned.real, 0), max(turned.imag, 0), max(-turned.imag, 0)]
                devices = devices * np.exp(rate[s].real * gaps[b, k]) + pulses
                most = max(most, devices.max())
    assert level == pytest.approx(most, rel=1e-9)


def test_the_common_mode_counts() -> None:
    """A drive that changes its sign leaves the state small and fills both devices."""
    v = np.where(np.arange(400) % 2, 1.0, -1.0)[None, :, None]
    level = pair_level(np.array([0.99]), v, None)
    assert level > 40
    x = 0.0
    for value in v[0, :, 0]:
        x = 0.99 * x + value
        assert abs(x) < 1.01


@given(st.integers(0, 2**16), st.sampled_from([s4d, s4d_real, s5, linear]))
@settings(max_examples=15, deadline=None)
def test_no_value_leaves_its_bound(seed: int, layer: object) -> None:
    graph = build(seed, [layer_norm, layer, activation, glu])  # type: ignore[list-item]
    tiled = PassManager(PLACED).run(graph, Context(MACHINE))
    bounds = largest_values(tiled)
    inputs = probe(tiled, seed, 200)
    assert inputs is not None
    values = interpret(tiled, {name: 50 * array for name, array in inputs.items()}, keep=True)
    known = 0
    for value, bound in bounds.items():
        if np.isfinite(bound) and str(value) in values:
            known += 1
            assert np.abs(values[str(value)]).max(initial=0.0) <= bound * (1 + 1e-9)
    assert known > 4


def test_ranges_of_every_array_and_windows_of_volatile_states() -> None:
    graph = build(0, [layer_norm, s5, linear, asynchronous])
    width = graph.node("u").types[0].shape[0]  # type: ignore[union-attr,index]
    rng = np.random.default_rng(0)
    data = {"u": rng.standard_normal((2, 30, width)), "dt": rng.exponential(0.3, (2, 30))}
    context = Context(MACHINE, calibration=data)
    result = PassManager(f"{PLACED},calibrate").run(graph, context)
    ranges, windows = result.attributes["converter_ranges"], result.attributes["state_windows"]
    for node in result.nodes("tile.matmul"):
        assert len(ranges[node.name]) == len(node.op["pieces"])
        assert all(low > 0 and high > 0 for low, high in ranges[node.name])
    volatile = {node.name for node in result.nodes("tile.state") if node.op["bank"] == "volatile"}
    assert set(windows) == volatile and volatile and min(windows.values()) > 0
    count = len(next(iter(data.values())))
    assert f"from {count} sequences of the calibration data: ranges of" in context.notes[-1].text
    safe = PassManager(f"{PLACED},calibrate").run(graph, Context(MACHINE))
    assert safe.attributes["converter_ranges"]  # after a norm, sums are bounded
    exact = PassManager(f"{PLACED},calibrate").run(graph, Context(MACHINE, calibration=data, ideal=True))
    assert "converter_ranges" not in exact.attributes
    steps = PassManager("calibrate{steps=64,headroom=2.0}").passes[0]
    assert "headroom=2.0" in str(PassManager([steps]))
