"""The measurements. Each returns what it measured and whether that reaches its goal."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import samples

SCAN_SAMPLE = "realdecay-vowels"


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    what: str
    goal: str
    measured: str
    reached: bool


def help_time() -> Result:
    """`ssmc --help` as a process of its own, median of nine."""
    command = [sys.executable, "-m", "ssmc", "--help"]
    seconds = median(_timed(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(9))
    return Result("`ssmc --help`", "under 0.2 s", f"{seconds:.3f} s", seconds < 0.2)


COMPILE = """
import sys, tempfile, time
from pathlib import Path
import numpy, onnx, onnxruntime, scipy.fft, scipy.linalg, scipy.special
from ssmc import driver, frontend, passes, verification
from ssmc.target import backend
target, model, calibration = sys.argv[1:]
backend(target), passes.available()
data = driver.arrays.read(calibration)
with tempfile.TemporaryDirectory() as folder:
    start = time.perf_counter()
    driver.compile_model(driver.load_model(model), target, calibration=data).save(Path(folder) / "p.ssmx")
    print(time.perf_counter() - start)
"""


def compile_times() -> list[Result]:
    """Model file to program file, of the largest sample, in a fresh process after its imports; best of three."""
    from ssmc.target import backends

    largest = max(map(samples.load, samples.names()), key=lambda sample: sample.model_path.stat().st_size)
    results = []
    for target in backends():
        arguments = [target, str(largest.model_path), str(largest.calibration_path)]
        runs = [
            subprocess.run([sys.executable, "-c", COMPILE, *arguments], check=True, capture_output=True, text=True)
            for _ in range(3)
        ]
        seconds = min(float(run.stdout) for run in runs)
        what = f"`ssmc compile` of {largest.name} for {target}, after import"
        results.append(Result(what, "under 2 s", f"{seconds:.2f} s", seconds < 2))
    return results


def simulation_ratio() -> Result:
    """The Scan-form sample's test set on epochcore, ideal, against onnxruntime on the same file, in turns: the best and
    the median run of each of forty."""
    import onnxruntime

    from ssmc.driver import compile_model

    sample = samples.load(SCAN_SAMPLE)
    program = compile_model(sample.model_path, "epochcore", ideal=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(sample.model_path), options, providers=["CPUExecutionProvider"])
    ours, theirs = list[float](), list[float]()
    for _ in range(40):
        theirs.append(_timed(lambda: session.run(None, sample.test)))
        ours.append(_timed(lambda: program.run(sample.test)))
    ratios = [min(ours) / min(theirs), median(ours) / median(theirs)]
    what = f"simulating {sample.name}'s test set on epochcore, ideal, over onnxruntime running the file"
    measured = (
        f"{ratios[0]:.2f}, by medians {ratios[1]:.2f} ({1000 * min(ours):.1f} ms over {1000 * min(theirs):.1f} ms)"
    )
    return Result(what, "at most 1", measured, max(ratios) <= 1)


ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def event_sequences() -> Result:
    """1000 sequences of 1000 events, in a process of its own with one thread; and of 100 events, for the memory."""

    def measure(events: int) -> tuple[float, float]:
        command = [sys.executable, "-m", "benchmarks.events", "1000", str(events)]
        run = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
        seconds, gigabytes = map(float, run.stdout.split())
        return seconds, gigabytes

    (_, few), (seconds, many) = measure(100), measure(1000)
    what = "1000 sequences of 1000 events, 6 layers of 96/128 on cim, all non-idealities"
    told = f"{seconds:.0f} s, {many:.2f} GB ({few:.2f} GB for 100 events)"
    reached = seconds < 120 and many < 4 and many < 1.1 * few
    return Result(what, "under 120 s of processor time and 4 GB, whatever the events", told, reached)


def product_rates() -> list[Result]:
    """512 x 512 products on 128 x 128 arrays with 8-bit converters, without and with read noise; one thread."""
    results = []
    for what, settings, goal in (
        ("8-bit converters", "", 75_000),
        ("8-bit converters and read noise", "read_noise='proportional', read_sigma=0.02", 25_000),
    ):
        code = f"from benchmarks.products import rate; print(rate({settings}))"
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
        found = float(run.stdout)
        told = f"512 x 512 products on 128 x 128 arrays of cim, {what}"
        results.append(Result(told, f"at least {goal} a second", f"{found:,.0f}".replace(",", " "), found >= goal))
    return results


def program_sizes() -> list[Result]:
    """Programs of the Scan-form sample with its length fixed at 64 and at 16 384 steps."""
    from ssmc.driver import compile_model
    from ssmc.target import backends

    sample = samples.load(SCAN_SAMPLE)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for target in backends():
            sizes = []
            for steps in (64, 16384):
                path = Path(folder) / "model.onnx"
                fix_length(sample.model_path, path, steps)
                compile_model(path, target).save(Path(folder) / "p.ssmx")
                sizes.append((Path(folder) / "p.ssmx").stat().st_size)
            difference = abs(sizes[1] - sizes[0]) / sizes[0]
            what = f"`.ssmx` for {target}, compiled for 64 and for 16 384 steps"
            measured = f"{100 * difference:.3f} % ({sizes[0]} and {sizes[1]} bytes)"
            results.append(Result(what, "differ by less than 1 %", measured, difference < 0.01))
    return results


def fix_length(source: Path, destination: Path, steps: int) -> None:
    """Write the model with every dynamic time axis of its inputs fixed."""
    import onnx

    model: Any = onnx.load(source)
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 3 and not dims[1].dim_value:
            dims[1].dim_value = steps
    del model.graph.value_info[:]
    onnx.save(model, destination)


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
