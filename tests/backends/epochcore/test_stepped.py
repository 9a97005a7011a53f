"""The clock: the fast model against the one that steps every element, register and token, in cycles and in numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, load_arch
from backends.epochcore.clock.pricing import RULES as PRICED
from backends.epochcore.clock.timing import measure
from backends.epochcore.program.conflicts import Conflicts, Lists
from backends.epochcore.program.parameters import pack_decay, pack_element
from backends.epochcore.program.tokens import synchronised
from backends.epochcore.simulate.run import CONTROL
from backends.epochcore.stepped import run, streaming
from backends.epochcore.stepped.instructions import STEPPED
from backends.epochcore.stepped.lanes import Block
from backends.epochcore.stepped.traffic import Traffic
from isa import Program, SectionBuilder
from isa.epochcore import EPOCHCORE
from isa.epochcore_fields import ENGINES
from isa.frozen import FrozenMap
from ssmc.diagnostics import UserError
from ssmc.target import RunSettings
from tests.backends.epochcore.small_programs import Writer, archs, assembled, programs
from tests.backends.epochcore.vector_stages import STAGES
from tests.examples import examples

Stage = Callable[[Writer], None]

# shrinking a program takes minutes: a failing one is printed as it was found
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


def shapes_of(program: Program, batch: int, steps: int) -> dict[int, tuple[int, ...]]:
    rows = {"stream": (steps,), "sequence": ()}
    return {n: (batch, *rows[port.kind], *port.shape) for n, port in enumerate(program.outputs, 1)}


def stepped(program: Program, arch: Arch, x: np.ndarray) -> tuple[dict[str, np.ndarray], int]:
    batch, steps, _ = x.shape
    shapes = shapes_of(program, batch, steps)
    outputs, cycles = run(program, arch, {0: x}, shapes, steps)
    return {f"y{n}": values for n, values in outputs.items()}, cycles


def test_every_instruction_is_stepped() -> None:
    """In the elements, in the lanes, over the DRAM channel, or by its engine alone; control costs nothing."""
    assert len(STEPPED) == len(set(STEPPED))
    assert set(STEPPED) == set(EPOCHCORE.by_mnemonic) - {*CONTROL, "rate"} == set(PRICED)


def test_random_programs_have_every_instruction() -> None:
    found: set[str] = set()

    @settings(max_examples=8, deadline=None, phases=PHASES, database=None, derandomize=True)
    @given(st.data())
    def collect(data: st.DataObject) -> None:
        for stage in (Writer.states, Writer.driven, *STAGES):
            program = data.draw(programs(data.draw(archs()), [stage]))
            found.update(ins.mnemonic for ins in program.sections[0].code)

    collect()
    assert found == set(EPOCHCORE.by_mnemonic)


@pytest.mark.parametrize("handover", [0, 2])
@settings(max_examples=examples(60), deadline=None, phases=PHASES)
@given(st.data())
def test_they_agree_about_the_vector_unit(handover: int, data: st.DataObject) -> None:
    """A stage of the vector unit in every program."""
    plain = data.draw(archs())
    array = plain.array.model_copy(update={"handover_steps": handover})
    agree(data, plain.model_copy(update={"array": array}), data.draw(st.integers(1, 9)), among=STAGES)


@settings(max_examples=examples(100), deadline=None, phases=PHASES)
@given(st.data())
def test_fast_and_slow_agree_exactly(data: st.DataObject) -> None:
    agree(data, data.draw(archs()), data.draw(st.integers(1, 7)))


def agree(data: st.DataObject, arch: Arch, steps: int, *, clocks: bool = True, among: Sequence[Stage] = ()) -> None:
    """A random program takes the same cycles in both models, and gives the same numbers."""
    program = data.draw(programs(arch, among))
    batch = data.draw(st.integers(1, 3))
    words = program.inputs[0].shape[0]
    count = batch * steps * words
    numbers = data.draw(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=count, max_size=count))
    x = np.array(numbers).reshape(batch, steps, words)
    fast = BACKEND.simulate(program, {"x": x}, RunSettings())
    outputs, cycles = stepped(program, arch, x)
    assert not clocks or fast.stats.cycles == cycles
    # Functions (exp, the normal distribution) are evaluated by other formulas; all else is the same to the bit.
    functions = any(ins.mnemonic in ("unary", "gate", "softmax", "decay") for ins in program.sections[0].code)
    for name, values in fast.outputs.items():
        if functions:
            np.testing.assert_allclose(outputs[name], values, rtol=1e-12, atol=1e-12)
        else:
            np.testing.assert_array_equal(outputs[name], values)


@settings(max_examples=examples(60), deadline=None, phases=PHASES)
@given(st.data())
def test_they_agree_where_engines_hand_over_step_by_step(data: st.DataObject) -> None:
    """Blocks, pipes of the vector unit, shares of the DRAM channel, states and parameters moved under passes."""
    plain = data.draw(archs())
    array = plain.array.model_copy(update={"handover_steps": data.draw(st.integers(1, 5))})
    vector = plain.vector.model_copy(update={"pipes": data.draw(st.integers(1, 3))})
    arch = plain.model_copy(update={"array": array, "vector": vector})
    agree(data, arch, data.draw(st.integers(1, 12)))


@pytest.mark.parametrize("handover", [0, 12])
def test_ganged_states_wait_until_the_ports_have_sent_what_came_before(handover: int) -> None:
    """Two elements a state leave a row of three unused: words leave earlier there than those of real states."""
    array = {"rows": 3, "cols": 5, "port_words_in": 5, "port_words_out": 2, "handover_steps": handover}
    check(array, ("fri.x", 1, 2, False), ("tri.x", 1, 1, True))


@pytest.mark.parametrize("first", ["mac", "fri.x"])
def test_ganged_parameters_do_not_overtake_what_they_replace(first: str) -> None:
    """They go down two elements in a cycle, a step of real states one."""
    array = {"rows": 4, "cols": 2, "port_words_in": 6, "port_words_out": 6, "handover_steps": 12}
    check(array, (first, 1, 1, False), ("fri", 2, 1, True))


@pytest.mark.parametrize(
    ("changes", "passes", "cycles"),
    [
        # sums come with the first state of an element, and wait for it, not for the last
        ((2, 5, 2, 3, 1, 24, 0, True), (("fri.x", 1, 2, False), ("fri", 4, 1, False), ("mac", 1, 2, False)), 475),
        # where results stay in place, nothing is left when they are out
        ((4, 5, 2, 2, 2, 2, 12, True), (("mac.os", 1, 2, False), ("mac", 2, 1, False)), 290),
        # a gang's parameters wait for the pass before in the last of its rows
        ((2, 3, 3, 2, 24, 2, 12, True), (("mac", 1, 1, False), ("fri.x", 1, 1, True), ("fri", 5, 1, False)), 342),
        # without shadow registers the array is empty when a pass begins
        ((5, 3, 3, 1, 24, 2, 3, False), (("fri.x", 1, 1, False), ("fri", 15, 2, False), ("mac", 1, 1, False)), 389),
    ],
)
def test_passes_follow_as_closely_as_their_registers_let_them(
    changes: tuple[int, ...], passes: tuple[tuple[str, int, int, bool], ...], cycles: int
) -> None:
    names = (
        "rows",
        "cols",
        "states_per_element",
        "mac_depth",
        "port_words_in",
        "port_words_out",
        "handover_steps",
        "shadow",
    )
    assert check(dict(zip(names, changes, strict=True)), *passes) == cycles


def check(changes: Mapping[str, int], *passes: tuple[str, int, int, bool]) -> int:
    """Cycles, in both models, of passes of (mode, rows, columns, complex) over the same input, one after the other."""
    base = load_arch("epochcore-small")
    array = {"complex": "ganged", "mac_depth": 1, "states_per_element": 1, **changes}
    arch = base.model_copy(update={"array": base.array.model_copy(update=array)})
    data, places = dict[str, np.ndarray](), list[int]()
    for mode, rows, cols, is_complex in passes:
        e = np.full((cols, rows), 0.5 + 0.5j if is_complex else 0.5)
        element = pack_element(e, e, e, e.real[:, 0], None)
        values = {"mac": e.T, "mac.os": e.T, "fri": element}.get(mode, pack_decay(e[:, 0], None))
        places.append(sum(known.size for known in data.values()))
        data[f"p{len(data)}"] = values
    builder = SectionBuilder(EPOCHCORE, "main")
    for place, name in zip(places, data, strict=True):
        builder.emit("fetch", dst=place, src=name)
    builder.emit("samples", end="done")
    builder.emit("fill", dst=0, words=16, value=0.0)
    builder.emit("chunks", limit=12, end="end", backward=False)
    builder.emit("load", dst=16, src=0, words=2, steps="n0", mirror=False)
    for number, (mode, rows, cols, is_complex) in enumerate(passes):
        shape = {"rows": rows, "cols": cols, "mode": mode, "complex": is_complex}
        builder.emit("preload", src=places[number], scale=0, bias=0, **shape, biased=False, scaled=False)
        fields = {"dst": 40 + 24 * number, "dst_pitch": 2, "src": 16, "src_pitch": 2}
        if not mode.startswith("mac"):
            builder.emit("state.load", src=4 * number, words=rows * cols * (1 + is_complex))
            fields |= {"before": False, "reverse": False}
        builder.emit(
            mode.removesuffix(".os"), **fields, steps="n0", **({} if mode.endswith(".x") else {"accumulate": False})
        )
    for number in range(len(passes)):
        builder.emit("store", dst=1 + number, src=40 + 24 * number, words=2, steps="n0")
    builder.label("end")
    builder.label("done")
    builder.emit("halt")
    section, _ = synchronised(builder.build(), {name: values.size for name, values in data.items()})
    program = assembled(arch, section, data, 2, [2] * len(passes))
    x = np.arange(24.0).reshape(1, 12, 2)
    cycles = stepped(program, arch, x)[1]
    assert cycles == measure(program, arch, 1, 12)[0].cycles
    return cycles


def test_chunks_of_segments_are_those_of_the_machine() -> None:
    """Eight steps in chunks of up to six are twice four, of two segments each: in numbers, too."""
    arch, data = load_arch("epochcore-small"), {"p0": pack_element(*([np.full((1, 1), 0.5)] * 3), np.ones(1), None)}
    builder = SectionBuilder(EPOCHCORE, "main")
    builder.emit("fetch", dst=0, src="p0")
    builder.emit("samples", end="done")
    builder.emit("fill", dst=0, words=3, value=1.0)
    builder.emit("chunks", limit=6, end="end", backward=False)
    builder.emit("load", dst=4, src=0, words=1, steps="n0", mirror=False)
    shape = {"rows": 1, "cols": 1, "mode": "fri", "complex": False, "segments": 3, "span": 2}
    builder.emit("preload", src=0, scale=0, bias=0, **shape, biased=False, scaled=False)
    builder.emit("state.load", src=0, words=3)
    pitches = {"dst_pitch": 1, "src_pitch": 1}
    builder.emit("fri", dst=10, src=4, **pitches, steps="n0", accumulate=False, before=False, reverse=False)
    builder.emit("state.store", dst=0, words=3)
    builder.emit("store", dst=1, src=10, words=1, steps="n0")
    builder.label("end")
    builder.label("done")
    builder.emit("halt")
    section, _ = synchronised(builder.build(), {"p0": data["p0"].size})
    program, x = assembled(arch, section, data, 1, [1]), np.arange(8.0).reshape(1, 8, 1)
    outputs, _ = stepped(program, arch, x)
    np.testing.assert_array_equal(BACKEND.simulate(program, {"x": x}, RunSettings()).outputs["y1"], outputs["y1"])


def test_weights_that_stream_in_are_kept_until_the_pass_is_over() -> None:
    """Results stay in place, and the next weights come to where the present ones lie."""
    base = load_arch("epochcore-small")
    changes = {"rows": 2, "cols": 2, "handover_steps": 4, "port_words_in": 1, "port_words_out": 1}
    dram = base.dram.model_copy(update={"latency_cycles": 1})
    arch = base.model_copy(update={"array": base.array.model_copy(update=changes), "dram": dram})
    data = {"p0": np.full((4, 2), 0.5), "p1": np.full((4, 2), 2.0)}
    builder = SectionBuilder(EPOCHCORE, "main")
    builder.emit("samples", end="done")
    builder.emit("chunks", limit=12, end="end", backward=False)
    builder.emit("load", dst=0, src=0, words=4, steps="n0", mirror=False)
    for number, name in enumerate(data):
        builder.emit("fetch", dst=0, src=name)
        shape = {"rows": 4, "cols": 2, "mode": "mac.os", "biased": False, "scaled": False}
        builder.emit("preload", src=0, scale=0, bias=0, **shape)
        at = {"dst": 48 + 24 * number, "dst_pitch": 2, "src": 0, "src_pitch": 4}
        builder.emit("mac", **at, steps="n0", accumulate=False)
        builder.emit("store", dst=1 + number, src=48 + 24 * number, words=2, steps="n0")
    builder.label("end")
    builder.label("done")
    builder.emit("halt")
    section, _ = synchronised(builder.build(), {name: values.size for name, values in data.items()})
    program, x = assembled(arch, section, data, 4, [2, 2]), np.arange(48.0).reshape(1, 12, 4)
    outputs, cycles = stepped(program, arch, x)
    assert cycles == measure(program, arch, 1, 12)[0].cycles
    for name, weights in zip(("y1", "y2"), data.values(), strict=True):
        np.testing.assert_array_equal(outputs[name], x @ weights)


@pytest.mark.parametrize("rule", ["lets_in", "lets"])
def test_a_pass_that_is_followed_too_closely_is_noticed(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """Four elements with two states each take two cycles a row; what comes behind them takes one."""
    array = {"rows": 4, "cols": 2, "states_per_element": 2, "port_words_in": 12, "port_words_out": 6}
    passes = ("fri", 8, 1, False), ("fri", 4, 1, False)
    check({**array, "handover_steps": 12}, *passes)
    monkeypatch.setattr(Traffic, rule, lambda *known: True)
    with pytest.raises(AssertionError):
        check({**array, "handover_steps": 12}, *passes)


@pytest.mark.parametrize("rule", ["latency", "results"])
def test_a_clock_that_is_too_fast_is_noticed(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """Without one of the rules of handing over, the slow model finds wrong numbers, words or collisions."""
    if rule == "results":
        whole = streaming.conflicts
        monkeypatch.setattr(streaming, "conflicts", lambda *args: _without_results(whole(*args)))
    else:
        passing = Block.tick
        monkeypatch.setattr(Block, "tick", lambda self, now: _at_once(passing, self, now))

    @settings(max_examples=150, deadline=None, phases=PHASES, database=None, derandomize=True)
    @given(st.data())
    def search(data: st.DataObject) -> None:
        plain = data.draw(archs())
        array = plain.array.model_copy(update={"handover_steps": data.draw(st.integers(1, 3))})
        agree(data, plain.model_copy(update={"array": array}), data.draw(st.integers(1, 8)), clocks=False)

    with pytest.raises((AssertionError, IndexError, KeyError)):
        search()


def _at_once(tick: Callable[[Block, int], None], block: Block, now: int) -> None:
    """What comes out of the lanes counts as there when they are through with it."""
    tick(block, now)
    block.complete = min(block.complete, block.taken or block.complete)


def _without_results(known: Conflicts) -> Conflicts:
    return replace(known, given=Lists.of([[]] * (len(known.given.at) - 1)))


@settings(max_examples=examples(50), deadline=None, phases=PHASES)
@given(st.data())
def test_any_tokens_mean_the_same_to_both(data: st.DataObject) -> None:
    """Tokens at random: both models end at the same cycle, or in the same deadlock, or it is a trap that an instruction
    begins before what it reads is there, which the slow model does not look for."""
    arch = data.draw(archs())
    program = data.draw(programs(arch))
    section = program.sections[0]
    at = data.draw(st.integers(0, len(section.code) - 1))
    ins = section.code[at]
    if "pop.load" not in ins.operands:
        return
    flag = data.draw(st.sampled_from([f"{what}.{engine}" for what in ("pop", "push") for engine in ENGINES]))
    changed = replace(ins, operands=FrozenMap({**ins.operands, flag: not ins[flag]}))
    code = (*section.code[:at], changed, *section.code[at + 1 :])
    other = replace(program, sections=(replace(section, code=code),))
    x = np.ones((2, 3, program.inputs[0].shape[0]))
    try:
        cycles = measure(other, arch, 2, 3)[0].cycles
    except UserError as error:
        assert "deadlock" in str(error)
        with pytest.raises(UserError, match="deadlock"):
            stepped(other, arch, x)
        return
    try:
        BACKEND.simulate(other, {"x": x}, RunSettings())
    except UserError as error:
        assert "they share words in a memory" in str(error)
        return
    assert stepped(other, arch, x)[1] == cycles
