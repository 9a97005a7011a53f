"""What a program declares to the host, checked before anything is run: its table of streams, and its ports there."""

from __future__ import annotations

from math import prod
from typing import Annotated

from pydantic import Field, TypeAdapter

from isa import Port, Program
from isa.epochcore import EPOCHCORE
from ssmc.diagnostics import UserError
from ssmc.metadata import Told, checked, checked_meta

MOST = (1 << 31) - 1  # words or steps (ours): products of two are machine integers
Count = Annotated[int, Field(strict=True, ge=0, le=MOST)]


class Stream(Told):
    """An entry of the table of streams."""

    words: Count
    counter: Annotated[str, Field(alias="register")]
    on_chip: Count = 0
    from_end: bool = False
    part_of: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None


class Input(Told):
    """Where an input goes."""

    stream: Count
    optional: bool = False


class Output(Told):
    """Where an output comes from: a stream, or a constant."""

    stream: Count | None = None
    constant: str | None = None


class Tap(Told):
    """Where the value of a layer can be read: in which words, after which instruction."""

    layer: str
    at: Count
    address: Count
    shape: list[Count]
    kind: str
    steps: str


_TAPS = TypeAdapter(list[Tap])
_STREAMS, _INPUT, _OUTPUT = TypeAdapter(list[Stream]), TypeAdapter(Input), TypeAdapter(Output)


def check_declared(program: Program) -> None:
    """Raises UserError where the table of streams, or the binding of a port, is none that the machine can follow."""
    streams = checked_meta(program.meta, "streams", _STREAMS) if "streams" in program.meta else []
    counted = {"one", "n0", *(str(ins["dst"]) for s in program.sections for ins in s.code if ins.mnemonic == "rate")}
    for number, stream in enumerate(streams):
        where = f".meta streams, entry {number}"
        if stream.counter not in counted:
            known = stream.counter in EPOCHCORE.register_index
            why = f"no instruction sets '{stream.counter}'" if known else f"'{stream.counter}' is no register"
            raise UserError(
                "a stream's steps are not counted", where=where, why=why, hint="use n0, or one for one step"
            )
        if stream.part_of:
            whole, first = stream.part_of
            if whole >= len(streams) or first + stream.words > streams[whole].words:
                why = f"words {first} to {first + stream.words - 1} of stream {whole}"
                raise UserError("a stream is a part of something that there is not", where=where, why=why)
    if "taps" in program.meta:
        _check_taps(program)
    for port in program.inputs:
        _check_entry(checked(port.binding, _INPUT, where=f"binding of the input '{port.name}'").stream, port, streams)
    for port in program.outputs:
        output = checked(port.binding, _OUTPUT, where=f"binding of the output '{port.name}'")
        if output.constant is None:
            _check_entry(output.stream, port, streams)
        elif output.constant not in program.data:
            raise UserError(f"there is no constant '{output.constant}'", where=f"binding of the output '{port.name}'")
        elif program.data[output.constant].size != prod(port.shape):
            raise UserError(
                f"the output '{port.name}' is a constant of another shape",
                why=f"'{output.constant}' is {list(program.data[output.constant].shape)}, not {list(port.shape)}",
            )


def _check_taps(program: Program) -> None:
    longest = max((len(section.code) for section in program.sections), default=0)
    taps = checked_meta(program.meta, "taps", _TAPS)
    for number, tap in enumerate(taps):
        if tap.at >= longest:
            why = f"it is at instruction {tap.at}, and there are {longest}"
            raise UserError(
                f"layer '{tap.layer}' is read after no instruction", where=f".meta taps, entry {number}", why=why
            )


def _check_entry(number: int | None, port: Port, streams: list[Stream]) -> None:
    if number is None or number >= len(streams):
        told = "it names none" if number is None else f"it names stream {number}"
        raise UserError(
            f"the port '{port.name}' has no stream of the program",
            why=f"{told}, and there are {len(streams)}",
            hint='write its binding as {"stream": N}, counted from 0 in .meta streams',
        )
