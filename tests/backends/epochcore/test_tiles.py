"""Several tiles of weights in one instruction: the same numbers as one after the other, and the clocks agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import load_arch
from backends.epochcore.program.tiles import own, with_words
from backends.epochcore.program.tokens import synchronised
from isa import Instruction, Program, SectionBuilder
from isa.epochcore import EPOCHCORE
from ssmc.diagnostics import UserError
from ssmc.target import RunSettings
from tests.backends.epochcore.small_programs import Writer, archs, programs
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_stepped import PHASES, agree
from tests.examples import examples


@pytest.mark.parametrize("handover", [0, 3])
@settings(max_examples=examples(25), deadline=None, phases=PHASES)
@given(st.data())
def test_the_clocks_agree(handover: int, data: st.DataObject) -> None:
    """Passes in turn in every program, one behind the other and with others around them."""
    plain = data.draw(archs())
    array = plain.array.model_copy(update={"handover_steps": handover})
    agree(data, plain.model_copy(update={"array": array}), data.draw(st.integers(1, 9)), among=[Writer.products])


def one_by_one(program: Program) -> Program:
    """The program with a preload and a pass for every tile."""
    section, data = program.sections[0], dict(program.data)
    builder, ends = SectionBuilder(EPOCHCORE, section.name), dict[int, list[str]]()
    for name, place in section.labels.items():
        ends.setdefault(place, []).append(name)
    names: dict[int, str] = {}
    held: Instruction | None = None
    for index, ins in enumerate(section.code):
        for label in ends.get(index, ()):
            builder.label(label)
        builder.loc = ins.loc
        operands = {k: v for k, v in ins.operands.items() if not k.startswith(("pop.", "push."))}
        if ins.mnemonic == "sync":
            continue
        if ins.mnemonic == "fetch":
            names[int(ins["dst"])] = str(ins["src"])
        if ins.mnemonic == "preload":
            held = ins
            if int(ins["tiles"]) > 1:
                continue
        if ins.mnemonic != "mac" or held is None or int(held["tiles"]) == 1:
            builder.emit(ins.mnemonic, **operands)
            continue
        for tile in range(int(held["tiles"])):
            places = {"src": int(held["src"])} | ({"bias": int(held["bias"])} if held["biased"] else {})
            for at in places.values():
                name = f"{names[at]}.{tile}"
                data[name] = own(data[names[at]], int(held["tiles"]), tile)
                builder.emit("fetch", dst=at, src=name)
            builder.emit("preload", **{k: v for k, v in held.operands.items() if "." not in k} | {"tiles": 1})
            moved = with_words(ins, tile).operands
            builder.emit("mac", **{k: v for k, v in moved.items() if "." not in k and not k.endswith("_next")})
    for label in ends.get(len(section.code), ()):
        builder.label(label)
    sizes = {name: array.size for name, array in data.items()}
    return replace(program, sections=(synchronised(builder.build(), sizes)[0],), data=data)


@settings(max_examples=examples(25), deadline=None, phases=PHASES)
@given(st.data())
def test_they_are_what_single_passes_are(data: st.DataObject) -> None:
    """Numbers, multiply-accumulates, and how busy every element is."""
    arch = data.draw(archs())
    program = data.draw(programs(arch, [Writer.products]))
    x = {"x": np.array(data.draw(st.lists(st.sampled_from([-1.0, 0.5, 1.0]), min_size=30, max_size=30)))}
    words = program.inputs[0].shape[0]
    x = {"x": np.resize(x["x"], (2, 5, words))}
    whole, single = (BACKEND.simulate(p, x, RunSettings(occupancy=True)) for p in (program, one_by_one(program)))
    for name, values in whole.outputs.items():
        np.testing.assert_array_equal(values, single.outputs[name])
    assert whole.stats.macs == single.stats.macs
    np.testing.assert_array_equal(whole.occupancy, single.occupancy)


SHAPE = {"scale": 0, "bias": 0, "rows": 2, "cols": 3, "mode": "mac", "scaled": False, "biased": False, "tiles": 2}
MAC = {"src": 100, "src_pitch": 4, "dst": 200, "dst_pitch": 6, "steps": "one", "accumulate": False}


@pytest.mark.parametrize(
    ("held", "fields", "words", "message"),
    [
        ({}, {"src_next": 2, "dst_next": 2}, 12, "writes results of 3 words 2 words apart"),
        ({}, {"src_next": 3, "dst_next": 3}, 12, "that nothing has written"),
        ({}, {"src_next": 2, "dst_next": 3}, 11, "has 11 weights for 2 x 2 x 3 elements"),
        ({"segments": 2, "span": 1}, {"src_next": 2, "dst_next": 3}, 12, "has 2 tiles"),
        ({}, {"src_next": 2, "dst_next": 3, "dst": 103, "dst_pitch": 6}, 12, "nothing has written"),
    ],
)
def test_traps(held: dict[str, int], fields: dict[str, int], words: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        BACKEND.simulate(program_of(held, fields, words), {"x": np.ones((1, 4, 1))}, RunSettings())


def test_the_array_holds_the_last_tile() -> None:
    """A second pass in turn would begin with the wrong one."""
    with pytest.raises(UserError, match="goes through tiles of weights again"):
        made = program_of({}, {"src_next": 2, "dst_next": 3}, 12, passes=2)
        BACKEND.simulate(made, {"x": np.ones((1, 4, 1))}, RunSettings())


def program_of(held: dict[str, int], fields: dict[str, int], words: int, passes: int = 1) -> Program:
    from backends.epochcore.arch import arch_text
    from isa import Port

    arch = with_changes(load_arch("epochcore-small"), array__handover_steps=0)
    builder = SectionBuilder(EPOCHCORE, "main")
    builder.emit("fetch", dst=0, src="w")
    builder.emit("fill", dst=100, words=4, value=1.0)
    if "dst" not in fields:
        builder.emit("fill", dst=200, words=6, value=1.0)
    builder.emit("preload", src=0, **{**SHAPE, **held})
    for _ in range(passes):
        builder.emit("mac", **{**MAC, **fields})
    builder.emit("store", dst=1, src=200, words=6, steps="one")
    builder.emit("halt")
    streams = [{"kind": "input", "words": 1, "register": "n0"}, {"kind": "output", "words": 6, "register": "one"}]
    return Program(
        target="epochcore",
        isa_version=EPOCHCORE.version,
        arch=arch_text(arch),
        sections=(synchronised(builder.build(), {"w": words})[0],),
        data={"w": np.arange(float(words))},
        locs=(),
        inputs=(Port("x", (1,), "stream", "float64", {"stream": 0}),),
        outputs=(Port("y", (6,), "sequence", "float64", {"stream": 1}),),
        meta={"numbers": "ideal", "streams": streams},
    )
