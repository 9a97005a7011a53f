"""Tokens that the compiler gives: no instruction starts before what it needs has ended, whatever the engines' speed."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch
from backends.epochcore.clock.timing import timed_by_tokens
from backends.epochcore.program.dispatch import Op
from backends.epochcore.program.parameters import param_words
from backends.epochcore.program.tokens import OVERLAPPING, engine_of
from isa import Program, Section
from isa.epochcore_fields import ENGINES
from tests.backends.epochcore.graphs import OPS, build
from tests.backends.epochcore.regions import Region, Walker
from tests.backends.epochcore.test_costs import with_changes
from tests.examples import examples

SMALL = load_arch("epochcore-small")


def races(program: Program, arch: Arch, batch: int, steps: int) -> list[tuple[int, int]]:
    """Pairs of instructions that meet in a memory, the later of which starts too early."""
    timed = timed_by_tokens(program, arch, batch, steps)
    runs = [run for _, run, _ in timed]
    walker = Walker({name: param_words(array, arch.memory.word_bits) for name, array in program.data.items()})
    writes: list[tuple[Region, Op]] = []
    reads: list[tuple[Region, Op]] = []
    found = []

    def early(region: Region, op: Op, others: list[tuple[Region, Op]], reading: bool) -> None:
        for other, before in others:
            apart = other.space != region.space or other.high <= region.low or region.high <= other.low
            # an engine works in order: it may still not read what it is writing
            ordered = before.engine == op.engine and not (reading and op.engine in OVERLAPPING)
            if not apart and not ordered and runs[before.number].finish > runs[op.number].start:
                found.append((before.index, op.index))

    for op, *_ in timed:
        # no more words than this run's chunk has
        walker.limit = op.steps
        touched = walker.touch(op.ins)
        for region in touched.reads:
            early(region, op, writes, True)
        for region in touched.writes:
            early(region, op, writes, False)
            early(region, op, reads, False)
        reads += [(region, op) for region in touched.reads]
        writes += [(region, op) for region in touched.writes]
    return found


@settings(max_examples=examples(25), deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.integers(0, 2**32), st.lists(st.sampled_from(sorted(OPS)), min_size=1, max_size=5), st.data())
def test_compiled_programs_have_no_races(seed: int, ops: list[str], data: st.DataObject) -> None:
    fast = st.sampled_from([1, 1000])
    arch = with_changes(
        SMALL,
        memory__banks=0,  # which would not keep up with the wide vector unit
        memory__scratchpad_words=data.draw(st.sampled_from([3000, 32768])),
        dram__bytes_per_second=data.draw(st.sampled_from([1.0e8, 1.0e13])),
        dram__latency_cycles=data.draw(st.sampled_from([0, 500])),
        vector__width=data.draw(fast),
        array__mac_depth=data.draw(st.sampled_from([1, 20])),
    )
    program = BACKEND.lower(build(seed, ops), arch, ideal=True)
    assert races(program, arch, data.draw(st.integers(1, 2)), data.draw(st.sampled_from([1, 5, 40]))) == []


def without_tokens(section: Section) -> Section:
    """The section with no tokens given or taken; `sync` stays."""
    flags = {f"{what}.{engine}": False for what in ("pop", "push") for engine in ENGINES}
    code = tuple(ins.changed(flags) if engine_of(ins) else ins for ins in section.code)
    return replace(section, code=code)


def test_without_tokens_there_are_races() -> None:
    program = BACKEND.lower(build(1, ["matmul" if "matmul" in OPS else sorted(OPS)[0], "unary"]), SMALL, ideal=True)
    section = without_tokens(program.sections[0])
    bare = Program(**{**vars(program), "sections": (section,)})
    assert races(program, SMALL, 1, 40) == []
    assert races(bare, SMALL, 1, 40)
