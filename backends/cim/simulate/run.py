"""Run a program: cores as processes that wait for messages, sweeps in blocks of steps, the whole batch at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from backends.cim.clock.latency import delays
from backends.cim.program.access import Ranges
from backends.cim.program.declared import taps_of
from backends.cim.program.decode import Item, cores, decode
from backends.cim.simulate import crossbar as unit_crossbar
from backends.cim.simulate import state as unit_state
from backends.cim.simulate import time as unit_time
from backends.cim.simulate import vector as unit_vector
from backends.cim.simulate.analog import check_lines
from backends.cim.simulate.carried import Part, parts_of
from backends.cim.simulate.core import Core, Trap, join_steps
from backends.cim.simulate.limits import check_core, output_words, unsent
from backends.cim.simulate.memory import NotWritten, Registers, Steps
from backends.cim.simulate.messages import collect, receive, send
from backends.cim.simulate.programming import program
from backends.cim.simulate.running import Run, trapped
from ssmc.diagnostics import UserError
from ssmc.ir.op import Array

UNITS: dict[str, Callable[[Core, Item], None]] = {
    **unit_vector.UNITS,
    **unit_state.UNITS,
    **unit_time.UNITS,
    "program": program,
}


def execute(run: Run) -> None:
    """Run every core to its end. Raises UserError on a trap or a deadlock."""
    sections = cores(run.program)
    trees = {number: decode(section) for number, section in sections.items()}
    _check_limits(run)
    _check_lines(run, trees)
    parts = {number: parts_of(tree, run.program.data) for number, tree in trees.items()}
    carried = any(found is None for found in parts.values())
    if not carried:
        run.parts = {
            (core, loop): each for core, found in parts.items() for loop, each in (found or {}).items() if each
        }
    scale = 0.0 if run.ideal else run.devices.latency_scale
    late = delays(run.program, run.arch, scale) if scale else None
    for number in sections:
        run.cores[number] = Core(
            number,
            run.arch,
            run.devices,
            run.program.data,
            run.batch,
            run.settings.seed,
            run.ideal,
            Registers(latched=carried),
            {},
            run.settings.strict,
            run.sample,
            late,
        )
    _set_up(run)
    for tap in taps_of(run.program):
        if run.settings.taps:
            run.taps[tap.core, tap.after].append(tap)
    block = run.block(carried)
    processes = {number: _items(run, run.cores[number], tree, None, block) for number, tree in trees.items()}
    _until_all_end(run, processes)


def _check_limits(run: Run) -> None:
    """Raises UserError where the program asks for what the chip does not have, or never gives an output."""
    made, outputs = [], output_words(run.program)
    for suffix in ("", ".setup"):
        for number, section in cores(run.program, suffix).items():
            made.append(decode(section))
            try:
                check_core(number, made[-1], run.arch, run.program.data, outputs)
            except Trap as trap:
                assert trap.item is not None
                raise trapped(run, number, trap.item, suffix, trap) from None
    if missing := unsent(outputs, made):
        raise UserError(f"nothing is sent to the output on channel {missing[0]}", hint="let an 'emit' name the channel")


def _check_lines(run: Run, trees: Mapping[int, tuple[Item, ...]]) -> None:
    """Raises UserError where an analog line does not carry what an instruction takes it for."""
    for number, tree in trees.items():
        try:
            check_lines(tree, run.arch)
        except Trap as trap:
            assert trap.item is not None
            raise trapped(run, number, trap.item, "", trap) from None


def _set_up(run: Run) -> None:
    """Run the sections that program the arrays."""
    for number, section in cores(run.program, ".setup").items():
        core = run.cores.get(number)
        if core is None:
            continue
        for _ in _items(run, core, decode(section), None, 1, ".setup"):
            raise UserError("a core waits for a message while it is set up", where=f"section '{section.name}'")


def _until_all_end(run: Run, processes: dict[int, Iterator[None]]) -> None:
    """Let the cores run in turn until each has ended. Raises UserError where all of them wait."""
    while processes:
        moved = False
        for number, process in list(processes.items()):
            if number in run.waiting and not _arrived(run, number):
                continue
            moved = True
            try:
                next(process)
            except StopIteration:
                del processes[number]
        if not moved:
            waits = ", ".join(f"core {core} for channel {run.waiting[core][0]}" for core in sorted(processes))
            raise UserError(
                "deadlock: every core that still runs waits for a message that nobody sends",
                why=f"waiting: {waits}",
                hint="let a 'send' stand for every 'recv', at the same steps",
            )


def _arrived(run: Run, number: int) -> bool:
    channel, messages = run.waiting[number]
    return run.channels[channel].steps >= messages


def _items(
    run: Run, core: Core, items: tuple[Item, ...], now: Steps | None, block: int, suffix: str = ""
) -> Iterator[None]:
    """Execute items; yields where the core must wait, and after each block of steps."""
    for group in run.grouped(items):
        item = group[-1]
        match item.code.mnemonic:
            case "mvm":
                _one(run, core, group, suffix)
            case "halt":
                return
            case "loop":
                yield from _loop(run, core, item, block)
            case "every":
                if now is None:
                    raise trapped(run, core.number, item, suffix, Trap("'every' stands outside of a loop"))
                inner = Steps(item.integer("stride"), item.integer("offset"), now.k0, now.k1)
                if inner.count:
                    core.now = inner
                    yield from _items(run, core, item.body, inner, block)
                core.now = now
            case "recv":
                yield from receive(run, core, item)
            case "collect":
                yield from collect(run, core, item)
            case _:
                _one(run, core, group, suffix)
        for tap in run.taps.get((core.number, item.index), ()) if not suffix else ():
            words = int(np.prod(tap.shape, dtype=int))
            run.tapped[tap.layer].append(_at_steps(core, core.read(tap.address, words), tap.stream))


def _at_steps(core: Core, array: Array, stream: bool) -> Array:
    steps = core.count if stream else 1
    return np.array(np.broadcast_to(array, (core.batch, steps, array.shape[2])))


def _loop(run: Run, core: Core, item: Item, block: int) -> Iterator[None]:
    total = core.total = {"rT": run.steps, "rB": run.batch}[item.text("count")]
    pieces = _pieces(item, run.parts.get((core.number, item.index), ()))
    carried = [Registers(latched=True) for _ in pieces]
    for k0 in range(0, total, block):
        now = Steps(item.integer("stride"), item.integer("offset"), k0, min(k0 + block, total))
        if now.count:
            for (items, part), held in zip(pieces, carried, strict=True):
                core.now = now
                if part is None:
                    yield from _items(run, core, items, now, block)
                else:
                    _step_by_step(run, core, items, part, now, held)
            yield
        if not core.registers.latched:
            core.registers.forget_steps()
    core.now = None
    for (_, part), held in zip(pieces, carried, strict=True):
        _hand_over(held, core.registers, part.carried if part is not None else [])


def _pieces(loop: Item, parts: tuple[Part, ...]) -> list[tuple[tuple[Item, ...], Part | None]]:
    """A body cut at its parts; the same tuples each time, as `grouped` knows them by."""
    if not parts:
        return [(loop.body, None)]
    found: list[tuple[tuple[Item, ...], Part | None]] = []
    at = 0
    for part in parts:
        found += [(loop.body[at : part.first], None), (loop.body[part.first : part.last + 1], part)]
        at = part.last + 1
    return [*found, (loop.body[at:], None)]


def _step_by_step(run: Run, core: Core, items: tuple[Item, ...], part: Part, now: Steps, held: Registers) -> None:
    """A part of a body, on registers of its own: `held` keeps what steps carry."""
    outside, made = core.registers, defaultdict[int, list[Array]](list)
    if not now.first:
        _hand_over(outside, held, part.carried)
    for k in range(now.offset + now.first * now.stride, now.k1, now.stride):
        core.now = Steps(now.stride, now.offset, k, k + 1)
        _hand_over(outside, held, part.given, core.now)
        core.registers = held
        for _ in _items(run, core, items, core.now, 1):
            raise AssertionError("no message is waited for in a part")
        core.registers = outside
        for at, words in part.made:
            made[at].append(held.read(at, words, None))
    core.now = now
    for at, arrays in made.items():
        outside.write(at, join_steps(arrays), now)


def _hand_over(source: Registers, target: Registers, ranges: Ranges, steps: Steps | None = None) -> None:
    """Copy words that have been written; who reads others is told."""
    for at, words in ranges:
        try:
            target.write(at, source.read(at, words, steps), None)
        except NotWritten:
            continue


def _one(run: Run, core: Core, group: tuple[Item, ...], suffix: str) -> None:
    """An instruction, or products that run together."""
    item = group[0]
    try:
        with np.errstate(all="ignore"):
            if item.code.mnemonic == "mvm":
                unit_crossbar.products(core, group)
            elif item.code.mnemonic in UNITS:
                UNITS[item.code.mnemonic](core, item)
            else:
                send(run, core, item)
    except (Trap, NotWritten) as trap:
        raise trapped(run, core.number, trap.item or item, suffix, trap) from None


def output_arrays(run: Run) -> Mapping[int, Array]:
    """What the host got by channel, (batch, steps, words)."""
    return {channel: join_steps(parts) for channel, parts in run.outputs.items()}
