"""What compiling large models takes: seconds, peak memory, how both grow with the layers, and whether the result is
right. `python -m benchmarks.large` measures this alone."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.imports import Cost
from benchmarks.measures import Result
from benchmarks.models import lra, s4_scan, selective, ssd

SECONDS, BYTES = 60.0, 3e9  # the goals, of the processor's time
CLOSE = 1e-4  # to onnxruntime, relative: both compute in float32
LAYERS = (2, 4, 8, 16)
LINEAR = 2.5  # times as long for twice the layers

COMPILE = """
import re, sys, time
from pathlib import Path
import numpy, onnx, onnxruntime, scipy.fft, scipy.linalg, scipy.special
from ssmc import driver, frontend, passes
path, target, arch, tokens = sys.argv[1:]
start = time.process_time()
program = driver.compile_model(path, target, arch=arch or None, ideal=target == "epochcore")
seconds = time.process_time() - start
# Of this program alone; ru_maxrss starts with what the process that started it held (Linux).
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
error = -1.0
if int(tokens):
    session, rng, feed, given = onnxruntime.InferenceSession(path), numpy.random.default_rng(0), {}, {}
    step = program.compilation.model.form == "step"
    for port in session.get_inputs():
        shape = [size if isinstance(size, int) else 4 if size in ("t", "time") else 1 for size in port.shape]
        if "int" in port.type:
            feed[port.name] = rng.integers(0, int(tokens), shape)
            given[port.name] = feed[port.name][:, None] if step else feed[port.name]
        else:
            feed[port.name] = given[port.name] = rng.standard_normal(shape).astype("float32")
    expected = dict(zip([port.name for port in session.get_outputs()], session.run(None, feed), strict=True))
    found = program.run(given).outputs
    error = max(abs(found[n].reshape(y.shape) - y).max() / abs(y).max() for n, y in expected.items())
print(seconds, 1024 * int(peak[1]), error)
"""


def compile_cost(model: Path, target: str, arch: str = "", tokens: int = 0) -> tuple[Cost, float]:
    """Compile a model in a process of its own; with `tokens`, the largest error of four of so many (of one in a
    one-step model, and of its next states), else -1."""
    arguments = [str(model), target, arch, str(tokens)]
    run = subprocess.run(
        [sys.executable, "-c", COMPILE, *arguments], check=True, capture_output=True, text=True, timeout=3600
    )
    seconds, peak, error = map(float, run.stdout.split())
    return Cost(seconds, peak), error


def large_costs() -> list[Result]:
    """A Mamba of 130 million parameters for both targets, and narrower ones of more and more layers."""
    with tempfile.TemporaryDirectory() as folder:
        model, chip = Path(folder) / "model.onnx", Path(folder) / "chip.yaml"
        chip.write_text(_large_chip(), encoding="utf-8")
        return [*_whole(model, str(chip)), *_step(model), *_second(model), *_s4(model), *_by_layers(model)]


def _whole(model: Path, chip: str) -> list[Result]:
    weights = selective.write_sequence(model)
    results = []
    for target, arch, tokens in (("epochcore", "", selective.VOCABULARY), ("cim", chip, 0)):
        cost, error = compile_cost(model, target, arch, tokens)
        where = f"{target}, on a chip that holds it" if arch else target
        reached = cost.seconds < SECONDS and cost.peak < BYTES
        goal = f"under {SECONDS:.0f} s of one core and {BYTES / 1e9:.0f} GB"
        results.append(
            Result(f"file to program of Mamba, {weights / 4e6:.0f} M parameters, {where}", goal, str(cost), reached)
        )
        if tokens:
            what = "its program on four tokens, against onnxruntime"
            results.append(Result(what, f"at most {CLOSE:g} apart", f"{error:.1e}", 0 <= error <= CLOSE))
    return results


def _step(model: Path) -> list[Result]:
    """The same model as one step with its states."""
    weights = selective.write_step(model)
    cost, error = compile_cost(model, "epochcore", "", selective.VOCABULARY)
    bytes_ = 2.5 * weights + 1e9
    what = f"file to program of one step of Mamba, {weights / 4e6:.0f} M parameters, epochcore"
    goal = f"under {SECONDS:.0f} s of one core and {bytes_ / 1e9:.1f} GB"
    return [
        Result(what, goal, str(cost), cost.seconds < SECONDS and cost.peak < bytes_),
        Result(
            "its step, logits and states, against onnxruntime",
            f"at most {CLOSE:g} apart",
            f"{error:.1e}",
            0 <= error <= CLOSE,
        ),
    ]


def _second(model: Path) -> list[Result]:
    """Mamba-2, whose states are eight times as many: as a sequence, and as one step with states that the scratchpad
    does not hold all at once."""
    goal, close = f"under {SECONDS:.0f} s of one core and {BYTES / 1e9:.0f} GB", f"at most {CLOSE:g} apart"
    results = []
    for form, its, write in (
        ("Mamba-2", "its program on four tokens", partial(ssd.write_chunked, length=4, chunk=2)),
        ("one step of Mamba-2", "its step, logits and states", ssd.write_step),
    ):
        weights = write(model)
        cost, error = compile_cost(model, "epochcore", "", ssd.VOCABULARY)
        what = f"file to program of {form}, {weights / 4e6:.0f} M parameters, epochcore"
        results += [
            Result(what, goal, str(cost), cost.seconds < SECONDS and cost.peak < BYTES),
            Result(f"{its}, against onnxruntime", close, f"{error:.1e}", 0 <= error <= CLOSE),
        ]
    return results


def _s4(model: Path) -> list[Result]:
    """24 layers of S4, 1024 channels of 64 states (32 conjugate pairs) each."""
    s4_scan.write(lra.Model("", False, 4, 24, 1024, 64, bidirectional=False, tokens=False), model)
    cost, error = compile_cost(model, "epochcore", "", 2)
    what = "file to program of S4, 24 layers 1024 wide, epochcore; four steps against onnxruntime"
    goal = f"under {SECONDS:.0f} s of one core and {BYTES / 1e9:.0f} GB; at most {CLOSE:g} apart"
    reached = cost.seconds < SECONDS and cost.peak < BYTES and 0 <= error <= CLOSE
    return [Result(what, goal, f"{cost}; {error:.1e}", reached)]


def _by_layers(model: Path) -> list[Result]:
    """Each number of layers against half of it."""
    results, before = [], None
    for layers in LAYERS:
        selective.write_sequence(model, width=256, layers=layers, vocabulary=512)
        cost, _ = compile_cost(model, "epochcore")
        if before is not None:
            ratio = cost.seconds / before.seconds
            what = f"compile time of Mamba of width 256, {layers} layers over {layers // 2}"
            measured = f"{ratio:.2f} ({cost} over {before})"
            results.append(Result(what, f"at most {LINEAR} for twice the layers", measured, ratio <= LINEAR))
        before = cost
    return results


def _large_chip() -> str:
    """`cim-large` with room for 130 million weights and a table of all words."""
    import yaml

    from ssmc.target import backend

    cim = backend("cim")
    chip = yaml.safe_load(cim.arch_text(cim.load_arch("cim-large")))
    chip["name"] = "cim-130m"
    chip["mesh"]["cores"] = 2048
    chip["vector"] |= {"words": 1_000_000, "table_words": 1 << 26}
    return str(yaml.safe_dump(chip, sort_keys=False))


if __name__ == "__main__":
    for row in large_costs():
        print(f"{row.what} | {row.goal} | {row.measured} | {'yes' if row.reached else 'no'}", flush=True)
