"""Places that are counted from the end, or lie beyond it: nodes by themselves, and steps that a number tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from ssmc.frontend.source.evaluate import run_call
from ssmc.frontend.source.importer import import_model
from ssmc.frontend.source.listing import list_calls
from ssmc.frontend.source.proto import ModelFile
from tests.examples import examples
from tests.frontend.blocks import RNG, decaying, dense, first_layer
from tests.frontend.net import Net, save
from tests.frontend.test_pooling import lengths

Draw = Callable[..., Any]
Case = tuple[list[Any], dict[str, Any]]
WHOLE = frozenset(["ArgMax", "ArgMin", "Div", "Mod"])
FAR = (-(2**63) + 1, -(2**31), 2**31 - 1, 2**63 - 1)


def numbers(draw: Draw, shape: tuple[int, ...]) -> Any:
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return rng.standard_normal(shape).astype(np.float32)


def places(draw: Draw, shape: tuple[int, ...], size: int) -> Any:
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return rng.integers(-size, size, shape)


def shaped(draw: Draw, least: int = 1) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(1, 4), min_size=least, max_size=4)))


def gather(draw: Draw) -> Case:
    shape = shaped(draw)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    return [numbers(draw, shape), places(draw, shaped(draw, 0), shape[axis])], {"axis": axis}


def gather_elements(draw: Draw) -> Case:
    shape = shaped(draw)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    other = tuple(draw(st.integers(1, 5 if i == axis % len(shape) else d)) for i, d in enumerate(shape))
    return [numbers(draw, shape), places(draw, other, shape[axis])], {"axis": axis}


def scatter_elements(draw: Draw) -> Case:
    (data, _), attrs = gather_elements(draw)
    axis = attrs["axis"] % data.ndim
    other = tuple(draw(st.integers(1, d)) for d in data.shape)
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    order = rng.permuted(np.broadcast_to(np.arange(data.shape[axis]), np.moveaxis(data, axis, -1).shape), axis=-1)
    place = np.moveaxis(order, -1, axis)[tuple(map(slice, other))]  # no place twice
    place = np.where(rng.integers(0, 2, place.shape), place, place - data.shape[axis])
    reduction = draw(st.sampled_from(["none", "add", "mul", "max", "min"]))
    return [data, place, numbers(draw, other)], {**attrs, "reduction": reduction}


def gather_nd(draw: Draw) -> Case:
    shape = shaped(draw)
    outer = draw(st.integers(0, len(shape) - 1))
    depth = draw(st.integers(1, len(shape) - outer))
    middle = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    place = [places(draw, (*shape[:outer], *middle), shape[outer + k]) for k in range(depth)]
    return [numbers(draw, shape), np.stack(place, -1)], {"batch_dims": outer}


def scatter_nd(draw: Draw) -> Case:
    shape = shaped(draw)
    depth = draw(st.integers(1, len(shape)))
    every = np.stack(np.meshgrid(*map(np.arange, shape[:depth]), indexing="ij"), -1).reshape(-1, depth)
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    place = rng.permuted(every, axis=0)[: draw(st.integers(1, len(every)))] if depth == 1 else every
    place = np.where(rng.integers(0, 2, place.shape), place, place - np.asarray(shape[:depth]))
    reduction = draw(st.sampled_from(["none", "add", "mul", "max", "min"]))
    return [numbers(draw, shape), place, numbers(draw, (len(place), *shape[depth:]))], {"reduction": reduction}


def sliced(draw: Draw) -> Case:
    shape = shaped(draw)
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    ends = st.one_of(st.integers(-6, 6), st.sampled_from(FAR))
    starts, stops = ([draw(ends) for _ in axes] for _ in range(2))
    steps = [draw(st.sampled_from([1, 2, 3, -1, -2, -3, *FAR])) for _ in axes]
    named = [a - len(shape) if draw(st.booleans()) else a for a in axes]
    return [numbers(draw, shape), *(np.asarray(a, np.int64) for a in (starts, stops, named, steps))], {}


def one_hot(draw: Draw) -> Case:
    shape, depth = shaped(draw), draw(st.integers(1, 5))
    index = np.random.default_rng(draw(st.integers(0, 2**16))).integers(-2 * depth, 2 * depth + 1, shape)
    axis = draw(st.integers(-len(shape) - 1, len(shape)))
    return [index, np.asarray(depth), np.asarray([2.0, 3.0], np.float32)], {"axis": axis}


def reverse_sequence(draw: Draw) -> Case:
    shape = shaped(draw, 2)
    batch = draw(st.integers(0, 1))
    ends = [draw(st.integers(0, shape[1 - batch])) for _ in range(shape[batch])]
    return [numbers(draw, shape), np.asarray(ends, np.int64)], {"batch_axis": batch, "time_axis": 1 - batch}


def arg_max(draw: Draw) -> Case:
    shape = shaped(draw)
    attrs = {"axis": draw(st.integers(-len(shape), len(shape) - 1)), "keepdims": draw(st.integers(0, 1))}
    return [np.round(numbers(draw, shape))], {**attrs, "select_last_index": draw(st.integers(0, 1))}


def top(draw: Draw) -> Case:
    shape = shaped(draw)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    count = np.asarray([draw(st.integers(1, shape[axis]))])
    return [numbers(draw, shape), count], {"axis": axis, "largest": draw(st.integers(0, 1))}


def compress(draw: Draw) -> Case:
    shape = shaped(draw)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    kept = [draw(st.booleans()) for _ in range(draw(st.integers(1, shape[axis])))]
    return [numbers(draw, shape), np.asarray(kept)], {"axis": axis}


def divided(draw: Draw) -> Case:
    whole = st.integers(-(2**62), 2**62)
    return [np.asarray([draw(whole), draw(st.integers(-9, 9))]), np.asarray([draw(whole) | 1, 4])], {}


def modulo(draw: Draw) -> Case:
    return [np.asarray([draw(st.integers(-9, 9))]), np.asarray([draw(st.integers(-5, 5)) or 3])], {
        "fmod": draw(st.integers(0, 1))
    }


def trilu(draw: Draw) -> Case:
    return [numbers(draw, shaped(draw, 2)), np.asarray(draw(st.integers(-5, 5)))], {"upper": draw(st.integers(0, 1))}


def running(draw: Draw) -> Case:
    shape = shaped(draw)
    attrs = {"exclusive": draw(st.integers(0, 1)), "reverse": draw(st.integers(0, 1))}
    return [numbers(draw, shape), np.asarray(draw(st.integers(-len(shape), len(shape) - 1)))], attrs


def split(draw: Draw) -> Case:
    shape = shaped(draw)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    return [numbers(draw, shape), np.asarray([shape[axis]])], {"axis": axis}


def padded(draw: Draw) -> Case:
    shape = shaped(draw)
    widths = [draw(st.integers(-1 if d > 2 else 0, d - 1)) for d in (*shape, *shape)]
    mode = draw(st.sampled_from(["constant", "reflect", "edge"]))
    widths = widths if mode == "constant" else [max(0, w) for w in widths]
    return [numbers(draw, shape), np.asarray(widths)], {"mode": mode}


CASES: dict[str, Callable[[Draw], Case]] = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Slice": sliced,
    "OneHot": one_hot,
    "ReverseSequence": reverse_sequence,
    "ArgMax": arg_max,
    "ArgMin": arg_max,
    "TopK": top,
    "Compress": compress,
    "Div": divided,
    "Mod": modulo,
    "Trilu": trilu,
    "CumSum": running,
    "Split": split,
    "Pad": padded,
}


@st.composite
def nodes(draw: Draw) -> tuple[str, list[Any], dict[str, Any]]:
    kind = draw(st.sampled_from(sorted(CASES)))
    return kind, *CASES[kind](draw)


@settings(max_examples=examples(250), deadline=None)
@given(nodes())
def test_a_node_does_with_places_what_the_runtime_does(case: tuple[str, list[Any], dict[str, Any]]) -> None:
    kind, arrays, attrs = case
    model = single(kind, arrays, attrs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    expected = session.run(None, {f"x{k}": array for k, array in enumerate(arrays)})
    (call,) = list_calls(import_model(ModelFile(model, {}), "a test")).calls
    for found, exact in zip(run_call(call, arrays), expected, strict=True):
        assert np.shape(found) == exact.shape
        assert np.allclose(found, exact, rtol=1e-5, atol=1e-6) and (kind != "Div" or np.array_equal(found, exact))


def single(kind: str, arrays: list[Any], attrs: dict[str, Any]) -> Any:
    """A model of one node, whose operands are inputs."""
    outputs = ["y", "z"] if kind == "TopK" else ["y"]
    node = helper.make_node(kind, [f"x{k}" for k in range(len(arrays))], outputs, **attrs)
    inputs = [
        helper.make_tensor_value_info(f"x{k}", helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for k, a in enumerate(arrays)
    ]
    kinds = {name: TensorProto.INT64 if name == "z" or kind in WHOLE else TensorProto.FLOAT for name in outputs}
    infos = [helper.make_tensor_value_info(name, dtype, None) for name, dtype in kinds.items()]
    graph = helper.make_graph([node], "one", inputs, infos)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def agree(path: Path, arrays: dict[str, Any], *targets: str) -> Any:
    """The model, which gives what onnxruntime gives, on the targets."""
    model = load_model(path)
    expected = reference(model, arrays)
    for target in targets or ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run(arrays).outputs
        for name, array in expected.items():
            assert found[name].shape == array.shape
            assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()
    return model


PLACES = ["last", "pairs", "rows of a one"]


@pytest.mark.parametrize("form", PLACES)
def test_steps_are_counted_from_the_end(tmp_path: Path, form: str) -> None:
    net = Net()
    y = lengths(net, form, 24)
    u, count = (info.name for info in net.inputs)
    numbers = np.array([0, -1, -4, -22, 24])  # and one less: -1, -2, -5, -23, 23
    agree(save(net.model([(y, ["n", 4])]), tmp_path), {u: some(5, 24), count: numbers})


@pytest.mark.parametrize("form", PLACES)
def test_of_sequences_of_any_length_counts_take_one_run(tmp_path: Path, form: str) -> None:
    """One less than a count is -1 at least; that a count is not negative is told."""
    net = Net()
    y = lengths(net, form, "t")
    u, count = (info.name for info in net.inputs)
    model = agree(save(net.model([(y, ["n", 4])]), tmp_path), {u: some(3, 31), count: np.array([0, 7, 31])})
    assert not any("run through" in note for note in model.notes)
    assert any(f"integers in {count!r} must not be negative" in note for note in model.notes)


def test_of_sequences_of_any_length_minus_one_may_be_added_to_a_count(tmp_path: Path) -> None:
    net = Net()
    x, count = first_layer(net, "t"), net.input(["n", 1, 1], TensorProto.INT64)
    y = net.op("GatherElements", x, net.op("Expand", net.op("Add", net.ints(-1), count), net.ints(1, 1, 4)), axis=1)
    u, number = (info.name for info in net.inputs)
    arrays = {u: some(3, 31), number: np.array([31, 0, 8]).reshape(3, 1, 1)}
    model = agree(save(net.model([(y, ["n", 1, 4])]), tmp_path), arrays)
    assert not any("run through" in note for note in model.notes)


@pytest.mark.parametrize("less", [0, 1])
def test_of_sequences_of_any_length_places_may_count_from_the_end(tmp_path: Path, less: int) -> None:
    net = Net()
    x, place = first_layer(net, "t"), net.input(["n", 1, 1], TensorProto.INT64)
    index = net.op("Sub", net.op("Neg", place), net.ints(less)) if less else place
    y = net.op("GatherElements", x, net.op("Expand", index, net.ints(1, 1, 4)), axis=1)
    u, number = (info.name for info in net.inputs)
    places = np.array([3, 5, 30] if less else [-3, 30, -31]).reshape(3, 1, 1)
    model = agree(save(net.model([(y, ["n", 1, 4])]), tmp_path), {u: some(3, 31), number: places})
    assert any("run through 2 times" in note for note in model.notes)


def some(samples: int, steps: int) -> Any:
    return RNG.standard_normal((samples, steps, 3)).astype(np.float32)


BOUNDED: dict[str, Callable[[Net, str], str]] = {
    "clipped": lambda net, place: net.op("Clip", place, net.const(np.int64(-1))),
    "the larger": lambda net, place: net.op("Max", place, net.const(np.int64(-1))),
    "chosen": lambda net, place: net.op(
        "Where", net.op("Less", place, net.const(np.int64(0))), net.const(np.int64(-1)), net.op("Abs", place)
    ),
}


@pytest.mark.parametrize("form", BOUNDED)
def test_a_number_that_is_never_far_below_nothing_takes_one_run(tmp_path: Path, form: str) -> None:
    net = Net()
    x, place = first_layer(net), net.input(["n", 1, 1], TensorProto.INT64)
    wide = net.op("Expand", BOUNDED[form](net, place), net.ints(1, 1, 4))
    y = net.op("GatherElements", x, wide, axis=1)
    u, number = (info.name for info in net.inputs)
    arrays = {u: RNG.standard_normal((3, 24, 3)).astype(np.float32), number: np.array([-5, 7, -1]).reshape(3, 1, 1)}
    model = agree(save(net.model([(y, ["n", 1, 4])]), tmp_path), arrays)
    assert not any("run through" in note for note in model.notes)


def test_the_first_features_of_a_step(tmp_path: Path) -> None:
    """GatherElements with fewer features than there are gives the first ones."""
    net = Net()
    x, place = first_layer(net, 24), net.input(["n", 1, 2], TensorProto.INT64)
    u, number = (info.name for info in net.inputs)
    path = save(net.model([(net.op("GatherElements", x, place, axis=1), ["n", 1, 2])]), tmp_path)
    places = np.array([[3, -2], [-24, 23]]).reshape(2, 1, 2)
    agree(path, {u: RNG.standard_normal((2, 24, 3)).astype(np.float32), number: places})


def test_numbers_that_reach_into_other_samples_are_told(tmp_path: Path) -> None:
    """Where all steps lie in one axis, what is counted from the end of a sample is in the one before."""
    net = Net()
    y = lengths(net, "flattened", 24)
    model = load_model(save(net.model([(y, ["n", 4])]), tmp_path))
    assert any("must not be negative" in note for note in model.notes)


def whole(kind: str, by: int, **attrs: Any) -> Callable[[Net, str], str]:
    return lambda net, x: net.op(kind, x, net.const(np.int64(by)), **attrs)


@pytest.mark.parametrize(
    "build", [whole("Div", 2), whole("Div", -3), whole("Mod", 5), whole("Mod", -5), whole("Mod", 3, fmod=1)]
)
def test_quotients_of_integers(tmp_path: Path, build: Callable[[Net, str], str]) -> None:
    """They are integers, and on no edge between two, even where rounding is looked at closely."""
    net = Net()
    u = net.input(["n", "t"], TensorProto.INT64)
    number = net.op("Cast", net.op("Unsqueeze", build(net, u), net.ints(2)), to=1)
    row = net.op("Gather", net.const(RNG.standard_normal((5, 1))), net.op("Mod", u, net.const(np.int64(5))), axis=0)
    y = decaying(net, dense(net, net.op("Concat", number, row, axis=2), 2, 4), 4)
    path = save(net.model([(y, ["n", "t", 4])]), tmp_path)
    agree(path, {u: RNG.integers(-30, 30, (3, 20))})


def test_rows_of_a_table_by_number(tmp_path: Path) -> None:
    """`table[numbers]` as torch.export leaves it: a numbering of words, and a table of what each of them is."""
    net = Net()
    words = net.input(["n", "t"], TensorProto.INT64, name="words")
    other = net.op("GatherND", net.const(np.asarray([3, 2, 1, 0, 4])), net.op("Unsqueeze", words, net.ints(-1)))
    x = net.op("GatherND", net.const(RNG.standard_normal((5, 4))), net.op("Unsqueeze", other, net.ints(-1)))
    model = load_model(save(net.model([(decaying(net, x, 4), ["n", "t", 4])]), tmp_path))
    for samples, steps in ((2, 9), (3, 17)):
        given = {"words": RNG.integers(0, 5, (samples, steps))}
        (expected,) = reference(model, given).values()
        for target in ("cim", "epochcore"):
            (found,) = compile_model(model, target, ideal=True).run(given).outputs.values()
            assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
