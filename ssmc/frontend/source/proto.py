"""An ONNX file as a checked ModelProto and its weights: read, external data, local functions.

Large weights are taken out of the proto as it is read, each held once, as the file has them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import external_data_helper, helper, numpy_helper

from ssmc.diagnostics import UserError
from ssmc.frontend.source.assignment import check_assignment, check_opsets
from ssmc.frontend.source.functions import inlined
from ssmc.frontend.source.sparse import check_sparse
from ssmc.ir.op import Array
from ssmc.ir.tensor import LARGE

MAX_DEPTH = 16  # of subgraphs within subgraphs
MAX_SUBGRAPHS = 4096
MAX_BYTES = 1 << 31  # as protobuf has it
MAX_ELEMENTS = 1 << 31  # protobuf itself ends at 2 GB; what claims more is damaged or hostile
# What gives one number, as often as asked.
_SPREADS = frozenset({"Identity", "Cast", "CastLike", "Reshape", "Unsqueeze", "Expand"})


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A model without its large float32 weights, and these by name (read-only)."""

    model: onnx.ModelProto
    weights: dict[str, Array]

    def whole(self) -> onnx.ModelProto:
        """The model with its weights."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in self.weights.items())
        return model

    def with_weights_as_inputs(self) -> onnx.ModelProto:
        """The model to be run on its weights, so that the runtime needs no copy of them."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        known = {info.name for info in model.graph.input}
        for name, array in self.weights.items():
            if name not in known:
                model.graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(array.shape)))
        return model


def read_model(path: str | Path) -> ModelFile:
    """The model in `path`, with external data loaded and model-local functions inlined.

    Raises UserError where the file is missing, is not ONNX, is truncated, points outside its folder, or holds
    weights that are not finite.
    """
    file = Path(path)
    if file.is_dir():
        raise UserError("this is a folder, not an ONNX file", where=str(file), hint="give the path of the file in it")
    if not file.is_file():
        raise UserError(f"there is no file '{file}'", hint="give the path of an .onnx file")
    model = _parse(file)
    _check_nesting(model.graph, file)
    check_opsets(model, str(file))
    check_assignment(graphs_of(model.graph), str(file))
    _check_external(model, file)
    check_sparse(graphs_of(model.graph), str(file))
    model, weights = _without_weights(model, file)
    _load_external(model, file)
    if model.functions:
        model = inlined(model, str(file))
        _check_nesting(model.graph, file)
        check_sparse(graphs_of(model.graph), str(file))
    _check_weights(model.graph, weights, file)
    return ModelFile(model, weights)


def _without_weights(model: onnx.ModelProto, file: Path) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model less its large float32 weights, in memory of its own, and these."""
    weights: dict[str, Array] = {}
    kept = []
    for tensor in model.graph.initializer:
        large = tensor.data_type == onnx.TensorProto.FLOAT and prod(tensor.dims) >= LARGE
        if not large or any(d < 0 for d in tensor.dims):
            kept.append(tensor)
            continue
        external = external_data_helper.uses_external_data(tensor)
        array = _external_array(tensor, file) if external else tensor_array(tensor, str(file))
        array.setflags(write=False)
        weights[tensor.name] = array
    if not weights:
        return model, weights
    small = onnx.ModelProto()
    del model.graph.initializer[:]
    small.CopyFrom(model)
    small.graph.initializer.extend(kept)
    return small, weights


def _parse(file: Path) -> onnx.ModelProto:
    if file.stat().st_size > MAX_BYTES:
        raise UserError(
            f"the file has {file.stat().st_size} bytes",
            where=str(file),
            why="an ONNX file ends at 2 GB",
            hint="store the weights in a file of their own (external data)",
        )
    data = file.read_bytes()
    model = onnx.ModelProto()
    looks_onnx = data[:1] == b"\x08" and b"\x3a" in data[:4096]  # field 1 (ir_version), then field 7 (graph)
    try:
        model.ParseFromString(data)
    except Exception as error:
        if looks_onnx:
            raise UserError(
                "the ONNX file is truncated or damaged", where=str(file), why=str(error), hint="export it again"
            ) from None
        why, hint = "it is no ONNX protobuf message", "give the .onnx file that the exporter wrote"
        raise UserError("not an ONNX file", where=str(file), why=why, hint=hint) from None
    if not model.ir_version or not model.HasField("graph") or not model.opset_import:
        truncated = looks_onnx and bool(model.ir_version)
        what = "the ONNX file is truncated or damaged" if truncated else "not an ONNX file"
        raise UserError(what, where=str(file), why="it holds no graph with an opset", hint="export the model again")
    if not model.graph.output:
        raise UserError("the model has no outputs", where=str(file), hint="export it again, with its outputs")
    return model


def graphs_of(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """The graph and all its subgraphs."""
    found, waiting = [], [graph]
    while waiting:
        here = waiting.pop()
        found.append(here)
        for node in here.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    waiting.append(attribute.g)
                waiting.extend(attribute.graphs)
    return found


def _check_nesting(graph: onnx.GraphProto, file: Path) -> None:
    """Refuse what would take time and memory without end: bodies within bodies, each copied many times."""
    count, waiting = 0, [(graph, 0)]
    while waiting:
        here, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_SUBGRAPHS:
            raise UserError(
                "subgraphs are nested too deeply" if depth > MAX_DEPTH else "the model has too many subgraphs",
                where=str(file),
                hint=f"at most {MAX_DEPTH} levels, and {MAX_SUBGRAPHS} subgraphs",
            )
        for node in here.node:
            for attribute in node.attribute:
                inner = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
                waiting += [(g, depth + 1) for g in inner]


def _check_external(model: onnx.ModelProto, file: Path) -> None:
    """Raise UserError where an external tensor is not in a file in the model's folder or below it."""
    folder, total = file.resolve().parent, 0
    for tensor in external_data_helper._get_all_tensors(model):
        if not external_data_helper.uses_external_data(tensor):
            continue
        try:
            location = external_data_helper.ExternalDataInfo(tensor).location
            target = (folder / location).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # links that go round, characters that no path has
            raise UserError(f"the weight '{tensor.name}' has no file", where=str(file), why=str(error)[:200]) from None
        total += _bytes(tensor)
        if total > memory():
            raise UserError(
                f"its weights take {total / 1e9:.0f} GB and more",
                where=str(file),
                why=f"this machine has {memory() / 1e9:.0f} GB of memory",
            )
        if Path(location).is_absolute() or not target.is_relative_to(folder):
            raise UserError(
                f"the weight '{tensor.name}' lies outside the model's folder: '{location}'",
                where=str(file),
                hint="put the weight file beside the model and give a relative path",
            )
        if not target.is_file():
            raise UserError(
                f"the weight file '{location}' is missing",
                where=str(file),
                why=f"the weight '{tensor.name}' is stored there",
                hint="copy it beside the model",
            )


def _bytes(tensor: onnx.TensorProto) -> int:
    """What a tensor takes by its dimensions."""
    try:
        width = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except KeyError:
        width = 1
    return int(prod(max(0, d) for d in tensor.dims) * width)


def memory() -> int:
    """Bytes of memory that this machine has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not everywhere
        return 1 << 40


def _load_external(model: onnx.ModelProto, file: Path) -> None:
    """Read external tensors into the model."""
    for tensor in external_data_helper._get_all_tensors(model):
        if external_data_helper.uses_external_data(tensor):
            try:
                external_data_helper.load_external_data_for_tensor(tensor, str(file.resolve().parent))
            except Exception as error:
                raise _unreadable(tensor, file, str(error)) from None


def _external_array(tensor: onnx.TensorProto, file: Path) -> Array:
    """A large float32 tensor straight from its file."""
    info = external_data_helper.ExternalDataInfo(tensor)
    path, size, offset = file.resolve().parent / info.location, prod(tensor.dims), info.offset or 0
    if info.length not in (None, 4 * size) or path.stat().st_size < offset + 4 * size:
        raise _unreadable(tensor, file, f"it holds too few or too many bytes for dimensions {list(tensor.dims)}")
    try:
        return np.fromfile(path, "<f4", size, offset=offset).reshape(tuple(tensor.dims))
    except (OSError, ValueError) as error:
        raise _unreadable(tensor, file, str(error)) from None


def _unreadable(tensor: onnx.TensorProto, file: Path, why: str) -> UserError:
    location = external_data_helper.ExternalDataInfo(tensor).location
    return UserError(f"the weight file '{location}' cannot be read", where=f"{file}: '{tensor.name}'", why=why)


def _check_weights(graph: onnx.GraphProto, weights: dict[str, Array], file: Path) -> None:
    arrays = list(weights.items())
    graphs = graphs_of(graph)
    arrays += [(t.name, tensor_array(t, str(file))) for here in graphs for t in here.initializer]
    bad = []
    for name, array in arrays:
        if array.dtype.kind not in "fc" or np.isfinite(array).all() or _is_bound(array):
            continue
        if array.size > 1 or not _is_alternative(name, graphs):
            bad.append(f"'{name}' ({int((~np.isfinite(array)).sum())} of {array.size})")
    if bad:
        raise UserError(
            f"weights are not finite: {', '.join(bad[:8])}{' and more' if len(bad) > 8 else ''}",
            where=str(file),
            why="they hold NaN or infinity",
            hint="check the training run; export again from a good checkpoint",
        )


def _is_bound(array: np.ndarray) -> bool:
    """Infinities without NaN in a small tensor are masks or limits of a Clip, not weights."""
    return not np.isnan(array).any() and (array.size == 1 or bool(np.isin(array, (0, -np.inf, np.inf)).all()))


def _is_alternative(name: str, graphs: list[onnx.GraphProto]) -> bool:
    """Whether a number is all that a Where gives in cases that no data make: JAX's variance of no numbers at all."""
    nodes = [node for graph in graphs for node in graph.node]
    shown = {out.name for graph in graphs for out in graph.output}
    waiting, seen = [name], set[str]()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        for node in (n for n in nodes if name in n.input):
            if node.op_type in _SPREADS and name == node.input[0] and name not in node.input[1:]:
                waiting += [out for out in node.output if out not in seen]
            elif node.op_type != "Where" or _is_data(node.input[0], nodes, graphs):
                return False
    return not seen & shown


def _is_data(name: str, nodes: list[onnx.NodeProto], graphs: list[onnx.GraphProto]) -> bool:
    """Whether inputs tell a value, other than by their shapes."""
    made_by = {out: node for node in nodes for out in node.output if node.op_type not in ("Shape", "Size")}
    weights = {tensor.name for graph in graphs for tensor in graph.initializer}
    given = {port.name for graph in graphs for port in graph.input} - weights
    waiting, seen = [name], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        node = made_by.get(name)
        if node is not None:
            if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
                return True  # what a body does is not looked into
            waiting += node.input
    return bool(seen & given)


def tensor_array(tensor: onnx.TensorProto, where: str = "") -> np.ndarray:
    """A TensorProto as numpy array. Raises UserError where its size and its data do not agree."""
    size = 1
    for dim in tensor.dims:
        size *= int(dim)
        if dim < 0 or size > MAX_ELEMENTS:
            raise UserError(f"the weight '{tensor.name}' has impossible dimensions {list(tensor.dims)}", where=where)
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:
        raise UserError(
            f"the weight '{tensor.name}' cannot be read",
            where=where,
            why=str(error),
            hint="the file is damaged; export the model again",
        ) from None


def holds(model: onnx.ModelProto, dtype: int) -> bool:
    """Does the model store or compute anything of the element type?"""
    for graph in graphs_of(model.graph):
        infos = (*graph.input, *graph.output, *graph.value_info)
        if any(info.type.tensor_type.elem_type == dtype for info in infos):
            return True
        if any(tensor.data_type == dtype for tensor in graph.initializer):
            return True
        if any(a.t.data_type == dtype or _is_type(a, dtype) for node in graph.node for a in node.attribute):
            return True
    return False


def widened(model: onnx.ModelProto, dtype: int) -> onnx.ModelProto:
    """The model, changed in place, with float32 wherever it has the element type `dtype`."""
    wide = onnx.TensorProto.FLOAT
    for graph in graphs_of(model.graph):
        for info in (*graph.input, *graph.output, *graph.value_info):
            if info.type.tensor_type.elem_type == dtype:
                info.type.tensor_type.elem_type = wide
        attributes = [a for node in graph.node for a in node.attribute]
        for tensor in (*graph.initializer, *(a.t for a in attributes if a.type == onnx.AttributeProto.TENSOR)):
            if tensor.data_type == dtype:
                tensor.CopyFrom(numpy_helper.from_array(tensor_array(tensor).astype(np.float32), tensor.name))
        for attribute in attributes:
            if _is_type(attribute, dtype):
                attribute.i = wide
    return model


def _is_type(attribute: onnx.AttributeProto, dtype: int) -> bool:
    """Does the attribute name the element type?"""
    return attribute.name in ("to", "dtype", "stash_type", "output_dtype") and attribute.i == dtype
