"""What cores hand to each other, to the host, and to buffers of whole streams."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np

from backends.cim.program.decode import Item
from backends.cim.simulate.core import Core, Trap, join_steps
from backends.cim.simulate.memory import Steps
from backends.cim.simulate.running import Run, trapped
from ssmc.ir.op import Array


def receive(run: Run, core: Core, item: Item) -> Iterator[None]:
    """The next messages of a channel, or an input of the host. Raises UserError where they have other sizes."""
    number, words = item.integer("channel"), item.integer("words")
    if number in run.inputs:
        array = run.inputs[number]
        array = array[:, core.first : core.first + core.count]
        if array.shape[1] != core.count:
            there = run.inputs[number].shape[1]
            what = f"step {core.first + core.count} of an input of {there} is read"
            raise trapped(run, core.number, item, "", Trap(what, hint="let the loop and the binding of '.input' agree"))
    else:
        array = yield from _take(run, core, number, core.count)
    if array.shape[2] != words:
        raise trapped(
            run, core.number, item, "", Trap(f"a message of {array.shape[2]} words comes where {words} are read")
        )
    core.write(item.integer("dst"), array)


def _take(run: Run, core: Core, number: int, messages: int) -> Generator[None, None, Array]:
    """So many messages of a channel, as soon as they are there."""
    channel = run.channels[number]
    while channel.steps < messages:
        run.waiting[core.number] = number, messages
        yield
    run.waiting.pop(core.number, None)
    return channel.take(messages)


def collect(run: Run, core: Core, item: Item) -> Iterator[None]:
    """Messages of the copies of a layer, which take turns. Raises UserError where they have other sizes."""
    words, copies = item.integer("words"), item.integer("copies")
    parts = dict[int, Array]()
    for turn in range(copies):
        first = (turn - core.first) % copies  # of the running rounds, the first that is this copy's
        messages = len(range(first, core.count, copies))
        if messages:
            parts[first] = yield from _take(run, core, item.integer("channel") + turn, messages)
    array = np.empty((max(part.shape[0] for part in parts.values()), core.count, words))
    for first, part in parts.items():
        if part.shape[2] != words:
            raise trapped(
                run, core.number, item, "", Trap(f"a message of {part.shape[2]} words comes where {words} are read")
            )
        array[:, first::copies] = part
    core.write(item.integer("dst"), array)


def send(run: Run, core: Core, item: Item) -> None:
    """Words to another core, to the host or into a buffer of a stream, or back from there. Raises Trap."""
    if item.code.mnemonic == "fetch":
        _fetch(core, item)
        return
    array = core.read(item.integer("src"), item.integer("words"))
    array = np.broadcast_to(array, (array.shape[0], core.count, array.shape[2]))
    match item.code.mnemonic:
        case "send":
            if item.integer("core") not in run.cores:
                raise Trap(
                    f"a message goes to core {item.integer('core')}, which runs nothing", hint="give it a section"
                )
            run.channels[item.integer("channel")].put(array)
        case "emit":
            _emit(run, core, item.integer("channel"), array)
        case "keep":
            core.buffers[item.integer("buffer")].append(array)


def _emit(run: Run, core: Core, channel: int, array: Array) -> None:
    """Words for the host: a stream's into one array of all its steps."""
    steps = 1 if core.now is None else Steps(core.now.stride, core.now.offset, 0, core.total).count
    if not core.first and run.outputs[channel]:
        raise Trap(f"channel {channel} of an output is sent to twice", hint="let one 'emit' name it")
    if core.count == steps:
        given = any(np.may_share_memory(array, each) for each in run.inputs.values())
        run.outputs[channel].append(core.full(array.copy() if given else array))
        return
    if not core.first:
        run.outputs[channel].append(np.empty((core.batch, steps, array.shape[2])))
    run.outputs[channel][-1][:, core.first : core.first + core.count] = array


def _fetch(core: Core, item: Item) -> None:
    buffer = item.integer("buffer")
    if len(core.buffers[buffer]) > 1:
        core.buffers[buffer] = [join_steps(core.buffers[buffer])]
    if not core.buffers[buffer]:
        raise Trap(f"stream buffer {buffer} is empty", hint="let a 'keep' fill it in an earlier sweep")
    kept = core.buffers[buffer][0]
    if item.flag("backward"):
        kept = kept[:, ::-1]
    part = kept[:, core.first : core.first + core.count]
    if part.shape[1] != core.count:
        raise Trap(
            f"stream buffer {buffer} holds {kept.shape[1]} steps, and more are read",
            hint="keep and fetch at the same steps",
        )
    core.write(item.integer("dst"), np.ascontiguousarray(part))
