"""Engines that hand over step by step: against a model that steps through every block, and against waiting."""

from __future__ import annotations

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch
from backends.epochcore.clock.timing import measure
from backends.epochcore.program.accesses import RULES, Held, accesses
from backends.epochcore.program.conflicts import conflicts
from backends.epochcore.program.dispatch import Op, dispatch
from isa import Kind, Program
from isa.epochcore import EPOCHCORE
from ssmc.ir import Graph, Piece, StreamType, Tensor
from tests.backends.epochcore.graphs import OPS, build
from tests.backends.epochcore.test_costs import with_changes
from tests.examples import examples

ARCH = load_arch("epochcore-128")


def test_every_instruction_that_names_the_scratchpad_says_what_it_touches() -> None:
    named = {
        s.mnemonic for s in EPOCHCORE.instructions if any(f.space == "spad" for f in s.fields if f.kind is Kind.ADDR)
    }
    assert set(RULES) == named


def systems(count: int, channels: int = 128) -> Graph:
    """`count` systems one after the other."""
    graph, rng = Graph(), np.random.default_rng(0)
    x = graph.add("input", attrs={"name": "x", "type": StreamType((channels,))})
    for _ in range(count):
        numbers = {name: Tensor(rng.uniform(0.1, 0.9, (channels, 4))) for name in ("decay", "b", "c")}
        x = graph.add(
            "tile.ssm", [x], {**numbers, "d": Tensor(np.ones(channels)), "pieces": (Piece(0, channels, 0, 4),)}
        )
    graph.add("output", [x], {"name": "y"})
    return graph


def cycles(graph: Graph, arch: Arch, steps: int) -> int:
    return measure(BACKEND.lower(graph, arch, ideal=True), arch, 1, steps)[0].cycles or 0


def test_passes_follow_each_other_without_draining() -> None:
    """A further pass adds its steps, and the latency that its first block waits for; never less than the steps."""
    steps = 1000
    fed = with_changes(ARCH, dram__bytes_per_second=1e15)  # with no wait for DRAM that other chunks would shorten
    two, three = (cycles(systems(n), fed, steps) for n in (2, 3))
    latency = ARCH.array.rows + ARCH.array.cols + ARCH.array.mac_depth
    assert steps <= three - two <= steps + latency + ARCH.array.handover_steps


@settings(max_examples=examples(30), deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.integers(0, 2**16), st.integers(1, 60), st.integers(1, 9))
def test_handing_over_is_never_slower_than_waiting_for_more(seed: int, steps: int, block: int) -> None:
    """Larger blocks come later; what is waited for as a whole comes last.

    But for the DRAM channel: there an older transfer that comes earlier may be in the way of a younger one. Where
    a block takes a cycle of it that is no more than a cycle for each of them. And lanes that a block does not fill
    idle, as they do between the stages of a block (of a norm, say), once for every block: here they do neither.
    """
    rng = np.random.default_rng(seed)
    quick = with_changes(ARCH, dram__bytes_per_second=1e18, vector__latency_cycles=0, vector__width=1)
    graph = build(seed, [str(name) for name in rng.choice(list(OPS), 6)])
    program = BACKEND.lower(graph, quick, ideal=True)
    transfers = sum(
        op.ins.mnemonic in ("load", "store", "fetch", "const", "lookup") for op in dispatch_of(program, steps)
    )
    archs = (with_changes(quick, array__handover_steps=size) for size in (block, 4096))
    fine, coarse = (measure(program, arch, 1, steps)[0].cycles or 0 for arch in archs)
    assert fine <= coarse + transfers * -(-steps // block)


def dispatch_of(program: Program, steps: int) -> list[Op]:
    return list(dispatch(program, 1, steps, shadow=True))


def test_columns_of_one_buffer_do_not_meet() -> None:
    program = BACKEND.lower(systems(1, 256), with_changes(ARCH, array__rows=64), ideal=True)
    code = program.sections[0].code
    passes = [n for n, ins in enumerate(code) if ins.mnemonic == "fri"]
    known = conflicts(program, ARCH, 100)
    assert len(passes) == 2
    assert passes[1] not in known.results[passes[0]] + known.reads[passes[0]] + known.whole(passes[0])


def test_what_is_touched_lies_within_the_rows() -> None:
    program = BACKEND.lower(systems(2), ARCH, ideal=True)
    for ins in program.sections[0].code:
        if ins.mnemonic not in ("mac", "fri"):
            for words in accesses(ins, Held(4, 128, False)):
                assert 0 < words.words <= words.pitch
