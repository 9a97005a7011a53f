"""Features that are picked, sorted, multiplied up, pooled or put into ONNX sequences at every step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssmc.frontend import load_model
from tests.frontend.blocks import DYNAMIC, RNG, decaying, dense
from tests.frontend.checks import LINEAR, kinds, lift, on_targets, refused
from tests.frontend.net import Net, save

WIDTH = 6
Build = Callable[[Net, str], str]


def layer(net: Net) -> str:
    return decaying(net, dense(net, net.input(["n", "t", 3]), 3, WIDTH), WIDTH)


def top(net: Net, x: str, count: int, result: int = 0, **attrs: int) -> str:
    found = net.op("TopK", x, net.ints(count), outputs=2, **attrs)
    return str(net.op("Cast", found[1], to=1) if result else found[0])


def spread(net: Net, x: str, *places: int) -> str:
    """Places along features, the same for every sample and step."""
    steps = net.op("Slice", net.op("Shape", x), net.ints(0), net.ints(2))
    shape = net.op("Concat", steps, net.ints(len(places)), axis=0)
    return str(net.op("Expand", net.const(np.asarray([[places]], np.int64)), shape))


def sparse(net: Net, x: str) -> str:
    """All but the three largest features become nothing, as mixtures of experts gate theirs."""
    values, places = net.op("TopK", x, net.ints(3), outputs=2)
    zeros = net.op("ConstantOfShape", net.op("Shape", x))
    return str(net.op("ScatterElements", zeros, places, net.op("Softmax", values), axis=2))


def computed_place(net: Net, x: str) -> str:
    return str(net.op("GatherElements", x, net.op("ArgMin", net.op("Abs", x), axis=2), axis=2))


def added(net: Net, x: str) -> str:
    first = net.op("Slice", x, net.ints(0), net.ints(1), net.ints(2))
    return str(net.op("ScatterElements", x, net.op("ArgMax", x, axis=2), first, axis=2, reduction="add"))


def integers(net: Net, x: str) -> str:
    sizes = net.op("Abs", net.op("Mul", x, net.const(60.0)))
    return str(net.op("Cast", net.op("Min", sizes, net.const(250.0)), to=2))  # uint8


def shifted(net: Net, x: str, direction: str) -> str:
    moved = net.op("BitShift", integers(net, x), net.const(np.asarray(2, np.uint8)), direction=direction)
    return str(net.op("Cast", moved, to=1))


def in_parts(net: Net, x: str, **attrs: int) -> str:
    parts = net.op("SplitToSequence", x, net.const(np.int64(4)), axis=2)
    more = net.op("SequenceInsert", parts, net.op("Neg", x), net.const(np.int64(0)))
    less = net.op("SequenceErase", more, net.const(np.int64(1)))
    last = net.op("SequenceAt", less, net.const(np.int64(-1)))
    return str(net.op("ConcatFromSequence", net.op("SequenceConstruct", last, x), axis=2))


def stacked(net: Net, x: str) -> str:
    both = net.op("SequenceConstruct", x, net.op("Neg", net.op("Relu", x)))
    together = net.op("ConcatFromSequence", both, axis=0, new_axis=1)
    count = net.op("Cast", net.op("SequenceLength", both), to=1)
    return str(net.op("Div", net.op("ReduceSum", together, net.ints(0), keepdims=0), count))


def optional(net: Net, x: str) -> str:
    held = net.op("OptionalGetElement", net.op("Optional", x))
    return str(net.op("Where", net.op("OptionalHasElement", held), held, net.op("Neg", held)))


def dropped(net: Net, x: str) -> str:
    y, mask = net.op("Dropout", x, net.const(np.float32(0.5)), outputs=2)
    return str(net.op("Mul", y, net.op("Cast", mask, to=1)))


def squares(net: Net, x: str) -> str:
    """Four features as a little image, pooled in both of its axes."""
    image = net.op("Reshape", net.op("Pad", x, net.ints(0, 0, 0, 0, 0, 3), mode="reflect"), net.ints(0, 0, 3, 3))
    return str(net.op("Reshape", net.op("MaxPool", image, kernel_shape=[2, 2]), net.ints(0, 0, 4)))


CASES: dict[str, tuple[Build, int]] = {
    "largest": (lambda n, x: top(n, x, 3), 20),
    "places of the largest": (lambda n, x: top(n, x, 2, 1), 20),
    "sorted": (lambda n, x: top(n, x, WIDTH, axis=2, largest=0), 20),
    "ties": (lambda n, x: top(n, n.op("Round", x), 4, 1), 20),
    "sparse": (sparse, 20),
    "computed place": (computed_place, 20),
    "added to a computed place": (added, 20),
    "a norm over time": (
        lambda n, x: n.op("Transpose", n.op("GlobalLpPool", n.op("Transpose", x, perm=[0, 2, 1])), perm=[0, 2, 1]), 20),
    "constant places": (lambda n, x: n.op("GatherElements", x, spread(n, x, 2, 0, 5, -1), axis=2), 20),
    "running product": (lambda n, x: n.op("CumProd", n.op("Sigmoid", x), n.const(np.int64(2))), 26),
    "running product backwards": (
        lambda n, x: n.op("CumProd", n.op("Sigmoid", x), n.const(np.int64(-1)), reverse=1, exclusive=1), 26),
    "compressed": (lambda n, x: n.op("Compress", x, n.const(np.arange(WIDTH) % 3 > 0), axis=2), 20),
    "shifted left": (lambda n, x: shifted(n, x, "LEFT"), 20),
    "shifted right": (lambda n, x: shifted(n, x, "RIGHT"), 20),
    "selu of other numbers": (lambda n, x: n.op("Selu", x, alpha=1.2, gamma=0.9), 20),
    "a sequence": (in_parts, 20),
    "a stack": (stacked, 20),
    "optional": (optional, 20),
    "dropout with its mask": (dropped, 20),
    "reflected": (lambda n, x: n.op("Pad", x, n.ints(0, 0, 2, 0, 0, 1), mode="reflect"), 20),
    "wrapped": (lambda n, x: n.op("Pad", x, n.ints(0, 0, 2, 0, 0, 1), mode="wrap"), 20),
    "squares": (squares, 20),
    "averages": (lambda n, x: n.op("AveragePool", x, kernel_shape=[3], strides=[2], pads=[1, 1]), 20),
    "averages that count padding": (
        lambda n, x: n.op("AveragePool", x, kernel_shape=[3], strides=[2], pads=[1, 1], count_include_pad=1), 20),
    "maxima, the last window broken": (lambda n, x: n.op("MaxPool", x, kernel_shape=[4], strides=[4], ceil_mode=1), 20),
    "norms": (lambda n, x: n.op("LpPool", x, kernel_shape=[2], strides=[2]), 20),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_features_are_picked_at_every_step(tmp_path: Path, case: str) -> None:
    build, opset = CASES[case]
    net = Net()
    y = build(net, layer(net))
    path = save(net.model([(y, ["n", "t", None])], opset=opset), tmp_path)
    assert kinds(load_model(path)) == [LINEAR]
    model = lift(net, y, ["n", "t", None], tmp_path, *DYNAMIC) if opset == 20 else load_model(path)
    on_targets(model, 2, 13)


ENDS: dict[str, Build] = {
    "edges repeated": lambda n, x: n.op("Pad", x, n.ints(0, 0, 2, 0, 0, 2), mode="edge"),
    "first and last step put around": lambda n, x: around(n, x, "Tile", n.ints(1, 1, 2)),
    "expanded": lambda n, x: around(n, x, "Expand", n.ints(1, 1, 2)),
    "reflected": lambda n, x: n.op("Pad", x, n.ints(0, 0, 3, 0, 0, 1), mode="reflect"),
    "reflected before": lambda n, x: n.op("Pad", x, n.ints(0, 0, 4, 0, 0, 0), mode="reflect"),
}


def around(net: Net, x: str, kind: str, shape: str) -> str:
    first = net.op("Slice", x, net.ints(0), net.ints(1), net.ints(2))
    last = net.op("Slice", x, net.ints(-1), net.ints(np.iinfo(np.int64).max), net.ints(2))
    return str(net.op("Concat", net.op(kind, first, shape), x, net.op(kind, last, shape), axis=2))


@pytest.mark.parametrize("kind", ["AveragePool", "Conv"])
@pytest.mark.parametrize("ends", ENDS)
def test_steps_of_the_ends_stand_around(tmp_path: Path, ends: str, kind: str) -> None:
    """A series is taken apart into its moving average and the rest, as DLinear does."""
    net = Net()
    x = layer(net)
    padded = ENDS[ends](net, net.op("Transpose", x, perm=[0, 2, 1]))
    if kind == "Conv":
        y = net.op("Conv", padded, net.const(RNG.standard_normal((WIDTH, 1, 5))), group=WIDTH)
    else:
        y = net.op("AveragePool", padded, kernel_shape=[5])
    trend = net.op("Transpose", y, perm=[0, 2, 1])
    both = net.op("Concat", trend, net.op("Sub", x, trend), axis=2)
    model = lift(net, both, ["n", "t", 2 * WIDTH], tmp_path, *DYNAMIC)
    on_targets(model, 2, 13)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda n, x: n.op("Dropout", x, n.const(0.5), n.const(np.asarray(True))), "random numbers"),
        (lambda n, x: n.op("Add", x, n.op("RandomNormalLike", x)), "random numbers"),
        (lambda n, x: n.op("Add", x, n.op("RandomNormal", shape=[WIDTH])), "random numbers"),
        (lambda n, x: n.op("Pad", x, n.ints(0, 2, 0, 0, 0, 0), mode="wrap"), "circular padding"),
        (
            lambda n, x: n.op("BatchNormalization", n.op("Transpose", x, perm=[0, 2, 1]),
                              *(n.const(np.ones(WIDTH)) for _ in range(4)), outputs=3, training_mode=1)[0],
            "the mean of the whole batch",
        ),
    ],
)  # fmt: skip
def test_what_training_leaves_is_refused(tmp_path: Path, build: Build, reason: str) -> None:
    net = Net()
    y = build(net, layer(net))
    refused(save(net.model([(y, [None, None, None])]), tmp_path), reason)


def test_training_mode_behind_unrolled_steps_is_refused(tmp_path: Path) -> None:
    """Its mean and variance are results of the node, too."""
    net, steps = Net(), 6
    x = net.input(["b", steps, WIDTH])
    state, decay, rows = "", net.const(RNG.uniform(0.5, 0.9, WIDTH)), []
    for k in range(steps):
        u = net.op("Gather", x, net.const(np.int64(k)), axis=1)
        state = net.op("Add", net.op("Mul", decay, state), u) if k else u
        rows.append(net.op("Unsqueeze", state, net.ints(1)))
    y = net.op("Transpose", net.op("Concat", *rows, axis=1), perm=[0, 2, 1])
    one = [net.const(np.ones(WIDTH)) for _ in range(4)]
    normal = net.op("BatchNormalization", y, *one, outputs=3, training_mode=1)[0]
    refused(save(net.model([(normal, ["b", WIDTH, steps])]), tmp_path), "the mean of the whole batch")
