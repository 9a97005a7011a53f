"""When every op of a piece of a program runs, where engines hand over step by step: `handover` says how, `records` what
these functions work on.

They are compiled, and all in one file, as the compiler looks for changes in the file of the outermost one only. Lists
are gone through by their places: a slice of an array is an object, whose references are counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backends.epochcore.clock.records import (
    DRAINED,
    DRAINED_BEFORE,
    LAST_WAVE,
    LED,
    LED_WAVE,
    LOAD,
    NO_WAVE,
    NO_WAY,
    PARAMETERS,
    PASSED,
    PRELOAD,
    STATE_LOAD,
    STATE_STORE,
    STATES,
    STORE,
    THROUGH,
    Channel,
    Ints,
    Machine,
    Meetings,
    Number,
    Ran,
    Tables,
)
from ssmc.jit import compiled


@compiled
def place(
    ops: Ints,
    kinds: Ints,
    first: int,
    machine: Machine,
    ran: Ran,
    meetings: Meetings,
    tables: Tables,
    begun: Ints,
    finished: Ints,
) -> Number:
    """Place ops, by their instructions and jobs, from `first` on: when they have `begun`, and are `finished`.

    Returns the op that is the next one: not their number where the channel has no more room for intervals.
    """
    engines, ready = machine.engines, np.empty(ran.done.shape[1], np.int64)
    for op in range(first, len(ops)):
        i, job = ops[op], tables.jobs[kinds[op]]
        slot = job.engine + np.argmin(engines[job.engine : job.engine + job.pipes])
        horizon = min(engines[LOAD], engines[STORE])
        if job.on_channel and not _room(machine.channel, max(1, job.blocks), horizon):
            return op
        begin = _apart(i, engines[slot], ran, meetings)
        if job.way != NO_WAY:
            begin = max(begin, _array_ready(machine, job, tables))
        late = job.late
        if job.blocks:
            start, end, late = _in_blocks(i, job, begin, horizon, machine, ran, meetings, tables, ready)
        else:
            start = _whole(i, begin, ran, meetings)
            end = start + job.busy
            if job.on_channel:
                start, end = _served_whole(machine.channel, start, job.busy, horizon)
        engines[slot] = end
        finish = end + job.latency
        _note(i, finish, ran, meetings)
        run = ran.runs[i]
        run.latency, run.steps, run.blocks = job.latency, job.steps, job.blocks
        if job.way != NO_WAY:
            _array_moved(machine, job, start + late, end, finish)
        begun[op] = start
        finished[op] = finish
    return len(ops)


@compiled
def _apart(i: int, begin: int, ran: Ran, meetings: Meetings) -> Number:
    """When an instruction may begin that waits for those that it does not meet step by step."""
    touches, apart = meetings.touches, meetings.apart
    for t in range(touches.at[i], touches.at[i + 1]):
        group = touches.values[t]
        for n in range(apart.at[group], apart.at[group + 1]):
            begin = max(begin, ran.touched[apart.values[n]])
    return begin


@compiled
def _whole(i: int, begin: int, ran: Ran, meetings: Meetings) -> Number:
    """When an instruction may begin that waits for the whole of others."""
    start, (touches, members, given, taken, _) = begin, meetings
    for t in range(touches.at[i], touches.at[i + 1]):
        group = touches.values[t]
        for n in range(given.at[group], given.at[group + 1]):
            start = max(start, ran.touched[given.values[n]])
        for n in range(taken.at[group], taken.at[group + 1]):
            other = taken.values[n]
            if ran.touched[other] > start:
                for m in range(members.at[other], members.at[other + 1]):
                    run = ran.runs[members.values[m]]
                    start = max(start, run.finish - run.latency)
    return start


@compiled
def _in_blocks(
    i: int,
    job: Any,
    begin: int,
    horizon: int,
    machine: Machine,
    ran: Ran,
    meetings: Meetings,
    tables: Tables,
    ready: Ints,
) -> tuple[Number, Number, Number]:
    """When an instruction of blocks begins and ends, and how much later its last pass begins."""
    number, unit, late, done = job.blocks, job.unit, job.late, ran.done[i]
    shares = tables.shares[job.blocks_at : job.blocks_at + 3 * number]
    before, after, alone = shares[:number], shares[number : 2 * number], shares[2 * number :]
    held, begin = _waits(i, job.steps, number, begin, ran, meetings, ready)
    for k in range(number):
        ready[k] = max(ready[k], begin) if held else begin
    start = ready[0]
    if job.on_channel:
        start = _served(machine.channel, ready[:number], before, after, unit, done, horizon)
    elif held:
        latest = unit * ready[0] - before[0]
        for k in range(number):
            latest = max(latest, unit * ready[k] - before[k])
            done[k] = -(-(latest + after[k]) // unit)
    else:
        for k in range(number):
            done[k] = begin + alone[k]
    if job.turns > 1:  # blocks are done with in the last of several passes
        second = max(done[number - 1] + job.after, start + job.gap)
        late = second + job.more - start
        for k in range(number):
            done[k] = start + late + alone[k]
    return start, done[number - 1], late


@compiled
def _waits(
    i: int, steps: int, number: int, begin: int, ran: Ran, meetings: Meetings, ready: Ints
) -> tuple[bool, Number]:
    """Whether an instruction waits for blocks of others, for each block in `ready`; and when it may begin at all."""
    held, first, (touches, members, given, taken, _) = False, 0, meetings
    for t in range(touches.at[i], touches.at[i + 1]):
        group = touches.values[t]
        for reading in (False, True):
            partners = taken if reading else given
            for n in range(partners.at[group], partners.at[group + 1]):
                partner = partners.values[n]
                if ran.touched[partner] <= max(begin, first):
                    continue
                for m in range(members.at[partner], members.at[partner + 1]):
                    other = members.values[m]
                    run = ran.runs[other]
                    late = 0 if reading else run.latency
                    last = run.finish - run.latency + late
                    if last <= begin or last <= first:
                        continue
                    if run.blocks == number and run.steps == steps:
                        for k in range(number):
                            there = ran.done[other, k] + late
                            ready[k] = max(ready[k], there) if held else there
                        held, first = True, ready[0]
                    else:
                        begin = last
    return held, begin


@compiled
def _note(i: int, finish: int, ran: Ran, meetings: Meetings) -> None:
    """An instruction's last run, and when all that touch the same are finished: the last run of each counts."""
    before, ran.runs[i].finish = ran.runs[i].finish, finish
    touches, members = meetings.touches, meetings.members
    for t in range(touches.at[i], touches.at[i + 1]):
        group = touches.values[t]
        if finish >= ran.touched[group]:
            ran.touched[group] = finish
        elif before == ran.touched[group]:
            ran.touched[group] = 0
            for m in range(members.at[group], members.at[group + 1]):
                ran.touched[group] = max(ran.touched[group], ran.runs[members.values[m]].finish)


@compiled
def _array_ready(machine: Machine, job: Any, tables: Tables) -> Number:
    """When the array is ready for a job."""
    array, waves = machine.array, machine.waves
    if job.way in (PRELOAD, STATE_LOAD):
        if not tables.shadow:
            return max(array[PASSED], array[DRAINED_BEFORE], array[DRAINED])
        if waves[LED_WAVE] == NO_WAVE:
            return array[LED]
        return array[LED] + tables.leads[waves[LED_WAVE], job.shift]
    if job.way == STATE_STORE:
        return max(array[PASSED], array[DRAINED])
    ready = max(array[PARAMETERS], array[STATES], array[DRAINED_BEFORE])
    if job.wave == NO_WAVE:
        return max(ready, array[PASSED])  # a pass of no steps takes over all at once
    if waves[LAST_WAVE] == NO_WAVE:
        return ready
    return max(ready, array[THROUGH] + tables.behind[job.wave, waves[LAST_WAVE]])


@compiled
def _array_moved(machine: Machine, job: Any, start: int, end: int, finish: int) -> None:
    """A job, of several passes the last one, began and is finished."""
    array, waves = machine.array, machine.waves
    if job.way == PRELOAD:
        array[PARAMETERS] = finish
    elif job.way == STATE_LOAD:
        array[STATES] = finish
    elif job.way == STATE_STORE:
        array[DRAINED_BEFORE], array[DRAINED] = array[DRAINED], finish
    else:
        array[LED], waves[LED_WAVE], array[PASSED] = start, job.wave, finish
        if job.wave != NO_WAVE:
            array[THROUGH], waves[LAST_WAVE] = end, job.wave


# -- the channel; see `channel` ----------------------------------------------------------------------------------------


@compiled
def _room(channel: Channel, more: int, horizon: int) -> Number:
    """Whether there is room for so many intervals more, at their place or after moving all of them to the front.

    Nothing will be asked for before `horizon` any more.
    """
    live, starts, ends = channel
    if live[1] + more <= len(starts):
        return True
    first = live[0] + np.searchsorted(ends[live[0] : live[1]], horizon, "right")
    for n in range(first, live[1]):
        starts[n - first], ends[n - first] = starts[n], ends[n]
    live[0], live[1] = 0, live[1] - first
    return live[1] + more <= len(starts)


@compiled
def _served(channel: Channel, ready: Ints, before: Ints, after: Ints, unit: int, done: Ints, horizon: int) -> Number:
    """Serve blocks one after the other, none before it is `ready` (ascending); shares of the engine's time `before`
    each of them and `after` it are in cycles over `unit`.

    Writes when each is `done`; what is `ready` becomes when it begins. Returns when the first does.
    """
    live, starts, ends = channel
    count, number = live[1], len(ready)
    live[0] += np.searchsorted(ends[live[0] : count], horizon, "right")
    # what ends before the first block is ready is in nobody's way
    low = live[0] + np.searchsorted(ends[live[0] : count], ready[0])
    # by kind of time: intervals that have passed, and the cycles that they take
    past, past_taken, begun, begun_taken, over, over_taken = low, 0, low, 0, low, 0
    latest = 0
    for k in range(number):
        while past < count and starts[past] <= ready[k]:
            past_taken += ends[past] - starts[past]
            past += 1
        free = ready[k] - past_taken
        if past > low:
            free += max(0, ends[past - 1] - ready[k])
        least = unit * free - before[k]
        latest = max(latest, least) if k > 0 else least
        begin = (latest + before[k]) // unit
        end = -(-(latest + after[k]) // unit)
        while begun < count and starts[begun] - begun_taken <= begin:
            begun_taken += ends[begun] - starts[begun]
            begun += 1
        while over < count and starts[over] - over_taken < end:
            over_taken += ends[over] - starts[over]
            over += 1
        ready[k] = begin + begun_taken
        done[k] = end + over_taken
    live[1] = low + _merged(channel, low, ready, done)
    return ready[0]


@compiled
def _merged(channel: Channel, low: int, begun: Ints, done: Ints) -> Number:
    """Intervals from `low` on with others among them, in order; how many there are. What lies between was taken already
    where they overlap."""
    count, number = channel.live[1], len(begun)
    starts, ends = channel.starts[low:count].copy(), channel.ends[low:count].copy()
    n, own, k = low, 0, 0
    while own < len(starts) or k < number:
        if k == number or (own < len(starts) and starts[own] <= begun[k]):
            start, stop = starts[own], ends[own]
            own += 1
        else:
            start, stop = begun[k], done[k]
            k += 1
        if n > low and start <= channel.ends[n - 1]:
            channel.ends[n - 1] = max(channel.ends[n - 1], stop)
        else:
            channel.starts[n], channel.ends[n] = start, stop
            n += 1
    return n - low


@compiled
def _served_whole(channel: Channel, ready: int, cycles: int, horizon: int) -> tuple[Number, Number]:
    """The same for one block of so many cycles: when it begins, and is done."""
    live, starts, ends = channel
    count, end = live[1], ready + cycles
    if count > live[0] and ready < ends[count - 1]:
        begins, done = np.array([ready]), np.zeros(1, np.int64)
        _served(channel, begins, np.zeros(1, np.int64), np.array([cycles]), 1, done, horizon)
        return begins[0], done[0]
    if count > live[0] and ready == ends[count - 1]:
        ends[count - 1] = end
    else:
        starts[count], ends[count] = ready, end
        live[1] = count + 1
    return ready, end
