"""What a program declares to the host: its ports' channels, and where streams meet."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter

from isa import Port, Program
from ssmc.metadata import Told, checked, checked_meta

MOST = (1 << 31) - 1  # steps or channels (ours): products of two are machine integers
Whole = Annotated[int, Field(strict=True, ge=0, le=MOST)]
Stride = Annotated[int, Field(strict=True, ge=1, le=MOST)]


class Binding(Told):
    """Where a port meets the machine: messages on `channel`, every `stride` steps from `offset` on."""

    channel: Whole
    stride: Stride = 1
    offset: Whole = 0


class Tap(Told):
    """Where the value of a layer can be read: in which core and words, after which instruction; is it a stream?"""

    layer: str
    core: Whole
    after: Whole
    address: Whole
    shape: list[Whole]
    stream: bool


_TAPS = TypeAdapter(list[Tap])
_BINDING = TypeAdapter(Binding)
_MEETINGS = TypeAdapter(list[tuple[str, Stride, list[Whole]]])


def binding_of(port: Port) -> Binding:
    """Raises UserError where the port has none that the machine can follow."""
    return checked(port.binding, _BINDING, where=f"binding of the port '{port.name}'")


def taps_of(program: Program) -> list[Tap]:
    """Where the layers' values can be read, as the compiler noted it. Raises UserError."""
    return checked_meta(program.meta, "taps", _TAPS) if "taps" in program.meta else []


def meetings_of(program: Program) -> list[tuple[str, int, list[int]]]:
    """Layers that read streams of one stride that begin at several steps. Raises UserError."""
    return checked_meta(program.meta, "meetings", _MEETINGS) if "meetings" in program.meta else []
