"""What the machine does beyond what the compiler asks of it, and how it traps."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backends.cim.clock.costs import COSTS
from backends.cim.program.access import ACCESS
from backends.cim.simulate.run import UNITS
from isa.cim import CIM
from isa.cim_vector import BINARY_FUNCTIONS, REDUCE_FUNCTIONS, UNARY_FUNCTIONS
from ssmc.diagnostics import UserError
from ssmc.ir.functions import BINARY, REDUCE, UNARY

from .programs import program, run

ENGINE = {"mvm", "halt", "loop", "every", "recv", "collect", "send", "emit", "keep", "fetch"}  # the simulator's own


def test_every_instruction_has_its_rules() -> None:
    mnemonics = set(CIM.by_mnemonic)
    assert set(UNITS) | ENGINE == mnemonics and not set(UNITS) & ENGINE
    assert set(COSTS) == mnemonics
    assert set(ACCESS) == mnemonics


def test_functions_are_those_of_the_ir() -> None:
    assert tuple(UNARY) == UNARY_FUNCTIONS
    assert tuple(BINARY) == BINARY_FUNCTIONS
    assert tuple(REDUCE) == REDUCE_FUNCTIONS


SUM = """
.section core0
    fill v[4], words=2
    loop rT, done
    recv v[0], words=2, channel=0
    binary v[4], v[4], v[0], words=2, add
    emit v[4], words=2, channel=1
done:
    emit v[4], words=2, channel=2
    halt
"""


@pytest.mark.parametrize("block", [None, 1, 3])
def test_a_register_carried_from_step_to_step(block: int | None) -> None:
    code = program(SUM, inputs="u:stream:2:0", outputs="y:stream:2:1 last:sequence:2:2")
    u = np.random.default_rng(1).normal(size=(3, 7, 2))
    got = run(code, u=u, block=block)
    assert np.allclose(got.outputs["y"], np.cumsum(u, 1), rtol=1e-13)
    assert np.array_equal(got.outputs["last"], got.outputs["y"][:, -1])


LATE = """
.section core0
    fill v[2], words=1
    loop rT, done
    recv v[0], words=1, channel=0
    every stride=3, offset=1, skip
    copy v[2], v[0], words=1
skip:
    emit v[2], words=1, channel=1
done:
    halt
"""


@pytest.mark.parametrize("block", [None, 1, 4])
def test_a_word_of_fewer_steps_is_held(block: int | None) -> None:
    code = program(LATE, inputs="u:stream:1:0", outputs="y:stream:1:1")
    u = np.arange(8.0).reshape(1, 8, 1)
    got = run(code, u=u, block=block).outputs["y"]
    assert got.ravel().tolist() == [0, 1, 1, 1, 4, 4, 4, 7]


def test_messages_go_round_between_cores() -> None:
    code = program(
        """
.section core0
    loop rT, done
    recv v[0], words=2, channel=0
    send v[0], words=2, channel=5, core=3
    recv v[2], words=2, channel=6
    binary v[2], v[2], v[0], words=2, sub
    emit v[2], words=2, channel=1
done:
    halt
.section core3
    loop rT, done
    recv v[0], words=2, channel=5
    unary v[0], v[0], words=2, square
    send v[0], words=2, channel=6, core=0
done:
    halt
""",
        inputs="u:stream:2:0",
        outputs="y:stream:2:1",
    )
    u = np.random.default_rng(1).normal(size=(2, 5, 2))
    for block in (None, 1, 2):
        assert np.array_equal(run(code, u=u, block=block).outputs["y"], u**2 - u)


def traps(code: Any, *words: str, **given: Any) -> str:
    with pytest.raises(UserError) as caught:
        run(code, **given)
    message = str(caught.value)
    for word in words:
        assert word in message, message
    return message


def looped(body: str, setup: str = "", **data: Any) -> Any:
    text = f"""
.section core0
.loc 0 "layer" op=unary "Node_7"
    loop rT, done
    recv v[0], words=4, channel=0
{body}
    emit v[0], words=4, channel=1
done:
    halt
"""
    if setup:
        text += f".section core0.setup\n{setup}\n    halt\n"
    return program(text, inputs="u:stream:4:0", outputs="y:stream:4:1", **data)


def test_register_read_before_write() -> None:
    code = looped("    unary v[0], v[9], words=4, tanh")
    traps(code, "read before it is written", "core0, instruction 2 (unary)", "layer 'layer'", "Node_7", "v[9]")


def test_unprogrammed_array_read() -> None:
    weights = {"w": np.ones((4, 2)), "s": np.ones(2)}
    setup = "    program array=1, row=0, col=0, @w, @s"
    code = looped("    mvm v[0], v[0], array=1, row=0, rows=4, col=0, cols=3", setup, **weights)
    traps(code, "array 1 is read where it has not been programmed", "columns 0..2", "(mvm)", "Node_7")
    never = looped("    mvm v[0], v[0], array=2, row=0, rows=4, col=0, cols=2", setup, **weights)
    traps(never, "array 2 is read where it has not been programmed")


def test_array_programmed_twice_or_outside() -> None:
    weights = {"w": np.ones((4, 2)), "s": np.ones(2)}
    twice = "    program array=0, row=0, col=0, @w, @s\n    program array=0, row=3, col=1, @w, @s"
    traps(looped("", twice, **weights), "programmed twice", "core0.setup, instruction 1 (program)")
    traps(looped("", "    program array=0, row=6, col=0, @w, @s", **weights), "outside of the array")
    traps(looped("", "    program array=3, row=0, col=0, @w, @s", **weights), "array 3 is outside")


def test_deadlock_names_the_waiting_cores() -> None:
    code = program(
        """
.section core0
    loop rT, done
    recv v[0], words=2, channel=7
    send v[0], words=2, channel=8, core=4
done:
    halt
.section core4
    loop rT, done
    recv v[0], words=2, channel=8
    send v[0], words=2, channel=7, core=0
done:
    halt
"""
    )
    code = program_with_steps(code)
    traps(code, "deadlock", "core 0 for channel 7", "core 4 for channel 8")


def program_with_steps(code: Any) -> Any:
    """The same program with an input that tells how many steps there are."""
    from isa import Port

    return replace(code, inputs=(Port("u", (1,), "stream", "float64", {"channel": 0}),))


@pytest.mark.parametrize("wrong", [-0.5, np.nan])
@pytest.mark.parametrize("what", ["charge", "dstate", "tick"])
def test_time_does_not_run_backwards(wrong: float, what: str) -> None:
    body = {
        "charge": "    charge v[0], v[0], words=2, node=0, @r, dt=v[3], timed",
        "dstate": "    dstate v[0], v[0], words=2, node=0, @r, dt=v[3], timed",
        "tick": "    tick clock=0, dt=v[3], timed",
    }[what]
    code = looped(body, r=np.array([-1.0, -2.0]))
    u = np.abs(np.random.default_rng(0).normal(size=(2, 4, 4)))
    run(code, u=u)
    u[1, 2, 3] = wrong
    traps(code, "elapsed time of event 2 of sample 1", f"({what})", "Node_7", u=u)


def test_states_outside_their_window_are_counted() -> None:
    code = looped("    charge v[0], v[0], words=2, node=0, @r, window=1.5", r=np.array([-0.1, -0.1]))
    u = np.full((1, 3, 4), 1.0)
    notes = run(code, u=u).stats.notes
    assert notes["states outside their window"] == {"layer": 4}  # 1.0, 1.9, 2.7: two of three, both nodes


@pytest.mark.parametrize("rate", [0.0, 0.1, np.nan])
@pytest.mark.parametrize("noise", [None, "ideal"])
def test_volatile_states_only_decay(rate: float, noise: str | None) -> None:
    code = looped("    charge v[0], v[0], words=2, node=0, @r", r=np.array([-0.1, rate]))
    traps(code, "can only decay", f"of 'r' is {rate:g}", "(charge)", "Node_7", "dstate", noise=noise)


def test_out_of_range() -> None:
    traps(looped("    charge v[0], v[0], words=2, node=4, @r", r=np.array([-1.0, -1.0])), "volatile bank of 5")
    traps(looped("    gather v[0], v[0], span=2, @i", i=np.array([0, 5])), "index of 0..5 is outside of 2 words")
    table = looped("    embed v[0], v[0], count=1, @t", t=np.ones((3, 4)))
    traps(table, "row 3 is outside of a table of 3 rows", "whole numbers from -3 to 2", u=np.full((1, 2, 4), 3.0))
    traps(looped("    send v[0], words=1, channel=9, core=9"), "core 9, which runs nothing")
    traps(looped("    fetch v[0], words=1, buffer=3"), "buffer 3 is empty")


def test_bodies_must_nest() -> None:
    code = program(
        """
.section core0
    loop rT, inner
    every stride=2, outer
inner:
    fill v[0], words=1
outer:
    halt
"""
    )
    traps(program_with_steps(code), "ends outside of its own block")


def test_sections_have_names_of_cores() -> None:
    traps(program_with_steps(program(".section main\n    halt\n")), "no place for the section 'main'")


def test_wrong_inputs() -> None:
    code = looped("")
    traps(code, "has the shape (2, 4, 3)", u=np.zeros((2, 4, 3)))
    traps(code, "has no input 'v'", v=np.zeros(3))
    traps(code, "the inputs hold no sample", u=np.zeros((0, 3, 4)))
    with pytest.raises(UserError, match=re.escape("the input 'u' is missing")):
        from backends.cim import BACKEND
        from ssmc.target import RunSettings

        BACKEND.simulate(code, {}, RunSettings())


def test_no_such_preset() -> None:
    traps(looped(""), "no noise preset 'loud'", "pcm", noise="loud")


def test_nothing_to_pool() -> None:
    code = program(
        """
.section core0
    loop rT, done
    recv v[0], words=1, channel=0
    pool v[0], words=1, line=0, mean
done:
    pooled v[0], words=1, line=0
    emit v[0], words=1, channel=1
    halt
""",
        inputs="u:stream:1:0",
        outputs="y:sequence:1:1",
    )
    traps(code, "nothing to pool", u=np.zeros((2, 0, 1)))


@pytest.mark.parametrize(
    ("body", "wrong", "told"),
    [
        ("charge v[0], v[0], words=2, node=0, @r", np.full(3, -0.5), "has the shape (3,)"),
        ("charge v[0], v[0], words=2, node=0, @r", np.full((1, 2), -0.5), "takes (2)"),
        ("charge v[0], v[0], words=2, node=0, @r", np.full(2, -0.5 + 1j), "holds complex128"),
        ("dstate v[0], v[0], words=4, node=0, @r, complex", np.full(2, 0.5), "takes (4)"),
        ("spike v[0], v[0], words=2, node=0, @r", np.ones((5, 1)), "takes (5, 2)"),
        ("fir v[0], v[0], words=2, @r, line=0", np.ones(2), "takes (2, taps)"),
        ("norm v[0], v[0], features=4, layer, epsilon=1e-5, scale=@r", np.ones(1), "takes (4)"),
        ("gather v[0], v[0], span=4, @r", np.zeros(4), "takes whole numbers"),
        ("embed v[0], v[0], count=1, @r", np.zeros(4), "takes (rows, features)"),
        ("load v[0], @r", np.zeros(0), "is empty"),
    ],
)
def test_constants_of_another_shape_or_kind(body: str, wrong: np.ndarray, told: str) -> None:
    traps(looped(f"    {body}", r=wrong), "the constant 'r'", told, "core0, instruction 2", "Node_7")


@pytest.mark.parametrize(("weights", "scale"), [((4, 2), (1,)), ((4, 2), (3,)), ((4,), (4,)), ((1, 4, 2), (2,))])
def test_weights_of_another_shape(weights: tuple[int, ...], scale: tuple[int, ...]) -> None:
    setup = "    program array=0, row=0, col=0, @w, @s"
    code = looped("", setup, w=np.ones(weights), s=np.ones(scale))
    traps(code, "the constant", "has the shape", "core0.setup, instruction 0 (program)")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("copy v[65534], v[0], words=4", "there is no register v[65537]"),
        ("recv v[70000], words=4, channel=0", "there is no register v[70003]"),
        ("emit v[0], words=2, channel=1", "2 words are sent to an output of 4"),
        ("emit v[0], words=4, channel=1", "sent to twice"),
        (
            "pool v[0], words=4, line=0, mean\n    delay v[0], v[0], words=4, steps=2, line=0",
            "line 0 holds something else",
        ),
        (
            "delay v[0], v[0], words=4, steps=2, line=0\n    pool v[0], words=4, line=0, mean",
            "line 0 holds something else",
        ),
        ("rot v[0], v[0], words=4, @r, clock=3", "clock 3 does not run"),
        ("tick clock=0\n    rot v[0], v[0], words=3, @one, clock=0", "halves re|im"),
        ("embed v[0], v[0], count=1, @wide", "the table memory does not hold 'wide'"),
    ],
)
@pytest.mark.parametrize("block", [None, 1])
def test_what_the_chip_does_not_have(body: str, told: str, block: int | None) -> None:
    data = {"r": np.ones(2), "one": np.ones(1), "wide": np.zeros((3, 4))}
    used = {name: array for name, array in data.items() if f"@{name}" in body}
    code = looped(f"    {body}", **used)
    if "wide" in body:
        code = replace(code, arch=code.arch.replace("table_words: 8388608", "table_words: 11"))
    traps(code, told, "core0, instruction", "Node_7", block=block)


def test_programs_that_no_chip_runs() -> None:
    body = "    loop rT, in\n    copy v[0], v[0], words=4\nin:\n    copy v[0], v[0], words=4"
    traps(looped(body), "a loop stands within a loop", "instruction 0")
    text = """
.section core150
    loop rT, done
    recv v[0], words=4, channel=0
done:
    halt
"""
    ports = {"inputs": "u:stream:4:0", "outputs": "y:stream:4:1"}
    traps(program(text, **ports), "the chip has no core 150", "150 cores")
    traps(program(text.replace("150", "1"), **ports), "nothing is sent to the output on channel 1")


@pytest.mark.parametrize(
    ("scale", "told"), [([1.0, 0.0], "full conductance must stand"), ([1.0, 0.9], "larger than what full conductance")]
)
def test_weights_beyond_their_scale(scale: list[float], told: str) -> None:
    setup = "    program array=0, row=0, col=0, @w, @s"
    traps(looped("", setup, w=np.ones((4, 2)), s=np.array(scale)), told, "core0.setup, instruction 0 (program)")
