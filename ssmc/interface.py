"""What a model asks for and gives, in the user's own names and axes; it travels in the program's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ssmc.ir.types import ConstantType, FlowType, SequenceType, StreamType

if TYPE_CHECKING:
    from ssmc.stored_interface import StoredPort

_KINDS: dict[str, Any] = {"stream": StreamType, "sequence": SequenceType, "constant": ConstantType}


@dataclass(frozen=True)
class Port:
    """One input or output.

    `axes` names each axis of the user's array (see the op `input`); `shape` is what the ONNX file declares (of one
    step, in a one-step model), names where it is dynamic; `dtype` its element type as numpy calls it; `role` that of
    the op `input` or `output`; `type` the value in the graph.
    """

    name: str
    axes: str
    shape: tuple[int | str | None, ...]
    dtype: str
    role: str
    type: FlowType

    @property
    def is_shared(self) -> bool:
        """Is it of one step, and one for all samples in the file?"""
        return "b" in self.axes and "t" in self.axes and len(self.shape) < len(self.axes) - 1

    def expected(self) -> tuple[int | str, ...]:
        """The shape of the user's array: a size where it is fixed, else a name."""
        names: list[int | str] = []
        features = list(self.type.shape)
        declared = list(self.shape) if len(self.shape) == len(self.axes) else []
        for axis, letter in enumerate(self.axes):
            size = declared[axis] if declared else None
            if letter == "1":
                names.append(1)
            elif letter == "f":
                own = features.pop(0) if features else 1
                names.append(size if isinstance(size, int) else own)
            else:
                word = {"b": "batch", "t": "time"}[letter]
                names.append(size if isinstance(size, int) and letter == "t" else word)
        return tuple(names)


@dataclass(frozen=True)
class Interface:
    """All inputs and outputs. `form` is "sequence" or "step"; `states` maps state inputs to their outputs."""

    form: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: Mapping[str, str] = field(default_factory=dict)


def to_json(interface: Interface) -> dict[str, Any]:
    """`interface` as JSON."""
    return {
        "form": interface.form,
        "states": dict(interface.states),
        "inputs": [_port_json(port) for port in interface.inputs],
        "outputs": [_port_json(port) for port in interface.outputs],
    }


def from_json(data: Any) -> Interface:
    """The inverse of `to_json`. Raises UserError where `data` is something else."""
    from ssmc.metadata import checked
    from ssmc.stored_interface import SCHEMA

    told = checked(data, SCHEMA, where=".meta interface")
    inputs, outputs = (tuple(map(_port, ports)) for ports in (told.inputs, told.outputs))
    return Interface(told.form, inputs, outputs, told.states)


def _port_json(port: Port) -> dict[str, Any]:
    return {**asdict(port), "shape": list(port.shape), "type": type_json(port.type)}


def type_json(kind: FlowType) -> dict[str, Any]:
    """A type as JSON."""
    word = next(word for word, known in _KINDS.items() if isinstance(kind, known))
    rate = {"rate": str(kind.rate)} if isinstance(kind, StreamType) else {}
    return {"kind": word, "shape": list(kind.shape), "element": kind.element, **rate}


def _port(told: StoredPort) -> Port:
    stated = told.type
    rate = (Fraction(stated.rate),) if stated.kind == "stream" else ()
    kind: FlowType = _KINDS[stated.kind](tuple(stated.shape), stated.element, *rate)
    return Port(told.name, told.axes, tuple(told.shape), told.dtype, told.role, kind)
