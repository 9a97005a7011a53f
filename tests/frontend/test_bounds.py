"""Lengths and numbers of steps that the file compares with a number: the proof goes behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.frontend import load_model
from tests.frontend.blocks import decaying
from tests.frontend.checks import LINEAR, kinds, refused
from tests.frontend.net import Net, save


def louder_behind(folder: Path, bound: int, tokens: bool = False) -> Path:
    """A system whose output is doubled for sequences (or, with `tokens`, at tokens) beyond a number."""
    net = Net()
    if tokens:
        ids = net.input(["b", "t"], TensorProto.INT64)
        u = net.op("Gather", net.const(np.random.default_rng(3).standard_normal((bound + 2, 3))), ids)
        many = net.op("Unsqueeze", net.op("Greater", ids, net.const(np.int64(bound))), net.ints(2))
    else:
        u = net.input(["b", "t", 3])
        many = net.op("Greater", net.op("Shape", u, start=1, end=2), net.const(np.int64(bound)))
    gain = net.op("Where", many, net.const(np.float32(2.0)), net.const(np.float32(1.0)))
    return save(net.model([(net.op("Mul", decaying(net, u, 3), gain), ["b", "t", 3])]), folder)


@pytest.mark.parametrize("bound", [60, 100])
def test_another_model_behind_the_bound(tmp_path: Path, bound: int) -> None:
    refused(louder_behind(tmp_path, bound), "is another model at length", "than at length 11")


@pytest.mark.parametrize(("bound", "tokens"), [(5, False), (100, True)])
def test_no_bound_of_lengths_that_matters(tmp_path: Path, bound: int, tokens: bool) -> None:
    """One that the lengths which are studied lie behind; and tokens, which are no lengths."""
    model = load_model(louder_behind(tmp_path, bound, tokens))
    assert set(kinds(model)) == {LINEAR} and max(proof.length for proof in model.proofs) < 60


@pytest.mark.parametrize(("bound", "noted"), [(10_000, True), (2**31 - 1, False)])
def test_a_bound_that_is_too_far_to_be_tried_is_noted(tmp_path: Path, bound: int, noted: bool) -> None:
    """But the largest whole number of a type, which stands for none."""
    notes = [note for note in load_model(louder_behind(tmp_path, bound)).notes if str(bound) in note]
    assert len(notes) == noted and all("from there on nothing is proved" in note for note in notes)


@pytest.mark.parametrize("part", [(0, 64), (-64, np.iinfo(np.int64).max)])
def test_sequences_that_are_cut(tmp_path: Path, part: tuple[int, int]) -> None:
    """At most the first, or the last, 64 steps."""
    net = Net()
    u = net.op("Slice", net.input(["b", "t", 3]), net.ints(part[0]), net.ints(part[1]), net.ints(1))
    refused(save(net.model([(decaying(net, u, 3), ["b", "n", 3])]), tmp_path), "is another model at length")


def test_a_cut_that_is_too_far_to_be_tried_is_noted(tmp_path: Path) -> None:
    net = Net()
    u = net.op("Slice", net.input(["b", "t", 3]), net.ints(0), net.ints(20_000), net.ints(1))
    notes = load_model(save(net.model([(decaying(net, u, 3), ["b", "n", 3])]), tmp_path)).notes
    assert any("20000 steps" in note and "from there on nothing is proved" in note for note in notes)


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_a_state_that_counts_the_steps(tmp_path: Path, dtype: type) -> None:
    """From step 100 on, by a count of the loop's own, the decay is another; the number stands outside."""
    net, body = Net(), Net()
    bound, fast, slow = (net.const(np.asarray(n)) for n in (dtype(100), np.float32(0.5), np.float32(0.9)))
    of_type = TensorProto.INT64 if dtype is np.int64 else TensorProto.FLOAT
    k, h, x = body.input([], of_type), body.input(["b", 3]), body.input(["b", 3])
    decay = body.op("Where", body.op("Greater", k, bound), fast, slow)
    later = body.op("Add", body.op("Mul", h, decay), x)
    counted = body.op("Add", k, body.const(dtype(1)))
    step = body.subgraph([(counted, []), (later, ["b", 3]), (body.op("Identity", later), ["b", 3])], {counted: of_type})
    u = net.input(["b", "t", 3])
    starts = [net.const(dtype(0)), net.op("ReduceSum", net.op("Mul", u, net.const(0.0)), net.ints(1), keepdims=0)]
    axes = {"scan_input_axes": [1], "scan_output_axes": [1], "num_scan_inputs": 1}
    *_, y = net.op("Scan", *starts, u, outputs=3, body=step, **axes)
    refused(save(net.model([(y, ["b", "t", 3])]), tmp_path), "is another model at length")
