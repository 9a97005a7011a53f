"""Random tile graphs: the program computes what the graph means, however it is blocked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch, parse_arch
from backends.epochcore.backend import arch_text
from backends.epochcore.lower.compile import RULES as LOWERING
from isa import Program
from isa.epochcore import EPOCHCORE
from ssmc.diagnostics import UserError
from ssmc.ir import Graph, interpret
from ssmc.target import RunSettings
from tests.backends.epochcore.graphs import OPS, build, inputs
from tests.examples import examples


def tiny() -> Arch:
    """Arrays of 3 x 2: everything is cut."""
    text = arch_text(load_arch("epochcore-small"))
    return parse_arch(text.replace("rows: 16", "rows: 3").replace("cols: 16", "cols: 2").replace("ganged", "native"))


ARCHES = {
    **{name: load_arch("epochcore-128") for name in ("epochcore", "segments")},
    "tiny": tiny(),
    "plain": load_arch("tpu-like-128"),
}
OP_LISTS = st.lists(st.sampled_from(sorted(OPS)), min_size=1, max_size=7)


@dataclass(frozen=True)
class Case:
    graph: Graph
    arrays: dict[str, np.ndarray]


def case(seed: int, ops: list[str], batch: int, steps: int) -> Case:
    return Case(build(seed, ops), inputs(seed, batch, steps))


def lowered(graph: Graph, arch: str, *, ideal: bool) -> Program:
    """The program; with stretches of time at once, of few steps, where that is to be tested and a layer has them."""
    found = in_stretches(graph, arch, ideal=ideal) if arch == "segments" else None
    return found or BACKEND.lower(graph, ARCHES[arch], ideal=ideal)


def in_stretches(graph: Graph, arch: str, *, ideal: bool) -> Program | None:
    asking = graph.copy()
    asking.attributes["schedule"] = {"form": "segmented", "chunk": 4}
    try:
        return BACKEND.lower(asking, ARCHES[arch], ideal=ideal)
    except UserError as error:
        if "no layer of the model has the form 'segmented'" not in str(error):
            raise
        return None


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    if expected.size and np.isfinite(expected).all():
        assert np.abs(actual - expected).max() <= 1e-12 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("arch", ARCHES)
@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 2**32), OP_LISTS, st.integers(1, 3), st.integers(1, 9))
def test_program_means_what_the_graph_means(arch: str, seed: int, ops: list[str], batch: int, steps: int) -> None:
    c = case(seed, ops, batch, steps)
    expected = interpret(c.graph, c.arrays)
    program = lowered(c.graph, arch, ideal=True)
    whole = BACKEND.simulate(program, c.arrays, RunSettings()).outputs
    for name, reference in expected.items():
        close(whole[name], reference)
    for block in (1, 3):
        parts = BACKEND.simulate(program, c.arrays, RunSettings(block=block)).outputs
        for name in expected:
            np.testing.assert_array_equal(parts[name], whole[name])


@pytest.mark.parametrize("arch", ARCHES)
@settings(max_examples=examples(40), deadline=None)
@given(st.integers(0, 2**32), OP_LISTS, st.integers(1, 3), st.integers(1, 9))
def test_integer_programs_do_not_depend_on_blocks(arch: str, seed: int, ops: list[str], batch: int, steps: int) -> None:
    c = case(seed, ops, batch, steps)
    program = lowered(c.graph, arch, ideal=False)
    whole = BACKEND.simulate(program, c.arrays, RunSettings())
    for block in (1, 2):
        parts = BACKEND.simulate(program, c.arrays, RunSettings(block=block))
        for name, value in whole.outputs.items():
            np.testing.assert_array_equal(parts.outputs[name], value)
        assert parts.stats == whole.stats


@settings(max_examples=examples(30), deadline=None)
@given(st.integers(0, 2**32), OP_LISTS, st.integers(1, 3), st.integers(1, 9))
def test_taps_are_the_layers_values(seed: int, ops: list[str], batch: int, steps: int) -> None:
    c = case(seed, ops, batch, steps)
    values = interpret(c.graph, c.arrays, keep=True)
    program = BACKEND.lower(c.graph, ARCHES["epochcore"], ideal=True)
    taps = BACKEND.simulate(program, c.arrays, RunSettings(taps=True, block=2)).taps
    for layer, value in taps.items():
        close(value, values[f"%{layer}"])


def test_every_op_and_every_instruction_is_reached() -> None:
    """The random graphs leave nothing out: they lower every op to every instruction."""
    ops, instructions, stretches = set(), {"halt"}, 0
    for seed in range(150):
        names = list(np.random.default_rng(seed).permutation(sorted(OPS))[:6])
        graph = build(seed, names)
        stretches += seed < 30 and in_stretches(graph, "segments", ideal=True) is not None
        ops |= {node.op.name for node in graph.nodes()}
        for arch in ("tiny", "plain", "segments"):
            program = lowered(graph, arch, ideal=True)
            instructions |= {ins.mnemonic for section in program.sections for ins in section.code}
    assert stretches >= 5  # or the cases of segments are those without
    assert ops >= set(LOWERING)
    assert instructions == set(EPOCHCORE.by_mnemonic)
