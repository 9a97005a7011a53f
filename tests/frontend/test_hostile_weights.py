"""Weights that are not there, lie where they must not, or claim more than there is: a message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ssmc.frontend import load_model
from tests.frontend.checks import refused
from tests.frontend.net import Net, save, stepwise

pytestmark = pytest.mark.invalid_files


def test_impossible_dimensions(tmp_path: Path) -> None:
    net = Net()
    x = net.input(["b", "t", 3])
    huge = TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[1 << 31, 1 << 31])
    net.weights.append(huge)
    refused(save(stepwise(net, net.op("Add", x, "huge"), 3), tmp_path), "'huge'", "impossible dimensions")


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname"])
def test_external_weights_stay_in_the_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(b"\0" * 64)
    refused(_external(folder, location), "outside the model's folder", location)


def test_external_weights_are_read(tmp_path: Path) -> None:
    path = _external(tmp_path, "weights.bin")
    refused(path, "'weights.bin' is missing")
    (tmp_path / "weights.bin").write_bytes(np.ones(3, np.float32).tobytes())
    assert all(proof.passed for proof in load_model(path, strict=False).proofs)


def _external(folder: Path, location: str) -> Path:
    net = Net()
    x = net.input(["b", "t", 3])
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="length", value="12")
    net.weights.append(weight)
    return save(stepwise(net, net.op("Mul", x, "w"), 3), folder)


def test_a_link_to_weights_outside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(b"\0" * 64)
    (folder / "weights.bin").symlink_to(tmp_path / "outside.bin")
    refused(_external(folder, "weights.bin"), "outside the model's folder")


@pytest.mark.parametrize("within", ["weights", "a constant", "a subgraph"])
def test_sparse_weights_that_spread_to_gigabytes(within: str, tmp_path: Path) -> None:
    net = Net()
    x = net.input(["b", "t", 3])
    many = helper.make_sparse_tensor(
        helper.make_tensor("many", TensorProto.FLOAT, [1], [2.0]),
        helper.make_tensor("places", TensorProto.INT64, [1], [5]),
        [42000, 42000],
    )
    if within == "weights":
        model = stepwise(net, net.op("Add", x, net.op("ReduceSum", "many")), 3)
        model.graph.sparse_initializer.append(many)
    elif within == "a constant":
        constant = net.op("Constant", sparse_value=many)
        model = stepwise(net, net.op("Add", x, net.op("ReduceSum", constant)), 3)
    else:
        inner = Net()
        body = inner.subgraph([(inner.op("ReduceSum", inner.op("Constant", sparse_value=many)), None)])
        model = stepwise(
            net, net.op("Add", x, net.op("If", net.const(np.asarray(True)), then_branch=body, else_branch=body)), 3
        )
    refused(save(model, tmp_path), "the sparse weight 'many' is too large", "1764000000 numbers")


@pytest.mark.parametrize("dims,place,said", [([3], 7, "cannot be read"), ([-3], 1, "impossible dimensions")])
def test_sparse_weights_that_do_not_fit(dims: list[int], place: int, said: str, tmp_path: Path) -> None:
    net = Net()
    x = net.input(["b", "t", 3])
    model = stepwise(net, net.op("Add", x, "few"), 3)
    values = helper.make_tensor("few", TensorProto.FLOAT, [1], [2.0])
    places = helper.make_tensor("places", TensorProto.INT64, [1], [place])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, dims))
    refused(save(model, tmp_path), said)


def test_a_link_that_goes_round(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").symlink_to("weights.bin")
    refused(_external(tmp_path, "weights.bin"), "the weight 'w' has no file")


def test_more_weights_than_memory(tmp_path: Path) -> None:
    """A file with holes claims any size."""
    path = _external(tmp_path, "weights.bin")
    with open(tmp_path / "weights.bin", "wb") as file:
        file.truncate(1 << 42)
    model = onnx.load(path, load_external_data=False)
    weight = model.graph.initializer[0]
    del weight.external_data[1:]
    for k in range(1 << 10):
        more = model.graph.initializer.add()
        more.CopyFrom(weight)
        more.name, more.dims[0] = f"w{k}", 1 << 30
    onnx.save(model, path)
    refused(path, "its weights take", "of memory")


def test_a_file_beyond_what_onnx_can_hold(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with open(path, "wb") as file:
        file.truncate(1 << 33)
    refused(path, "the file has 8589934592 bytes")


def test_weights_beyond_the_end_of_their_file(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\0" * 4)
    refused(_external(tmp_path, "weights.bin"), "cannot be read")
