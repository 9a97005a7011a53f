"""Loops over vectors as machine code, straight from LLVM's language: in hundredths of a second, where the compiler of
Python functions (`ssmc.jit`) takes half a second to be loaded.

A function is written once, as Python that combines `Lanes`; what that does is what the machine code will do, operation
by operation. Nothing is reassociated or contracted, and each lane is computed apart from the others, so that a number
comes out the same wherever in an array it stands.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numpy.typing import NDArray

BYTES = 64  # of a vector where registers are that wide; narrower machines take several
WHOLE = ir.IntType(64)
KINDS = {"f4": ir.FloatType(), "f8": ir.DoubleType(), "i4": ir.IntType(32), "i8": ir.IntType(64)}
SIZES = {"f4": 4, "f8": 8}


@dataclass(frozen=True)
class Lanes:
    """Numbers side by side, or one number; Python's numbers are taken in as they are."""

    builder: ir.IRBuilder
    value: Any

    def _of(self, other: Any) -> Any:
        if isinstance(other, Lanes):
            return other.value
        kind = self.value.type
        return ir.Constant(kind, [other] * kind.count if isinstance(kind, ir.VectorType) else other)

    def _new(self, value: Any) -> Lanes:
        return Lanes(self.builder, value)

    @property
    def _whole(self) -> bool:
        return isinstance(getattr(self.value.type, "element", self.value.type), ir.IntType)

    def __add__(self, other: Any) -> Lanes:
        return self._new((self.builder.add if self._whole else self.builder.fadd)(self.value, self._of(other)))

    def __sub__(self, other: Any) -> Lanes:
        return self._new((self.builder.sub if self._whole else self.builder.fsub)(self.value, self._of(other)))

    def __mul__(self, other: Any) -> Lanes:
        return self._new((self.builder.mul if self._whole else self.builder.fmul)(self.value, self._of(other)))

    def __truediv__(self, other: Any) -> Lanes:
        return self._new(self.builder.fdiv(self.value, self._of(other)))

    def __floordiv__(self, other: int) -> Lanes:
        """Of whole numbers that are not negative."""
        return self._new(self.builder.udiv(self.value, self._of(other)))

    def __lshift__(self, bits: int) -> Lanes:
        return self._new(self.builder.shl(self.value, self._of(bits)))

    def plus(self, a: Lanes, b: Lanes) -> Lanes:
        """self + a b, rounded once where the processor can."""
        if not _fuses():
            return self + a * b
        kind, module = self.value.type, self.builder.module
        scalar = getattr(kind, "element", kind)
        bits = "f32" if isinstance(scalar, ir.FloatType) else "f64"
        name = f"llvm.fma.v{kind.count}{bits}" if isinstance(kind, ir.VectorType) else f"llvm.fma.{bits}"
        fused = module.globals.get(name) or ir.Function(module, ir.FunctionType(kind, [kind] * 3), name)
        return self._new(self.builder.call(fused, [a.value, b.value, self.value]))

    def spread(self, lanes: int) -> Lanes:
        """One number, in every lane."""
        kind = ir.VectorType(self.value.type, lanes)
        nothing = ir.Constant(kind, ir.Undefined)
        one = self.builder.insert_element(nothing, self.value, ir.Constant(KINDS["i4"], 0))
        places = ir.Constant(ir.VectorType(KINDS["i4"], lanes), [0] * lanes)
        return self._new(self.builder.shuffle_vector(one, nothing, places))

    def __neg__(self) -> Lanes:
        return self._new(self.builder.fneg(self.value))

    def at_least(self, low: Any) -> Lanes:
        """`low` where that is more; what is not a number stays so."""
        compare = self.builder.icmp_signed if self._whole else self.builder.fcmp_ordered
        return self._new(self.builder.select(compare("<", self.value, self._of(low)), self._of(low), self.value))

    def at_most(self, high: Any) -> Lanes:
        """`high` where that is less; what is not a number stays so."""
        compare = self.builder.icmp_signed if self._whole else self.builder.fcmp_ordered
        return self._new(self.builder.select(compare(">", self.value, self._of(high)), self._of(high), self.value))

    def bits_as(self, kind: str) -> Lanes:
        """The same bits as numbers of another kind of the same size."""
        target = KINDS[kind]
        if isinstance(self.value.type, ir.VectorType):
            target = ir.VectorType(target, self.value.type.count)
        return self._new(self.builder.bitcast(self.value, target))


@dataclass(frozen=True)
class Pointer:
    """An array of numbers in memory, counted from here."""

    builder: ir.IRBuilder
    value: Any
    kind: str

    def _place(self, at: Lanes | int, kind: Any) -> Any:
        offset = at.value if isinstance(at, Lanes) else ir.Constant(WHOLE, at)
        return self.builder.bitcast(self.builder.gep(self.value, [offset]), kind.as_pointer())

    def load(self, at: Lanes | int, lanes: int = 1) -> Lanes:
        kind = KINDS[self.kind] if lanes == 1 else ir.VectorType(KINDS[self.kind], lanes)
        return Lanes(self.builder, self.builder.load(self._place(at, kind), align=SIZES[self.kind]))

    def store(self, at: Lanes | int, value: Lanes) -> None:
        self.builder.store(value.value, self._place(at, value.value.type), align=SIZES[self.kind])

    def past(self, count: Lanes) -> Pointer:
        """The array from there on."""
        return Pointer(self.builder, self.builder.gep(self.value, [count.value]), self.kind)


@dataclass(frozen=True)
class Code:
    """A function while it is written."""

    builder: ir.IRBuilder

    def whole(self, value: int) -> Lanes:
        return Lanes(self.builder, ir.Constant(WHOLE, value))

    def zeros(self, kind: str, lanes: int) -> Lanes:
        return Lanes(self.builder, ir.Constant(ir.VectorType(KINDS[kind], lanes), [0.0] * lanes))

    def each(
        self,
        low: Lanes | int,
        high: Lanes,
        step: int,
        body: Callable[..., Sequence[Lanes] | None],
        *carried: Lanes,
    ) -> list[Lanes]:
        """Write a loop: `body` takes the index and what is carried, and says what is carried on; returns the last."""
        b = self.builder
        start = low if isinstance(low, Lanes) else self.whole(low)
        came, test = b.block, b.append_basic_block()
        work, after = b.append_basic_block(), b.append_basic_block()
        b.branch(test)
        b.position_at_end(test)
        phis = [b.phi(value.value.type) for value in (start, *carried)]
        for phi, value in zip(phis, (start, *carried), strict=True):
            phi.add_incoming(value.value, came)
        index, *held = (Lanes(b, phi) for phi in phis)
        b.cbranch(b.icmp_signed("<", index.value, high.value), work, after)
        b.position_at_end(work)
        following = [index + step, *(body(index, *held) or ())]
        for phi, value in zip(phis, following, strict=True):
            phi.add_incoming(value.value, b.block)
        b.branch(test)
        b.position_at_end(after)
        return held


@dataclass(frozen=True)
class Function:
    """Machine code with all that keeps it in memory."""

    call: Callable[..., None]
    kept: Any

    def __call__(self, *arguments: int) -> None:
        self.call(*arguments)


def function(pointers: Sequence[str], wholes: int, write: Callable[..., None]) -> Function:
    """Machine code of what `write(code, *pointers, *wholes)` writes; it takes addresses and whole numbers.

    It runs without the interpreter's lock, and checks nothing: `address` does, and callers the shapes.
    """
    module = ir.Module()
    kinds = [KINDS[kind].as_pointer() for kind in pointers] + [WHOLE] * wholes
    made = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "run")
    b = ir.IRBuilder(made.append_basic_block())
    places = [Pointer(b, value, kind) for value, kind in zip(made.args, pointers, strict=False)]
    write(Code(b), *places, *(Lanes(b, value) for value in made.args[len(pointers) :]))
    b.ret_void()
    machine = _machine()
    parsed = binding.parse_assembly(str(module))
    engine = binding.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(pointers), *[ctypes.c_int64] * wholes)
    return Function(kind(engine.get_function_address("run")), engine)


def address(array: NDArray[Any], kind: str, *, whole: bool = True, written: bool = False) -> int:
    """Where the numbers of an array begin, for code that takes `kind` there.

    Raises ValueError unless they are such numbers in the machine's order and in their places, one behind the other: all
    of them where `whole`, else those of a row, and rows at one distance.
    """
    if array.dtype != np.dtype(kind) or not array.flags.aligned:
        raise ValueError(f"machine code for {np.dtype(kind)} cannot read {array.dtype} numbers")
    rows = array.ndim == 2 and not array.strides[0] % array.itemsize
    behind = rows and (array.strides[1] == array.itemsize or array.shape[1] < 2)
    if not (array.flags.c_contiguous if whole else behind):
        raise ValueError(f"machine code cannot read an array of {array.shape} at distances of {array.strides} bytes")
    if written and not array.flags.writeable:
        raise ValueError("machine code cannot write an array that is only to be read")
    return array.ctypes.data


@cache
def _features() -> Mapping[str, bool]:
    """Of this processor; none where LLVM cannot tell."""
    try:
        return dict(binding.get_host_cpu_features())
    except RuntimeError:
        return {}


@dataclass(frozen=True)
class Registers:
    """A processor's registers for vectors: what a loop keeps in more of them goes to memory and back."""

    count: int
    size: int  # bytes


def registers() -> Registers:
    """Of this processor; of the least that there is where LLVM cannot tell."""
    has = _features()
    if has.get("avx512f", False):
        return Registers(32, 64)
    if has.get("neon", False):
        return Registers(32, 16)
    return Registers(16, 32 if has.get("avx", False) else 16)


def _fuses() -> bool:
    return _features().get("fma", False) or _features().get("neon", False)


@cache
def _target() -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_default_triple()


def _machine() -> Any:
    features = ",".join(("+" if has else "-") + name for name, has in sorted(_features().items()))
    return _target().create_target_machine(cpu=binding.get_host_cpu_name(), features=features, opt=3)
