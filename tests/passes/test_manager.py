"""The manager: verification, translation validation, losses, observers, purity."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Piece, StreamType, Tensor, Value, interpret
from ssmc.ir.text import print_graph
from ssmc.passes import Context, Pass, PassManager, Step, print_after, register, registry
from ssmc.passes.probe import excerpt, probe
from ssmc.passes.validation import Validator, relative_error, same_numbers
from ssmc.statespace import StateSpace

from .graphs import MACHINES, Model, activation, asynchronous, build, downsample, glu, linear, s4d, s5, stateful


def scale_weights(graph: Graph, factor: float) -> Graph:
    out = graph.copy()
    for node in out.nodes("linear"):
        out.set_op(node.name, node.op.with_attrs(weight=Tensor(node.op["weight"].array * factor)))
    return out


@dataclass(frozen=True)
class Shrink(Pass):
    """Shrinks every weight a little: `by`."""

    name = "shrink"
    by: float = 1e-3

    def run(self, graph: Graph, context: Context) -> Graph:
        return scale_weights(graph, 1 - self.by)


@dataclass(frozen=True)
class LossyShrink(Shrink):
    """The same, and says so."""

    name = "lossy-shrink"
    lossy = True
    tolerance: float = float("inf")


@dataclass(frozen=True)
class Rewire(Pass):
    """Breaks something in a copy of the graph, as told."""

    name = "rewire"
    how: str = "nan"

    def run(self, graph: Graph, context: Context) -> Graph:
        out = graph.copy()
        first = next(out.nodes("linear"))
        match self.how:
            case "type":  # a graph that is not well formed
                out.net.nodes[first.name]["data"] = type(first)(first.name, first.op, (StreamType((99,)),))
            case "nan":
                weight = np.full(first.op["weight"].shape, np.nan)
                out.set_op(first.name, first.op.with_attrs(weight=Tensor(weight)))
            case "output":
                out.remove("out_logits")
            case "nothing":
                return None  # type: ignore[return-value]
        return out


def model() -> Graph:
    return build(1, [linear, s4d, glu, linear])


def test_a_pass_that_changes_the_meaning_is_named_with_the_node() -> None:
    with pytest.raises(UserError) as caught:
        PassManager([Shrink()]).run(model())
    assert "pass 'shrink', node 'linear' (from linear_1)" in caught.value.where
    assert "promised 1e-09" in caught.value.why
    assert PassManager([Shrink(1e-12)]).run(model()) is not None


def test_validation_can_be_switched_off() -> None:
    assert PassManager([Shrink(0.5)], validate=False).run(model()) is not None


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("type", "not well formed"),
        ("nan", "broke its promise"),
        ("output", "outputs are not the same: logits"),
        ("nothing", "returned a NoneType"),
    ],
)
def test_a_pass_that_breaks_the_graph_is_named(how: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        PassManager([Rewire(how)]).run(model())
    assert "pass 'rewire" in caught.value.where


def test_a_lossy_pass_is_measured_and_bounded() -> None:
    context = Context()
    graph = model()
    PassManager([LossyShrink(0.25)]).run(graph, context)
    (report,) = context.losses
    assert report.pass_text == "lossy-shrink{by=0.25}" and report.data == "probe"
    assert set(report.outputs) == {"y", "logits"} and all(0.01 < error < 2 for error in report.outputs.values())
    first = report.layers[0]
    assert first.node == "linear" and first.onnx_nodes == ("linear_1",)
    weight = graph.op("linear")["weight"].array
    assert first.bound == pytest.approx(0.25 * np.abs(weight).sum(0).max())
    assert 0.01 < (first.measured or 0) < 1
    with pytest.raises(UserError, match="broke its promise"):
        PassManager([LossyShrink(0.25, tolerance=1e-3)]).run(graph, Context())


def test_losses_are_measured_on_the_calibration_data() -> None:
    graph = model()
    width = graph.node("u").types[0].shape[0]  # type: ignore[union-attr,index]
    data = {"u": np.random.default_rng(5).standard_normal((7, 20, width))}
    context = Context(calibration=data)
    steps: list[Step] = []
    PassManager([LossyShrink()], loss_steps=60, observers=[steps.append]).run(graph, context)
    assert set(steps[0].errors) == {"probe", "calibration"}
    few = {"u": data["u"][:3]}
    expected = relative_error(interpret(graph, few)["logits"], interpret(scale_weights(graph, 1 - 1e-3), few)["logits"])
    assert context.losses[0].data == "calibration"
    assert context.losses[0].outputs["logits"] == pytest.approx(expected)


def test_observers_see_every_pass_in_turn() -> None:
    steps: list[Step] = []
    out = io.StringIO()
    text = "fold-norms,tile,map-weights,schedule"
    manager = PassManager(text, observers=[steps.append, print_after({"tile"}, out)])
    manager.run(model(), Context(MACHINES["digital"]))
    assert str(manager) == text
    assert [step.pass_.name for step in steps] == text.split(",")
    assert all(step.after is following.before for step, following in pairwise(steps))
    assert out.getvalue() == f"// after tile\n{print_graph(steps[1].after)}\n"


PREPARE = "fold-constants,fold-norms,diagonalize,halve-conjugates,share-decays{levels=2},quantize{weights=5}"


def test_passes_leave_the_graph_they_are_given_alone() -> None:
    graph = build(3, [linear, s5, linear, stateful, activation])
    before = print_graph(graph)
    seen: list[tuple[Graph, str]] = []
    PassManager(
        f"{PREPARE},tile,map-weights,schedule",
        observers=[lambda step: seen.append((step.after, print_graph(step.after)))],
    ).run(graph, Context(MACHINES["digital"]))
    assert print_graph(graph) == before
    assert all(print_graph(after) == text for after, text in seen)


def test_a_target_is_asked_for_where_it_is_needed() -> None:
    with pytest.raises(UserError, match="needs a target machine"):
        PassManager("tile").run(model())


def test_a_continuous_graph_is_compared_from_where_it_has_a_meaning() -> None:
    graph = build(2, [s4d])
    node = next(graph.nodes("ssm"))
    from dataclasses import replace

    system = node.op["system"]
    system = replace(system, A=-0.5 + 1j * system.A.imag, delta=0.1)
    graph.set_op(node.name, node.op.with_attrs(system=system))
    steps: list[Step] = []
    PassManager("fold-constants,discretize,tile", observers=[steps.append]).run(graph, Context(MACHINES["digital"]))
    assert [bool(step.errors) for step in steps] == [False, False, True]


def test_the_probe_respects_what_inputs_are() -> None:
    graph = build(4, [asynchronous, s4d, stateful], index=True)
    inputs = probe(graph, 0)
    assert inputs is not None
    assert inputs["token"].dtype.kind == "i" and 0 <= inputs["token"].min() <= inputs["token"].max() < 5
    assert (inputs["dt"] > 0).all()
    assert any(name.startswith("xre") for name in inputs)
    interpret(graph, inputs)
    again = probe(graph, 0)
    assert again is not None and all(np.array_equal(inputs[name], again[name]) for name in inputs)


def test_probe_and_excerpt_keep_whole_windows() -> None:
    graph = build(0, [downsample])
    inputs = probe(graph, 1)
    assert inputs is not None and inputs["u"].shape[1] % 2 == 0
    cut = excerpt(graph, {"u": np.zeros((4, 101, 3))}, 31)
    assert cut["u"].shape == (1, 30, 3)
    assert excerpt(graph, {"u": np.zeros((4, 10, 3))}, 31)["u"].shape == (3, 10, 3)


@pytest.mark.parametrize("rows", [7, 24])
@pytest.mark.parametrize("pooled", [False, True])
def test_the_probe_ends_where_a_table_of_positions_does(rows: int, pooled: bool) -> None:
    """Behind a pooling by two, steps are counted in twos. An input's own index says nothing about the steps."""
    model = Model(3, index=True)
    model.x = model.add("downsample", model.x, stride=2) if pooled else model.x
    one = model.add("constant", value=Tensor(np.ones(1)))
    counting = StateSpace(np.ones((1, 1)), np.ones((1, 1, 1)), np.ones((1, 1, 1)), -np.ones((1, 1, 1)))
    step = model.add("reshape", model.add("ssm", model.add("spread", one, model.x), system=counting), shape=())
    model.output(model.add("embed", step, table=Tensor(np.ones((rows, model.h)))), "y")
    for least in (11, 128):
        inputs = probe(model.graph, 0, least)
        assert inputs is not None and inputs["token"].shape[1] == min(least + least % (1 + pooled), rows * (1 + pooled))
        assert interpret(model.graph, inputs)["y"].shape[1] == inputs["token"].shape[1] // (1 + pooled)


def tiled() -> Graph:
    """A matrix of two pieces, whose states are nowhere yet."""
    graph = Graph()
    u = graph.add("input", [], {"name": "u", "type": StreamType((4,))})
    weight, pieces = Tensor(np.arange(8.0).reshape(4, 2)), (Piece(0, 4, 0, 1), Piece(0, 4, 1, 2))
    y = graph.add("tile.matmul", [u], {"weight": weight, "pieces": pieces}, name="m")
    x = graph.add("tile.state", [y], {"decay": Tensor([0.5, 0.25]), "pieces": (Piece(0, 2, 0, 1),)}, name="s")
    graph.add("output", [x], {"name": "y"})
    return graph


PLACED = (Piece(0, 4, 0, 1, unit=3, row=2), Piece(0, 4, 1, 2, unit=0, col=1))


@pytest.mark.parametrize(
    ("name", "changes", "alike"),
    [
        ("m", {"pieces": PLACED}, True),
        ("s", {"bank": "volatile", "unit": Tensor(np.ones(2))}, True),
        ("m", {"pieces": PLACED[:1]}, False),
        ("m", {"pieces": (Piece(0, 3, 0, 1), PLACED[1])}, False),
        ("m", {"weight": Tensor(np.ones((4, 2)))}, False),
        ("s", {"read_before": True}, False),
    ],
)
def test_a_graph_is_not_run_again_where_only_its_things_moved(
    name: str, changes: dict[str, object], alike: bool
) -> None:
    before, drawn = tiled(), np.ones((1, 3, 4))
    after = before.copy()
    after.set_op(name, after.op(name).with_attrs(**changes))
    assert same_numbers(before, after) == alike
    validator = Validator({"probe": {"u": drawn}})
    first, second = validator.outputs(before), validator.outputs(after)
    assert (first is second) == alike
    np.testing.assert_array_equal(second["probe"]["y"], interpret(after, {"u": drawn})["y"])


def test_losses_of_large_models_are_measured_on_fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssmc.passes import manager

    asked = []

    def probed(graph: Graph, seed: int, least: int = 11) -> dict[str, np.ndarray] | None:
        asked.append(least)
        return probe(graph, seed, least)

    monkeypatch.setattr(manager, "probe", probed)
    for work in (1 << 32, 100 * (8 + 4 + 2 + 2 + 2), 1):
        monkeypatch.setattr(manager, "LOSS_WORK", work)
        PassManager("").run(tiled())
    assert asked[1::2] == [128, 100, 11]


def test_relative_error_of_odd_arrays() -> None:
    a = np.array([1.0, np.nan, np.inf])
    assert relative_error(a, a.copy()) == 0
    assert relative_error(a, np.array([1.0, 2.0, np.inf])) == np.inf
    assert relative_error(np.zeros(2), np.array([0, 1e-3])) == 1e-3
    assert relative_error(np.zeros(2), np.zeros(3)) == np.inf
    assert relative_error(np.array([4.0, 0]), np.array([4.0, 1])) == 0.25


# -- a pass that a user writes ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ClipWeights(Pass):
    """Clip the weights of linear layers to [-limit, limit].

    before  linear {weight = W}
    after   linear {weight = clip(W, -limit, limit)}
    """

    name = "clip-weights"
    lossy = True
    tolerance = float("inf")
    limit: float = 1.0

    def run(self, graph: Graph, context: Context) -> Graph:
        out = graph.copy()
        for node in out.nodes("linear"):
            weight = Tensor(np.clip(node.op["weight"].array, -self.limit, self.limit))
            out.set_op(node.name, node.op.with_attrs(weight=weight))
        return out


def test_a_user_pass_is_used_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    register(ClipWeights)
    context = Context(MACHINES["digital"])
    graph = model()
    made = PassManager("clip-weights{limit=0.25},tile,map-weights,schedule").run
    result = made(graph, context)
    weights = [node.op["weight"].array for node in result.nodes("tile.matmul") if node.name.startswith("linear")]
    assert weights and all(np.abs(weight).max() <= 0.25 for weight in weights)
    assert context.losses[0].pass_text == "clip-weights{limit=0.25}"


@pytest.mark.parametrize("layer", [s4d, s5, stateful])
def test_names_keep_their_values(layer: Callable[[Model], None]) -> None:
    """What has one name before and after the exact passes has one value too."""
    graph = build(11, [linear, layer, activation, linear])
    inputs = probe(graph, 3)
    assert inputs is not None
    old = interpret(graph, inputs, keep=True)
    result = PassManager("fold-constants,fold-norms,diagonalize,tile").run(graph, Context(MACHINES["digital"]))
    new = interpret(result, inputs, keep=True)
    shared = [n.name for n in result.nodes() if n.name in graph and graph.node(n.name).types == n.types]
    assert len(shared) > 4
    for name in shared:
        assert relative_error(old[str(Value(name))], new[str(Value(name))]) < 1e-9, name
