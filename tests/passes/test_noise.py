"""What arrays and devices will add: predicted before tiling, met by the chip, less where columns are balanced."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.cim.backend import BACKEND
from ssmc.ir import Graph, Node, Tensor, interpret
from ssmc.passes import ArrayErrors, Context, PassManager
from ssmc.passes.balance_columns import BalanceColumns
from ssmc.passes.grid import full_scale, largest_integer
from ssmc.passes.read_noise import ReadNoise, balanced, largest_square, read_noise
from ssmc.statespace import StateSpace, simulate
from ssmc.target import RunSettings

from .graphs import MACHINES, Model, build, linear, s4d

CHANNELS, STEPS = 12, 40


@given(st.integers(0, 2**16), st.integers(1, 12))
@settings(max_examples=15, deadline=None)
def test_the_largest_of_normal_numbers(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    variances = np.exp(rng.uniform(-3, 3, count))
    drawn = np.square(rng.standard_normal((100_000, count))) * variances
    assert largest_square(variances) == pytest.approx(drawn.max(1).mean(), rel=0.05)
    assert largest_square(np.zeros(count)) == 0.0


def test_a_machine_without_errors_has_no_noise() -> None:
    machine = MACHINES["crossbar"]
    assert read_noise(None) is None and read_noise(machine) is None
    assert read_noise(replace(machine, errors=ArrayErrors())) is None
    arch = BACKEND.load_arch("cim-large")
    assert read_noise(BACKEND.machine(arch, ideal=True)) is None
    found = read_noise(BACKEND.machine(arch, ideal=False))
    assert found is not None
    assert found.product == pytest.approx(2 / 2**4.6 / np.sqrt(12), rel=0.01)
    assert (found.spread, found.rows, found.columns) == (0.02, 64, 32)
    assert found.drive == pytest.approx(1 / 127 / np.sqrt(12)) and found.weight == pytest.approx(found.drive)


def channels(seed: int) -> StateSpace:
    """Channels whose outputs differ a hundredfold while their weights do not: some cancel."""
    rng = np.random.default_rng(seed)
    a = np.exp(-rng.uniform(0.02, 0.1, (CHANNELS, 4)) + 1j * np.cumsum(rng.uniform(0.05, 0.4, (CHANNELS, 4)), 1))
    c = rng.standard_normal((CHANNELS, 1, 4)) + 1j * rng.standard_normal((CHANNELS, 1, 4))
    c[::3, 0, 1] = -c[::3, 0, 0]
    a[::3, 1] = a[::3, 0] * np.exp(0.01j)
    return StateSpace(a, np.ones((CHANNELS, 4, 1)), c, np.zeros((CHANNELS, 1, 1)), halved=True)


def one_layer(system: StateSpace) -> Graph:
    m = Model(0)
    m.graph, m.h = Graph("one"), system.inputs
    m.x = m.input("u", m.graph_type())
    m.x = m.ssm(system)
    m.output(m.x, "y")
    return m.graph


@pytest.mark.parametrize("seed", [0, 1])
def test_the_chip_adds_what_was_predicted(seed: int) -> None:
    """The noise that share-decays tells, against runs of the program with all devices and without any."""
    graph = one_layer(channels(seed))
    u = np.random.default_rng(seed).standard_normal((64, STEPS, CHANNELS))
    arch = BACKEND.load_arch("cim-large")
    context = Context(BACKEND.machine(arch, ideal=False), calibration={"u": u})
    pipeline = f"choose-banks{{banks=volatile}},{BACKEND.pipeline(arch, ideal=False)}"
    placed = PassManager(pipeline, validate=False).run(graph, context)
    (loss,) = context.decays
    program = BACKEND.lower(placed, arch, ideal=False)
    clean = BACKEND.simulate(program, {"u": u}, RunSettings(noise="ideal")).outputs["y"]
    drawn = [BACKEND.simulate(program, {"u": u}, RunSettings(seed=k)).outputs["y"] for k in range(3)]
    met = np.mean([np.sqrt(np.square(y - clean).mean() / np.square(clean).mean()) for y in drawn])
    assert loss.noise is not None
    assert loss.noise == pytest.approx(met, rel=0.35)


def test_noise_that_is_weighed_is_less_of_it() -> None:
    """Against the same fit without a machine: further from the kernel, closer on the chip."""
    system = channels(0)
    graph = one_layer(system)
    u = np.random.default_rng(0).standard_normal((64, STEPS, CHANNELS))
    arch = BACKEND.load_arch("cim-large")
    machine = BACKEND.machine(arch, ideal=False)
    want = simulate(system, u)[0]
    errors, fits = [], []
    for known in (machine, replace(machine, errors=None, banks=())):
        context = Context(known, calibration={"u": u})
        shared = PassManager("share-decays{levels=2}", validate=False).run(graph, context)
        fits.append(context.decays[0])
        rest = BACKEND.pipeline(arch, ideal=False).partition("quantize")
        placed = PassManager(rest[1] + rest[2], validate=False).run(shared, Context(machine, calibration={"u": u}))
        program = BACKEND.lower(placed, arch, ideal=False)
        drawn = [BACKEND.simulate(program, {"u": u}, RunSettings(seed=k)).outputs["y"] for k in range(3)]
        errors.append(np.mean([np.square(y - want).mean() for y in drawn]))
    assert errors[0] < errors[1]
    assert fits[0].measured is not None and fits[1].measured is not None
    assert fits[0].measured >= fits[1].measured and fits[1].noise is None


# -- balance-columns -------------------------------------------------------------------------------------

ERRORS = ArrayErrors(product=0.02, weight=0.002, drive=0.002)


def uneven() -> tuple[Graph, dict[str, np.ndarray]]:
    """A matrix whose first column nearly cancels on the data."""
    graph = build(0, [linear], head="none")
    (node,) = graph.nodes("linear")
    rows, cols = node.op["weight"].shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 64, 1)) + 0.02 * rng.standard_normal((4, 64, rows))
    weight = rng.uniform(0.5, 1.0, (rows, cols))
    weight[:, 0] = np.resize([1.0, -1.0], rows)
    graph.set_op(node.name, node.op.with_attrs(weight=Tensor(weight)))
    return graph, {"u": x}


def test_balanced_columns_keep_their_grid_and_err_less() -> None:
    graph, data = uneven()
    machine = replace(MACHINES["crossbar"], errors=ERRORS)
    context = Context(machine, calibration=data)
    before = PassManager("quantize{weights=8},tile").run(graph, context)
    after = PassManager("balance-columns").run(before, context)
    (old,), (new,) = before.nodes("tile.matmul"), after.nodes("tile.matmul")
    grid = new.op["weight"].quantization
    whole = new.op["weight"].array / np.asarray(grid.scale)
    np.testing.assert_allclose(whole, np.rint(whole), atol=1e-9)
    assert np.abs(whole).max() <= largest_integer(grid.bits) + 1e-9
    assert (np.asarray(grid.scale) >= np.asarray(old.op["weight"].quantization.scale) * (1 - 1e-12)).all()
    x = interpret(before, data, keep=True)[str(before.operand(old.name, 0))]

    def missed(node: Node) -> np.ndarray:
        weight, total = node.op["weight"], np.zeros(old.op["weight"].shape[1])
        for piece in node.op["pieces"]:
            s = full_scale(weight, piece)
            part = x[..., piece.k0 : piece.k1]
            y = part @ weight.array[piece.k0 : piece.k1, piece.n0 : piece.n1] / s
            top = np.square(np.abs(y).max(-1)).mean()
            total[piece.n0 : piece.n1] += s**2 * (0.02**2 * top + 0.002**2 * np.square(part).sum(-1).mean())
        return total

    assert missed(new)[0] < 0.5 * missed(old)[0]
    assert missed(new).sum() <= missed(old).sum() * (1 + 1e-9)
    told = float(context.notes[-1].text.split(" to ")[1].split()[0])
    assert 0.0 < told < 0.71


def test_columns_stay_where_nothing_errs_or_nothing_is_known() -> None:
    graph, data = uneven()
    machine = MACHINES["crossbar"]
    noisy = replace(machine, errors=ERRORS)
    before = PassManager("quantize{weights=8},tile").run(graph, Context(machine))
    for context in (Context(machine, calibration=data), Context(noisy), Context(noisy, calibration=data, ideal=True)):
        assert PassManager("balance-columns").run(before, context) is before
    plain = PassManager("tile").run(graph, Context(machine))
    assert PassManager("balance-columns").run(plain, Context(noisy, calibration=data)) is plain
    with pytest.raises(ValueError, match="at least 1"):
        BalanceColumns(steps=0)


def test_the_best_scales_are_no_worse_than_those_as_they_are() -> None:
    """And the power of an output that decides its own scale does not depend on its largest weight."""
    noise = read_noise(BACKEND.machine(BACKEND.load_arch("cim-large"), ideal=False))
    assert noise is not None
    rng = np.random.default_rng(0)
    least, outputs, power = np.exp(rng.uniform(-2, 2, 8)), np.exp(rng.uniform(-3, 3, (8, 2))), np.ones(8)
    scale, whole = balanced(noise, least, outputs, power)
    assert (scale >= least).all()
    top = sum(largest_square(outputs[:, a] / least**2) for a in (0, 1))
    assert (scale**2 * whole).sum() <= (least**2 * (noise.product**2 * top + noise.weight**2 * power)).sum()


def test_errors_of_weights_alone_are_those_of_full_conductance() -> None:
    """Nothing is gained by a wider column then, and each state's power counts."""
    noise = ReadNoise(product=0.0, weight=0.01, drive=0.0, spread=0.0, rows=8, columns=8)
    least, power = np.array([0.5, 2.0]), np.array([3.0, 7.0])
    scale, whole = balanced(noise, least, np.ones((2, 1)), power)
    np.testing.assert_allclose(scale, least)
    np.testing.assert_allclose(whole, 1e-4 * power)


def test_layers_built_at_random_run_with_balanced_columns() -> None:
    """The pass leaves what a program computes within the rounding of its grid."""
    graph = build(5, [linear, s4d, linear])
    machine = replace(MACHINES["crossbar"], errors=ERRORS)
    (u,) = graph.inputs()
    x = {u.op["name"]: np.random.default_rng(0).standard_normal((4, 32, *u.types[0].shape))}  # type: ignore[union-attr]
    before = PassManager("quantize{weights=8},tile").run(graph, Context(machine, calibration=x))
    after = PassManager("balance-columns,map-weights").run(before, Context(machine, calibration=x))
    for name, y in interpret(before, x).items():
        np.testing.assert_allclose(interpret(after, x)[name], y, atol=0.2 * np.abs(y).max())
