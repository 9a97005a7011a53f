"""What a program by hand may ask that the chip does not have: told before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

from backends.cim.arch import Architecture
from backends.cim.program.access import ACCESS, on_lines
from backends.cim.program.decode import Item, walk
from backends.cim.simulate.constants import check
from backends.cim.simulate.core import Trap
from isa import Program
from ssmc.ir.op import Array

TABLES = {"embed": "table", "gather": "index", "fir": "kernel"}  # constants that a core keeps in its table memory
HALVES = ("rot", "dstate", "sel")  # of complex words, re|im


def check_core(
    number: int, items: tuple[Item, ...], arch: Architecture, data: Mapping[str, Array], outputs: Mapping[int, int]
) -> None:
    """Raises Trap, with the instruction in `item`, for a core, register, table or constant that there is not;
    `outputs` are the words that the host takes by channel."""
    held: dict[str, int] = {}
    for item in walk(items):
        try:
            if number >= arch.mesh.cores:
                raise Trap(
                    f"the chip has no core {number}", f"its {arch.mesh.cores} cores count from 0", "raise mesh.cores"
                )
            check(item, data)
            _registers(item, arch, data)
            _tables(item, arch, data, held)
            if item.code.mnemonic == "emit":
                _emitted(item, outputs)
            if item.code.mnemonic in HALVES and item.integer("words") % 2 and _is_complex(item):
                raise Trap(
                    "complex words come in halves re|im",
                    f"their number is even, not {item.integer('words')}",
                    "change 'words'",
                )
        except Trap as trap:
            trap.item = item
            raise


def unsent(outputs: Mapping[int, int], sections: Iterable[tuple[Item, ...]]) -> list[int]:
    """Channels of outputs that no instruction sends anything to."""
    sent = {item.integer("channel") for items in sections for item in walk(items) if item.code.mnemonic == "emit"}
    return sorted(set(outputs) - sent)


def _emitted(item: Item, outputs: Mapping[int, int]) -> None:
    words = item.integer("words")
    if words != outputs.get(item.integer("channel"), words):
        raise Trap(
            f"{words} words are sent to an output of {outputs[item.integer('channel')]}",
            hint="let 'emit' and '.output' agree",
        )


def _is_complex(item: Item) -> bool:
    return item.code.mnemonic == "rot" or item.flag("complex")


def _registers(item: Item, arch: Architecture, data: Mapping[str, Array]) -> None:
    for ranges in ACCESS[item.code.mnemonic](item, data):
        for first, words in ranges:
            if not on_lines(first) and first + words > arch.vector.words:
                raise Trap(
                    f"there is no register v[{first + words - 1}]",
                    f"a core has {arch.vector.words} words",
                    "raise vector.words in the architecture, or use lower addresses",
                )


def _tables(item: Item, arch: Architecture, data: Mapping[str, Array], held: dict[str, int]) -> None:
    """`held` are the words of the tables so far."""
    operand = TABLES.get(item.code.mnemonic)
    if operand is None:
        return
    name = item.text(operand)
    held[name] = int(data[name].size)
    if sum(held.values()) > arch.vector.table_words:
        raise Trap(
            f"the table memory does not hold '{name}'",
            f"all tables take {sum(held.values())} words, and there are {arch.vector.table_words}",
            "raise vector.table_words in the architecture, or let another core take some",
        )


def output_words(program: Program) -> dict[int, int]:
    """Words that the host takes, by channel."""
    found = {}
    for port in program.outputs:
        channel = port.binding.get("channel") if isinstance(port.binding, Mapping) else None
        if isinstance(channel, int):
            found[channel] = prod(port.shape) * (2 if port.dtype == "complex128" else 1)
    return found
