"""What constants alone make is worked out once, and what is large of it is never held whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from ssmc.frontend.source import statics
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.importer import import_model, import_onnx
from ssmc.frontend.source.kernels_shape import SHAPE_KERNELS
from ssmc.frontend.source.listing import Call, Listing, list_calls
from ssmc.frontend.source.proto import ModelFile
from ssmc.frontend.source.statics import Table, fold_statics, part_of
from tests.frontend.net import Net

CHANNELS, MODES, LENGTH = 6, 8, 512


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables from a few thousand entries on, in blocks of two channels."""
    monkeypatch.setattr(statics, "SMALL", 1 << 12)
    monkeypatch.setattr(statics, "BLOCK", 2 * MODES * LENGTH)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Entries of the largest result of every call that is run."""
    sizes: list[int] = []
    run = statics.run_call

    def watched(call: Any, arrays: Any) -> Any:
        results = run(call, arrays)
        sizes.append(max(np.size(array) for array in results))
        return results

    monkeypatch.setattr(statics, "run_call", watched)
    return sizes


def listed(net: Net, path: Path, *outputs: str) -> tuple[Listing, Listing]:
    """The model's listing, folded, and one as it is; outputs are dynamic in shape."""
    graph = net.subgraph([(name, None) for name in outputs])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path / "model.onnx")
    found, plain = (list_calls(import_onnx(path / "model.onnx")) for _ in range(2))
    fold_statics(found)
    return found, plain


def kernel(net: Net, rng: np.random.Generator, reduce: str) -> str:
    """The kernel of S4D, sum over modes of c exp(a l)."""
    rates = net.const(-rng.uniform(0.001, 0.1, (CHANNELS, MODES, 1)))
    table = net.op("Exp", net.op("Mul", rates, net.const(np.arange(LENGTH, dtype=np.float64))))
    gain = rng.standard_normal((CHANNELS, MODES, 1))
    if reduce == "ReduceSum":
        weighted = net.op("Mul", net.const(gain), table)
        return str(net.op("ReduceSum", weighted, net.ints(1), keepdims=0))
    if reduce == "Einsum":
        return str(net.op("Einsum", net.const(gain[..., 0]), table, equation="hn,hnl->hl"))
    return str(net.op("MatMul", net.const(gain.swapaxes(1, 2)), table))


def streamed(net: Net, value: str) -> str:
    """The value beside something that is not constant, so that it is asked for."""
    return str(net.op("Add", net.input([1]), value))


@pytest.mark.parametrize("reduce", ["ReduceSum", "Einsum", "MatMul"])
def test_a_kernel_is_folded_piece_by_piece(reduce: str, tmp_path: Path, held: list[int]) -> None:
    net = Net()
    h = kernel(net, np.random.default_rng(0), reduce)
    found, plain = listed(net, tmp_path, streamed(net, h))
    value = next(v for call in found.calls if call.kind == "Add" for v in call.operands if v in found.constants)
    np.testing.assert_allclose(found.constants[value], evaluate(plain, {}, [value])[value], rtol=1e-12)
    assert max(held) <= 2 * MODES * LENGTH < CHANNELS * MODES * LENGTH
    assert {call.kind for call in found.calls if call.results[0] in found.tables} >= {"Exp", "Mul"}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 16), st.integers(-3, 2), st.data())
def test_any_part_of_a_table_is_that_part(seed: int, axis: int, data: st.DataObject) -> None:
    """Of chains of elementwise ops on operands that broadcast, along any axis, by slices and by indices."""
    rng, shape = np.random.default_rng(seed), (4, 5, 7)

    def leaf() -> np.ndarray:
        kept = rng.integers(0, 2, 3).astype(bool)
        array = rng.standard_normal(np.where(kept, shape, 1))
        return array[0] if rng.integers(2) and not kept[0] else array

    whole = leaf() + np.zeros(shape)
    table: Any = whole
    for call in pointwise_calls():
        other = leaf()
        operands: tuple[Any, ...] = (table, other) if call.kind in ("Add", "Mul") else (table,)
        table = Table(np.broadcast_shapes(*(x.shape for x in operands)), call, operands)
        whole = {"Add": np.add, "Mul": np.multiply}[call.kind](whole, other) if len(operands) > 1 else np.sin(whole)
    size = shape[axis]
    index = data.draw(st.slices(size) | st.lists(st.integers(0, size - 1), min_size=1, max_size=9).map(np.array))
    chosen = (slice(None),) * (axis % 3) + (index,)
    np.testing.assert_array_equal(table.part(axis, index), whole[chosen])
    np.testing.assert_array_equal(part_of(table, axis % 3 - 3, index, {}), whole[chosen])


def pointwise_calls() -> list[Call]:
    """Calls of the kinds that a table may be made by, in a row."""
    net = Net()
    x = net.input([1])
    for kind in ("Add", "Sin", "Mul", "Sin", "Add"):
        x = net.op(kind, x, *([net.const(np.ones(1))] if kind in ("Add", "Mul") else []))
    return list_calls(import_model(ModelFile(net.model([(x, [1])]), {}), "model.onnx")).calls


def test_what_is_large_and_only_passed_on_is_let_go(tmp_path: Path) -> None:
    """A large result that constants alone read is not kept beside them; one that the model reads is."""
    net = Net()
    big = net.op("MatMul", net.const(np.ones((128, 2))), net.const(np.ones((2, 128))))
    total = net.op("ReduceSum", big, net.ints(1), keepdims=0)
    used = net.op("MatMul", net.const(np.ones((128, 3))), net.const(np.ones((3, 128))))
    found, _ = listed(net, tmp_path, streamed(net, total), streamed(net, used))
    shapes = {np.shape(array) for value, array in found.constants.items() if value in found.producer}
    assert shapes == {(128,), (128, 128)}
    assert len(found.folded) == 1


def test_what_depends_on_the_input_or_on_chance_is_no_constant(tmp_path: Path) -> None:
    net = Net()
    x = net.input([3])
    noise = net.op("RandomNormal", shape=[3])
    shape = net.op("Shape", x)
    found, _ = listed(net, tmp_path, net.op("Add", x, net.const(np.ones(3))), noise, shape)
    assert not any(call.results[0] in found.constants for call in found.calls)


def test_a_node_that_cannot_run_is_left_for_who_needs_it(tmp_path: Path) -> None:
    net = Net()
    bad = net.op("MatMul", net.const(np.ones((2, 3))), net.const(np.ones((2, 3))))
    good = net.op("Neg", net.const(np.ones(3)))
    found, _ = listed(net, tmp_path, streamed(net, bad), streamed(net, good))
    folded = {call.kind for call in found.calls if call.results[0] in found.constants}
    assert folded == {"Neg"}


def test_padding_with_a_complex_number_keeps_its_imaginary_part() -> None:
    (padded,) = SHAPE_KERNELS["Pad"]([np.ones(2), np.array([1, 0]), np.array(2 + 3j)], {}, 1)
    assert padded.tolist() == [2 + 3j, 1, 1]


def test_weights_are_not_copied_into_other_shapes(tmp_path: Path) -> None:
    """A large weight that is only turned or cast stays one array."""
    net = Net()
    weight = net.const(np.ones((96, 64)))
    turned = net.op("Cast", net.op("Transpose", weight, perm=[1, 0]), to=TensorProto.FLOAT)
    small = net.op("Transpose", net.const(np.ones((3, 4))), perm=[1, 0])
    found, _ = listed(net, tmp_path, streamed(net, turned), streamed(net, small))
    assert [np.shape(a) for v, a in found.constants.items() if v in found.producer] == [(4, 3)]


def test_chains_on_a_large_weight_run_once_and_are_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: list[int]
) -> None:
    """Elementwise ops and others in turn on a weight beyond what is kept, which end in a small constant."""
    monkeypatch.setattr(statics, "KEPT", 1 << 10)
    net, size = Net(), 96 * 64
    value = net.const(np.random.default_rng(3).uniform(0.1, 1.0, (96, 64)))
    for k in range(12):
        value = net.op("Transpose", net.op("Tanh", value), perm=[1, 0])
        value = net.op("Softmax", value, axis=k % 2)
    value = net.op("ReduceMax", value, keepdims=0)
    found, plain = listed(net, tmp_path, streamed(net, value))
    (folded,) = (v for v in found.constants if v in found.producer)
    np.testing.assert_allclose(found.constants[folded], evaluate(plain, {}, [folded])[folded], rtol=1e-12)
    assert sum(held) <= 36 * size + 1
    assert not any(np.size(operand) == size for table in list(found.tables.values())[1:] for operand in table.operands)
    assert len(found.needed(list(found.outputs.values()), found.inputs.values())) == 1


@pytest.mark.parametrize("room,kept", [(1 << 14, 2), (1 << 13, 1), (0, 0)])
def test_large_results_are_kept_while_there_is_room(
    room: int, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statics, "KEPT", 1 << 10)
    monkeypatch.setattr(statics, "ROOM", room)
    net = Net()
    weights = [net.op("Softmax", net.const(np.random.default_rng(k).uniform(size=(96, 64)))) for k in range(2)]
    grown = net.op("Tile", net.const(np.ones((4, 4))), net.ints(32, 32))
    found, _ = listed(net, tmp_path, *(streamed(net, value) for value in (*weights, grown)))
    assert [call.kind for call in found.calls if call.results[0] in found.constants] == ["Softmax"] * kept
