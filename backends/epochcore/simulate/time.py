"""What the instructions that carry something from chunk to chunk do, and those that move streams.

What is carried is rounded after every step, never after a block, so that blocks of any length give the same result.
"""

from __future__ import annotations

import numpy as np

from backends.epochcore.program.rates import complete, lower_rate, stride_of
from backends.epochcore.simulate.machine import Machine
from backends.epochcore.simulate.nonlinear import NONLINEAR
from backends.epochcore.simulate.plan import Action
from backends.epochcore.simulate.planner import Planner, Rule
from backends.epochcore.simulate.recurrence import Decay, order, run_float
from backends.epochcore.simulate.rounding import finished, narrow
from backends.epochcore.simulate.vector import dst, src
from isa import Instruction
from ssmc.ir.op import Array

# -- streams ---------------------------------------------------------------------------------------------------


def load(plan: Planner, ins: Instruction) -> Action:
    number, words, register = int(ins["src"]), int(ins["words"]), str(ins["steps"])
    y, mirror = dst(plan, ins, words), bool(ins["mirror"])

    def run(machine: Machine) -> None:
        source = _stream(machine, number)
        start, n = machine.span[register]
        out = machine.rows(y)
        if source.ndim == 2:
            out[0] = source
            return
        start = source.shape[1] - start - n if mirror else start
        # read in the order of memory, and turned in a core's cache
        part = machine.scratch(0, (machine.batch, n, words), out.dtype)
        part[...] = source[:, start : start + n]
        out[...] = part[:, ::-1].transpose(1, 0, 2) if mirror else part.transpose(1, 0, 2)

    return finished(plan, run, y)


def _stream(machine: Machine, number: int) -> Array:
    for table in (machine.inputs, machine.streams):
        if number in table:
            return table[number]
    there = ", ".join(str(n) for n in sorted({*machine.inputs, *machine.streams}))
    why = f"streams that have been: {there}" if there else ""
    raise machine.trap(
        f"loads stream[{number}], which has not been given or stored", why, "store it in an earlier loop"
    )


def store(plan: Planner, ins: Instruction) -> Action:
    number, words, register = int(ins["dst"]), int(ins["words"]), str(ins["steps"])
    x, wide = src(plan, ins, words), plan.wide_streams
    if x.slot.wide:
        wide.add(number)

    def run(machine: Machine) -> None:
        value = machine.rows(x)
        if register == "one":
            machine.streams[number] = np.array(np.broadcast_to(value[0], (machine.batch, words)))
            return
        dtype = np.float64 if number in wide else np.float32
        target = machine.stored(number, (machine.batch, machine.total[register], words), dtype)
        start, n = machine.span[register]
        target[:, start : start + n] = value.transpose(1, 0, 2)

    return run


def rate(plan: Planner, ins: Instruction) -> Action:
    target, source = str(ins["dst"]), str(ins["src"])
    if target in ("one", "rT", "rB", "n0"):
        raise plan.trap(f"sets the register {target}, which is not its to set")
    if source != "n0" and source not in plan.rates:
        raise plan.trap(f"counts by the register {source}, which no earlier `rate` sets")
    if plan.rates.setdefault(target, ins).operands != ins.operands:
        raise plan.trap(f"gives the register {target} a second meaning")

    def run(machine: Machine) -> None:
        start, n = machine.span[source]
        first = lower_rate(ins, start)
        machine.span[target] = (first, lower_rate(ins, start + n) - first)

    return run


# -- carried values --------------------------------------------------------------------------------------------


def fill(plan: Planner, ins: Instruction) -> Action:
    y, value = plan.write(int(ins["dst"]), int(ins["words"])), float(ins["value"])

    def run(machine: Machine) -> None:
        machine.rows(y)[...] = value

    return run


def pool(plan: Planner, ins: Instruction) -> Action:
    words, fn, register = int(ins["words"]), str(ins["fn"]), str(ins["steps"])
    x, state = src(plan, ins, words), plan.read(int(ins["state"]), words)
    plan.write(int(ins["state"]), words)

    def run(machine: Machine) -> None:
        value, row = machine.rows(x), machine.rows(state)
        if not len(value):
            return
        match fn:
            case "sum":
                for k in order(len(value), machine.backward):
                    row[0] += value[k]
                    if not plan.ideal:
                        row[0] = narrow(row[0])
            case "max":
                np.maximum(row[0], value.max(0), out=row[0])
            case "last":
                row[0] = value[0 if machine.backward else -1]
            case "first":
                if _is_first(machine, register):
                    row[0] = value[-1 if machine.backward else 0]

    return run


def _is_first(machine: Machine, register: str) -> bool:
    """Whether the present block holds the first step that is processed."""
    start, n = machine.span[register]
    return start + n == machine.total[register] if machine.backward else start == 0


def average(plan: Planner, ins: Instruction) -> Action:
    words, register = int(ins["words"]), str(ins["count"])
    x = plan.read(int(ins["src"]), words)
    y = plan.write(int(ins["dst"]), words)

    def run(machine: Machine) -> None:
        np.divide(machine.rows(x), float(machine.total[register]), out=machine.rows(y))

    return finished(plan, run, y)


def scan(plan: Planner, ins: Instruction) -> Action:
    words, parts = int(ins["words"]), 2 if ins["complex"] else 1
    a, v = src(plan, ins, words, "a"), src(plan, ins, words)
    state = plan.read(int(ins["state"]), words)
    y = dst(plan, ins, words)
    plan.write(int(ins["state"]), words)
    reverse, before, half = bool(ins["reverse"]), bool(ins["before"]), words // parts

    def split(values: Array) -> tuple[Array, ...]:
        return tuple(values[..., part * half : (part + 1) * half] for part in range(parts))

    def run(machine: Machine) -> None:
        decay, drive, out = Decay(split(machine.rows(a))), split(machine.rows(v)), split(machine.rows(y))
        row = split(machine.rows(state)[0])
        states = tuple(part.copy() for part in row)
        for k in order(len(drive[0]), reverse):
            following = run_float(decay.at(k), states, tuple(part[k] for part in drive))
            if not plan.ideal:
                following = tuple(narrow(part) for part in following)
            for target, value in zip(out, states if before else following, strict=True):
                target[k] = value
            states = following
        for target, value in zip(row, states, strict=True):
            target[...] = value

    return run


def carry(plan: Planner, ins: Instruction) -> Action:
    words, segments, parts = int(ins["words"]), int(ins["segments"]), 2 if ins["complex"] else 1
    a, state = plan.read(int(ins["a"]), words), plan.read(int(ins["state"]), words)
    v, y = plan.read(int(ins["src"]), segments * words), plan.write(int(ins["dst"]), segments * words)
    register, span, shape = str(ins["steps"]), int(ins["span"]), (parts, segments, words // parts)

    def run(machine: Machine) -> None:
        decay = Decay(tuple(np.moveaxis(machine.rows(a)[0].reshape(-1, parts, shape[2]), 1, 0)))
        left, out = machine.rows(v)[0].reshape(-1, *shape), machine.rows(y)[0].reshape(-1, *shape)
        x = tuple(np.moveaxis(machine.rows(state)[0].reshape(-1, parts, shape[2]).copy(), 1, 0))
        for segment in range(segments):
            for part, value in enumerate(x):
                out[:, part, segment] = value
            if (segment + 1) * span < machine.span[register][1]:
                x = run_float(decay, x, tuple(left[:, part, segment] for part in range(parts)))
                x = x if plan.ideal else tuple(narrow(part) for part in x)

    return run


def decay(plan: Planner, ins: Instruction) -> Action:
    words, parts = int(ins["words"]), 2 if ins["complex"] else 1
    dt, rates, half = src(plan, ins, 1), plan.read(int(ins["rate"]), words), words // parts
    y = dst(plan, ins, words)

    def run(machine: Machine) -> None:
        elapsed, rows, out = machine.rows(dt), machine.rows(rates), machine.rows(y)
        size = np.exp(elapsed * rows[..., :half])
        if parts == 1:
            out[...] = size
            return
        turn = elapsed * rows[..., half:]
        out[..., :half] = size * np.cos(turn)
        out[..., half:] = size * np.sin(turn)

    return finished(plan, run, y)


def fir(plan: Planner, ins: Instruction) -> Action:
    channels, length = int(ins["channels"]), int(ins["length"])
    carried = max(channels * (length - 1), 1)
    x, taps = src(plan, ins, channels), plan.read(int(ins["taps"]), channels * length)
    state = plan.read(int(ins["state"]), carried)
    y = dst(plan, ins, channels)
    plan.write(int(ins["state"]), carried)
    reverse = bool(ins["reverse"])

    def run(machine: Machine) -> None:
        u, out, row = machine.rows(x), machine.rows(y), machine.rows(state)
        kernel = machine.rows(taps)[0, 0].reshape(channels, length)
        u = u[::-1] if reverse else u
        past = row[0][:, : channels * (length - 1)].reshape(machine.batch, channels, length - 1).transpose(2, 0, 1)
        padded, n = np.concatenate([past, u]), len(u)
        total = kernel[:, 0] * padded[length - 1 :]
        for j in range(1, length):
            total += kernel[:, j] * padded[length - 1 - j : length - 1 - j + n]
        out[...] = total[::-1] if reverse else total
        if length > 1:
            row[0] = padded[n:].transpose(1, 2, 0).reshape(machine.batch, -1)

    return finished(plan, run, y)


def delay(plan: Planner, ins: Instruction) -> Action:
    words, lag = int(ins["words"]), int(ins["lag"])
    x, state = src(plan, ins, words), plan.read(int(ins["state"]), words * lag)
    y = dst(plan, ins, words)
    plan.write(int(ins["state"]), words * lag)

    def run(machine: Machine) -> None:
        value, row = machine.rows(x), machine.rows(state)
        padded = np.concatenate([row[0].reshape(machine.batch, lag, words).transpose(1, 0, 2), value])
        machine.rows(y)[...] = padded[: len(value)]
        row[0] = padded[len(value) :].transpose(1, 0, 2).reshape(machine.batch, -1)

    return run


def downsample(plan: Planner, ins: Instruction) -> Action:
    words, stride, kind = int(ins["words"]), int(ins["stride"]), str(ins["kind"])
    register, result = str(ins["steps"]), str(ins["result"])
    x, state = src(plan, ins, words), plan.read(int(ins["state"]), words)
    y = plan.write(int(ins["dst"]), words, steps=result)
    plan.write(int(ins["state"]), words)
    offset, whole = int(ins["offset"]), kind != "take"

    def run(machine: Machine) -> None:
        value, row, out = machine.rows(x), machine.rows(state), machine.rows(y)
        start = machine.span[register][0]
        first, end = (complete(t, stride, offset, windows=whole) for t in (start, start + len(value)))
        if end - first != len(out):
            raise machine.trap(
                f"makes {end - first} steps of {len(value)} from step {start} on, and {result} counts {len(out)}",
                "they meet other steps of the same number, which this length does not give",
                "give a sequence at whose length the model's streams have the same number of steps",
            )
        if kind == "take":
            out[...] = value[(offset - start) % stride if start > offset else offset - start :: stride]
            return
        made = 0
        for k, step in enumerate(value, start):
            if k % stride == 0:
                row[0] = step
            elif kind == "max":
                np.maximum(row[0], step, out=row[0])
            else:
                row[0] += step
            if not plan.ideal:
                row[0] = narrow(row[0])
            if k % stride == stride - 1:
                out[made] = row[0] / stride if kind == "mean" else row[0]
                made += 1

    return finished(plan, run, y)


# -- windows ---------------------------------------------------------------------------------------------------


def unfold(plan: Planner, ins: Instruction) -> Action:
    channels, span, past = (int(ins[name]) for name in ("channels", "span", "past"))
    carried, result = max(1, channels * past), str(ins["result"])
    _check_windows(plan, ins)
    x, state = src(plan, ins, channels), plan.read(int(ins["state"]), carried)
    y = plan.write(int(ins["dst"]), channels * (span + past), steps=result)
    plan.write(int(ins["state"]), carried)
    reverse = bool(ins["reverse"])

    def run(machine: Machine) -> None:
        u, out, row = machine.rows(x), machine.rows(y), machine.rows(state)
        n, windows = len(u), len(out)
        # (steps, batch, channels) in time; with `reverse` the past follows
        held = row[0][:, : channels * past].reshape(machine.batch, channels, past).transpose(2, 0, 1)
        known = np.concatenate([u, held[::-1]] if reverse else [held, u])
        target = out.reshape(windows, machine.batch, channels, span + past)
        for w in range(windows):
            part = known[w * span : (w + 1) * span + past].transpose(1, 2, 0)
            target[w, ..., : part.shape[-1]] = part
            target[w, ..., part.shape[-1] :] = 0.0
        if past:
            last = known[:past][::-1] if reverse else known[n:]
            row[0] = last.transpose(1, 2, 0).reshape(machine.batch, -1)

    return run


def fold(plan: Planner, ins: Instruction) -> Action:
    channels, span = int(ins["channels"]), int(ins["span"])
    _check_windows(plan, ins)
    x = plan.read(int(ins["src"]), channels * span, steps=str(ins["result"]), pitch=channels * span)
    y = dst(plan, ins, channels)

    def run(machine: Machine) -> None:
        value, out = machine.rows(x), machine.rows(y)
        steps = value.reshape(len(value), machine.batch, channels, span)
        for w in range(len(value)):
            part = out[w * span : (w + 1) * span]
            part[...] = steps[w, ..., : len(part)].transpose(2, 0, 1)

    return run


def _check_windows(plan: Planner, ins: Instruction) -> None:
    """The windows are those that `result` counts, and no chunk ends within one."""
    rate, span = plan.rates.get(str(ins["result"])), int(ins["span"])
    same = rate is not None and not rate["windows"] and rate["offset"] == 0 and rate["stride"] == span
    if rate is None or not same or rate["src"] != ins["steps"]:
        raise plan.trap(f"counts windows of {span} steps by {ins['result']}, which counts something else")
    if plan.multiple % (span * stride_of(str(ins["steps"]), plan.rates)):
        raise plan.trap(f"finds windows of {span} steps cut by chunks", hint="chunks of a multiple of them")


RULES: dict[str, Rule] = {
    "load": load,
    "store": store,
    "rate": rate,
    "fill": fill,
    "pool": pool,
    "average": average,
    "scan": scan,
    "carry": carry,
    **NONLINEAR,
    "decay": decay,
    "fir": fir,
    "delay": delay,
    "downsample": downsample,
    "unfold": unfold,
    "fold": fold,
}
