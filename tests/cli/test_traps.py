"""Programs written by hand: assembled and run from the command line, each trap a message and status 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from isa import load_set
from ssmc.target import backend
from tests.cli.conftest import Ssmc

CIM = backend("cim")
ARCH = "\n".join(f"| {line}" for line in CIM.arch_text(CIM.load_arch("cim-published")).splitlines())
HEAD = f""".isa cim {load_set("cim").version}
.arch
{ARCH}
.input u stream [4] float64 binding={{"channel": 0}}
.output y stream [4] float64 binding={{"channel": 1}}
.data @r float64 [4]
"""


def write(folder: Path, body: str, rates: float = -0.1) -> None:
    text = f""".section core0
.loc 0 "layer" op=unary "Node_7"
    loop rT, done
    recv v[0], words=4, channel=0
    {body}
    emit v[0], words=4, channel=1
done:
    halt
"""
    (folder / "p.asm").write_text(HEAD + text)
    save_file({"r": np.full(4, rates)}, folder / "p.data")


@pytest.fixture
def inputs(folder: Path) -> np.ndarray:
    u = np.ones((2, 5, 4))
    np.savez(folder / "u.npz", u=u)
    return u


def test_a_program_by_hand_runs(ssmc: Ssmc, folder: Path, inputs: np.ndarray) -> None:
    write(folder, "charge v[0], v[0], words=4, node=0, @r")
    assert ssmc("asm", "p.asm", "--data", "p.data", "-o", "p.ssmx").status == 0
    told = ssmc("run", "p.ssmx", "--input", "u.npz", "--output", "y.npz", "--noise", "ideal")
    assert told.status == 0 and "y: float64 (2, 5, 4)" in told.out
    kernel = np.exp(-0.1 * np.arange(5))
    np.testing.assert_allclose(np.load("y.npz")["y"][1, :, 2], np.cumsum(kernel), rtol=1e-12)


@pytest.mark.parametrize(
    ("body", "rate", "says"),
    [
        ("unary v[0], v[9], words=4, tanh", -1.0, ["read before it is written", "v[9]", "(unary)"]),
        ("mvm v[0], v[0], array=2, row=0, rows=4, col=0, cols=4", -1.0, ["array 2", "not been programmed", "(mvm)"]),
        ("recv v[4], words=4, channel=7", -1.0, ["deadlock", "core 0 for channel 7"]),
        ("charge v[0], v[0], words=4, node=0, @r", 0.1, ["can only decay", "0.1", "(charge)"]),
        ("charge v[0], v[0], words=4, node=0, @r", 0.0, ["can only decay", "(charge)"]),
        ("charge v[0], v[0], words=2, node=0, @r", -1.0, ["has the shape (4,)", "takes (2)"]),
        ("charge v[0], v[0], words=4, node=0, @r, window=1.5", -0.1, ["left their window", "--strict", "(charge)"]),
    ],
)
def test_traps(ssmc: Ssmc, folder: Path, inputs: np.ndarray, body: str, rate: float, says: list[str]) -> None:
    write(folder, body, rate)
    assert ssmc("asm", "p.asm", "--data", "p.data", "-o", "p.ssmx").status == 0
    before = set(folder.iterdir())
    told = ssmc("run", "p.ssmx", "--input", "u.npz", "--output", "y.npz", "--strict")
    assert told.status == 2 and told.out == "" and told.err.startswith("error: ") and set(folder.iterdir()) == before
    assert "deadlock" in says or "layer 'layer' (unary from Node_7)" in told.err
    for part in says:
        assert part in told.err


def test_states_outside_of_their_window_are_counted_by_layer(ssmc: Ssmc, folder: Path, inputs: np.ndarray) -> None:
    write(folder, "charge v[0], v[0], words=4, node=0, @r, window=1.5")
    ssmc("asm", "p.asm", "--data", "p.data", "-o", "p.ssmx")
    told = ssmc("run", "p.ssmx", "--input", "u.npz")
    assert told.status == 0 and "states outside their window: layer 32" in told.out


@pytest.mark.parametrize(("time", "says"), [(-0.5, "elapsed time of event 3 of sample 1"), (np.nan, "'u' is nan")])
def test_times(ssmc: Ssmc, folder: Path, inputs: np.ndarray, time: float, says: str) -> None:
    write(folder, "charge v[0], v[0], words=4, node=0, @r, dt=v[3], timed")
    ssmc("asm", "p.asm", "--data", "p.data", "-o", "p.ssmx")
    inputs[1, 3, 3] = time
    np.savez("u.npz", u=inputs)
    told = ssmc("run", "p.ssmx", "--input", "u.npz")
    assert told.status == 2 and says in told.err
