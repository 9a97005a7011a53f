"""`python -m benchmarks.pathx`: simulating S4 Path-X, numbers with timing, beside onnxruntime on the same model.

The model is written as an ONNX file with `Scan` (16 384 steps, 6 layers, 256 channels, 64 states, both directions),
imported, compiled for epochcore and run; onnxruntime runs the file itself. Each is timed after a short run, which loads
what it needs; how long that takes is told, too. With `--reference` the lifted graph is interpreted in float64 as well,
which tells how far from it each of the two is.
"""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import onnxruntime

from benchmarks.models.lra import model as named
from benchmarks.models.s4_scan import write
from ssmc.driver import compile_model, load_model
from ssmc.ir import interpret
from ssmc.ir.op import Array

FEW = 64  # steps of a first run of both, which is not counted


@click.command()
@click.option("--model", "name", default="S4 Path-X", help="Another model of S4.")
@click.option("--layers", type=click.IntRange(min=1), help="Fewer layers.")
@click.option("--steps", type=click.IntRange(min=1), help="Fewer steps.")
@click.option("--threads", default=2, help="Threads of onnxruntime.")
@click.option("--reference", is_flag=True, help="Interpret the graph in float64, too.")
def main(name: str, layers: int | None, steps: int | None, threads: int, reference: bool) -> None:
    """Times, memory and the largest difference."""
    m = named(name)
    m = replace(m, layers=layers or m.layers, length=steps or m.length)
    x = np.random.default_rng(1).standard_normal((1, m.length, 1)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = write(m, Path(folder) / "model.onnx")
        began = time.perf_counter()
        model = load_model(path)
        imported = time.perf_counter()
        program = compile_model(model, "epochcore", ideal=True, validate=False)
        compiled = time.perf_counter()
        program.run({"x": x[:, :FEW]})
        loaded = time.perf_counter()
        result = program.run({"x": x})
        ran = time.perf_counter()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        session.run(None, {"x": x[:, :FEW]})
        start = time.perf_counter()
        (expected,) = session.run(None, {"x": x})
        theirs = time.perf_counter() - start
    exact = interpret(model.graph, {"x": x})["logits"] if reference else None
    found, ours = result.outputs["logits"], ran - loaded
    click.echo(f"{m.name}: {m.layers} layers, {m.length} steps, {m.channels} channels, {m.order} states")
    click.echo(
        f"  import {imported - began:.1f} s, compile {compiled - imported:.1f} s, {result.stats.cycles:,} cycles"
    )
    click.echo(f"  simulation {ours:.1f} s, at most {memory:.2f} GiB so far; onnxruntime (Scan) {theirs:.1f} s")
    click.echo(f"  (a first run, of {FEW} steps, which loads what is compiled: {loaded - compiled:.1f} s)")
    times, apart = theirs / ours, _off(found, expected)
    click.echo(f"  onnxruntime takes {times:.2f} times as long; the results differ by {apart:.1e} (relative)")
    if exact is not None:
        click.echo(
            f"  from the graph in float64: ours {_off(found, exact):.1e}, onnxruntime {_off(expected, exact):.1e}"
        )


def _off(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    main()
