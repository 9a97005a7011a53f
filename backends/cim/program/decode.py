"""A section as a tree: loops and guards with their bodies, and which registers it carries from step to step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from isa import Instruction, Program, Section
from ssmc.diagnostics import UserError

BODIES = ("loop", "every")


@dataclass(frozen=True)
class Item:
    """An instruction with its place in the section, and its body if it has one."""

    index: int
    code: Instruction
    body: tuple[Item, ...] = ()

    @property
    def loc(self) -> int | None:
        """Which `.loc` it stands behind."""
        return self.code.loc

    def integer(self, name: str) -> int:
        """An address, size or index."""
        value = self.code[name]
        assert isinstance(value, int)
        return value

    def real(self, name: str) -> float:
        """A floating-point operand."""
        value = self.code[name]
        assert isinstance(value, float)
        return value

    def flag(self, name: str) -> bool:
        """Is a flag set?"""
        return bool(self.code[name])

    @property
    def timed(self) -> bool:
        """Whether the time since the event before is one of its operands."""
        return "timed" in self.code.operands and self.flag("timed")

    def text(self, name: str) -> str:
        """A choice, register, label or constant by name."""
        return str(self.code[name])


def decode(section: Section) -> tuple[Item, ...]:
    """The tree of a section. Raises UserError where bodies overlap or end before they begin."""
    items, end = _items(section, 0, len(section.code))
    assert end == len(section.code)
    return items


def _items(section: Section, start: int, stop: int) -> tuple[tuple[Item, ...], int]:
    items, index = [], start
    while index < stop:
        code = section.code[index]
        if code.mnemonic not in BODIES:
            items.append(Item(index, code))
            index += 1
            continue
        end = section.labels[str(code["end"])]
        if not index < end <= stop:
            raise UserError(
                f"the body of '{code.mnemonic}' ends outside of its own block",
                where=f"section '{section.name}', instruction {index}",
                hint="a body follows its instruction and lies whole within the one around it",
            )
        body, _ = _items(section, index + 1, end)
        if code.mnemonic == "loop" and any(item.code.mnemonic == "loop" for item in walk(body)):
            raise UserError(
                "a loop stands within a loop",
                where=f"section '{section.name}', instruction {index}",
                hint="a sweep runs over the steps once; 'every' runs a part of it at some of them",
            )
        items.append(Item(index, code, body))
        index = end
    return tuple(items), index


def walk(items: tuple[Item, ...]) -> Iterator[Item]:
    """Every item, bodies included, in program order."""
    for item in items:
        yield item
        yield from walk(item.body)


def cores(program: Program, suffix: str = "") -> dict[int, Section]:
    """Sections by core: `coreN`, or `coreN.setup` with the suffix. Raises UserError for another name."""
    found = {}
    for section in program.sections:
        number = section.name.removeprefix("core").removesuffix(".setup")
        if not section.name.startswith("core") or not number.isdigit():
            raise UserError(
                f"this target has no place for the section '{section.name}'", hint="call it coreN or coreN.setup"
            )
        if section.name.endswith(".setup") == (suffix == ".setup"):
            found[int(number)] = section
    return found
