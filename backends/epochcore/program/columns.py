"""A program's code by columns: instructions that differ in numbers alone are looked at together.

What an instruction touches and costs depends on its flags, choices and registers, which few instructions have of their
own, and on whole numbers, with which one can reckon for many of them at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, chain
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isa import Instruction
from isa.epochcore import EPOCHCORE
from isa.fields import Kind
from isa.frozen import FrozenMap

Ints = NDArray[np.int64]
Pick = Callable[[Mapping[str, Any]], tuple[Any, ...]]


@dataclass(frozen=True, eq=False)
class Alike:
    """Instructions at `places` of the code that have their mnemonic, flags (but for tokens), choices and registers in
    common. Of operands by name a whole number is an array, by instruction, and a constant a list of names; `rows` are
    all operands of each, as `split` says."""

    mnemonic: str
    places: Ints
    operands: Mapping[str, Any]
    rows: Sequence[tuple[Any, ...]] = ()

    def __getitem__(self, name: str) -> Any:
        return self.operands[name]

    def where(self, chosen: NDArray[np.bool_]) -> Alike:
        """Those of them that are chosen, without rows and constants."""
        every = ((name, value) for name, value in self.operands.items() if not isinstance(value, list))
        own = {name: value[chosen] if isinstance(value, np.ndarray) else value for name, value in every}
        return Alike(self.mnemonic, self.places[chosen], own)


class Split(NamedTuple):
    """A mnemonic's operands that are no tokens, in a row: what is neither a constant nor a whole number, constants, and
    numbers, addresses last. `pick` takes such a row from an instruction's operands. `common`, `constants` and `sizes`
    say where these end in it."""

    names: tuple[str, ...]
    common: int
    constants: int
    sizes: int
    pick: Pick

    def row(self, ins: Instruction) -> tuple[Any, ...]:
        operands = ins.operands
        return operands.pick(self.pick) if isinstance(operands, FrozenMap) else self.pick(operands)

    def rows(self, code: Sequence[Instruction]) -> list[tuple[Any, ...]]:
        """The same of many instructions of the mnemonic."""
        return FrozenMap.picked([ins.operands for ins in code], self.pick)


@cache
def split(mnemonic: str) -> Split:
    """The operands of a mnemonic by their kind."""
    fields = [f for f in EPOCHCORE.by_mnemonic[mnemonic].fields if not f.name.startswith(("pop.", "push."))]
    kinds = Kind.DATA, Kind.IMM, Kind.ADDR
    parts = [[f.name for f in fields if f.kind not in kinds], *([f.name for f in fields if f.kind is k] for k in kinds)]
    names = tuple(chain(*parts))
    pick: Pick = itemgetter(*names) if len(names) > 1 else lambda operands: tuple(operands[name] for name in names)
    common, constants, sizes = accumulate(map(len, parts[:-1]))
    return Split(names, common, constants, sizes, pick)


@dataclass(frozen=True, eq=False)
class Columns:
    """The instructions of `code`, every one among those that are `alike`."""

    code: Sequence[Instruction]
    alike: tuple[Alike, ...]

    @staticmethod
    def of(code: Sequence[Instruction]) -> Columns:
        every = defaultdict[str, list[int]](list)
        for place, ins in enumerate(code):
            every[ins.mnemonic].append(place)
        found: list[Alike] = []
        for name, places in every.items():
            of = split(name)
            rows = of.rows([code[place] for place in places])
            alike, common = defaultdict[tuple[Any, ...], list[int]](list), of.common
            for number, row in enumerate(rows):
                alike[row[:common]].append(number)
            found += (_alike(name, [places[n] for n in some], [rows[n] for n in some]) for some in alike.values())
        return Columns(code, tuple(sorted(found, key=lambda alike: int(alike.places[0]))))

    def named(self, *mnemonics: str) -> list[Alike]:
        """Those of some mnemonics."""
        return [alike for alike in self.alike if alike.mnemonic in mnemonics]


def _alike(mnemonic: str, places: list[int], rows: list[tuple[Any, ...]]) -> Alike:
    of, columns = split(mnemonic), list(zip(*rows, strict=True))
    operands: dict[str, Any] = {}
    for number, (name, column) in enumerate(zip(of.names, columns, strict=True)):
        if number < of.common:
            operands[name] = column[0]
        else:
            operands[name] = list(column) if number < of.constants else np.array(column, np.int64)
    return Alike(mnemonic, np.array(places, np.int64), operands, rows)
