"""Run a program: inputs in, outputs and statistics out. A pure function of program, inputs and settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from math import lcm, prod
from typing import Any

import numpy as np

from backends.epochcore.arch import Numbers
from backends.epochcore.clock.occupancy import occupancy
from backends.epochcore.clock.timing import check_tokens, measure
from backends.epochcore.formats import overflows
from backends.epochcore.program.declared import check_declared
from backends.epochcore.program.dispatch import even
from backends.epochcore.program.rates import stride_of
from backends.epochcore.program.stretches import copies
from backends.epochcore.program.table import parts_of
from backends.epochcore.simulate import array as simulate_array
from backends.epochcore.simulate import time as simulate_time
from backends.epochcore.simulate import vector as simulate_vector
from backends.epochcore.simulate.buffers import Access
from backends.epochcore.simulate.execution import execute
from backends.epochcore.simulate.machine import Machine
from backends.epochcore.simulate.plan import Plan
from backends.epochcore.simulate.planner import Rule, make_plan
from backends.epochcore.simulate.releases import with_arrows
from isa import Port, Program
from ssmc.diagnostics import UserError
from ssmc.ir.op import Array
from ssmc.target import RunResult, RunSettings, Stats
from ssmc.threads import cores

RULES: dict[str, Rule] = {
    **simulate_array.RULES,
    **simulate_vector.RULES,
    **simulate_time.RULES,
    "sync": lambda plan, ins: None,
}
CONTROL = ("halt", "samples", "chunks")
# Bytes of one buffer: those at work stay in the cache of all cores, and an instruction is worth sharing out.
BLOCK_BYTES = 1 << 21
# Fewer steps than this are not worth a thread: functions on short arrays wait for the interpreter's lock.
STEPS_PER_THREAD = 1 << 14
# Windows executed at once, at least.
WINDOWS = 32


@dataclass(frozen=True, eq=False)
class _Same:
    """A program that equals itself alone: comparing contents would cost more than the run."""

    program: Program

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.program is self.program

    def __hash__(self) -> int:
        return id(self.program)


@lru_cache(maxsize=16)
def _plan_of(key: _Same) -> Plan:
    check_declared(key.program)
    return make_plan(key.program, RULES)


def plan_of(program: Program) -> Plan:
    """The checked program, kept between runs. Raises UserError on a trap."""
    return _plan_of(_Same(program))


def simulate(program: Program, inputs: Mapping[str, Array], settings: RunSettings) -> RunResult:
    """Outputs by name in the graph's layout. Raises UserError for wrong inputs and on a trap."""
    plan = plan_of(program)
    if settings.noise not in (None, "none"):
        raise UserError(
            f"epochcore has no noise preset '{settings.noise}'",
            why="the machine is digital: its realistic preset is its number formats",
            hint="leave --noise out; compile with or without --ideal instead",
        )
    given, batch, steps = _given(program, inputs)
    taps = _taps(plan) if settings.taps else {}
    machines = [
        Machine(plan.layout, len(part), steps, _block(plan, len(part), steps, settings), _samples(given, part), taps)
        for part in _parts(batch, steps)
    ]
    _run(plan, machines)
    outputs = {port.name: _output(program, machines, port) for port in program.outputs}
    stats, trace = _costs(plan, batch, steps, settings.trace)
    if not plan.layout.ideal:
        outside = sum((Counter(machine.outside) for machine in machines), Counter[str]())
        if settings.strict and outside:
            raise _too_large(outside, plan.layout.arch.numbers)
        stats = replace(stats, notes={**stats.notes, overflows(plan.layout.arch.numbers): dict(outside)})
    tapped = {layer: np.concatenate([m.tapped[layer] for m in machines]) for layer in machines[0].tapped}
    busy = occupancy(program, plan.layout.arch, batch, steps) if settings.occupancy else None
    return RunResult(outputs, stats, tapped, trace, busy)


def _too_large(counts: Counter[str], numbers: Numbers) -> UserError:
    """Numbers that did not fit, where they are an error."""
    became = {"saturations": "were cut off", "wrapped": "wrapped round", "infinities": "became infinite"}
    lines = [f"layer '{layer}': {count}" for layer, count in counts.most_common()]
    return UserError(
        f"{sum(counts.values())} numbers did not fit their format, and {became[overflows(numbers)]}",
        why="\n       ".join(lines),
        hint="more numbers.state_bits or accumulator_bits, fewer state_fraction_bits, a floating-point format "
        "with more range, or run without --strict",
    )


def _costs(plan: Plan, batch: int, steps: int, trace: bool) -> tuple[Stats, tuple[Mapping[str, Any], ...]]:
    """Statistics, kept between runs of the same size, and the trace where it is asked for."""
    if (batch, steps) not in plan.costs:
        check_tokens(plan.layout.program, plan.layout.arch, batch, steps)
    if trace:
        program, arch = plan.layout.program, plan.layout.arch
        stats, slices = measure(program, arch, batch, steps, trace=True)
        return stats, with_arrows(slices, program, arch, batch, steps)
    if (batch, steps) not in plan.costs:
        plan.costs[batch, steps] = measure(plan.layout.program, plan.layout.arch, batch, steps)[0]
    return plan.costs[batch, steps], ()


def _run(plan: Plan, machines: list[Machine]) -> None:
    """The first machine here, each other one in a thread of its own; numpy computes without the interpreter's lock.
    What a machine alone does is shared out instruction by instruction (`Machine.spread`)."""
    if len(machines) == 1:
        with ThreadPoolExecutor(max(1, cores() - 1)) as pool:
            machines[0].pool, machines[0].workers = pool, cores()
            execute(plan, machines[0])
        return
    with ThreadPoolExecutor(len(machines) - 1) as pool:
        others = [pool.submit(execute, plan, machine) for machine in machines[1:]]
        execute(plan, machines[0])
    for other in others:
        other.result()


def _parts(batch: int, steps: int) -> list[range]:
    """Samples are independent: large batches are shared out to as many threads as there are cores."""
    count = max(1, min(cores(), batch, batch * steps // STEPS_PER_THREAD))
    size = -(-batch // count) if batch else 0
    return [range(start, min(start + size, batch)) for start in range(0, batch, size)] if batch else [range(0)]


def _samples(given: Mapping[int, Array], part: range) -> dict[int, Array]:
    return {number: array[part.start : part.stop] for number, array in given.items()}


def _given(program: Program, inputs: Mapping[str, Array]) -> tuple[dict[int, Array], int, int]:
    """Inputs by stream number, the batch and the steps. Raises UserError where they do not fit the ports."""
    known = {port.name: port for port in program.inputs}
    unknown = sorted(set(inputs) - set(known))
    if unknown:
        raise UserError(f"the model has no input '{unknown[0]}'", hint=f"its inputs: {', '.join(known)}")
    arrays: dict[str, Array] = {}
    batches, lengths = dict[str, int](), dict[str, int]()
    for name, value in inputs.items():
        port, array = known[name], np.asarray(value)
        outer = 2 if _is_stream(program, port) else 1
        if array.ndim != outer + len(port.shape) or array.shape[outer:] != port.shape:
            axes = ("batch", "steps")[:outer]
            want = ", ".join([*axes, *map(str, port.shape)])
            raise UserError(f"the input '{name}' has the shape {array.shape}", why=f"the model takes ({want})")
        batches[name] = array.shape[0]
        if outer == 2:
            lengths[name] = array.shape[1]
        arrays[name] = array.reshape(*array.shape[:outer], prod(port.shape))
    for what, sizes in (("samples", batches), ("steps", lengths)):
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"'{name}' {size}" for name, size in sizes.items())
            raise UserError(f"the inputs differ in their number of {what}: {found}")
    batch, steps = next(iter(batches.values()), 1), next(iter(lengths.values()), 0)
    for port in program.inputs:
        if port.name in arrays:
            continue
        if not _binding(port).get("optional"):
            raise UserError(f"the input '{port.name}' is missing", hint=f"give an array of shape {port.shape} a sample")
        words = prod(port.shape)
        arrays[port.name] = np.zeros((batch, steps, words) if _is_stream(program, port) else (batch, words))
    given = {_binding(known[name])["stream"]: array for name, array in arrays.items()}
    for number, (whole, first, words) in parts_of(program).items():
        if whole in given:
            given[number] = given[whole][..., first : first + words]
    return given, batch, steps


def _binding(port: Port) -> dict[str, Any]:
    assert isinstance(port.binding, dict)
    return port.binding


def _is_stream(program: Program, port: Port) -> bool:
    streams: Any = program.meta["streams"]
    return bool(streams[_binding(port)["stream"]]["register"] != "one")


def _block(plan: Plan, batch: int, steps: int, settings: RunSettings) -> int:
    """Steps executed at once, of whole windows where the program has them; no more than segments cover, which are those
    of a chunk."""
    code = plan.layout.program.sections[0].code
    loops = [ins for ins in code if ins.mnemonic == "chunks"]
    whole = lcm(1, *(int(ins["multiple"]) for ins in loops))
    if settings.block is not None and settings.block < 1:
        raise UserError(f"a block of {settings.block} steps is empty")
    if plan.layout.program.meta.get("step_by_step"):
        return 1
    if any(ins.mnemonic == "preload" and copies(ins) > 1 for ins in code):
        most = min(int(ins["limit"]) for ins in loops)
        return max(1, min(even(steps, min(-(-(settings.block or most) // whole) * whole, most), whole), steps))
    if settings.block is not None:
        return max(1, min(-(-settings.block // whole) * whole, steps))
    many = [
        slot.pitch * np.dtype(slot.dtype).itemsize // stride_of(slot.steps, plan.layout.rates)
        for slot in plan.layout.slots
        if slot.steps != "one"
    ]
    row = max([1, *many]) * batch
    # matrices are multiplied in panels of rows: a few windows would leave them empty
    return max(1, min(steps, max(BLOCK_BYTES // row, WINDOWS * whole * (whole > 1)) // whole * whole))


def _output(program: Program, machines: list[Machine], port: Port) -> Array:
    binding = _binding(port)
    if "constant" in binding:
        return np.array(program.data[binding["constant"]]).reshape(port.shape)
    number = binding["stream"]
    streams: Any = program.meta["streams"]
    register, batch = streams[number]["register"], sum(machine.batch for machine in machines)
    shape = (batch, *(() if register == "one" else (machines[0].total[register],)), prod(port.shape))
    stored = {first: part for part, (whole, first, _) in parts_of(program).items() if whole == number}
    if stored and all(part in machines[0].streams for part in stored.values()):
        value = np.concatenate([_stored(machines, stored[first]) for first in sorted(stored)], axis=-1)
        found = f"its parts have {value.shape[-1]} words"
    elif number in machines[0].streams:
        value = _stored(machines, number)
        found = f"what it stores is {' x '.join(map(str, value.shape))}"
    else:
        value, found = np.empty(shape if 0 in shape else 0), ""  # where no step was run the stream is empty
    if value.shape != shape:
        raise UserError(
            f"the program does not store its output '{port.name}'",
            where=f"stream[{number}]",
            why=found,
            hint=f"store {' x '.join(map(str, shape))} words there, sequences first",
        )
    return value.reshape(*shape[:-1], *port.shape)


def _stored(machines: list[Machine], number: int) -> Array:
    parts = [machine.streams[number] for machine in machines]
    return (parts[0] if len(parts) == 1 else np.concatenate(parts)).astype(np.float64, copy=False)


def _taps(plan: Plan) -> dict[int, list[Any]]:
    """What to keep after which instruction: (layer, access, shape, kind)."""
    found: dict[int, list[Any]] = {}
    taps: Any = plan.layout.program.meta.get("taps", [])
    for tap in taps:
        words = prod(tap["shape"])
        steps = tap["steps"] if tap["kind"] == "stream" else "one"
        slot = plan.results.get(tap["at"], {}).get(tap["address"])
        if slot is not None and slot.steps == steps and slot.pitch == words:
            found.setdefault(tap["at"], []).append((tap["layer"], Access(slot, 0, words), tap["shape"], tap["kind"]))
    return found
