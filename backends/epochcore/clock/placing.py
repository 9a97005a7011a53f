"""When every op of a piece of a program runs, where engines hand over step by step: `handover` says how, and keeps what
these functions work on. They are run as machine code, and could be as they stand (`ssmc.whole_numbers`).

By op: its instruction, and where its job begins. By instruction, by group of touched words: where their part of a list
begins, and after them where the last part ends.
"""

from __future__ import annotations

from backends.epochcore.clock.channel import make_room, serve, serve_one
from ssmc.whole_numbers import Words

# A job: its engine, of which there are `PIPES` in a row; its way through the array; cycles; whether it takes the
# channel; blocks (0: it is of one), their unit and where `before`, `done` and `alone` of them begin; latency and steps;
# numbers of its wave and its shift; when its last pass begins, if nothing holds up the first. Of several passes in turn
# what a pass waits for the end and for the beginning of the one before, and what all but the first two of them take.
ENGINE, PIPES, WAY, BUSY, CHANNEL, BLOCKS, UNIT, BLOCKS_AT = 0, 1, 2, 3, 4, 5, 6, 7
LATENCY, STEPS, WAVE, SHIFT, LATE, TURNS, AFTER, GAP, MORE, JOB = 8, 9, 10, 11, 12, 13, 14, 15, 16, 17
NO_WAY, PRELOAD, STATE_LOAD, STATE_STORE, PASS = 0, 1, 2, 3, 4
NO_WAVE = -1

# The machine: when parameters and states in the shadow registers are complete, when the last pass has all its states,
# and when the states of the last two were out; when the engine was through with the last pass, and when the last one
# began that others are shifted in behind; the waves of both; how many waves and shifts there are; then its engines.
PARAMETERS, STATES, PASSED, DRAINED_BEFORE, DRAINED, THROUGH, LED = 0, 1, 2, 3, 4, 5, 6
LAST_WAVE, LED_WAVE, SHADOW, WAVES, SHIFTS = 7, 8, 9, 10, 11
LOAD, STORE, PRELOADING, COMPUTE, DRAIN, VECTOR = 12, 13, 14, 15, 16, 17

# The last run of an instruction: when it is finished, latency, steps, and blocks whose ends are known.
FINISH, LAG, RAN, ENDS, RUN = 0, 1, 2, 3, 4


def place(
    ops: Words,
    kinds: Words,
    first: int,
    stop: int,
    machine: Words,
    channel: Words,
    starts: Words,
    ends: Words,
    kept_starts: Words,
    kept_ends: Words,
    jobs: Words,
    shares: Words,
    behind: Words,
    leads: Words,
    touches_at: Words,
    touches: Words,
    members_at: Words,
    members: Words,
    apart_at: Words,
    apart: Words,
    given_at: Words,
    given: Words,
    taken_at: Words,
    taken: Words,
    touched: Words,
    runs: Words,
    done: Words,
    most: int,
    ready: Words,
    begun: Words,
    finished: Words,
) -> int:
    """Place the ops from `first` to `stop`: when they have `begun`, and are `finished`.

    `done` are the ends of the blocks of every instruction's last run, `most` for each. Returns the op that is the next
    one: not `stop` where the channel has no more room for intervals.
    """
    for op in range(first, stop):
        i, job = ops[op], kinds[op]
        slot = jobs[job + ENGINE]
        for pipe in range(jobs[job + ENGINE] + 1, jobs[job + ENGINE] + jobs[job + PIPES]):
            if machine[pipe] < machine[slot]:
                slot = pipe
        horizon = min(machine[LOAD], machine[STORE])
        number = jobs[job + BLOCKS]
        if jobs[job + CHANNEL] != 0 and make_room(channel, starts, ends, max(1, number), horizon) == 0:
            return op
        begin = machine[slot]
        for t in range(touches_at[i], touches_at[i + 1]):
            for p in range(apart_at[touches[t]], apart_at[touches[t] + 1]):
                begin = max(begin, touched[apart[p]])
        if jobs[job + WAY] != NO_WAY:
            begin = max(begin, array_ready(machine, jobs, job, behind, leads))
        at, late = i * most, jobs[job + LATE]
        if number == 0:
            start = begin
            for t in range(touches_at[i], touches_at[i + 1]):
                group = touches[t]
                for p in range(given_at[group], given_at[group + 1]):
                    start = max(start, touched[given[p]])
                for p in range(taken_at[group], taken_at[group + 1]):
                    if touched[taken[p]] > start:
                        for q in range(members_at[taken[p]], members_at[taken[p] + 1]):
                            start = max(start, runs[members[q] * RUN + FINISH] - runs[members[q] * RUN + LAG])
            if jobs[job + CHANNEL] != 0:
                ready[0] = start
                start = serve_one(channel, starts, ends, kept_starts, kept_ends, ready, jobs[job + BUSY], horizon)
                end = ready[1]
            else:
                end = start + jobs[job + BUSY]
        else:
            held, begin = (
                wait(
                    i,
                    jobs[job + STEPS],
                    number,
                    begin,
                    touches_at,
                    touches,
                    members_at,
                    members,
                    given_at,
                    given,
                    taken_at,
                    taken,
                    touched,
                    runs,
                    done,
                    most,
                    ready,
                ),
                ready[number],
            )
            before, after = jobs[job + BLOCKS_AT], jobs[job + BLOCKS_AT] + number
            alone, unit = after + number, jobs[job + UNIT]
            if held == 0 and jobs[job + CHANNEL] == 0:
                start = begin
                for k in range(number):
                    done[at + k] = begin + shares[alone + k]
            else:
                for k in range(number):
                    ready[k] = max(ready[k], begin) if held != 0 else begin
                start = ready[0]
                if jobs[job + CHANNEL] != 0:
                    start = serve(
                        channel,
                        starts,
                        ends,
                        kept_starts,
                        kept_ends,
                        ready,
                        shares,
                        before,
                        number,
                        unit,
                        done,
                        at,
                        horizon,
                    )
                else:
                    latest = unit * ready[0] - shares[before]
                    for k in range(number):
                        latest = max(latest, unit * ready[k] - shares[before + k])
                        done[at + k] = -(-(latest + shares[after + k]) // unit)
            if jobs[job + TURNS] > 1:  # blocks are done with in the last of several passes
                second = max(done[at + number - 1] + jobs[job + AFTER], start + jobs[job + GAP])
                late = second + jobs[job + MORE] - start
                for k in range(number):
                    done[at + k] = start + late + shares[alone + k]
            end = done[at + number - 1]
        machine[slot] = end
        finish = end + jobs[job + LATENCY]
        note(i, finish, touches_at, touches, members_at, members, touched, runs)
        runs[i * RUN + LAG] = jobs[job + LATENCY]
        runs[i * RUN + RAN] = jobs[job + STEPS]
        runs[i * RUN + ENDS] = number
        if jobs[job + WAY] != NO_WAY:
            array_moved(machine, jobs, job, start + late, end, finish)
        begun[op] = start
        finished[op] = finish
    return stop


def wait(
    i: int,
    steps: int,
    number: int,
    begin: int,
    touches_at: Words,
    touches: Words,
    members_at: Words,
    members: Words,
    given_at: Words,
    given: Words,
    taken_at: Words,
    taken: Words,
    touched: Words,
    runs: Words,
    done: Words,
    most: int,
    ready: Words,
) -> int:
    """When each block of an instruction may begin as far as others are concerned, in front of when it may at all.

    Returns whether any of them waits for a block of another.
    """
    held, first = 0, 0
    for t in range(touches_at[i], touches_at[i + 1]):
        for reading in range(2):
            low, high = given_at[touches[t]], given_at[touches[t] + 1]
            if reading != 0:
                low, high = taken_at[touches[t]], taken_at[touches[t] + 1]
            for p in range(low, high):
                group = taken[p] if reading != 0 else given[p]
                if touched[group] <= max(begin, first):
                    continue
                for q in range(members_at[group], members_at[group + 1]):
                    other = members[q]
                    late = 0 if reading != 0 else runs[other * RUN + LAG]
                    last = runs[other * RUN + FINISH] - runs[other * RUN + LAG] + late
                    if last <= begin or last <= first:
                        continue
                    if runs[other * RUN + ENDS] == number and runs[other * RUN + RAN] == steps:
                        for k in range(number):
                            there = done[other * most + k] + late
                            ready[k] = max(ready[k], there) if held != 0 else there
                        held, first = 1, ready[0]
                    else:
                        begin = last
    ready[number] = begin
    return held


def note(
    i: int,
    finish: int,
    touches_at: Words,
    touches: Words,
    members_at: Words,
    members: Words,
    touched: Words,
    runs: Words,
) -> int:
    """An instruction's last run, and when all that touch the same are finished: the last run of each counts."""
    before = runs[i * RUN + FINISH]
    runs[i * RUN + FINISH] = finish
    for t in range(touches_at[i], touches_at[i + 1]):
        group = touches[t]
        if finish >= touched[group]:
            touched[group] = finish
        elif before == touched[group]:
            touched[group] = 0
            for q in range(members_at[group], members_at[group + 1]):
                touched[group] = max(touched[group], runs[members[q] * RUN + FINISH])
    return 0


def array_ready(machine: Words, jobs: Words, job: int, behind: Words, leads: Words) -> int:
    """When the array is ready for a job."""
    way, wave = jobs[job + WAY], jobs[job + WAVE]
    if way in (PRELOAD, STATE_LOAD):
        if machine[SHADOW] == 0:
            return max(machine[PASSED], machine[DRAINED_BEFORE], machine[DRAINED])
        if machine[LED_WAVE] == NO_WAVE:
            return machine[LED]
        return machine[LED] + leads[machine[LED_WAVE] * machine[SHIFTS] + jobs[job + SHIFT]]
    if way == STATE_STORE:
        return max(machine[PASSED], machine[DRAINED])
    ready = max(machine[PARAMETERS], machine[STATES], machine[DRAINED_BEFORE])
    if wave == NO_WAVE:
        return max(ready, machine[PASSED])  # a pass of no steps takes over all at once
    if machine[LAST_WAVE] == NO_WAVE:
        return ready
    return max(ready, machine[THROUGH] + behind[wave * machine[WAVES] + machine[LAST_WAVE]])


def array_moved(machine: Words, jobs: Words, job: int, start: int, end: int, finish: int) -> int:
    """A job, of several passes the last one, began and is finished."""
    way = jobs[job + WAY]
    if way == PRELOAD:
        machine[PARAMETERS] = finish
    elif way == STATE_LOAD:
        machine[STATES] = finish
    elif way == STATE_STORE:
        machine[DRAINED_BEFORE] = machine[DRAINED]
        machine[DRAINED] = finish
    else:
        machine[LED] = start
        machine[LED_WAVE] = jobs[job + WAVE]
        machine[PASSED] = finish
        if jobs[job + WAVE] != NO_WAVE:
            machine[THROUGH] = end
            machine[LAST_WAVE] = jobs[job + WAVE]
    return 0
