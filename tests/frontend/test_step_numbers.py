"""Loops that compute with the number of the step: decays by position, what the first step does otherwise, tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.diagnostics import UserError
from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.blocks import RNG
from tests.frontend.checks import LINEAR, kinds, on_targets
from tests.frontend.net import Net, save

WIDTH, LENGTH = 3, 12


class Body(Net):
    """The body of a Loop: `step`, `state` and what is `seen` of the sequence; `decayed` is the state, leaked."""

    def __init__(self, x: str) -> None:
        super().__init__()
        self.step, self.going = self.input([], TensorProto.INT64), self.input([], TensorProto.BOOL)
        self.state = self.input(None)
        self.seen = str(self.op("Gather", x, self.step, axis=1))
        self.decayed = str(self.op("Mul", self.state, self.const(np.full(WIDTH, 0.7))))

    @property
    def number(self) -> str:
        return str(self.op("Cast", self.step, to=1))

    def following(self, drive: str) -> str:
        return str(self.op("Add", self.decayed, drive))


def weaker_and_weaker(b: Body) -> tuple[str, str]:
    weight = b.op("Exp", b.op("Mul", b.number, b.const(np.float32(-0.1))))
    following = b.following(b.op("Mul", b.seen, weight))
    return following, following


def averaged(b: Body) -> tuple[str, str]:
    """The sum over the number of steps so far."""
    following = b.following(b.seen)
    return following, b.op("Div", following, b.op("Add", b.number, b.const(np.float32(1))))


def looked_up(b: Body) -> tuple[str, str]:
    following = b.following(b.seen)
    return following, b.op("Add", following, b.op("Gather", b.const(RNG.standard_normal((30, WIDTH))), b.step, axis=0))


def first_otherwise(b: Body) -> tuple[str, str]:
    """The first state is the first sample: here it starts from ones, which do not count."""
    at_first = b.op("Equal", b.step, b.const(np.int64(0)))
    following = b.op("Where", at_first, b.seen, b.following(b.seen))
    return following, following


def every_other(b: Body) -> tuple[str, str]:
    even = b.op("Equal", b.op("Mod", b.step, b.const(np.int64(2))), b.const(np.int64(0)))
    following = b.op("Where", even, b.op("Sub", b.seen, b.decayed), b.following(b.seen))
    return following, following


def from_the_eighth(b: Body) -> tuple[str, str]:
    """Other steps from the eighth on."""
    late = b.op("Less", b.const(np.int64(8)), b.step)
    following = b.op("Where", late, b.op("Sub", b.seen, b.decayed), b.following(b.seen))
    return following, following


def branching(b: Body) -> tuple[str, str]:
    then, other = Net(), Net()
    branches = {
        "then_branch": then.subgraph([(then.op("Identity", b.seen), None)]),
        "else_branch": other.subgraph([(other.op("Add", b.decayed, b.seen), None)]),
    }
    following = b.op("If", b.op("Equal", b.step, b.const(np.int64(0))), **branches)
    return following, following


def branching_twice(b: Body) -> tuple[str, str]:
    """A branch within a branch, with weights of its own."""
    innermost, inner, then, outer = Net(), Net(), Net(), Net()
    third = innermost.op("Equal", innermost.op("Mod", b.step, b.const(np.int64(3))), innermost.const(np.int64(0)))
    half = inner.op("Mul", b.decayed, inner.const(np.full(WIDTH, 0.5)))
    branches = {
        "then_branch": then.subgraph([(then.op("Neg", b.seen), None)]),
        "else_branch": inner.subgraph([(inner.op("Add", half, b.seen), None)]),
    }
    chosen = innermost.op("If", third, **branches)
    late = b.op("Less", b.const(np.int64(4)), b.step)
    following = b.op(
        "If",
        late,
        then_branch=innermost.subgraph([(chosen, None)]),
        else_branch=outer.subgraph([(outer.op("Add", b.decayed, b.seen), None)]),
    )
    return following, following


def fixed_branch(b: Body) -> tuple[str, str]:
    """A branch that is always taken reads the number of the step."""
    then, other = Net(), Net()
    weight = then.op("Exp", then.op("Mul", then.op("Cast", b.step, to=1), then.const(np.float32(-0.1))))
    branches = {
        "then_branch": then.subgraph([(then.op("Mul", weight, b.seen), None)]),
        "else_branch": other.subgraph([(other.op("Identity", b.seen), None)]),
    }
    following = b.following(b.op("If", b.const(np.asarray(True)), **branches))
    return following, following


def looped(build: Callable[[Body], tuple[str, str]], length: int | str, folder: Path) -> Path:
    net = Net()
    x = net.input(["n", length, WIDTH])
    trips = net.op("Squeeze", net.op("Shape", x, start=1, end=2))
    ones = net.op(
        "Expand", net.const(np.ones((1, WIDTH))), net.op("Concat", net.op("Shape", x, end=1), net.ints(WIDTH), axis=0)
    )
    body = Body(x)
    following, y = build(body)
    going = body.op("Identity", body.going)
    graph = body.subgraph([(going, None), (following, None), (body.op("Identity", y), None)], {going: TensorProto.BOOL})
    _, y = net.op("Loop", trips, net.const(np.asarray(True)), ones, outputs=2, body=graph)
    y = net.op("Tanh", net.op("Transpose", y, perm=[1, 0, 2]))
    return save(net.model([(y, ["n", length, WIDTH])]), folder)


LINEAR_FORMS = (weaker_and_weaker, averaged, looked_up, fixed_branch)
OTHER_FORMS = (first_otherwise, every_other, from_the_eighth, branching, branching_twice)
FORMS = {f.__name__: f for f in (*LINEAR_FORMS, *OTHER_FORMS)}


@pytest.mark.parametrize("length", [LENGTH, "t"])
@pytest.mark.parametrize("form", FORMS)
def test_the_number_of_the_step_is_a_number(tmp_path: Path, form: str, length: int | str) -> None:
    model = load_model(looped(FORMS[form], length, tmp_path))
    assert kinds(model) == [LINEAR if FORMS[form] in LINEAR_FORMS else "selective"]
    for steps in (LENGTH, 29) if length == "t" else (LENGTH,):
        on_targets(model, 2, steps)


def test_a_table_that_ends(tmp_path: Path) -> None:
    model = load_model(looped(looked_up, "t", tmp_path))
    assert any("30 steps" in note for note in model.notes)
    u = {model.inputs[0].name: np.zeros((1, 31, WIDTH), np.float32)}
    with pytest.raises(UserError):
        compile_model(model, "cim", ideal=True).run(u)
    with pytest.raises(Exception, match="indices element out of data bounds"):
        reference(model, u)
