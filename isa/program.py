"""A program as a value: sections of instructions, constants, ports and the source map. Immutable,
comparable, sendable.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isa.errors import IsaError
from isa.fields import Field, Kind, Value, plainly_fits, round_float, value_problem
from isa.frozen import FrozenMap
from isa.spec import InstructionSet

Json = None | bool | int | float | str | list[Any] | dict[str, Any]

DTYPES = (
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
"""Element types of constants and ports."""

PORT_KINDS = ("stream", "sequence", "state")


@dataclass(frozen=True)
class Loc:
    """Where instructions come from: the model's layer, the op there, and the ONNX nodes that it was lifted
    from.
    """

    layer: str
    op: str
    onnx_nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Instruction:
    """One instruction. `operands` holds every field of its spec by name, defaults included (`instruction`
    fills them in); `loc` indexes `Program.locs`.
    """

    mnemonic: str
    operands: Mapping[str, Value] = field(default_factory=FrozenMap)
    loc: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "operands", _frozen(self.operands))

    def __getitem__(self, name: str) -> Value:
        return self.operands[name]

    def changed(self, operands: Mapping[str, Value]) -> Instruction:
        """The instruction with other values of some operands, which are not checked."""
        return Instruction(self.mnemonic, _frozen(self.operands) | operands, self.loc)


@dataclass(frozen=True)
class Section:
    """A piece of code that one sequencer runs (``main``, ``core3``); a label names the index of an
    instruction (or the end).
    """

    name: str
    code: tuple[Instruction, ...]
    labels: Mapping[str, int] = field(default_factory=FrozenMap)

    def __post_init__(self) -> None:
        object.__setattr__(self, "code", tuple(self.code))
        by_place = sorted(self.labels.items(), key=lambda item: item[1])
        object.__setattr__(self, "labels", FrozenMap(dict(by_place)))


@dataclass(frozen=True)
class Port:
    """An input or output of the model. `shape` is that of one step (kind ``stream``), one sequence
    (``sequence``) or the state carried between runs (``state``), without batch; `binding` is JSON: where
    the machine finds it.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    dtype: str = "float32"
    binding: Json = None

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "shape", tuple(index(n) for n in self.shape))
        except TypeError:
            raise IsaError(f"port '{self.name}' has a shape that is no list of whole numbers") from None
        object.__setattr__(self, "binding", canonical_json(self.binding, f"binding of port '{self.name}'"))


@dataclass(frozen=True, eq=False)
class Program:
    """A whole program. Compares by value, arrays bit for bit.

    `target` and `isa_version` name the instruction set; `arch` is the architecture it was compiled for, as
    text with Unix line ends; `data` the constants, in name order, as little-endian C-ordered read-only arrays;
    `meta` JSON by key (what the compiler has to say). Raises `IsaError` where a value has no form in text and file.
    """

    target: str
    isa_version: str
    arch: str = ""
    sections: tuple[Section, ...] = ()
    data: Mapping[str, NDArray[Any]] = field(default_factory=FrozenMap)
    locs: tuple[Loc, ...] = ()
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    meta: Mapping[str, Json] = field(default_factory=FrozenMap)

    def __post_init__(self) -> None:
        for name in ("sections", "locs", "inputs", "outputs"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "arch", self.arch.replace("\r\n", "\n").replace("\r", "\n"))
        data = {name: canonical_array(self.data[name], name) for name in sorted(self.data)}
        meta = {key: canonical_json(self.meta[key], f"meta '{key}'") for key in sorted(self.meta)}
        object.__setattr__(self, "data", FrozenMap(data))
        object.__setattr__(self, "meta", FrozenMap(meta))

    @property
    def instruction_count(self) -> int:
        """Instructions of all sections."""
        return sum(len(section.code) for section in self.sections)

    def section(self, name: str) -> Section:
        """The section called `name`. Raises KeyError."""
        for section in self.sections:
            if section.name == name:
                return section
        raise KeyError(name)

    def source(self, instruction: Instruction) -> Loc | None:
        """Where `instruction` comes from in the model."""
        return None if instruction.loc is None else self.locs[instruction.loc]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Program):
            return NotImplemented
        return self._key() == other._key() and same_data(self.data, other.data)

    def __hash__(self) -> int:
        return hash((self.target, self.isa_version, self.arch, self.sections))

    def _key(self) -> tuple[object, ...]:
        ports = json.dumps([(p.name, p.shape, p.kind, p.dtype, p.binding) for p in self.inputs + self.outputs])
        meta = json.dumps(dict(self.meta))  # as text: True and 1, 1 and 1.0 are different values in a file
        return (
            self.target,
            self.isa_version,
            self.arch,
            self.sections,
            self.locs,
            ports,
            len(self.inputs),
            meta,
        )


def instruction(isa: InstructionSet, mnemonic: str, loc: int | None = None, /, **operands: Value) -> Instruction:
    """An instruction of `isa` with its defaults filled in and floats rounded to their field.

    Raises `IsaError` that names the instruction and the field: unknown mnemonic or operand, missing
    operand, wrong kind, out of range.
    """
    spec = isa.by_mnemonic.get(mnemonic)
    if spec is None:
        raise IsaError(f"{isa.name} has no instruction '{mnemonic}'")
    if unknown := operands.keys() - spec.by_name.keys():
        raise IsaError(f"'{mnemonic}' has no operand {', '.join(map(repr, sorted(unknown)))}")
    values: dict[str, Any] = {**spec.defaults, **operands}
    for name, value in operands.items():
        f = spec.by_name[name]
        if value is None or plainly_fits(f, value):
            continue
        values[name] = value = canonical_value(f, value)
        if problem := value_problem(f, value, isa.register_index):
            raise IsaError(f"operand '{name}' of '{mnemonic}': {problem}")
    for name, value in values.items():
        if value is None:
            raise IsaError(f"'{mnemonic}' lacks operand '{name}'")
    return Instruction(mnemonic, FrozenMap(values), loc)


def canonical_value(f: Field, value: Any) -> Value:
    """`value` as a program holds it: numpy numbers become Python's, integers in FLOAT fields floats, floats
    rounded to the field.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if f.kind is Kind.FLOAT and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return round_float(value, f.bits)
        except OverflowError:
            return float(value)
    result: Value = value
    return result


@cache
def _little_endian(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """How a file holds numbers of an element type, which takes long to find out; None where it cannot."""
    return dtype.newbyteorder("<") if dtype.name in DTYPES else None


def canonical_array(array: NDArray[Any], name: str) -> NDArray[Any]:
    """A little-endian, C-ordered, read-only view or copy of `array`. Raises `IsaError` for an element type
    that has no file form.
    """
    array = np.asarray(array)
    little = _little_endian(array.dtype)
    if little is None:
        known = ", ".join(DTYPES)
        raise IsaError(f"constant '{name}' has element type {array.dtype}, which a program cannot hold: use {known}")
    flags = array.flags
    if type(array) is np.ndarray and flags.c_contiguous and not flags.writeable and array.dtype == little:
        return array
    fixed = np.require(array, dtype=little, requirements="C").view()
    fixed.flags.writeable = False
    return fixed


def canonical_json(value: Any, what: str) -> Json:
    """`value` as it comes back from a file: tuples as lists, keys sorted. Raises `IsaError` when it has no
    JSON form (NaN, objects).
    """
    try:
        result: Json = json.loads(json.dumps(value, sort_keys=True, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise IsaError(f"{what} has no JSON form: {error}") from None
    return result


def same_data(left: Mapping[str, NDArray[Any]], right: Mapping[str, NDArray[Any]]) -> bool:
    """Whether two sets of constants are the same: names, element types, shapes, bytes."""
    if left.keys() != right.keys():
        return False
    pairs = ((left[name], right[name]) for name in left)
    return all(a is b or (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()) for a, b in pairs)


def content_hash(array: NDArray[Any]) -> str:
    """sha256 of a constant: element type, shape, bytes; hexadecimal."""
    digest = hashlib.sha256(f"{array.dtype.name}{list(array.shape)}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _frozen(mapping: Mapping[str, Value]) -> FrozenMap[str, Value]:
    return mapping if isinstance(mapping, FrozenMap) else FrozenMap(mapping)
