"""What importing large models takes: seconds and peak memory, each in a fresh process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from benchmarks.measures import Result
from benchmarks.models import convolutional, selective, unrolled

SECONDS, BYTES = 10.0, 2e9  # the goals
WIDE = 4 * SECONDS  # of a layer four times as wide: linear in its weights
OVER_WEIGHTS = 2.5  # peak memory of all, over that of the weights
LINEAR = 2.5  # times as long for twice the size: linear, and room for what a machine's timing varies by

IMPORT = """
import re, sys, time
from pathlib import Path
import numpy, onnx, onnxruntime, scipy.fft, scipy.linalg, scipy.special
from ssmc.frontend import load_model
start = time.perf_counter()
load_model(sys.argv[1])
seconds = time.perf_counter() - start
# Of this program alone; ru_maxrss starts with what the process that started it held (Linux).
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(seconds, 1024 * int(peak[1]))
"""


@dataclass(frozen=True)
class Cost:
    """Wall seconds after the imports of packages, and the peak of the resident memory of the whole process."""

    seconds: float
    peak: float

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.peak / 1e9:.2f} GB"


def import_cost(model: Path, times: int = 1) -> Cost:
    """Import a model in processes of its own: the least time, for what else the machine does only adds, and the highest
    peak."""
    costs = []
    for _ in range(times):
        run = subprocess.run([sys.executable, "-c", IMPORT, str(model)], check=True, capture_output=True, text=True)
        costs.append(tuple(map(float, run.stdout.split())))
    seconds, peaks = zip(*costs, strict=True)
    return Cost(min(seconds), max(peaks))


def import_costs() -> list[Result]:
    """Long FFT convolutions, unrolled steps, and a Mamba of 130 million parameters."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        return [*_convolutions(path), *_unrolled(path), *_mamba(path), *_steps(path)]


def _convolutions(path: Path) -> list[Result]:
    results = []
    # constant kernels are identified, channel by channel
    for frozen, channels, seconds in ((False, 32, SECONDS), (True, 8, SECONDS), (True, 64, SECONDS), (True, 256, WIDE)):
        kernel = "constant" if frozen else "computed in the graph"
        convolutional.write_s4d(path, length=16384, channels=channels, modes=32, layers=2, frozen=frozen)
        what = f"S4D, 16 384 steps, 2 layers of {channels} channels, FFT, kernels {kernel}"
        results.append(_limited(what, import_cost(path), seconds))
    return results


def _unrolled(path: Path) -> list[Result]:
    results = []
    cases: tuple[tuple[str, Callable[..., None], int], ...] = (
        ("S5 (TorchScript)", unrolled.write_complex, 193),
        ("S4D-Real (dynamo)", unrolled.write_real, 500),
    )
    for name, write, steps in cases:
        costs, sizes = [], []
        for factor in (1, 2):
            write(path, steps=factor * steps)
            sizes.append(len(onnx.load(path).graph.node))
            costs.append(import_cost(path, times=3))
        results.append(_limited(f"{name} unrolled, {sizes[1]} nodes", costs[1]))
        results.append(_linear(f"{name} unrolled, {sizes[1]} nodes over {sizes[0]}", costs[1], costs[0]))
    return results


def _mamba(path: Path) -> list[Result]:
    """Peak memory over weights, inline and external; time for all layers over that for half of each part."""
    costs, results = [], []
    for external in (False, True):
        weights = selective.write_sequence(path, external=external)
        costs.append(import_cost(path))
        ratio = costs[-1].peak / weights
        what = f"import of Mamba, {weights / 4e6:.0f} M parameters, weights {'beside' if external else 'in'} the file"
        measured = f"{ratio:.2f} ({costs[-1]}, weights {weights / 1e9:.2f} GB)"
        results.append(
            Result(what, f"peak memory under {OVER_WEIGHTS} times the weights", measured, ratio < OVER_WEIGHTS)
        )
    selective.write_sequence(path, layers=selective.LAYERS // 2, vocabulary=selective.VOCABULARY // 2)
    results.append(_linear("Mamba, over half the layers and words", costs[0], import_cost(path)))
    return results


def _steps(path: Path) -> list[Result]:
    """One step with the states of all layers: which output is whose next value is found out."""
    costs = []
    for layers in (24, 48):
        selective.write_step(path, width=64, layers=layers, vocabulary=512)
        costs.append(import_cost(path))
    what = "Mamba as one step, 48 layers of width 64 (96 states)"
    return [_limited(what, costs[1]), _linear(f"{what}, over 24 layers", costs[1], costs[0])]


def _limited(what: str, cost: Cost, seconds: float = SECONDS) -> Result:
    reached = cost.seconds < seconds and cost.peak < BYTES
    return Result(f"import of {what}", f"under {seconds:.0f} s and {BYTES / 1e9:.0f} GB", str(cost), reached)


def _linear(what: str, twice: Cost, once: Cost) -> Result:
    ratio = twice.seconds / once.seconds
    measured = f"{ratio:.2f} ({twice.seconds:.1f} s over {once.seconds:.1f} s)"
    return Result(f"import time of {what}", f"at most {LINEAR} for twice the size", measured, ratio <= LINEAR)
