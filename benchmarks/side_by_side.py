"""`python -m benchmarks.side_by_side PYTHON`: the same products on cim's crossbars and on aihwkit's tiles.

PYTHON is the interpreter of an environment of its own, made once with `python -m venv E && E/bin/pip install aihwkit`.
Prints errors and their histograms, and products a second of one thread's processor time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ks_2samp

from backends.cim import BACKEND
from backends.cim.arch import Architecture
from benchmarks.products import SIZE, rate
from isa import assemble
from ssmc.driver import INSTRUCTION_SETS
from ssmc.target import RunSettings

PEER = Path(__file__).parent / "aihwkit_peer.py"
ROWS, COLS, VECTORS, DEVICES = 128, 96, 200, 8
DAC_BITS = 7  # aihwkit's default of 1/(2^7 - 2) is a step of the whole range
WINDOW = (0.0, 25.0)  # uS, as aihwkit's PCM
WHAT = {"quiet": {}, "pcm": {"programming": "pcm"}}


def theirs(python: str, weights: Any, inputs: Any, settings: str, seed: int, repeats: int = 1) -> dict[str, Any]:
    """What aihwkit says. Raises CalledProcessError, with its words, where it does not run."""
    asked = {"weights": weights.tolist(), "inputs": inputs.tolist(), "tile": ROWS, "settings": settings}
    text = json.dumps(asked | {"seed": seed, "repeats": repeats})
    run = subprocess.run([python, str(PEER)], input=text, capture_output=True, text=True)
    if run.returncode:
        print(run.stderr, file=sys.stderr)
        run.check_returncode()
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def ours(weights: Any, inputs: Any, devices: dict[str, Any], seed: int, window: tuple[float, float] = WINDOW) -> Any:
    """The same product on one array of pairs in this window (uS), a DAC of as many bits, an ADC that does not show."""
    raw = BACKEND.load_arch(None).model_dump()
    raw["mesh"]["cores"] = 1
    raw["crossbar"] |= {"rows": ROWS, "cols": COLS, "devices_per_weight": 1, "per_core": 1}
    raw["crossbar"] |= dict(zip(("g_min", "g_max"), window, strict=True))
    raw["crossbar"] |= {"dac_bits": DAC_BITS, "adc_bits": 16, "adc_range": "maximum"}
    raw["devices"] = {"levels": False, **devices}
    data = {"w": weights, "s": np.abs(weights).max(0)}
    lines = [
        ".isa cim 3.0",
        ".arch",
        *(f"| {line}" for line in BACKEND.arch_text(Architecture(**raw)).splitlines()),
        f'.input u stream [{ROWS}] float64 binding={{"channel": 0}}',
        f'.output y stream [{COLS}] float64 binding={{"channel": 1}}',
        *(f".data @{name} {array.dtype} {list(array.shape)}" for name, array in data.items()),
        ".section core0",
        "    loop rT, done",
        f"    recv v[0], words={ROWS}, channel=0",
        f"    mvm v[{ROWS}], v[0], array=0, row=0, rows={ROWS}, col=0, cols={COLS}",
        f"    emit v[{ROWS}], words={COLS}, channel=1",
        "done:",
        "    halt",
        ".section core0.setup",
        "    program array=0, row=0, col=0, @w, @s",
        "    halt",
    ]
    code = assemble("\n".join(lines), "side by side", INSTRUCTION_SETS, data)
    return BACKEND.simulate(code, {"u": inputs[None]}, RunSettings(seed=seed)).outputs["y"][0]


def histogram(a: Any, b: Any) -> str:
    """Both errors over the same bins, a line a bin."""
    edges = np.linspace(-1, 1, 16) * max(np.abs(a).max(), np.abs(b).max())
    counts = [np.histogram(x, edges)[0] / len(x) for x in (a, b)]
    widest = max(count.max() for count in counts)
    bars = [["#" * round(28 * part / widest) for part in count] for count in counts]
    return "\n".join(
        f"  {(low + high) / 2:+9.4f}  {x:<28}  {y:<28}"
        for low, high, x, y in zip(edges, edges[1:], *bars, strict=False)
    )


def main(python: str) -> None:
    rng = np.random.default_rng(0)
    weights, inputs = rng.normal(size=(ROWS, COLS)), rng.normal(size=(VECTORS, ROWS))
    exact = inputs @ weights
    for name, devices in WHAT.items():
        runs = [theirs(python, weights, inputs, name, seed) for seed in range(DEVICES if devices else 1)]
        peer = np.concatenate([np.array(run["outputs"]) - exact for run in runs]).ravel()
        own = np.concatenate([ours(weights, inputs, devices, seed) - exact for seed in range(len(runs))]).ravel()
        size = np.sqrt((exact**2).mean())
        print(f"{name}: {ROWS} x {COLS}, {VECTORS} vectors, {len(runs)} sets of devices")
        for who, error in (("cim", own), (f"aihwkit {runs[0]['version']} ({runs[0]['tile']})", peer)):
            print(f"  {who}: rms error {100 * error.std() / size:.3f} %, mean {100 * error.mean() / size:+.3f} %")
        some = np.random.default_rng(1).permutation(len(own))[:2000]
        print(f"  Kolmogorov-Smirnov, 2000 of each: p = {ks_2samp(own[some], peer[some]).pvalue:.3f}")
        print(f"             {'cim':<28}  aihwkit\n{histogram(own, peer)}")
    large = rng.normal(size=(SIZE, SIZE)), rng.normal(size=(1000, SIZE))
    found = theirs(python, *large, "rate", 0, 7)
    print(f"products of {SIZE} x {SIZE} a second: cim {rate():.0f}, aihwkit ({found['tile']}) {found['rate']:.0f}")


if __name__ == "__main__":
    main(sys.argv[1])
