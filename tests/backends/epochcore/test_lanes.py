"""What the vector unit and the parameter memory cost, against the slow model, in programs written by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import load_arch, parse_arch
from backends.epochcore.clock.cost import Context
from backends.epochcore.clock.pricing import RULES
from backends.epochcore.clock.timing import measure, timed_by_tokens
from backends.epochcore.program.conflicts import conflicts
from backends.epochcore.program.tokens import synchronised
from backends.epochcore.stepped import start
from isa import Program, SectionBuilder
from isa.epochcore import EPOCHCORE
from ssmc.target import RunSettings
from tests.backends.epochcore.small_programs import archs, assembled, programs
from tests.backends.epochcore.test_costs import ins, with_changes
from tests.backends.epochcore.test_stepped import PHASES, shapes_of, stepped
from tests.backends.epochcore.vector_stages import STAGES
from tests.examples import examples

SMALL = with_changes(load_arch("epochcore-small"), vector__width=4, vector__latency_cycles=3, memory__banks=0)


@pytest.mark.parametrize(("kind", "sweeps"), [("layer", 3), ("rms", 2)])
def test_a_norm_waits_for_its_sums(kind: str, sweeps: int) -> None:
    """A row of four words in four lanes: each sweep takes a cycle, and what it gives is there three cycles later."""
    norm = ins("norm", dst=0, src=0, par=9, kind=kind, words=4, vectors=1, groups=1, steps="n0", affine=True)
    assert RULES["norm"](norm, Context(SMALL, 1, None, {})).cycles == sweeps * (1 + 3)


def test_a_softmax_waits_for_its_largest_and_its_sum() -> None:
    softmax = ins("softmax", dst=0, src=0, words=4, vectors=1, steps="n0", log=False)
    passes = SMALL.vector.function_passes
    assert RULES["softmax"](softmax, Context(SMALL, 1, None, {})).cycles == (1 + 3) + (passes + 3) + (1 + 3)


def test_a_power_is_three_functions() -> None:
    fields = {"dst": 0, "a": 0, "b": 4, "words": 4, "steps": "n0"}
    power, product = (
        RULES["binary"](ins("binary", fn=fn, **fields), Context(SMALL, 8, None, {})) for fn in ("pow", "mul")
    )
    assert power.cycles - product.cycles == 8 * 2 * SMALL.vector.function_passes


@pytest.mark.parametrize(("kind", "carried"), [("take", 0), ("max", 1)])
def test_a_window_that_is_carried_is_read_and_written(kind: str, carried: int) -> None:
    """Of every step the stream and a result, of a window that is joined the row that goes from chunk to chunk."""
    joined = ins("downsample", dst=0, src=40, state=80, kind=kind, words=4, stride=1, steps="n0", result="n1")
    cost = RULES["downsample"](joined, Context(SMALL, 5, None, {}))
    assert cost.events["scratchpad_words"] == 2 * 4 * (5 + carried)


def overlapping(handover: int) -> tuple[Program, np.ndarray]:
    """Two matrices of four words, the second one fetched to where the last words of the first one lie."""
    arch = with_changes(SMALL, array__handover_steps=handover, dram__latency_cycles=0, dram__bytes_per_second=1e12)
    data = {"p0": np.full((2, 2), 0.5), "p1": np.full((2, 2), 2.0)}
    builder = SectionBuilder(EPOCHCORE, "main")
    builder.emit("samples", end="done")
    builder.emit("chunks", limit=8, end="end", backward=False)
    builder.emit("load", dst=0, src=0, words=2, steps="n0", mirror=False)
    for number, name in enumerate(data):
        builder.emit("fetch", dst=2 * number, src=name)
        shape = {"rows": 2, "cols": 2, "mode": "mac.os", "biased": False, "scaled": False}
        builder.emit("preload", src=2 * number, scale=0, bias=0, **shape)
        at = {"dst": 16 + 16 * number, "dst_pitch": 2, "src": 0, "src_pitch": 2}
        builder.emit("mac", **at, steps="n0", accumulate=False)
        builder.emit("store", dst=1 + number, src=16 + 16 * number, words=2, steps="n0")
    builder.label("end")
    builder.label("done")
    builder.emit("halt")
    section, _ = synchronised(builder.build(), {name: values.size for name, values in data.items()})
    return assembled(arch, section, data, 2, [2, 2]), np.arange(32.0).reshape(1, 16, 2)


@pytest.mark.parametrize("handover", [0, 2])
def test_parameters_that_overlap_wait_for_each_other(handover: int) -> None:
    """And a constant that another one has overwritten in part is fetched again in the next chunk."""
    program, x = overlapping(handover)
    arch = parse_arch(program.arch)
    outputs, cycles = stepped(program, arch, x)
    fast = BACKEND.simulate(program, {"x": x}, RunSettings())
    assert fast.stats.cycles == cycles
    for name, factor in (("y1", 1.0), ("y2", 4.0)):
        np.testing.assert_array_equal(fast.outputs[name], outputs[name])
        np.testing.assert_array_equal(outputs[name][..., 0], factor * 0.5 * x.sum(-1))


def test_fetches_that_overlap_meet() -> None:
    program, _ = overlapping(2)
    fetches = [n for n, one in enumerate(program.sections[0].code) if one.mnemonic == "fetch"]
    known = conflicts(program, parse_arch(program.arch), 16)
    assert fetches[0] in known.whole(fetches[1])
    passes: Sequence[int] = [n for n, one in enumerate(program.sections[0].code) if one.mnemonic == "mac"]
    assert passes[0] in known.whole(fetches[1])


def test_a_constant_moves_again_where_it_was_overwritten() -> None:
    program, _ = overlapping(0)
    arch = parse_arch(program.arch)
    moved = measure(program, arch, 1, 16)[0].notes["breakdown_joules"]["parameter_words"]
    once = measure(program, arch, 1, 8)[0].notes["breakdown_joules"]["parameter_words"]
    assert moved == pytest.approx(2 * once)


@pytest.mark.parametrize("handover", [0, 2])
@settings(max_examples=examples(40), deadline=None, phases=PHASES)
@given(st.data())
def test_energy_is_charged_for_what_happened(handover: int, data: st.DataObject) -> None:
    """Lanes that were taken, and words that went to and from the scratchpad; where steps are left out, as many words
    are charged for as if each gave a result."""
    plain = data.draw(archs())
    arch = plain.model_copy(update={"array": plain.array.model_copy(update={"handover_steps": handover})})
    program, steps = data.draw(programs(arch, STAGES)), data.draw(st.integers(1, 9))
    x = np.ones((2, steps, *program.inputs[0].shape))
    machine = start(program, arch, {0: x}, shapes_of(program, 2, steps), steps)
    while machine.cycle():
        pass
    charged = Counter[tuple[str, str]]()
    for op, _, cost in timed_by_tokens(program, arch, 2, steps):
        name = op.ins.mnemonic
        if cost.engine == "vector" and name != "sync":
            charged.update({(event, name): count for event, count in cost.events.items()})
    counted, least = machine.chip.memory.counted, ("scratchpad_words", "downsample")
    assert charged[least] >= counted[least]
    assert {**charged, least: 0} == {**counted, least: 0}


def test_streams_of_another_loop_are_over() -> None:
    """Halves of a stream that lie where parts of one of the loop before did are no parts of that one."""
    builder = SectionBuilder(EPOCHCORE, "main")
    builder.emit("samples", end="done")
    for number, first in enumerate((30, 32)):
        builder.emit("chunks", limit=4, end=f"end{number}", backward=False)
        builder.emit("load", dst=0, src=0, words=6, steps="n0", mirror=False)
        for half in (0, 3):
            at = {"dst": first + half, "dst_pitch": 6, "src": half, "src_pitch": 6}
            builder.emit("copy", **at, words=3, steps="n0", src_held=False)
        builder.emit("unary", dst=60, src=first, fn="neg", words=6, steps="n0")
        builder.emit("store", dst=1 + number, src=60, words=6, steps="n0")
        builder.label(f"end{number}")
    builder.label("done")
    builder.emit("halt")
    section, _ = synchronised(builder.build(), {})
    program, x = assembled(SMALL, section, {}, 6, [6, 6]), np.arange(30.0).reshape(1, 5, 6)
    outputs, cycles = stepped(program, SMALL, x)
    fast = BACKEND.simulate(program, {"x": x}, RunSettings())
    assert fast.stats.cycles == cycles
    for name in ("y1", "y2"):
        np.testing.assert_array_equal(fast.outputs[name], -x)
        np.testing.assert_array_equal(outputs[name], -x)
