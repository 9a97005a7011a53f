"""Decays that are computed from the data, in the forms in which exporters write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ssmc.diagnostics import UserError
from ssmc.frontend import Model, load_model
from tests.frontend import disguise_varying as disguise
from tests.frontend.test_disguises import few, lifted

sizes = st.builds(
    disguise.Heads,
    seed=st.integers(0, 1 << 16),
    heads=st.integers(1, 3),
    width=st.integers(1, 3),
    states=st.integers(1, 4),
    length=st.integers(6, 20),
    shared=st.booleans(),
    constant=st.booleans(),
    flat=st.booleans(),
)


def check(model: Model, heads: disguise.Heads, backward: bool) -> None:
    """One recurrence with a state for every pair of a key's and a value's numbers, of every head."""
    (system,) = model.systems
    assert system.kind == ("linear time-invariant" if heads.constant else "selective")
    assert system.reverse == backward
    assert system.groups * system.states == heads.heads * heads.width * heads.states


@few
@given(sizes, st.integers(2, 24), st.booleans(), st.booleans())
def test_chunks(heads: disguise.Heads, chunk: int, stable: bool, backward: bool) -> None:
    model = disguise.as_chunks(heads, min(chunk, heads.length), stable, backward)
    check(lifted(model, heads.length), heads, backward)


@pytest.mark.parametrize("heads", [2, 3])
def test_heads_in_one_axis_have_no_states_for_each_other(heads: int) -> None:
    """Chunks of heads that stand flat give sums of every head's keys by every head's decay: most of them unread."""
    sizes = disguise.Heads(0, heads, 2, 3, 12, False, True, flat=True)
    model = lifted(disguise.as_chunks(sizes, 4, False, False), 12)
    check(model, sizes, backward=False)
    assert model.systems[0].states == 1


@few
@given(sizes, st.integers(2, 24), st.booleans())
def test_retention(heads: disguise.Heads, chunk: int, backward: bool) -> None:
    heads = disguise.Heads(heads.seed, heads.heads, heads.width, heads.states, heads.length, False, True)
    check(lifted(disguise.as_retention(heads, chunk, backward), heads.length), heads, backward)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("chunk", [8, 24])
def test_retention_whose_tables_have_few_digits(tmp_path: Path, chunk: int, whole: bool, dtype: int) -> None:
    """Powers in float16 or bfloat16, used as they are (`whole`) or cast: lifted, and off by their rounding, no more."""
    heads = disguise.Heads(1, 2, 3, 4, 24, False, True)
    path = tmp_path / "half.onnx"
    onnx.save(_in_half(disguise.as_retention(heads, chunk), dtype, whole), path)
    model = load_model(path)
    check(model, heads, backward=False)
    rounding = 2.0**-11 if dtype == TensorProto.FLOAT16 else 2.0**-9
    assert 0.1 * rounding < max(p.error for p in model.proofs if "float64" in p.against) < 10 * rounding


def test_other_products_stay_refused_in_half_precision(tmp_path: Path) -> None:
    """A mask that is no table of powers is not taken for one because its digits are few."""
    heads = disguise.Heads(1, 2, 3, 4, 24, False, True)
    model = disguise.as_retention(heads, 24)
    mask = next(t for t in model.graph.initializer if list(t.dims)[-2:] == [24, 24])
    wrong = np.tril(1.0 / (1.0 + np.arange(24)[:, None] - np.arange(24)).clip(1)) * np.ones((2, 1, 1))
    mask.CopyFrom(numpy_helper.from_array(wrong.astype(np.float32), mask.name))
    onnx.save(_in_half(model, TensorProto.FLOAT16, True), tmp_path / "mask.onnx")
    with pytest.raises(UserError, match="cannot be translated"):
        load_model(tmp_path / "mask.onnx")


def _in_half(model: onnx.ModelProto, dtype: int, whole: bool) -> onnx.ModelProto:
    """The model with its float weights in another format, and inputs and outputs too (`whole`), or cast to float32."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            name = tensor.name if whole else f"{tensor.name}.stored"
            casts.append(helper.make_node("Cast", [name], [tensor.name], to=TensorProto.FLOAT))
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(kind), name))
    if whole:
        for port in (*model.graph.input, *model.graph.output):
            port.type.tensor_type.elem_type = dtype
        return model
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@pytest.mark.parametrize("shifted", [False, True])
@settings(max_examples=3, deadline=None)
@given(st.integers(0, 1 << 16), st.integers(1, 4), st.integers(5, 20))
def test_sums_of_logarithms(shifted: bool, seed: int, width: int, length: int) -> None:
    (system,) = lifted(disguise.as_log_sums(seed, width, length, shifted), length).systems
    assert (system.kind, system.groups * system.states) == ("selective", width)
