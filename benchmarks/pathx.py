"""`python -m benchmarks.pathx`: simulating S4 Path-X, numbers with timing, beside onnxruntime on the same model.

The model is written as an ONNX file with `Scan` (16 384 steps, 6 layers, 256 channels, 64 states, both directions),
imported, compiled for epochcore and run; onnxruntime runs the file itself. Each is timed after a short run, which loads
what it needs; how long that takes is told, too. With `--reference` the lifted graph is interpreted in float64 as well,
which tells how far from it each of the two is.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
import onnxruntime

from benchmarks.measures import Result
from benchmarks.models.lra import Model
from benchmarks.models.lra import model as named
from benchmarks.models.s4_scan import write
from ssmc.driver import compile_model, load_model
from ssmc.ir import interpret
from ssmc.ir.op import Array

FEW = 64  # steps of a first run of both, which is not counted


@dataclass(frozen=True)
class Measured:
    """Seconds of what is done with a model, GiB at the end of the simulation, simulated cycles, and how far the results
    are from each other and from the graph in float64, relative to the largest."""

    imported: float
    compiled: float
    loaded: float
    simulated: float
    onnxruntime: float
    memory: float
    cycles: int
    apart: float
    ours_off: float | None = None
    theirs_off: float | None = None


def measure(m: Model, threads: int, reference: bool = False) -> Measured:
    """Both run the same file, onnxruntime with so many threads."""
    x = np.random.default_rng(1).standard_normal((1, m.length, 1)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = write(m, Path(folder) / "model.onnx")
        times = [time.perf_counter()]
        model = load_model(path)
        times.append(time.perf_counter())
        program = compile_model(model, "epochcore", ideal=True, validate=False)
        times.append(time.perf_counter())
        program.run({"x": x[:, :FEW]})
        times.append(time.perf_counter())
        result = program.run({"x": x})
        times.append(time.perf_counter())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        session.run(None, {"x": x[:, :FEW]})
        start = time.perf_counter()
        (expected,) = session.run(None, {"x": x})
        theirs = time.perf_counter() - start
    found = result.outputs["logits"]
    exact = interpret(model.graph, {"x": x})["logits"] if reference else None
    imported, compiled, loaded, simulated = np.diff(times).tolist()
    return Measured(
        imported=imported,
        compiled=compiled,
        loaded=loaded,
        simulated=simulated,
        onnxruntime=theirs,
        memory=memory,
        cycles=result.stats.cycles or 0,
        apart=_off(found, expected),
        ours_off=None if exact is None else _off(found, exact),
        theirs_off=None if exact is None else _off(expected, exact),
    )


def path_x() -> Result:
    """The whole model, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.pathx", "--reference", "--json"]
    found = Measured(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    times = found.onnxruntime / found.simulated
    assert found.ours_off is not None and found.theirs_off is not None
    told = f"{times:.1f} times ({found.onnxruntime:.1f} s over {found.simulated:.1f} s), {found.memory:.2f} GiB"
    return Result(
        "simulating S4 Path-X on epochcore, functional with timing; onnxruntime running the file (Scan)",
        "under 60 s and 2 GB; onnxruntime takes 5 times as long, and is as far from float64",
        f"{told}; {found.ours_off:.1e}, onnxruntime {found.theirs_off:.1e}",
        found.simulated < 60 and found.memory * 2**30 < 2e9 and times >= 5 and found.ours_off <= found.theirs_off,
    )


@click.command()
@click.option("--model", "name", default="S4 Path-X", help="Another model of S4.")
@click.option("--layers", type=click.IntRange(min=1), help="Fewer layers.")
@click.option("--steps", type=click.IntRange(min=1), help="Fewer steps.")
@click.option("--threads", default=2, help="Threads of onnxruntime.")
@click.option("--reference", is_flag=True, help="Interpret the graph in float64, too.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
def main(name: str, layers: int | None, steps: int | None, threads: int, reference: bool, as_json: bool) -> None:
    """Times, memory and the largest difference."""
    m = named(name)
    m = replace(m, layers=layers or m.layers, length=steps or m.length)
    found = measure(m, threads, reference)
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    times = found.onnxruntime / found.simulated
    click.echo(f"{m.name}: {m.layers} layers, {m.length} steps, {m.channels} channels, {m.order} states")
    click.echo(f"  import {found.imported:.1f} s, compile {found.compiled:.1f} s, {found.cycles:,} cycles")
    click.echo(
        f"  simulation {found.simulated:.1f} s, at most {found.memory:.2f} GiB so far; "
        f"onnxruntime (Scan) {found.onnxruntime:.1f} s"
    )
    click.echo(f"  (a first run, of {FEW} steps, which loads what is compiled: {found.loaded:.1f} s)")
    click.echo(f"  onnxruntime takes {times:.2f} times as long; the results differ by {found.apart:.1e} (relative)")
    if found.ours_off is not None:
        click.echo(f"  from the graph in float64: ours {found.ours_off:.1e}, onnxruntime {found.theirs_off:.1e}")


def _off(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    main()
