"""The table of all ops. Adding an op is adding one `OpSpec` to a file of `ssmc.ir.ops`."""

from __future__ import annotations

from functools import cache

from ssmc.ir.op import OpSpec
from ssmc.ir.ops import elementwise, features, onnx_op, rounded, rounded_sums, spiking, structure, temporal, tile


@cache
def table() -> dict[str, OpSpec]:
    """Every declared op by name."""
    files = (structure, elementwise, features, temporal, spiking, rounded, rounded_sums, tile)
    return {spec.name: spec for file in files for spec in file.SPECS}


def spec_of(name: str) -> OpSpec:
    """The declaration of an op. Raises KeyError for an unknown name."""
    if name.startswith(onnx_op.PREFIX):
        return onnx_op.SPEC
    try:
        return table()[name]
    except KeyError:
        raise KeyError(f"no op is called '{name}'; there are: {', '.join(sorted(table()))}") from None
