"""What one execution of each instruction takes, worked out by hand: lanes of 4 words, energies that are told apart."""

from __future__ import annotations

import numpy as np
import pytest

from backends.cim.clock.costs import COSTS, cost
from backends.cim.program.decode import decode
from isa import load_set

from .chips import changed
from .programs import program

CHIP = changed(
    timing={"program_cycles": 90},
    vector={"lanes": 4, "norm_cycles": 7},
    volatile={"charge_cycles": 2, "read_cycles": 3},
    mesh={"words_per_flit": 3},
    energy={
        "vector_word": 1.0,
        "table_word": 10.0,
        "mesh_word_hop": 100.0,
        "digital_state": 0.5,
        "state_charge": 1000.0,
        "state_read": 2000.0,
        "program_device": 5.0,
        "control": 0.0,
    },
)
TEN, PAIRS = np.ones(10), np.ones(5) + 0j

# instruction, data of @d (and @e), cycles, pJ, multiply-accumulates
WORK = [
    ("fill v[0], words=10", (), 3, 10, 0),
    ("copy v[0], v[20], words=8", (), 2, 8, 0),
    ("binary v[0], v[20], v[40], words=9, add", (), 3, 9, 0),
    ("select v[0], v[20], v[40], v[60], words=9", (), 3, 9, 0),
    ("gate v[0], v[20], v[40], words=10, sigmoid", (), 6, 20, 0),
    ("tick clock=0", (), 1, 0, 0),
    ("rot v[0], v[20], words=10, @d, clock=0", (np.ones(5),), 6, 20, 0),
    ("unary v[0], v[20], words=10, tanh", (), 3, 110, 0),
    ("load v[0], @d", (TEN,), 3, 10, 0),
    ("gather v[0], v[20], span=20, @d", (np.arange(10),), 3, 10, 0),
    ("embed v[0], v[20], count=2, @d", (np.ones((3, 5)),), 3, 110, 0),
    ("norm v[0], v[20], features=4, vectors=3, groups=2, layer, epsilon=1e-5", (), 3 * 3 + 3 * 2 * 7, 36, 0),
    ("softmax v[0], v[20], features=4, vectors=3", (), 3 * 3 + 3 * 7, 36, 0),
    ("reduce v[0], v[20], outer=2, words=3, inner=5, sum", (), 8, 30, 0),
    ("contract v[0], v[20], v[40], groups=2, rows=3, inner=4, cols=1", (), 6, 24, 24),
    ("fir v[0], v[20], words=2, line=0, @d", (np.ones((2, 5)),), 3, 10, 10),
    ("delay v[0], v[20], words=10, line=0, steps=3", (), 3, 10, 0),
    ("prime v[0], words=3, line=0, steps=3", (), 3, 9, 0),
    ("tail v[0], words=3, line=0, steps=3", (), 3, 9, 0),
    ("pool v[0], words=10, line=0, sum", (), 3, 10, 0),
    ("pooled v[0], words=10, line=0", (), 3, 10, 0),
    ("window v[0], words=10, line=0, steps=3, sum", (), 3, 10, 0),
    ("windowed v[0], words=10, line=0", (), 3, 10, 0),
    ("send v[0], words=10, channel=1, core=1", (), 4, 1000, 0),
    ("emit v[0], words=10, channel=1", (), 4, 1000, 0),
    ("keep v[0], words=10, buffer=0", (), 4, 1000, 0),
    ("fetch v[0], words=10, buffer=0", (), 4, 1000, 0),
    ("recv v[0], words=10, channel=1", (), 1, 0, 0),
    ("collect v[0], words=10, channel=1, copies=2", (), 1, 0, 0),
    ("program array=0, row=0, col=0, @d, scale=@e", (np.ones((6, 5)), np.ones(5)), 6 * 90, 2 * 30 * 5, 0),
    ("charge v[0], v[20], words=10, node=0, @d", (-TEN,), 2 + 3 + 3, 30000, 10),
    ("charge a[0], v[20], words=10, node=0, @d", (-TEN,), 2 + 3 + 3, 30000, 10),
    ("charge v[0], a[0], words=10, node=0, @d", (-TEN,), 2 + 3 + 3, 30000, 10),
    ("charge a[0], a[0], words=10, node=0, @d", (-TEN,), 2 + 3, 30000, 10),
    ("dstate v[0], v[20], words=10, node=0, @d", (TEN / 2,), 3, 5, 10),
    ("dstate v[0], v[20], words=10, node=0, @d, dt=v[40], timed", (-TEN,), 6, 10, 10),
    ("dstate v[0], v[20], words=10, node=0, @d, complex", (PAIRS / 2,), 6, 10, 20),
    ("sel v[0], v[20], v[40], words=10, node=0", (), 3, 5, 10),
    ("sel v[0], v[20], v[40], words=10, node=0, complex", (), 6, 10, 20),
    ("spike v[0], v[20], words=10, node=0, @d", (np.ones((5, 10)),), 6, 10, 10),
    ("preset v[0], words=10, node=0, volatile", (), 3, 10000, 0),
    ("preset v[0], words=10, node=0, digital", (), 3, 5, 0),
    ("read v[0], words=10, node=0, volatile", (), 3, 20000, 0),
    ("read v[0], words=10, node=0, digital", (), 3, 5, 0),
    ("rounded v[0], v[20], words=10, node=0, @d, round_state", (np.ones((9, 10)),), 9, 15, 10),
    ("rounded v[0], v[20], words=10, node=0, @d, round_state, round_sum", (np.ones((9, 10)),), 15, 25, 10),
    ("rounded.sums v[0], v[20], words=10, node=0, @d, terms=@e", (np.ones((7, 10)), np.ones((4, 12))), 8, 16, 12),
]


@pytest.mark.parametrize(("line", "data", "cycles", "picojoules", "macs"), WORK, ids=[row[0] for row in WORK])
def test_an_instruction(line: str, data: tuple[np.ndarray, ...], cycles: int, picojoules: float, macs: int) -> None:
    text = f".section core0\n    {line}\n    halt\n"
    code = program(text, CHIP, **dict(zip("de", data, strict=False)))
    one = cost(decode(code.section("core0"))[0], CHIP, code.data)
    assert (one.cycles, one.picojoules, one.macs) == (cycles, pytest.approx(picojoules), macs)


def test_every_instruction_is_here() -> None:
    elsewhere = {"mvm", "halt", "loop", "every"}
    assert {line.split()[0] for line, *_ in WORK} | elsewhere == {
        spec.mnemonic for spec in load_set("cim").instructions
    }
    assert COSTS.keys() == {spec.mnemonic for spec in load_set("cim").instructions}


def test_every_execution_is_fetched() -> None:
    chip = changed(energy={"control": 3.0, "vector_word": 1.0})
    code = program(".section core0\n    fill v[0], words=4\n    halt\n", chip)
    fill, halt = decode(code.section("core0"))
    assert cost(fill, chip, code.data).picojoules == 7.0 and cost(halt, chip, code.data).picojoules == 3.0
