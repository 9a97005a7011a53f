"""The machine traps: every mistake of a program is told with instruction, layer and ONNX node."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backends.epochcore import BACKEND
from backends.epochcore.arch import arch_text, load_arch
from backends.epochcore.program.parameters import param_words
from isa import Instruction
from isa.assembler import assemble
from isa.epochcore import EPOCHCORE
from isa.frozen import FrozenMap
from ssmc.diagnostics import UserError
from ssmc.ir import Graph, StreamType, Tensor
from ssmc.target import RunSettings
from tests.backends.epochcore.test_directions import Shape
from tests.backends.epochcore.test_directions import graph as layers

STREAMS = '[{"kind": "input", "register": "n0", "words": 4}, {"kind": "output", "register": "n0", "words": 4}]'
HEAD = "\n".join(
    [
        f".isa epochcore {EPOCHCORE.version}",
        ".arch",
        *(f"| {line}" for line in arch_text(load_arch("epochcore-small{array.handover_steps=8}")).splitlines()),
        '.input x stream [4] float64 binding={"optional": false, "stream": 0}',
        '.output y stream [4] float64 binding={"stream": 1}',
        ".data @w float64 [4, 4] values=[" + ", ".join(["0.5"] * 16) + "]",
        ".data @a float64 [4] values=[0.5, 0.5, 0.5, 0.5]",
        '.meta numbers "ideal"',
        f".meta streams {STREAMS}",
        ".section main",
        '.loc 0 "layer7" op=tile.matmul "/model/MatMul_3"',
    ]
)
FETCH = "fetch param[0], @w\nfetch param[100], @a\nsamples end\n"
PRELOAD = "preload param[0], param[0], param[0], rows=4, cols=4, mac\n"
CUT = PRELOAD.replace("mac", "mac, segments={}, span={}")
LOOP = "chunks limit=16, end\n"
LOAD = "load spad[0], stream[0], words=4, n0\n"
MAC = "mac spad[64], dst_pitch=4, spad[0], src_pitch=4, n0\n"
STORE = "store stream[1], spad[64], words=4, n0\n"
END = ".loc none\nend: halt\n"


def run(code: str) -> np.ndarray:
    program = assemble(f"{HEAD}\n{code}")
    return BACKEND.simulate(program, {"x": np.ones((2, 40, 4))}, RunSettings()).outputs["y"]


def test_the_program_runs_when_it_is_right() -> None:
    np.testing.assert_array_equal(run(FETCH + LOOP + PRELOAD + LOAD + MAC + STORE + END), np.full((2, 40, 4), 2.0))


HOLD = "preload param[100], param[0], param[0], rows=1, cols=4, fri.x\n"
FILL, HELD = "fill spad[128], words=4\n", "state.load spad[128], words=4\n"
OUT = "state.store spad[128], words=4\n"
FRI = "fri.x spad[64], dst_pitch=4, spad[0], src_pitch=4, n0\n"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (FETCH + LOOP + PRELOAD + MAC + STORE + END, "reads 4 words at spad[0] (rows by n0) that nothing has written"),
        (FETCH + LOOP + PRELOAD + LOAD + STORE + END, "spad[64]"),
        (FETCH + LOOP + LOAD + MAC + STORE + END, "on an array that holds nothing"),
        (FETCH + LOOP + HOLD + LOAD + MAC + STORE + END, "array that holds parameters for fri.x"),
        (FETCH + LOOP + HOLD + LOAD + FRI + STORE + END, "on elements without its states"),
        (FETCH + FILL + LOOP + HOLD + LOAD + HELD + FRI + OUT + OUT + END, "takes states out that are out already"),
        ("samples end\n" + LOOP + PRELOAD + LOAD + MAC + STORE + END, "param[0], where no constant was fetched"),
        (FETCH + LOOP + PRELOAD + "load spad[32760], stream[0], words=4, n0\n" + END, "outside the scratchpad"),
        ("fetch param[32760], @w\nsamples end\n" + END, "outside the parameter memory"),
        (FETCH + LOOP + PRELOAD.replace("rows=4", "rows=17") + LOAD + MAC + STORE + END, "needs 17 x 4 elements"),
        (FETCH + LOOP + PRELOAD.replace("rows=4", "rows=3") + LOAD + MAC + STORE + END, "16 weights for 3 x 4"),
        (
            FETCH + LOOP + PRELOAD.replace("mac", "mac, biased") + LOAD + MAC + STORE + END,
            "has 16 biases for 4 columns",
        ),
        (
            FETCH + LOOP + PRELOAD.replace("mac", "mac, scaled") + LOAD + MAC + STORE + END,
            "has 16 scales for 4 columns",
        ),
        (FETCH + LOOP + "load spad[0], stream[9], words=4, n0\n" + END, "stream[9], which has not been given"),
        (FETCH + LOOP + "chunks limit=2, inner\ninner:\n" + LOAD + END, "within another loop over chunks"),
        (FETCH + LOOP + LOAD + "rate n2, n1, stride=2\n" + END, "counts by the register n1"),
        (FETCH + "state.load spad[0], words=4\n" + END, "moves states of an array that holds no parameters"),
        (FETCH + LOOP.replace("end", "end, multiple=3") + LOAD + END, "16 steps, which is no multiple of 3"),
        (FETCH + LOOP + CUT.format(3, 5) + LOAD + MAC + STORE + END, "up to 16 steps in 3 segments of 5"),
        (FETCH + PRELOAD + LOOP + LOAD + MAC + CUT.format(4, 4) + STORE + END, "other parameters in the array"),
    ],
)
def test_traps(code: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        run(code)
    text = str(caught.value)
    assert message in text
    assert "instruction " in text and "layer 'layer7'" in text and "/model/MatMul_3" in text


def test_the_last_word_of_a_memory_is_one() -> None:
    memory = load_arch("epochcore-small").memory
    constant = param_words(np.full((4, 4), 0.5), memory.word_bits)
    for extra in (0, 1):
        spad, param = memory.scratchpad_words - 16 * 4 + extra, memory.parameter_words - constant + extra
        load, mac = LOAD.replace("spad[0]", f"spad[{spad}]"), MAC.replace("spad[0]", f"spad[{spad}]")
        moved = (f"fetch param[{param}], @w\nsamples end\n", PRELOAD.replace("param[0]", f"param[{param}]", 1))
        for code in (FETCH + LOOP + PRELOAD + load + mac, moved[0] + LOOP + moved[1] + LOAD + MAC):
            if extra:
                with pytest.raises(UserError, match=r"outside the (scratchpad|parameter memory)"):
                    run(code + STORE + END)
            else:
                np.testing.assert_array_equal(run(code + STORE + END), np.full((2, 40, 4), 2.0))


@pytest.mark.parametrize("store", ["", FILL + "store stream[1], spad[128], words=4, one\n"])
def test_an_output_that_is_not_stored_is_none(store: str) -> None:
    with pytest.raises(UserError, match=r"(?s)the program does not store its output 'y'.*2 x 40 x 4 words"):
        run(FETCH + LOOP + PRELOAD + LOAD + MAC + store + END)


def test_what_lies_where_something_else_is_read_is_told() -> None:
    with pytest.raises(UserError, match=r"instruction \d+ \(load\) wrote rows by n0, a pitch of 5 words at spad\[0\]"):
        run(FETCH + LOOP + PRELOAD + "load spad[0], stream[0], words=5, n0\n" + MAC + STORE + END)


def test_what_the_end_of_a_loop_overwrites_is_missed_at_its_beginning() -> None:
    """The first round reads what was written before the loop; the second would not find it."""
    copy = "copy spad[64], dst_pitch=4, spad[200], src_pitch=4, words=4, n0, src_held\n"
    before, after = "fill spad[200], words=4\n", "load spad[198], stream[0], words=4, n0\n"
    assert run("samples end\n" + before + LOOP + copy + STORE + END).shape == (2, 40, 4)
    with pytest.raises(UserError, match=r"instruction 3 \(copy\).*reads 4 words at spad\[200\]"):
        run("samples end\n" + before + LOOP + copy + STORE + after + END)


def test_a_row_outside_a_table() -> None:
    graph = Graph()
    token = graph.add("input", attrs={"name": "t", "type": StreamType((), "index")})
    rows = graph.add("embed", [token], {"table": Tensor(np.eye(3))}, name="words", provenance=["/Gather"])
    graph.add("output", [rows], {"name": "y"})
    program = BACKEND.lower(graph, load_arch(None), ideal=True)
    with pytest.raises(UserError, match=r"layer 'words' \(embed\), ONNX node /Gather: looks up row 7 of a table"):
        BACKEND.simulate(program, {"t": np.array([[0, 7]])}, RunSettings())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "the input 'x' is missing"),
        ({"z": np.ones((1, 2, 4))}, "the model has no input 'z'"),
        ({"x": np.ones((1, 2, 5))}, r"the input 'x' has the shape \(1, 2, 5\)"),
        ({"x": np.ones((2, 4))}, r"the input 'x' has the shape \(2, 4\)"),
    ],
)
def test_wrong_inputs(inputs: dict[str, np.ndarray], message: str) -> None:
    program = assemble(f"{HEAD}\n{FETCH + LOOP + PRELOAD + LOAD + MAC + STORE + END}")
    with pytest.raises(UserError, match=message):
        BACKEND.simulate(program, inputs, RunSettings())


def test_tokens_that_never_come() -> None:
    """The waiting engines are named, each with its instruction and what it waits for."""
    waiting = MAC.replace("n0\n", "n0, pop.load, push.store\n")
    with pytest.raises(UserError) as caught:
        run(FETCH + LOOP + PRELOAD + LOAD + waiting + STORE.replace("n0\n", "n0, pop.compute\n") + END)
    text = str(caught.value)
    assert "deadlock" in text and "layer 'layer7'" in text
    assert "compute waits for a token from load at instruction 6 (mac" in text
    assert "store waits for a token from compute at instruction 7 (store" in text
    pushed = LOAD.replace("n0\n", "n0, push.compute\n")
    stored = STORE.replace("n0\n", "n0, pop.compute\n")
    assert run(FETCH + LOOP + PRELOAD + pushed + waiting + stored + END).shape == (2, 40, 4)


def test_words_that_are_read_before_they_are_there() -> None:
    """Where engines wait for tokens alone, a token too few is told with both instructions; the right ones will do."""
    machine = HEAD.replace("handover_steps: 8", "handover_steps: 0")
    load, mac = LOAD.replace("n0\n", "n0, push.compute\n"), MAC.replace("n0\n", "n0, pop.load\n")
    preload = PRELOAD.replace("mac\n", "mac, pop.load\n")
    fetch = FETCH.replace("@w\n", "@w, push.preload\n")

    def told(load: str, mac: str, store: str = STORE, steps: int = 16) -> str:
        code = f"{machine}\n{fetch}{LOOP}{preload}{load}{mac}{store}{END}"
        try:
            BACKEND.simulate(assemble(code), {"x": np.ones((1, steps, 4))}, RunSettings())
        except UserError as error:
            return str(error)
        return ""

    early = told(LOAD, MAC)
    assert "instruction 6 (mac)" in early and "layer 'layer7'" in early
    assert (
        "before instruction 5 (load, layer 'layer7') has ended" in early and "compute does not wait for load" in early
    )
    stored = told(load, mac)
    assert "instruction 7 (store)" in stored and "before instruction 6 (mac" in stored
    mac = mac.replace("pop.load", "pop.load, push.store")
    store = STORE.replace("n0\n", "n0, pop.compute\n")
    assert told(load, mac, store) == ""
    # the next chunk's words come while those of the one before are being read
    fetch, preload = fetch.replace("samples end\n", "sync preload, pop.load\nsamples end\n"), PRELOAD
    assert "(load)" in told(load, mac, store, steps=40)


def test_settings() -> None:
    program = assemble(f"{HEAD}\n{FETCH + LOOP + PRELOAD + LOAD + MAC + STORE + END}")
    with pytest.raises(UserError, match="no noise preset 'loud'"):
        BACKEND.simulate(program, {"x": np.ones((1, 2, 4))}, RunSettings(noise="loud"))
    with pytest.raises(UserError, match="a block of 0 steps"):
        BACKEND.simulate(program, {"x": np.ones((1, 2, 4))}, RunSettings(block=0))
    empty = BACKEND.simulate(program, {"x": np.ones((2, 0, 4))}, RunSettings())
    assert empty.outputs["y"].shape == (2, 0, 4)


def test_tokens_that_never_come_where_engines_hand_over_step_by_step() -> None:
    """The clock goes without tokens there, the machine does not."""
    program = BACKEND.lower(layers(Shape()), load_arch("epochcore-128"), ideal=True)
    x, section = {"x": np.ones((2, 40, 4))}, program.sections[0]
    BACKEND.simulate(program, x, RunSettings())
    place, name = next((n, name) for n, ins in enumerate(section.code) for name in _pushed(ins))
    lacking = replace(section.code[place], operands=FrozenMap({**section.code[place].operands, name: False}))
    code = (*section.code[:place], lacking, *section.code[place + 1 :])
    with pytest.raises(UserError, match="deadlock: engines wait for tokens"):
        BACKEND.simulate(replace(program, sections=(replace(section, code=code),)), x, RunSettings())


def _pushed(ins: Instruction) -> list[str]:
    return [name for name, value in ins.operands.items() if name.startswith("push.") and value]
