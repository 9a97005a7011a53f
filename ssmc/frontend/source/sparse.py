"""Sparse tensors of a file: told how large they are before they are spread out."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np
import onnx
from onnx import numpy_helper

from ssmc.diagnostics import UserError
from ssmc.ir.op import Array

MOST = 1 << 27  # numbers that all sparse tensors of a file may spread to, 512 MB of float32 (ours)


def check_sparse(graphs: Iterable[onnx.GraphProto], where: str) -> None:
    """Raise UserError where the sparse tensors of these graphs would take too much memory, or have no shape."""
    total = 0
    for graph in graphs:
        constants = [a.sparse_tensor for node in graph.node for a in node.attribute if a.HasField("sparse_tensor")]
        for tensor in (*graph.sparse_initializer, *constants):
            name, dims = tensor.values.name, list(tensor.dims)
            if any(d < 0 for d in dims):
                raise UserError(f"the sparse weight '{name}' has impossible dimensions {dims}", where=where)
            total += prod(dims)
            if total > MOST:
                raise UserError(
                    f"the sparse weight '{name}' is too large",
                    where=where,
                    why=f"with those before it, it stands for {total} numbers, most of them zero (at most {MOST})",
                    hint="the compiler keeps weights dense: export it as several smaller ones, or without what is zero",
                )


def dense(sparse: onnx.SparseTensorProto, where: str) -> Array:
    """All its numbers. Raises UserError where their places lie outside of it."""
    try:
        values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        whole = np.zeros(tuple(sparse.dims), values.dtype)
        if places.ndim == 1:
            whole.reshape(-1)[places] = values
        else:
            whole[tuple(places.T)] = values
    except (IndexError, ValueError) as error:
        name, why = sparse.values.name, str(error)
        raise UserError(f"the sparse weight '{name}' cannot be read", where=where, why=why) from None
    return whole
