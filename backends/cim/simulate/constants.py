"""What the constants of an instruction must be like: a program by hand may name others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from backends.cim.program.decode import Item
from backends.cim.simulate.core import Trap
from isa import Kind
from isa.cim import CIM
from ssmc.ir.op import Array
from ssmc.ir.ops.rounded import GRID, count_rows
from ssmc.ir.ops.rounded_sums import GATED, TERM

Size = int | str  # a number, or what the size is called where it is free


@dataclass(frozen=True)
class Wanted:
    """A constant's axes, as the instruction's own operands say, and whether it holds whole numbers."""

    shape: Callable[[Item], tuple[Size, ...]]
    whole: bool = False


_WORDS = Wanted(lambda item: (item.integer("words"),))
_FEATURES = Wanted(lambda item: (item.integer("features"),))
WANTED: dict[tuple[str, str], Wanted] = {
    ("gather", "index"): Wanted(lambda item: ("words",), whole=True),
    ("embed", "table"): Wanted(lambda item: ("rows", "features")),
    ("program", "weights"): Wanted(lambda item: ("rows", "columns")),
    ("program", "scale"): Wanted(lambda item: ("columns",)),
    ("program", "unit"): Wanted(lambda item: ("columns",)),
    ("charge", "rates"): _WORDS,
    ("dstate", "decay"): _WORDS,
    ("spike", "rows"): Wanted(lambda item: (5, item.integer("words"))),
    ("rounded", "rows"): Wanted(lambda item: (count_rows(item.flag), item.integer("words"))),
    ("rounded.sums", "rows"): Wanted(lambda item: (len(GRID), item.integer("words"))),
    ("rounded.sums", "terms"): Wanted(lambda item: (len(GATED if item.flag("gated") else TERM), "terms")),
    ("rot", "turns"): Wanted(lambda item: (item.integer("words") // 2,)),
    ("norm", "scale"): _FEATURES,
    ("norm", "shift"): _FEATURES,
    ("fir", "kernel"): Wanted(lambda item: (item.integer("words"), "taps")),
}


_OPERANDS = {spec.mnemonic: [f.name for f in spec.fields if f.kind is Kind.DATA] for spec in CIM.instructions}


def check(item: Item, constants: Mapping[str, Array]) -> None:
    """Raises Trap where a constant of the instruction is not what it takes; sizes of one name are the same."""
    free: dict[str, int] = {}
    for operand in _OPERANDS[item.code.mnemonic]:
        name = item.text(operand)
        if not name:
            continue
        array, wanted = constants[name], WANTED.get((item.code.mnemonic, operand))
        kinds, called = ("iu", "whole numbers") if wanted is not None and wanted.whole else ("fiu", "real numbers")
        if array.dtype.kind not in kinds:
            raise Trap(f"the constant '{name}' holds {array.dtype}", f"'{operand}' takes {called}")
        if array.size == 0:
            raise Trap(f"the constant '{name}' is empty", f"its shape is {array.shape}")
        if wanted is None:
            continue
        shape = wanted.shape(item)
        fits = len(shape) == array.ndim and all(
            size == (want if isinstance(want, int) else free.setdefault(want, size))
            for want, size in zip(shape, array.shape, strict=True)
        )
        if not fits:
            told = ", ".join(str(free.get(size, size) if isinstance(size, str) else size) for size in shape)
            raise Trap(f"the constant '{name}' has the shape {array.shape}", f"'{operand}' takes ({told})")
