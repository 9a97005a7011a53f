"""Shapes of values without their numbers: those that running the file gives, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.models import convolutional
from ssmc.frontend.source import outlines
from ssmc.frontend.source.effort import Effort
from ssmc.frontend.source.evaluate import followed, planned
from ssmc.frontend.source.importer import import_model
from ssmc.frontend.source.listing import Listing, list_calls
from ssmc.frontend.source.outlines import outlined
from ssmc.frontend.source.proto import read_model
from tests.frontend.net import Net, save

RNG = np.random.default_rng(0)


def both(listing: Listing, arrays: list[Any]) -> tuple[dict[Any, Any] | None, dict[Any, Any]]:
    """The outlines, and what the file gives, by value."""
    given = dict(zip(listing.inputs.values(), arrays, strict=True))
    plan, met = planned(listing, list(listing.outputs.values()), given), dict[Any, Any]()
    followed(plan, listing, given, list(listing.outputs.values()), met.__setitem__, Effort(listing.around))
    return outlined(plan, listing, given), met


def listed(net: Net, y: str, tmp_path: Path) -> Listing:
    path = save(net.model([(y, [])]), tmp_path)
    return list_calls(import_model(read_model(path), path))


def test_all_of_a_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines, "LARGE", 3 * 64 * 4)
    path = tmp_path / "model.onnx"
    convolutional.write_s4d(path, length=64, channels=6, modes=2, layers=2, frozen=True)
    listing = list_calls(import_model(read_model(path), path))
    given = {listing.inputs["x"]: RNG.standard_normal((3, 64, 4))}
    # all but the mean over time and what follows, which are not told
    wanted = [next(call for call in reversed(listing.calls) if call.kind == "LayerNormalization").results[0]]
    plan, met = planned(listing, wanted, given), dict[Any, Any]()
    followed(plan, listing, given, wanted, met.__setitem__, Effort(listing.around))
    found = outlined(plan, listing, given)
    assert found is not None and {*met} == {*found}
    for value, array in met.items():
        assert found[value].shape == array.shape and found[value].dtype == array.dtype, value
    assert outlined(planned(listing, list(listing.outputs.values()), given), listing, given) is None


OPS: list[tuple[str, tuple[int, ...], list[Any], dict[str, Any]]] = [
    *(("Conv", (2, 4, 11), [RNG.standard_normal((6, 2, 3))], {"group": 2, **more}) for more in (
        {}, {"strides": [2]}, {"pads": [1, 3]}, {"dilations": [2], "strides": [3]}, {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER", "strides": [2]}, {"auto_pad": "VALID"},
    )),
    *(("DFT", (2, 5, 8, parts), [size, np.int64(axis)], {"inverse": inverse, "onesided": onesided})
      for parts, size, axis, inverse, onesided in (
        (1, None, 1, 0, 0), (1, np.int64(12), 2, 0, 1), (1, None, -2, 0, 1), (2, np.int64(7), 1, 1, 0),
        (2, None, 2, 1, 1), (2, np.int64(9), 2, 1, 1), (2, np.int64(6), 1, 0, 0),
    )),
    ("Pad", (2, 5), [np.array([0, 2, 1, -1])], {}),
    ("Pad", (2, 5), [np.array([3, 1]), np.float32(0), np.array([1])], {}),
    ("MatMul", (3, 2, 4), [RNG.standard_normal((4, 5))], {}),
    ("MatMul", (2, 4), [RNG.standard_normal((3, 4, 5))], {}),
    ("Add", (2, 1, 4), [RNG.standard_normal((3, 1))], {}),
    ("Transpose", (2, 3, 4), [], {"perm": [2, 0, 1]}),
    ("Reshape", (2, 3, 4), [np.array([0, -1])], {}),
    ("Slice", (2, 9), [np.array([7]), np.array([0]), np.array([1]), np.array([-2])], {}),
    ("Concat", (2, 3), [RNG.standard_normal((2, 4))], {"axis": -1}),
    ("Unsqueeze", (2, 3), [np.array([-1])], {}),
    ("Gelu", (2, 3), [], {"approximate": "tanh"}),
    ("LayerNormalization", (2, 3), [RNG.standard_normal(3)], {}),
    ("Shape", (2, 3), [], {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "shape", "others", "attrs"), OPS, ids=[str(k) for k in range(len(OPS))])
def test_one_op(
    kind: str, shape: tuple[int, ...], others: list[Any], attrs: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(outlines, "LARGE", 1)
    net = Net()
    x = net.input(list(shape))
    y = net.op(kind, x, *("" if a is None else net.const(a) for a in others), **attrs)
    found, met = both(listed(net, str(y), tmp_path), [RNG.standard_normal(shape)])
    assert found is not None
    for value, array in met.items():
        assert found[value].shape == np.shape(array) and found[value].dtype == array.dtype
        assert kind != "Shape" or found[value].tolist() == list(shape)


def test_what_the_numbers_tell_is_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines, "LARGE", 1)
    net = Net()
    found, _ = both(listed(net, str(net.op("NonZero", net.input([4]))), tmp_path), [np.array([0.0, 1.0, 0.0, 2.0])])
    assert found is None
