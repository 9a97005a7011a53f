"""What an op is, and how one is declared: one `OpSpec` in the table says everything about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssmc.ir.types import FlowType, ValueType

Array = NDArray[Any]
Level = Literal["any", "onnx", "ssm", "tile"]


@dataclass(frozen=True, eq=False)
class Op:
    """An operation with its attributes, frozen; compared by identity, printed by the text form."""

    name: str
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "attrs", MappingProxyType(dict(self.attrs)))

    def __getitem__(self, attribute: str) -> Any:
        return self.attrs[attribute]

    def get(self, attribute: str, default: Any = None) -> Any:
        """An attribute, or `default` where the op has none of this name."""
        return self.attrs.get(attribute, default)

    def with_attrs(self, **changes: Any) -> Op:
        """The same op with some attributes replaced."""
        return Op(self.name, {**self.attrs, **changes})


REQUIRED: Any = object()


@dataclass(frozen=True)
class Attribute:
    """An attribute: its python type, its default (`REQUIRED` has none), its meaning."""

    name: str
    type: type | tuple[type, ...]
    doc: str
    default: Any = REQUIRED


# types of the operands (None where an optional one is absent) -> types of the results
Infer = Callable[[Op, Sequence[Any]], tuple[ValueType, ...]]
# arrays of the operands, in float64 -> arrays of the results
Evaluate = Callable[[Op, Sequence[Any], Sequence[Any]], tuple[Array, ...]]


@dataclass(frozen=True)
class OpSpec:
    """One entry of the op table.

    `operands` are slot names; a trailing `?` marks an optional slot, a trailing `*` (last one only) any number.
    `infer(op, types)` raises ValueError where the operands do not fit. `evaluate(op, arrays, types)` is the
    meaning of the op in float64; `types` are those of the operands.
    """

    name: str
    level: Level
    operands: tuple[str, ...]
    results: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    infer: Infer
    evaluate: Evaluate
    doc: str

    @property
    def required_operands(self) -> int:
        """How many operand slots must be filled; they come first."""
        return sum(not slot.endswith(("?", "*")) for slot in self.operands)

    @property
    def variadic(self) -> bool:
        """Does the last slot take any number of operands?"""
        return bool(self.operands) and self.operands[-1].endswith("*")

    def slot(self, index: int) -> str:
        """The name of operand slot `index`, without its mark."""
        return self.operands[min(index, len(self.operands) - 1)].rstrip("?*")

    def complete(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """Attributes with defaults filled in. Raises ValueError for an unknown, missing or ill-typed one."""
        known = {attribute.name: attribute for attribute in self.attributes}
        unknown = sorted(set(attrs) - set(known))
        if unknown:
            raise ValueError(f"op '{self.name}' has no attribute '{unknown[0]}'; it has: {', '.join(known) or 'none'}")
        full = {}
        for name, attribute in known.items():
            value = attrs.get(name, attribute.default)
            if value is REQUIRED:
                raise ValueError(f"op '{self.name}' needs the attribute '{name}': {attribute.doc}")
            if value is not None and not isinstance(value, attribute.type):
                raise ValueError(f"attribute '{name}' of op '{self.name}' is a {type(value).__name__}: {value!r}")
            full[name] = value
        return full


def align(array: Array, kind: FlowType, target: FlowType) -> Array:
    """An operand's array with singleton axes put in so that it broadcasts against `target`'s array.

    Outer axes (batch, time) are matched first, then feature axes from the right, as numpy does.
    """
    from ssmc.ir.types import ConstantType, StreamType, outer_axes

    missing = len(target.shape) - len(kind.shape)
    outer = outer_axes(kind)
    if isinstance(kind, ConstantType):
        return array
    array = array.reshape(array.shape[:outer] + (1,) * missing + array.shape[outer:])
    if isinstance(target, StreamType) and not isinstance(kind, StreamType):
        array = np.expand_dims(array, 1)
    return array
