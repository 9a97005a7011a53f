"""A published kind of network, events at irregular times pooled on the way, against one event after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import erf, expit

from backends.cim import BACKEND
from benchmarks.models.event_ssm import Network, build
from ssmc.ir import Graph
from ssmc.passes import Context, PassManager
from ssmc.target import RunSettings

from .chips import changed

SMALL = Network(50, ((12, 16), (20, 24)), 2, 4, 5, 0, 0)
Array = Any


class Layer:
    """One block of the network in plain float64: states that decay when an event comes, however long after the last."""

    def __init__(self, graph: Graph, ssm: str) -> None:
        self.system = graph.op(ssm)["system"]
        self.x = np.zeros(self.system.A.shape[1])

    def event(self, u: Array, dt: float) -> Array:
        s = self.system
        self.x = np.exp(s.A[0] * dt) * self.x + s.B[0] @ u
        return s.C[0] @ self.x + s.D[0] @ u


def reference(graph: Graph, tokens: Array, gaps: Array) -> Array:
    """logits of one sequence, with nothing but loops over its events."""
    ops = list(graph.nodes())
    table = next(n for n in ops if n.op.name == "embed").op["table"].array
    layers = [Layer(graph, n.name) for n in ops if n.op.name == "ssm"]
    dense = [n.op for n in ops if n.op.name == "linear"]
    norms = [n.op for n in ops if n.op.name == "norm"]
    events = [(table[token], dt) for token, dt in zip(tokens, gaps, strict=True)]
    at = 0
    for index, layer in enumerate(layers):
        stride = SMALL.stride if index % SMALL.layers == 0 else 1
        widens = stride > 1 and layer.system.B.shape[2] != layer.system.C.shape[1]
        project = dense[at] if widens else None
        gate = dense[at + widens]
        at, made, seen, waited = at + 1 + widens, [], [], 0.0
        for u, dt in events:
            y = layer.event(u, dt)
            seen.append(u)
            waited += dt
            if len(seen) < stride:
                continue
            skip = np.mean(seen, axis=0)
            if project is not None:
                skip = skip @ project["weight"].array + project["bias"].array
            y = (y - y.mean()) / np.sqrt(y.var() + norms[index]["epsilon"])
            bent = 0.5 * y * (1 + erf(y / np.sqrt(2)))
            made.append((skip + y * expit(bent @ gate["weight"].array + gate["bias"].array), waited))
            seen, waited = [], 0.0
        events = made
    pooled = np.mean([u for u, _ in events], axis=0)
    return pooled @ dense[-1]["weight"].array + dense[-1]["bias"].array


@pytest.fixture(scope="module")
def network() -> tuple[Graph, Any]:
    graph = build(SMALL, seed=3)
    arch = changed(mesh={"cores": 9}, crossbar={"rows": 16, "cols": 16, "per_core": 12})
    context = Context(BACKEND.machine(arch, ideal=True), ideal=True)
    placed = PassManager(BACKEND.pipeline(arch, ideal=True)).run(graph, context)
    return graph, BACKEND.lower(placed, arch, ideal=True)


def times(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> Array:
    match kind:
        case "bursts":  # many at once, then long silence
            return np.where(rng.random(shape) < 0.7, 0.0, rng.exponential(80.0, shape))
        case "regular":
            return np.full(shape, 3.0)
    return np.exp(rng.uniform(np.log(1e-3), np.log(1e3), shape))


@pytest.mark.parametrize("kind", ["bursts", "regular", "six decades"])
@pytest.mark.parametrize("block", [None, 1, 7])
def test_events_at_any_time_are_what_they_are_one_by_one(network: Any, kind: str, block: int | None) -> None:
    graph, program = network
    rng = np.random.default_rng(5)
    tokens, gaps = rng.integers(0, SMALL.rows, (3, 70)), times(rng, kind, (3, 70))  # 70: the last ones fill no pool
    result = BACKEND.simulate(program, {"event": tokens, "dt": gaps}, RunSettings(block=block))
    wanted = np.array([reference(graph, *each) for each in zip(tokens, gaps, strict=True)])
    np.testing.assert_allclose(result.outputs["logits"], wanted, rtol=1e-9, atol=1e-9)


def test_pooling_lowers_the_rate_of_later_layers(network: Any) -> None:
    """Each layer's instructions run once for every event that it sees: of 64, 16 and 4 behind the pools."""
    _, program = network
    one, many = (
        BACKEND.simulate(
            program, {"event": np.zeros((1, n), int), "dt": np.ones((1, n))}, RunSettings()
        ).stats.instructions
        for n in (64, 128)
    )
    assert 0 < many - one < 64 * program.instruction_count
    strides = [code["stride"] for s in program.sections for code in s.code if code.mnemonic in ("loop", "every")]
    assert {1, 4, 16} <= set(strides)


def test_what_an_event_takes_and_what_waiting_takes(network: Any) -> None:
    """Energy and work of an event are the rise with the length; states wait as long as the events say, chip and all."""
    _, program = network
    rng = np.random.default_rng(1)
    gaps = {n: rng.exponential(20.0, (3, n)) for n in (64, 128)}
    found = {
        n: BACKEND.simulate(program, {"event": np.zeros((3, n), int), "dt": dt}, RunSettings()).stats
        for n, dt in gaps.items()
    }
    notes = found[64].notes
    for what, total in (
        ("event_instructions", "instructions"),
        ("event_macs", "macs"),
        ("event_joules", "energy_joules"),
    ):
        one, two = (getattr(found[n], total) for n in (64, 128))
        idle = found[128].notes["idle_joules"] - notes["idle_joules"] if total == "energy_joules" else 0.0
        assert notes[what] == pytest.approx((two - one - idle) / (3 * 64), rel=1e-9)
    for n, dt in gaps.items():
        lasts = dt.sum(1).mean() * 1e-3
        assert found[n].notes["real_seconds_per_sequence"] == pytest.approx(lasts, rel=1e-12)
        assert found[n].notes["real_idle_joules_per_sequence"] == pytest.approx(lasts * notes["idle_watts"], rel=1e-12)
    again = BACKEND.simulate(program, {"event": np.zeros((3, 64), int), "dt": gaps[64]}, RunSettings(block=5)).stats
    assert again == found[64]
