"""Lowering: size of programs, what does not fit, where layers run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backends.cim import BACKEND
from isa import container
from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Graph, Piece, Place, Quantization, StreamType, Tensor, Value, interpret, tensor
from ssmc.target import RunSettings

from .chips import changed, small


def chain(
    decay: Any, bank: str = "volatile", states: int | None = None, unit: int = 0, asynchronous: bool = False
) -> Graph:
    """input -> matmul -> states -> output, on one array."""
    g, rng = Graph("chain", {"form": "sequence"}), np.random.default_rng(0)
    decay = np.asarray(decay)
    width = len(decay) * (2 if np.iscomplexobj(decay) else 1)
    u = g.add("input", [], {"name": "u", "type": StreamType((3,))}, name="u")
    dt = g.add("input", [], {"name": "dt", "type": StreamType(()), "role": "dt"}, name="dt") if asynchronous else None
    weight = Tensor(rng.normal(size=(3, width)))
    pieces = tuple(Piece(0, 3, n, min(n + 3, width), unit + i) for i, n in enumerate(range(0, width, 3)))
    v = g.add("tile.matmul", [u], {"weight": weight, "pieces": pieces}, name="B", provenance=["MatMul_1"])
    attrs = {
        "decay": Tensor(decay),
        "asynchronous": asynchronous,
        "bank": bank,
        "pieces": (Piece(0, len(decay), 0, 1),),
    }
    x = g.add("tile.state", [v, dt], attrs, name="x", provenance=["Scan_2"])
    g.add("output", [x], {"name": "y"}, name="out")
    return g


def test_program_does_not_grow_with_the_sequence(tmp_path: Any) -> None:
    """One program runs any number of steps and samples; nothing in it depends on them."""
    g = chain(0.8 * np.exp(1j * np.array([0.3, 2.0])))
    program = BACKEND.lower(g, small(), ideal=True)
    container.save(program, tmp_path / "p.ssmx")
    for steps, batch in ((1, 1), (16, 3), (3000, 1)):
        u = np.random.default_rng(steps).normal(size=(batch, steps, 3))
        got = BACKEND.simulate(container.load(tmp_path / "p.ssmx"), {"u": u}, RunSettings())
        want = interpret(g, {"u": u})["y"]
        assert np.abs(got.outputs["y"] - want).max() <= 1e-12 * np.abs(want).max()
        assert (got.stats.steps, got.stats.batch) == (steps, batch)


@pytest.mark.parametrize("ideal", [True, False])
def test_integers_are_programmed_as_the_weights_that_they_are(ideal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor, "LARGE", 6)
    rng = np.random.default_rng(2)
    integers = rng.integers(-127, 128, (6, 3)).astype(np.int8)
    grid = Quantization(8, tuple(rng.uniform(0.01, 0.02, 3).tolist()))
    u, found = rng.normal(size=(2, 5, 6)), []
    for weight in (Tensor.on_grid(integers, grid), Tensor(integers * np.asarray(grid.scale), grid)):
        g = Graph("matrix", {"form": "sequence"})
        x = g.add("input", [], {"name": "u", "type": StreamType((6,))}, name="u")
        pieces = (Piece(0, 3, 0, 3, 0), Piece(3, 6, 0, 3, 1))
        g.add("output", [g.add("tile.matmul", [x], {"weight": weight, "pieces": pieces}, name="B")], {"name": "y"})
        program = BACKEND.lower(g, small(), ideal=ideal)
        found.append((program, BACKEND.simulate(program, {"u": u}, RunSettings()).outputs["y"]))
    (held, y), (_, plain) = found
    assert y.tobytes() == plain.tobytes()
    kinds = {name: array.dtype.name for name, array in held.data.items()}
    assert sorted(kinds.values()) == ["float64", "float64", "int8", "int8"]  # one scale and one unit for both pieces


def test_weights_that_float32_holds_exactly_are_kept_in_float32() -> None:
    rng = np.random.default_rng(5)
    exact, u = rng.normal(size=(6, 3)).astype(np.float32).astype(np.float64), rng.normal(size=(2, 5, 6))
    for weight, kind in ((exact, "float32"), (exact + 1e-12, "float64"), (np.full((6, 3), 1e300), "float64")):
        g = Graph("matrix", {"form": "sequence"})
        x = g.add("input", [], {"name": "u", "type": StreamType((6,))}, name="u")
        pieces = (Piece(0, 3, 0, 3, 0), Piece(3, 6, 0, 3, 1))
        y = g.add("tile.matmul", [x], {"weight": Tensor(weight), "pieces": pieces}, name="B")
        g.add("output", [y], {"name": "y"})
        program = BACKEND.lower(g, small(), ideal=True)
        held = {name: array for name, array in program.data.items() if ".weights." in name}
        assert {array.dtype.name for array in held.values()} == {kind}
        wide = replace(program, data={**program.data, **{name: a.astype(np.float64) for name, a in held.items()}})
        found, plain = (BACKEND.simulate(p, {"u": u}, RunSettings()).outputs["y"] for p in (program, wide))
        assert found.tobytes() == plain.tobytes()
        np.testing.assert_allclose(found, interpret(g, {"u": u})["y"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("decay", "ideal", "words"),
    [
        ([0.5, 1.0], True, ("can only decay", "slowest pole is 1", "Scan_2")),
        ([0.5, 0.0], True, ("can only decay",)),
        ([0.5, -1.5], True, ("can only decay", "-1.5")),
        (
            np.linspace(0.1, 0.9, 9),
            False,
            ("time constants of one layer", "demand 9", "bound 8", "gap 1", "share-decays"),
        ),
        ([1 - 1e-6], False, ("longest time constant", "tau_max")),
        ([1e-300], False, ("shortest time constant", "tau_min")),
    ],
)
def test_states_that_devices_cannot_hold(decay: Any, ideal: bool, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        BACKEND.lower(chain(decay), BACKEND.load_arch(None), ideal=ideal)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_misfits_name_demand_bound_and_levers() -> None:
    one = {"mesh": {"cores": 2}}
    cases = [
        (
            changed(**one, volatile={"per_core": 3}),
            chain(np.full(9, 0.5)),
            ("volatile state nodes", "demand 9", "bound 6"),
        ),
        (
            changed(**one, digital={"per_core": 3}),
            chain(np.full(9, 0.5), "digital"),
            ("digital state nodes", "mesh.cores"),
        ),
        (changed(**one, crossbar={"per_core": 2}), chain([0.5], unit=9), ("crossbar arrays", "demand 10", "bound 4")),
        (changed(**one, vector={"words": 10}), chain(np.full(9, 0.5)), ("vector registers of core 0", "vector.words")),
        (changed(crossbar={"rows": 2}), chain([0.5]), ("rows and columns of array 0", "map-weights")),
    ]
    for arch, graph, words in cases:
        with pytest.raises(Misfit) as caught:
            BACKEND.lower(graph, arch, ideal=True)
        assert all(word in str(caught.value) for word in (*words, "gap")), str(caught.value)


def test_states_that_are_rounded_are_digital_alone() -> None:
    g = Graph()
    v = g.add("input", [], {"name": "v", "type": StreamType((9,))}, name="v")
    rows = np.outer([0.1, 0.0, 0.0, -128.0, 127.0], np.ones(9))
    state = g.add("rounded", [v], {"decay": Tensor(np.full(9, 0.5)), "sum_grid": Tensor(rows)})
    g.add("output", [state], {"name": "y"})
    BACKEND.lower(g, changed(mesh={"cores": 2}, digital={"per_core": 5}), ideal=True)
    with pytest.raises(Misfit, match="volatile devices only decay"):
        BACKEND.lower(g, changed(mesh={"cores": 2}, digital={"per_core": 3}), ideal=True)


def test_numbers_that_depend_on_each_other_lie_in_one_core() -> None:
    """Sets of three numbers: two of them fit in a core, and no set is cut."""
    g, n = Graph(), 9
    v = g.add("input", [], {"name": "v", "type": StreamType((n,))}, name="v")
    grid = np.outer([0.1, 0.0, 0.0, -128.0, 127.0], np.ones(n))
    terms = np.array([(i, (i + 1) % 3 + i // 3 * 3, 0.9) for i in range(n)]).T
    state = g.add("rounded_sums", [v], {"grid": Tensor(grid), "terms": Tensor(terms)})
    g.add("output", [state], {"name": "y"})
    program = BACKEND.lower(g, changed(mesh={"cores": 2}, digital={"per_core": 7}), ideal=True)
    data = np.random.default_rng(3).standard_normal((2, 20, n))
    found = BACKEND.simulate(program, {"v": data}, RunSettings()).outputs["y"]
    np.testing.assert_array_equal(found, interpret(g, {"v": data})["y"])
    with pytest.raises(Misfit, match="numbers of a step that depend on each other"):
        BACKEND.lower(g, changed(mesh={"cores": 5}, digital={"per_core": 2}), ideal=True)


def test_untiled_graphs_are_refused() -> None:
    g = Graph()
    u = g.add("input", [], {"name": "u", "type": StreamType((3,))}, name="u")
    g.add("output", [g.add("linear", [u], {"weight": Tensor(np.ones((3, 2)))})], {"name": "y"})
    with pytest.raises(UserError, match="no rule for 'linear'") as caught:
        BACKEND.lower(g, small(), ideal=True)
    assert "tile,map-weights,schedule" in str(caught.value)
    unplaced = chain([0.5], unit=-1)
    with pytest.raises(UserError, match="lies in no array"):
        BACKEND.lower(unplaced, small(), ideal=True)
    with pytest.raises(UserError, match="no bank 'magnetic'"):
        BACKEND.lower(chain([0.5], bank="magnetic"), small(), ideal=True)


def test_layers_run_where_their_arrays_are() -> None:
    program = BACKEND.lower(chain([0.5, 0.6], unit=8), small(), ideal=True)
    assert [section.name for section in program.sections] == ["core2", "core2.setup"]
    g = chain([0.5, 0.6], unit=8)
    for order, name in enumerate(g.order()):
        g.set_place(name, Place(4, order, "steps"))
    placed = BACKEND.lower(g, small(), ideal=True)
    assert {section.name for section in placed.sections} == {"core2", "core2.setup", "core4"}
    u = np.random.default_rng(0).normal(size=(2, 5, 3))
    a, b = (BACKEND.simulate(p, {"u": u}, RunSettings()).outputs["y"] for p in (program, placed))
    assert np.array_equal(a, b)


def test_every_instruction_names_its_layer() -> None:
    program = BACKEND.lower(chain(0.8 * np.exp(1j * np.ones(2))), small(), ideal=True)
    control = {"loop", "every", "halt"}
    for section in program.sections:
        for code in section.code:
            assert (code.loc is None) == (code.mnemonic in control), code
    sources = {program.locs[c.loc].layer for s in program.sections for c in s.code if c.loc is not None}
    assert sources == {"u", "B", "x", "out"}
    charge = next(c for s in program.sections for c in s.code if c.mnemonic == "charge")
    assert program.source(charge).onnx_nodes == ("Scan_2",)  # type: ignore[union-attr]


def test_a_program_keeps_what_it_was_compiled_with() -> None:
    g = chain([0.5, 0.6])
    u = {"u": np.random.default_rng(0).normal(size=(2, 5, 3))}
    exact = interpret(g, u)["y"]
    ideal, real = (BACKEND.lower(g, BACKEND.load_arch(None), ideal=flag) for flag in (True, False))
    assert np.allclose(BACKEND.simulate(ideal, u, RunSettings()).outputs["y"], exact, rtol=1e-13)
    noisy = BACKEND.simulate(real, u, RunSettings()).outputs["y"]
    assert not np.allclose(noisy, exact, rtol=1e-3)
    assert np.allclose(BACKEND.simulate(real, u, RunSettings(noise="ideal")).outputs["y"], exact, rtol=1e-13)


def event_by_event(g: Graph, u: np.ndarray, dt: np.ndarray) -> np.ndarray:
    """x <- exp(A t) x + B u, one event of one sample at a time, in complex numbers."""
    weight, decay = g.op("B")["weight"].array, g.op("x")["decay"].array
    half = len(decay)
    out = np.zeros((*u.shape[:2], 2 * half))
    for b in range(len(u)):
        x = np.zeros(half, complex)
        for k in range(u.shape[1]):
            drive = u[b, k] @ weight
            x = np.exp(decay * dt[b, k]) * x + drive[:half] + 1j * drive[half:]
            out[b, k] = [*x.real, *x.imag]
    return out


@pytest.mark.parametrize("bank", ["volatile", "digital"])
def test_irregular_events_against_one_event_at_a_time(bank: str) -> None:
    """Complex decays on devices that only decay: rotating frames follow the clock of the events."""
    rng = np.random.default_rng(2)
    decay = -rng.uniform(0.02, 1.0, 4) + 1j * rng.uniform(-20, 20, 4)
    g = chain(decay, bank, asynchronous=True)
    u, dt = rng.normal(size=(3, 60, 3)), rng.exponential(size=(3, 60))
    dt[:, ::7] = 0.0
    program = BACKEND.lower(g, small(), ideal=True)
    got = BACKEND.simulate(program, {"u": u, "dt": dt}, RunSettings()).outputs["y"]
    want = event_by_event(g, u, dt)
    assert np.abs(got - want).max() <= 1e-12 * np.abs(want).max()


def test_long_rotations_stay_exact() -> None:
    """After 40 000 steps the frame has turned ten thousand times."""
    g = chain(np.array([0.999 * np.exp(1.7j)]))
    u = np.random.default_rng(0).normal(size=(1, 40_000, 3))
    program = BACKEND.lower(g, small(), ideal=True)
    got = BACKEND.simulate(program, {"u": u}, RunSettings()).outputs["y"][:, -100:]
    want = interpret(g, {"u": u})["y"][:, -100:]
    assert np.abs(got - want).max() <= 1e-11 * np.abs(want).max()


def test_taps_of_streams_and_sequences() -> None:
    g = chain([0.5, 0.6])
    pooled = g.add("pool", [Value("x")], {"kind": "mean"}, name="pooled")
    g.add("output", [pooled], {"name": "p"})
    u = {"u": np.random.default_rng(0).normal(size=(2, 5, 3))}
    program = BACKEND.lower(g, small(), ideal=True)
    taps = BACKEND.simulate(program, u, RunSettings(taps=True, block=2)).taps
    values = interpret(g, u, keep=True)
    assert set(taps) == {"B", "x", "pooled"}
    assert all(np.allclose(taps[name], values[f"%{name}"], rtol=1e-13) for name in taps)
    assert not BACKEND.simulate(program, u, RunSettings()).taps
