"""What an import does grows with the file: the calls it makes are counted, for a file and for one of twice the size."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnx
import pytest

from ssmc.diagnostics import UserError
from ssmc.frontend import load_model
from ssmc.frontend.mixing import cuts
from ssmc.frontend.source.listing import Listing
from ssmc.ir.graph import Value
from tests.frontend.net import Net, save, stepwise

LINEAR = 2.4  # times as many calls for twice the size: linear, and what sorting and the like add
CHUNK, WIDTH = 4, 3


def calls_of(model: onnx.ModelProto, folder: Path) -> int:
    """Functions that are called while a model is imported; it must be lifted."""
    path, made = save(model, folder), 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        found = load_model(path)
    finally:
        sys.setprofile(None)
    assert found.systems and all(proof.passed for proof in found.proofs)
    return made


def chunks(count: int) -> onnx.ModelProto:
    """Gated linear attention in an unrolled loop over chunks, joined by a Concat."""
    rng, net = np.random.default_rng(3), Net()
    x = net.input([2, count * CHUNK, WIDTH])
    q, k, v, gate = (net.op("MatMul", x, net.const(rng.standard_normal((WIDTH, WIDTH)))) for _ in range(4))
    logs = net.op("Neg", net.op("Softplus", gate))
    mask = net.const(np.tril(np.ones((CHUNK, CHUNK))))
    state, parts = net.const(np.zeros((2, WIDTH, WIDTH))), []
    for c in range(count):
        bounds = net.ints(c * CHUNK), net.ints((c + 1) * CHUNK), net.ints(1)
        qc, kc, vc, lc = (net.op("Slice", value, *bounds) for value in (q, k, v, logs))
        sums = net.op("CumSum", lc, net.const(np.int64(1)))
        last = net.op("Slice", sums, net.ints(-1), net.ints(CHUNK), net.ints(1))
        left, right = net.op("Mul", qc, net.op("Exp", sums)), net.op("Mul", kc, net.op("Exp", net.op("Neg", sums)))
        scores = net.op("Mul", net.op("MatMul", left, net.op("Transpose", right, perm=[0, 2, 1])), mask)
        parts.append(net.op("Add", net.op("MatMul", scores, vc), net.op("MatMul", left, state)))
        kept = net.op("Transpose", net.op("Mul", kc, net.op("Exp", net.op("Sub", last, sums))), perm=[0, 2, 1])
        faded = net.op("Mul", state, net.op("Transpose", net.op("Exp", last), perm=[0, 2, 1]))
        state = net.op("Add", faded, net.op("MatMul", kept, vc))
    return net.model([(net.op("Concat", *parts, axis=1), [2, count * CHUNK, WIDTH])])


def functions_of_functions(count: int) -> onnx.ModelProto:
    net = Net()
    y = net.op("CumSum", net.input(["b", "t", WIDTH]), net.const(np.int64(1)))
    for k in range(count):
        y = net.op(("Tanh", "Relu", "Sigmoid")[k % 3], y)
    return stepwise(net, y, WIDTH)


CASES: dict[str, tuple[Callable[[int], onnx.ModelProto], int]] = {
    "chunks": (chunks, 6),
    "functions of functions": (functions_of_functions, 200),
}


@pytest.mark.parametrize("name", CASES)
def test_calls_grow_with_the_file(name: str, tmp_path: Path) -> None:
    build, size = CASES[name]
    calls_of(build(size // 2), tmp_path)  # what is done once
    once, twice = (calls_of(build(n), tmp_path) for n in (size, 2 * size))
    assert twice <= LINEAR * once


@pytest.mark.parametrize("outputs", [10, 30])
def test_what_an_input_reaches_is_not_looked_up_for_each_output(
    outputs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of a potential, and comparisons of it that could each be its spikes."""
    net = Net()
    x, state = net.input(["b", WIDTH]), net.input(["b", WIDTH])
    following = net.op("Add", net.op("Mul", state, net.const(np.asarray([0.5, 0.6, 0.7]))), x)
    above = [net.op("Greater", following, net.const(np.float32(0.1 * k))) for k in range(outputs)]
    spikes = [net.op("Cast", fires, to=onnx.TensorProto.FLOAT) for fires in above]
    model = net.model([(name, ["b", WIDTH]) for name in (following, *spikes)])
    looked, influenced = [], Listing.influenced

    def counted(self: Listing, sources: Collection[Value]) -> set[Value]:
        looked.append(sources)
        return influenced(self, sources)

    monkeypatch.setattr(Listing, "influenced", counted)
    assert load_model(save(model, tmp_path)).states == {state: following}
    assert len(looked) < 10


def chain(states: int) -> onnx.ModelProto:
    """One step of layers that hand on what they make: every next state is affine in all states before it."""
    net, rng = Net(), np.random.default_rng(0)
    x = net.input([1, WIDTH])
    outputs: list[tuple[str, list[int]]] = []
    for state in [net.input([1, WIDTH]) for _ in range(states)]:
        following = net.op("Add", net.op("Mul", state, net.const(rng.uniform(0.1, 0.9, WIDTH))), x)
        outputs.append((following, [1, WIDTH]))
        x = net.op("Add", x, net.op("Mul", following, net.const(rng.uniform(-0.1, 0.1, WIDTH))))
    return net.model([(x, [1, WIDTH]), *outputs])


def test_states_that_are_all_affine_in_each_other_are_no_cubic_work(tmp_path: Path) -> None:
    calls_of(chain(3), tmp_path)  # what is imported when it is first needed
    few, many = (calls_of(chain(count), tmp_path) for count in (10, 30))
    assert many <= 5 * few  # three times as many: they all meet each other, and nothing more than that


@pytest.mark.invalid_files
def test_places_to_cut_a_region_at_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long chain behind what mixes time, that is nothing wherever it is cut, is not tried at each of its nodes."""
    net = Net()
    x = net.input(["b", 12, WIDTH])
    scores = net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1]))
    y = net.op("MatMul", net.op("Sin", scores), x)
    for _ in range(100):
        y = net.op("Tanh", y)
    regions, tried = cuts.explain_region, 0

    def counted(*given: Any) -> Any:
        nonlocal tried
        tried += 1
        return regions(*given)

    monkeypatch.setattr(cuts, "explain_region", counted)
    monkeypatch.setattr(cuts, "MOST_CUTS", 8)
    monkeypatch.setattr(cuts, "MOST_WALKED", 1 << 10)
    with pytest.raises(UserError, match="attention"):
        load_model(save(net.model([(y, ["b", 12, WIDTH])]), tmp_path))
    assert tried < 60
