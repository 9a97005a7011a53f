"""What an instruction takes of its engine where engines hand over step by step."""

from __future__ import annotations

from collections.abc import Sequence

from backends.epochcore.arch import Arch
from backends.epochcore.program.dispatch import Op
from backends.epochcore.program.passes import PASSES
from backends.epochcore.program.stretches import copies
from backends.epochcore.stepped.passes import Chip
from backends.epochcore.stepped.ports import through
from backends.epochcore.stepped.routes import route_of
from backends.epochcore.stepped.shifts import Product, shift_of

UNSHIFTED = ("sel", "mac.os")  # modes whose parameters are not in the elements


def engine_of(op: Op, arch: Arch) -> str:
    """States have ways in and out of their own, where the array has shadow registers."""
    if not arch.array.shadow:
        return "compute" if op.engine == "preload" else op.engine
    return {"state.load": "preload", "state.store": "drain"}.get(op.ins.mnemonic, op.engine)


def in_blocks(op: Op, arch: Arch) -> bool:
    """Whether an instruction of a loop hands over step by step: not where its results stay in place until the end, or
    where it works on several stretches of time at once."""
    if "steps" not in op.ins.operands or op.steps <= arch.array.handover_steps or op.ins.mnemonic == "carry":
        return False
    if op.ins.mnemonic not in PASSES or op.held is None:
        return True
    return op.held["mode"] != "mac.os" and copies(op.held) == 1


def shares_of_pass(op: Op, sizes: Sequence[int], chip: Chip) -> list[int]:
    """Cycles of the engine for blocks of so many steps, or for all at once."""
    arch, held, name = chip.arch, op.held, op.ins.mnemonic
    if name in ("preload", "state.load"):
        rows, _, _, wide = (1, 1, 1, 1) if op.ins.operands.get("mode") in UNSHIFTED else shift_of(op, arch)
        return [rows * wide]
    assert held is not None
    if name == "state.store":
        return [through(int(op.ins["words"]) * op.samples, arch.array.port_words_out)]
    if not op.steps:
        return [0]
    if held["mode"] == "mac.os":
        return [Product(op, chip, 0, fresh=False).busy]
    route = route_of(op, arch)
    return [route.interval * route.turns * steps for steps in sizes] or [route.busy]
