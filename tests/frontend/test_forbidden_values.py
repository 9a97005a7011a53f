"""Nodes that are given numbers which no such node may have: told as that, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from ssmc.diagnostics import UserError
from ssmc.frontend import load_model
from tests.frontend.checks import refused
from tests.frontend.net import Net, save

pytestmark = pytest.mark.invalid_files
Build = Callable[[Net, str], str]


def model(build: Build, steps: int | str = "t", features: int = 3) -> onnx.ModelProto:
    net = Net()
    return net.model([(build(net, net.input(["b", steps, features])), ["b", "s", "f"])])


def stft(step: int, length: int | None, window: int | None = None) -> Build:
    def build(net: Net, x: str) -> str:
        weights = "" if window is None else net.const(np.ones(window))
        frames = "" if length is None else net.const(np.int64(length))
        return str(net.op("STFT", x, net.const(np.int64(step)), weights, frames))

    return build


def filtered(kind: str, **attrs: Any) -> Build:
    def build(net: Net, x: str) -> str:
        weights = [net.const(np.ones((3, 3, 4)))] if kind.startswith("Conv") else []
        return str(net.op(kind, net.op("Transpose", x, perm=[0, 2, 1]), *weights, **attrs))

    return build


def made(kind: str, *values: float, **attrs: Any) -> Build:
    """The sum of what an op makes of numbers alone, added to every step."""

    def build(net: Net, x: str) -> str:
        given = [net.const(np.int64(v) if isinstance(v, int) else np.float32(v)) for v in values]
        kept = net.op("Cast", net.op(kind, *given, **attrs), to=TensorProto.FLOAT)
        return str(net.op("Add", x, net.op("ReduceSum", kept, keepdims=0)))

    return build


def split(net: Net, x: str) -> str:
    return str(
        net.op("SequenceAt", net.op("SplitToSequence", x, net.const(np.int64(0)), axis=2), net.const(np.int64(0)))
    )


def sliced(net: Net, x: str) -> str:
    return str(net.op("Slice", x, net.ints(0), net.ints(2), net.ints(1), net.ints(0)))


def taken(*positions: int) -> Build:
    """An entry of a sequence; onnxruntime ends the process where it is told by no number."""
    return lambda net, x: str(net.op("SequenceAt", net.op("SequenceConstruct", x, x), net.ints(*positions)))


def normed(net: Net, x: str) -> str:
    ones = [net.const(np.ones(3)) for _ in range(3)]
    return str(net.op("BatchNormalization", net.op("Transpose", x, perm=[0, 2, 1]), *ones, net.const(-np.ones(3))))


def spelled(equation: str, *shapes: tuple[int, ...]) -> Build:
    return lambda net, x: str(net.op("Einsum", x, *(net.const(np.ones(s)) for s in shapes), equation=equation))


def taken_of_parts(position: int) -> Build:
    def build(net: Net, x: str) -> str:
        parts = net.op("SplitToSequence", x, net.ints(1, 2), axis=2)
        return str(net.op("SequenceAt", parts, net.const(np.int64(position))))

    return build


def dequantized(net: Net, x: str) -> str:
    codes = net.op("QuantizeLinear", x, net.const(np.float32(0.1)), net.const(np.int8(0)))
    return str(net.op("DequantizeLinear", codes, net.const(np.asarray(True)), net.const(np.int8(0))))


def turned(batch_axis: int, *lengths: int) -> Build:
    return lambda net, x: str(net.op("ReverseSequence", x, net.ints(*lengths), batch_axis=batch_axis, time_axis=1))


def tabled(net: Net, x: str) -> str:
    places = net.op("ArgMax", x, axis=2, keepdims=0)
    return str(net.op("OneHot", places, net.const(np.int64(4)), net.const(np.asarray([0.0, 1.0])), axis=3))


def largest(net: Net, x: str) -> str:
    wide = net.op("MatMul", x, net.const(np.arange(24.0).reshape(3, 8) % 5 - 2))
    return str(net.op("TopK", wide, net.ints(3), axis=2, sorted=0, outputs=2)[0])


def skipped(net: Net, x: str) -> str:
    ones = net.const(np.ones(3))
    return str(
        net.op("SkipLayerNormalization", x, net.const(np.ones((0, 1, 3))), ones, ones, ones, domain="com.microsoft")
    )


def within(net: Net, x: str) -> str:
    """In a branch of an If."""
    body = Net()
    part = body.op("DepthToSpace", body.const(np.ones((1, 1, 2, 2))), blocksize=0)
    graph = body.subgraph([(part, None)])
    return str(net.op("Add", x, net.op("If", net.const(np.asarray(True)), then_branch=graph, else_branch=graph)))


FORBIDDEN: dict[str, tuple[Build, str]] = {
    "no step between frames": (stft(0, 4), "'STFT' has frame_step 0 (at least 1)"),
    "frames that go back": (stft(-2, 4), "frame_step -2"),
    "frames of nothing": (stft(2, 0), "'STFT' has frame_length 0"),
    "frames of less": (stft(2, -4), "frame_length -4"),
    "a window of nothing": (stft(2, None, 0), "a window of shape (0,)"),
    "mel bands of no rate": (made("MelWeightMatrix", 4, 16, 0, 0.0, 4000.0), "sample_rate 0"),
    "mel bands of no spectrum": (made("MelWeightMatrix", 4, 0, 8000, 0.0, 4000.0), "dft_length 0"),
    "a filter that stays": (filtered("Conv", strides=[0]), "'Conv' has strides 0"),
    "a filter of no groups": (filtered("Conv", group=0), "group 0"),
    "a filter that is padded by less": (filtered("ConvTranspose", pads=[-5, -40]), "pads -5"),
    "a filter that leaps": (filtered("Conv", strides=[2**40]), "strides 1099511627776 (at most 134217728)"),
    "a filter of gaps": (filtered("ConvTranspose", dilations=[0]), "dilations 0"),
    "windows of nothing": (filtered("AveragePool", kernel_shape=[0]), "kernel_shape 0"),
    "windows of 2^40 steps": (filtered("MaxPool", kernel_shape=[2**40]), "kernel_shape 1099511627776"),
    "parts of nothing": (split, "parts of 0 entries each"),
    "steps of 0": (sliced, "'Slice' has steps of 0"),
    "a range that stays": (made("Range", 0, 10, 0), "'Range' has steps of 0"),
    "a window of less": (made("HannWindow", -4), "size -4"),
    "a division by zero": (made("Div", 1, 0), "a whole divisor of 0"),
    "a variance below zero": (normed, "a variance of -1"),
    "a mode of padding that is none": (filtered("Conv", auto_pad="foo"), "'Conv' has auto_pad 'foo' (one of NOTSET, "),
    "a mode of no words": (filtered("Conv", auto_pad=b"\xff"), "'Conv' has auto_pad"),
    "padding for another rank": (filtered("Conv", pads=[2, 0, 0]), "'Conv' has pads of 3 numbers"),
    "windows of another rank": (filtered("MaxPool", kernel_shape=[2], strides=[1, 1]), "'MaxPool' has strides of 2"),
    "weights of another window": (
        filtered("Conv", kernel_shape=[3]),
        "kernel_shape (3,) and weights of shape (3, 3, 4)",
    ),
    "groups that do not divide": (filtered("Conv", group=2), "group 2, which does not divide the 3 rows"),
    "axes beyond any": (
        lambda net, x: str(net.op("Concat", x, axis=2**40)),
        "'Concat' has axis 1099511627776, where a tensor has 64 axes at most",
    ),
    "a norm of no order": (lambda net, x: str(net.op("LpNormalization", x, p=3)), "'LpNormalization' has p 3 (1 or 2)"),
    "neither yes nor no": (
        lambda net, x: str(net.op("ReduceMax", x, net.ints(2), keepdims=-1)),
        "keepdims -1 (0 or 1)",
    ),
    "a number that is none": (lambda net, x: str(net.op("Elu", x, alpha=float("nan"))), "'Elu' has alpha nan"),
    "an epsilon below zero": (
        lambda net, x: str(net.op("LayerNormalization", x, net.const(np.ones(3)), epsilon=-1.0)),
        "'LayerNormalization' has epsilon -1",
    ),
    "axes of no number": (lambda net, x: str(net.op("Squeeze", x, net.ints())), "'Squeeze' has no number in its axes"),
    "an equation of more operands": (spelled("btf,fg,gh->bth", (3, 3)), "which is one of 3 operands, and 2 of these"),
    "an equation of no letters": (spelled("btf;fg->btg", (3, 3)), "equation 'btf;fg->btg', of more than letters"),
    "an equation with two results": (spelled("btf,fg->->btg", (3, 3)), "of more than letters"),
    "an axis from nowhere": (spelled("btf,fg->bth", (3, 3)), "whose result has the axis 'h' that no operand has"),
    "an axis twice": (spelled("btf,fg->bgg", (3, 3)), "whose result has the axis 'g' twice"),
    "an axis too few": (spelled("btf,f->btf", (3, 3)), "gives 1 axes to an operand of shape (3, 3)"),
    "axes of several sizes": (spelled("btf,fg,gf->btf", (3, 4), (5, 3)), "where the axis 'g' has 4 entries and 5"),
    "a position of no number": (taken(), "'SequenceAt' has 0 numbers for its position (one)"),
    "positions": (taken(0, 1), "'SequenceAt' has 2 numbers for its position"),
    "a position behind the last": (taken_of_parts(3), "the sequence has no entry of that number"),
    "a scale of truth values": (dequantized, "'DequantizeLinear' has a scale of truth values"),
    "sequences along no axis": (turned(-1, 7), "'ReverseSequence' has batch_axis -1 (an axis, from 0 on)"),
    "sequences of no lengths": (turned(0), "'ReverseSequence' has lengths of shape (0,)"),
    "lengths for other sequences": (turned(0, 24, 24), "it is given 2 lengths, one for each sequence, of"),
    "a table beside its axes": (tabled, "its axis 3 is none of the 3 of what it makes"),
    "the largest in no order": (largest, "leaves open in what order it gives what it finds (sorted=0)"),
    "a fused norm of nothing": (skipped, "'SkipLayerNormalization' is given"),  # onnxruntime ends the process on it
    "in a branch": (within, "'DepthToSpace' has blocksize 0"),
}


@pytest.mark.parametrize("name", FORBIDDEN)
@pytest.mark.parametrize("steps", ["t", 24])
def test_forbidden_values(name: str, steps: int | str, tmp_path: Path) -> None:
    build, said = FORBIDDEN[name]
    refused(save(model(build, steps, 1 if "STFT" in said or "window of shape" in said else 3), tmp_path), said)


FORMS: dict[str, tuple[Callable[[Net, str], Any], str]] = {
    "an operand that is left out": (lambda net, x: net.op("Mul", "", x), "'Mul' lacks its operand 1, 'A'"),
    "one of many that is left out": (  # onnxruntime ends the process on it
        lambda net, x: net.op("Einsum", x, "", equation="btf,fg->btg"),
        "'Einsum' lacks its operand 2, 'Inputs'",
    ),
    "an operand too many": (lambda net, x: net.op("Exp", x, x), "'Exp' has 2 operands (at most 1)"),
    "a result too many": (lambda net, x: net.op("Exp", x, outputs=2)[0], "'Exp' has 2 results (at most 1)"),
    "an attribute that is left out": (lambda net, x: net.op("Concat", x), "'Concat' lacks the attribute 'axis'"),
    "an attribute of none": (
        lambda net, x: net.op("Elu", x, alhpa=1.0),
        "'Elu' has no attribute 'alhpa'; did you mean 'alpha'?",
    ),
    "a number for a whole one": (
        lambda net, x: net.op("Softmax", x, axis=1.5),
        "the attribute 'axis' of 'Softmax' is a number, not a whole number",
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_nodes_that_their_ops_do_not_allow(name: str, tmp_path: Path) -> None:
    build, said = FORMS[name]
    refused(save(model(build), tmp_path), "node '", said, "opset 20")


def test_what_tools_note_on_nodes_is_no_matter(tmp_path: Path) -> None:
    net = Net()
    state = net.op("CumSum", net.input(["b", "t", 3]), net.const(np.int64(1)))
    noted = net.model([(net.op("Tanh", state), ["b", "t", 3])])
    noted.graph.node[1].attribute.append(onnx.helper.make_attribute("__note", "kept by a tool"))
    assert all(proof.passed for proof in load_model(save(noted, tmp_path)).proofs)


def test_what_breaks_at_every_length_is_not_told_as_a_length(tmp_path: Path) -> None:
    said = refused(
        save(model(lambda net, x: str(net.op("Concat", x, axis=7))), tmp_path), "'Concat' cannot run", "axis 7"
    )
    assert "steps" not in said


def test_frames_longer_than_the_signal(tmp_path: Path) -> None:
    refused(save(model(stft(2, 100), 24, 1), tmp_path), "its frames hold 100 steps, and its signal 24")


def test_frames_of_a_length_that_is_computed_to_nothing(tmp_path: Path) -> None:
    """onnxruntime ends the process on them, at the lengths at which they are nothing."""

    def build(net: Net, x: str) -> str:
        steps = net.op("Squeeze", net.op("Slice", net.op("Shape", x), net.ints(1), net.ints(2)))
        length = net.op("Div", steps, net.const(np.int64(1000)))
        return str(net.op("STFT", x, net.const(np.int64(2)), "", length))

    refused(save(model(build, "t", 1), tmp_path), "how many steps a frame has")


def test_a_start_of_two_axes(tmp_path: Path) -> None:
    def build(net: Net, x: str) -> str:
        place = net.const(np.zeros((2, 1), np.int64))
        return str(net.op("Slice", x, place, net.const(np.ones((2, 1), np.int64)), net.ints(1, 2)))

    refused(save(model(build), tmp_path))


def test_a_state_that_is_its_own_next_value(tmp_path: Path) -> None:
    net = Net()
    x, s = net.input(["b", 3]), net.input(["b", 3])
    y = net.op("Tanh", net.op("Add", net.op("Mul", s, net.const(np.full(3, 0.5))), x))
    model = load_model(save(net.model([(y, ["b", 3]), (s, ["b", 3])]), tmp_path))
    assert not model.unsupported and all(proof.passed for proof in model.proofs)


def test_states_that_change_places(tmp_path: Path) -> None:
    net = Net()
    x, r, s = (net.input(["b", 3]) for _ in range(3))
    y = net.op("Add", net.op("Sub", s, net.op("Mul", r, net.const(np.full(3, 2.0)))), x)
    path = save(
        net.model([(y, ["b", 3]), (net.op("Identity", s), ["b", 3]), (net.op("Identity", r), ["b", 3])]), tmp_path
    )
    graph = onnx.load(path).graph
    inputs, outputs = ([v.name for v in values] for values in (graph.input, graph.output))
    with pytest.raises(UserError, match="changes places with another state"):
        load_model(path, states={inputs[1]: outputs[1], inputs[2]: outputs[2]})
