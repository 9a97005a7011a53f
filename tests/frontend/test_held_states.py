"""Dense recurrences over padded batches: x <- m (A x + B u) + (1 - m) x, m from lengths or a mask of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.driver import compile_model
from ssmc.frontend import Model, load_model, reference
from tests.frontend.blocks import RNG
from tests.frontend.checks import refused
from tests.frontend.net import Net, save

WIDTH, HEADS = 3, 2


def rotation(n: int) -> Any:
    return 0.95 * np.linalg.qr(np.random.default_rng(n).standard_normal((n, n)))[0]


def hippo(n: int, step: float = 0.05) -> Any:
    """HiPPO-LegS, bilinear: its eigenvectors have condition 2^(4n/3)."""
    k = np.arange(n)
    q = np.sqrt(2 * k + 1)
    a = -np.where(k[:, None] > k, q[:, None] * q, 0) - np.diag(k + 1)
    return np.linalg.solve(np.eye(n) - step / 2 * a, np.eye(n) + step / 2 * a)


MATRICES = {
    "rotation": rotation(5),  # one real eigenvalue and two pairs
    "legs": hippo(8),
    "legs, ill-conditioned": hippo(12),
    "defective": 0.9 * np.eye(4) + 0.1 * np.eye(4, k=-1),
}


def scanned(net: Net, x: str, masks: str, a: Any, heads: int = 0) -> tuple[str, str]:
    """The states of each step and the last ones; `masks` (b, t, 1)."""
    n, body = len(a), Net()
    dims: list[int | str] = ["b", heads, n] if heads else ["b", n]
    state, u, m = body.input(dims), body.input(["b", WIDTH]), body.input(["b", 1])
    drive = body.op("MatMul", u, body.const(RNG.standard_normal((WIDTH, n))))
    if heads:
        drive, m = (body.op("Unsqueeze", v, body.ints(1)) for v in (drive, m))
        drive = body.op("Mul", drive, body.const(np.arange(1.0, heads + 1)[:, None]))
    new = body.op("Add", body.op("MatMul", state, body.const(a.T)), drive)
    kept = body.op("Mul", body.op("Sub", body.const(np.float32(1)), m), state)
    following = body.op("Add", body.op("Mul", m, new), kept)
    graph = body.subgraph([(following, dims), (body.op("Identity", following), dims)])
    sizes = [net.op("Shape", x, end=1), net.ints(*dims[1:])]  # type: ignore[arg-type]
    zero = net.op("ConstantOfShape", net.op("Concat", *sizes, axis=0))
    axes = {"num_scan_inputs": 2, "scan_input_axes": [1, 1], "scan_output_axes": [1]}
    last, states = net.op("Scan", zero, x, masks, outputs=2, body=graph, **axes)
    return states, last


def until(net: Net, x: str, lengths: str, compared: str = "Less") -> str:
    """(b, t, 1) 1 where the number of the step is below the length."""
    count = net.op("Squeeze", net.op("Shape", x, start=1, end=2), net.ints(0))
    steps = net.op("Range", net.const(np.int64(0)), count, net.const(np.int64(1)))
    told = net.op(compared, net.op("Unsqueeze", steps, net.ints(0)), net.op("Unsqueeze", lengths, net.ints(1)))
    return str(net.op("Unsqueeze", net.op("Cast", told, to=TensorProto.FLOAT), net.ints(2)))


def runs(model: Model, lengths: str = "") -> None:
    for batch, length in ((3, 11), (1, 4)):
        arrays: dict[str, Any] = {}
        for port in model.inputs:
            if port.name == lengths:
                arrays[port.name] = RNG.integers(1, length + 1, batch)
            else:
                arrays[port.name] = RNG.standard_normal((batch, length, *port.type.shape)).astype(np.float32)
                if port.dtype == "bool":
                    arrays[port.name] = arrays[port.name] > 0
        expected = reference(model, arrays)
        for target in ("cim", "epochcore"):
            found = compile_model(model, target, ideal=True).run(arrays).outputs
            for name, array in expected.items():
                assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()


@pytest.mark.parametrize("form", MATRICES)
def test_states_stay_behind_the_end(tmp_path: Path, form: str) -> None:
    a, net = MATRICES[form], Net()
    x, lengths = net.input(["b", "t", WIDTH]), net.input(["b"], TensorProto.INT64)
    states, last = scanned(net, x, until(net, x, lengths), a)
    y = net.op("MatMul", states, net.const(RNG.standard_normal((len(a), 2))))
    z = net.op("MatMul", last, net.const(RNG.standard_normal((len(a), 2))))
    model = load_model(save(net.model([(y, ["b", "t", 2]), (z, ["b", 2])]), tmp_path))
    assert {s.kind for s in model.systems} <= {"selective", "linear time-invariant"}
    assert max(proof.error for proof in model.proofs if proof.against == "the file in float64") < 1e-9
    runs(model, lengths)


@pytest.mark.parametrize("heads", [0, HEADS])
def test_states_are_held_by_a_mask(tmp_path: Path, heads: int) -> None:
    """At any step; one mask for all heads."""
    net, n = Net(), 4
    x, mask = net.input(["b", "t", WIDTH]), net.input(["b", "t"], TensorProto.BOOL)
    masks = net.op("Unsqueeze", net.op("Cast", mask, to=TensorProto.FLOAT), net.ints(2))
    states, _ = scanned(net, x, masks, rotation(n), heads)
    if heads:
        states = net.op("Reshape", states, net.ints(0, 0, heads * n))
    y = net.op("MatMul", states, net.const(RNG.standard_normal((max(heads, 1) * n, 2))))
    model = load_model(save(net.model([(y, ["b", "t", 2])]), tmp_path))
    assert [s.kind for s in model.systems] == ["selective"]
    runs(model)


def test_no_basis_and_steps_held_between_others(tmp_path: Path) -> None:
    """What only the data tell is not behind a length."""
    net, a = Net(), MATRICES["defective"]
    x, mask = net.input(["b", "t", WIDTH]), net.input(["b", "t"], TensorProto.BOOL)
    states, _ = scanned(net, x, net.op("Unsqueeze", net.op("Cast", mask, to=TensorProto.FLOAT), net.ints(2)), a)
    y = net.op("MatMul", states, net.const(RNG.standard_normal((len(a), 2))))
    refused(save(net.model([(y, ["b", "t", 2])]), tmp_path), "held at steps that are not those behind a length")


def test_the_same_in_a_traced_loop(tmp_path: Path) -> None:
    net, steps, a = Net(), 7, MATRICES["legs, ill-conditioned"]
    x, lengths = net.input(["b", steps, WIDTH]), net.input(["b"], TensorProto.INT64)
    weights = net.const(RNG.standard_normal((WIDTH, len(a))))
    state, matrix = "", net.const(a.T)
    for k in range(steps):
        new = net.op("MatMul", net.op("Gather", x, net.const(np.int64(k)), axis=1), weights)
        if not state:
            state = net.op("ConstantOfShape", net.op("Shape", new))
        new = net.op("Add", net.op("MatMul", state, matrix), new)
        going = net.op("Unsqueeze", net.op("Greater", lengths, net.const(np.int64(k))), net.ints(1))
        state = net.op("Where", going, new, state)
    y = net.op("MatMul", state, net.const(RNG.standard_normal((len(a), 2))))
    model = load_model(save(net.model([(y, ["b", 2])]), tmp_path))
    arrays = {x: RNG.standard_normal((steps, steps, WIDTH)).astype(np.float32), lengths: np.arange(1, steps + 1)}
    (expected,) = reference(model, arrays).values()
    for target in ("cim", "epochcore"):
        (found,) = compile_model(model, target, ideal=True).run(arrays).outputs.values()
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
