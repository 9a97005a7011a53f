"""The instruction sets that come with the package, and finding the one a text or file names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module

from isa.errors import IsaError, did_you_mean
from isa.spec import InstructionSet

Sets = InstructionSet | Mapping[str, InstructionSet] | None
"""Which instruction sets a text or file may name: one, several by name, or (None) those of this package."""

_TABLES = {"cim": ("isa.cim", "CIM"), "epochcore": ("isa.epochcore", "EPOCHCORE")}


def names() -> tuple[str, ...]:
    """The instruction sets of this package."""
    return tuple(_TABLES)


@cache
def load_set(name: str) -> InstructionSet:
    """The instruction set of this package called `name`. Raises `IsaError`."""
    if name not in _TABLES:
        raise IsaError(_unknown(name, _TABLES))
    module, attribute = _TABLES[name]
    isa: InstructionSet = getattr(import_module(module), attribute)
    return isa


def find_set(name: str, version: str, sets: Sets = None) -> InstructionSet:
    """The instruction set `name` that reads programs of `version`.

    Raises `IsaError`: no set of that name, or a version that ours does not read.
    """
    if sets is None:
        isa = load_set(name)
    else:
        known = {sets.name: sets} if isinstance(sets, InstructionSet) else sets
        if name not in known:
            raise IsaError(_unknown(name, known))
        isa = known[name]
    if not isa.reads(version):
        raise IsaError(
            f"this is for {name} ISA version {version}, and here is version {isa.version}: "
            "compile the model again, or use the release that wrote the program"
        )
    return isa


def _unknown(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    hint = did_you_mean(name, known)
    return f"there is no instruction set '{name}' (there is {', '.join(known)})" + (f"; {hint}" if hint else "")
