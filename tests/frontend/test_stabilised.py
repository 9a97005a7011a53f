"""Sums of exponentials kept in range by a running maximum (RWKV-4, xLSTM); recurrences that are truly not linear."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.checks import refused
from tests.frontend.net import Net, save

WIDTH = 3
Step = Callable[[Net, str, list[str]], tuple[str, list[str]]]


def linear(net: Net, x: str, outputs: int = WIDTH, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    weight, bias = 0.4 * rng.standard_normal((WIDTH, outputs)), 0.4 * rng.standard_normal(outputs)
    return str(net.op("Gemm", x, net.const(weight), net.const(bias)))


def rwkv(net: Net, x: str, states: list[str], decay: float = -0.4) -> tuple[str, list[str]]:
    """The time mixing of RWKV-4, as its own code computes it in one step."""
    aa, bb, pp = states
    k, v = linear(net, x, seed=1), linear(net, x, seed=2)
    ww = net.op("Add", k, net.const(np.linspace(-0.5, 0.5, WIDTH)))
    p = net.op("Max", pp, ww)
    e1, e2 = net.op("Exp", net.op("Sub", pp, p)), net.op("Exp", net.op("Sub", ww, p))
    top = net.op("Add", net.op("Mul", e1, aa), net.op("Mul", e2, v))
    y = net.op("Div", top, net.op("Add", net.op("Mul", e1, bb), e2))
    ww = net.op("Add", pp, net.const(decay * np.linspace(0.2, 1.0, WIDTH)))
    p = net.op("Max", ww, k)
    e1, e2 = net.op("Exp", net.op("Sub", ww, p)), net.op("Exp", net.op("Sub", k, p))
    aa = net.op("Add", net.op("Mul", e1, aa), net.op("Mul", e2, v))
    bb = net.op("Add", net.op("Mul", e1, bb), e2)
    return net.op("Mul", y, net.op("Sigmoid", linear(net, x, seed=3))), [aa, bb, p]


def mlstm(net: Net, x: str, states: list[str], small: float = 0.0) -> tuple[str, list[str]]:
    """The matrix memory of xLSTM; its gates are one number a sample."""
    memory, norm, m = states
    q, k, v = (linear(net, x, seed=seed) for seed in (1, 2, 3))
    i, f = linear(net, x, 1, 4), linear(net, x, 1, 5)
    forget = net.op("Neg", net.op("Softplus", net.op("Neg", f)))  # log sigmoid
    kept = net.op("Add", forget, m)
    top = net.op("Max", kept, i)
    ii, ff = net.op("Exp", net.op("Sub", i, top)), net.op("Exp", net.op("Sub", kept, top))
    outer = net.op("Mul", net.op("Unsqueeze", v, net.ints(2)), net.op("Unsqueeze", k, net.ints(1)))
    wide = [net.op("Unsqueeze", gate, net.ints(2)) for gate in (ff, ii)]
    memory = net.op("Add", net.op("Mul", wide[0], memory), net.op("Mul", wide[1], outer))
    norm = net.op("Add", net.op("Mul", ff, norm), net.op("Mul", ii, k))
    read = net.op("ReduceSum", net.op("Mul", memory, net.op("Unsqueeze", q, net.ints(1))), net.ints(2), keepdims=0)
    weight = net.op("Abs", net.op("ReduceSum", net.op("Mul", norm, q), net.ints(1), keepdims=1))
    weight = net.op("Max", weight, net.op("Exp", net.op("Neg", top)))
    if small:
        weight = net.op("Add", weight, net.const(np.float32(small)))
    return net.op("Div", read, weight), [memory, norm, top]


def gru(net: Net, x: str, states: list[str]) -> tuple[str, list[str]]:
    (h,) = states
    gate = net.op("Sigmoid", net.op("Add", linear(net, x, seed=1), linear(net, h, seed=2)))
    new = net.op("Tanh", net.op("Add", linear(net, x, seed=3), linear(net, h, seed=4)))
    h = net.op("Add", net.op("Mul", gate, h), net.op("Mul", net.op("Sub", net.const(np.ones(1)), gate), new))
    return h, [h]


def slstm(net: Net, x: str, states: list[str]) -> tuple[str, list[str]]:
    """The scalar memory of xLSTM: its gates see what they made, beside a running maximum (equations 8 to 15)."""
    h, memory, norm, m = states
    z, i, f = (net.op("Add", linear(net, x, seed=s), linear(net, h, seed=s + 3)) for s in (1, 2, 3))
    kept = net.op("Add", f, m)
    top = net.op("Max", kept, i)
    ii, ff = net.op("Exp", net.op("Sub", i, top)), net.op("Exp", net.op("Sub", kept, top))
    memory = net.op("Add", net.op("Mul", ff, memory), net.op("Mul", ii, net.op("Tanh", z)))
    norm = net.op("Add", net.op("Mul", ff, norm), ii)
    h = net.op("Div", memory, norm)
    return h, [h, memory, norm, top]


SHAPES = {
    "slstm": [[WIDTH]] * 4,
    "rwkv": [[WIDTH], [WIDTH], [WIDTH]],
    "mlstm": [[WIDTH, WIDTH], [WIDTH], [1]],
    "gru": [[WIDTH]],
}
STEPS: dict[str, Step] = {"slstm": slstm, "rwkv": rwkv, "mlstm": mlstm, "gru": gru}


def scanned(step: Step, shapes: list[list[int]], folder: Path, batch: int = 2) -> Path:
    """The step as the body of a Scan over a dynamic length; logarithms of nothing start far below zero."""
    net = Net()
    u = net.input([batch, "t", WIDTH])
    starts = [np.zeros((batch, *shape)) for shape in shapes]
    if len(shapes) == 3:
        starts[2] -= 1e38 if shapes[2] == [WIDTH] else 0.0
    names = [net.const(start) for start in starts]
    moved = net.op("Transpose", u, perm=[1, 0, 2])
    inner = Net()
    inner.inputs, inner.nodes, inner.weights = [], [], []
    states = [inner.input([batch, *shape]) for shape in shapes]
    x = inner.input([batch, WIDTH])
    y, following = step(inner, x, states)
    dims = [batch, WIDTH]
    followed = [inner.op("Identity", value) for value in following]
    body = inner.subgraph([*((v, [batch, *s]) for v, s in zip(followed, shapes, strict=True)), (y, dims)])
    found = net.op("Scan", *names, moved, outputs=len(shapes) + 1, body=body, num_scan_inputs=1)
    y = linear_head(net, net.op("Transpose", found[-1], perm=[1, 0, 2]))
    return save(net.model([(y, [batch, "t", 2])]), folder)


def linear_head(net: Net, y: str) -> str:
    return str(net.op("MatMul", y, net.const(np.random.default_rng(9).standard_normal((WIDTH, 2)))))


def one_step(step: Step, shapes: list[list[int]], folder: Path) -> tuple[Path, list[str]]:
    net = Net()
    x = net.input(["b", WIDTH])
    states = [net.input(["b", *shape]) for shape in shapes]
    y, following = step(net, x, states)
    outputs = [(linear_head(net, y), ["b", 2]), *((v, ["b", *s]) for v, s in zip(following, shapes, strict=True))]
    return save(net.model(outputs), folder), states


def on_both(path: Path, lengths: tuple[int, ...], **states: np.ndarray) -> None:
    model, rng = load_model(path), np.random.default_rng(3)
    data = next(port for port in model.inputs if port.name not in model.states)
    for target in ("cim", "epochcore"):
        program = compile_model(model, target, ideal=True)
        for length in lengths:
            u = rng.standard_normal((2, length, WIDTH)).astype(np.float32)
            found = program.run({data.name: u, **states}).outputs
            for name, array in reference(model, {data.name: u, **states}).items():
                assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()


@pytest.mark.parametrize("kind", ["rwkv", "mlstm"])
def test_scanned(tmp_path: Path, kind: str) -> None:
    path = scanned(STEPS[kind], SHAPES[kind], tmp_path)
    model = load_model(path)
    assert len(model.systems) == 2  # the sums, and no running maximum
    assert any("running maxim" in note for note in model.notes)
    on_both(path, (1, 5, 40))


@pytest.mark.parametrize("kind", ["rwkv", "mlstm"])
def test_one_step_gives_its_states_as_the_file_does(tmp_path: Path, kind: str) -> None:
    path, states = one_step(STEPS[kind], SHAPES[kind], tmp_path)
    assert set(load_model(path).states) == set(states)
    rng = np.random.default_rng(8)
    given = {
        name: rng.uniform(0.5, 1.5, (2, *s)).astype(np.float32) for name, s in zip(states, SHAPES[kind], strict=True)
    }
    on_both(path, (1, 12))
    on_both(path, (7,), **given)


def test_sums_that_grow_are_refused(tmp_path: Path) -> None:
    def step(net: Net, x: str, states: list[str]) -> tuple[str, list[str]]:
        return rwkv(net, x, states, decay=0.4)

    refused(scanned(step, SHAPES["rwkv"], tmp_path), "running maximum", "grow, by exp(0.4)")


def test_what_reads_more_than_the_sums_is_refused(tmp_path: Path) -> None:
    def step(net: Net, x: str, states: list[str]) -> tuple[str, list[str]]:
        return mlstm(net, x, states, small=1e-2)

    refused(scanned(step, SHAPES["mlstm"], tmp_path), "is a running maximum beside sums, and more than that")


def test_recurrent_networks_are_refused_by_their_nodes(tmp_path: Path) -> None:
    message = refused(
        scanned(gru, SHAPES["gru"], tmp_path), "not a linear function of the state, as in RNN, GRU and LSTM"
    )
    assert "Tanh" in message and "Sigmoid" in message


def test_gates_that_see_what_they_made_are_refused_as_such(tmp_path: Path) -> None:
    message = refused(scanned(slstm, SHAPES["slstm"], tmp_path), "not a linear function of the state")
    assert "grow" not in message
    path, (state,) = one_step(gru, SHAPES["gru"], tmp_path)
    refused(path, f"state '{state}': its next value", "is not a linear function of it", "--state IN=OUT")
    named = load_model(path, states={state: load_model(path, strict=False).outputs[1].name}, strict=False)
    assert any("not a linear function of the state" in refusal.reason for refusal in named.unsupported)
