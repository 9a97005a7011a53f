"""`python -m benchmarks.decays`: how few time constants a layer needs, and where that stops; writes docs/decays.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import samples
from ssmc import arrays
from ssmc.driver import load_model
from ssmc.ir import interpret
from ssmc.passes import Context, PassManager
from ssmc.passes.decay_fit import FitOptions, LayerData, fit
from ssmc.statespace import StateSpace, discretize, l1_norm, simulate

if TYPE_CHECKING:
    from ssmc.frontend import Model
    from ssmc.ir import Graph

PAGE = Path(__file__).parent.parent / "docs" / "decays.md"
EXACT = "fold-constants,fold-norms,discretize,diagonalize,halve-conjugates"
LEVELS = (1, 2, 4, 8)
ALLOWED = 0.005  # half a point
WAYS: Mapping[str, tuple[str, bool]] = {  # options, whether calibration data are given
    "clustered": ("refit=false", False),
    "refit to the kernel": ("refit=true", False),
    "refit to the data": ("refit=true", True),
    "and decays moved": ("refit=true,search=true", True),
}


@dataclass(frozen=True)
class Row:
    """One sample at so many decays a layer; `bounds` and `measured` are of its layers, the last way."""

    sample: str
    levels: int | None
    accuracies: tuple[float, ...]  # one a way
    measured: tuple[float, ...]
    h2: tuple[float, ...]
    bounds: tuple[float | None, ...]


def sample_rows(name: str) -> Iterator[Row]:
    """The sample's whole test set in float64, for each number of decays and each way to get there."""
    sample = samples.load(name)
    model = load_model(sample.model_path)
    calibration = arrays.fit(sample.calibration, model.interface)
    graph = PassManager(EXACT, validate=False).run(model.graph, Context())
    steps = next(iter(sample.calibration.values())).shape[1]
    for levels in LEVELS:
        accuracies, losses = [], []
        for options, calibrated in WAYS.values():
            context = Context(calibration=calibration if calibrated else None)
            text = f"share-decays{{levels={levels},{options},length={steps}}}"
            shared = PassManager(text, validate=False).run(graph, context)
            accuracies.append(_accuracy(sample, model, shared))
            losses = list(context.decays)
        yield Row(
            name,
            levels,
            tuple(accuracies),
            tuple(loss.measured or 0.0 for loss in losses),
            tuple(loss.h2 for loss in losses),
            tuple(loss.bound for loss in losses),
        )
    yield Row(name, None, (_accuracy(sample, model, graph),) * len(WAYS), (), (), ())


def _accuracy(sample: samples.Sample, model: Model, graph: Graph) -> float:
    outputs = interpret(graph, arrays.fit(sample.test, model.interface))
    return sample.accuracy(arrays.unfit(outputs, model.interface))


@dataclass(frozen=True)
class Limit:
    """A layer of given length and slowness: errors relative to the output's rms, the bound over the largest output
    that there can be."""

    length: int
    levels: int
    white: float
    smooth: float
    bound: float


def limits() -> Iterator[Limit]:
    """S4D-Lin layers (arXiv 2206.11893, equation 9), 8 channels of 16 pairs, steps spread over two decades."""
    rng = np.random.default_rng(0)
    for length in (64, 512, 4096):
        system = s4d_lin(rng, channels=8, pairs=16, slowest=length)
        for levels in LEVELS:
            data = _data(rng, system, length)
            fitted = fit(system, FitOptions(levels, True, False, length, 1e-6), data)
            tests = (_data(rng, system, length, smooth=False), _data(rng, system, length))
            white, smooth = (_rms(fitted.system, test) for test in tests)
            gain = float(l1_norm(system, length=length).max())
            yield Limit(length, levels, white, smooth, (fitted.bound or 0.0) / gain)


def s4d_lin(rng: np.random.Generator, *, channels: int, pairs: int, slowest: float) -> StateSpace:
    """Time constants of the channels spread from 1/100 of `slowest` steps to `slowest`."""
    a = -0.5 + 1j * np.pi * np.arange(pairs) + np.zeros((channels, 1))
    delta = 2.0 / np.geomspace(slowest / 100, slowest, channels)[:, None]
    c = rng.standard_normal((channels, 1, pairs)) + 1j * rng.standard_normal((channels, 1, pairs))
    system = StateSpace(a, np.ones((channels, pairs, 1)), c, np.zeros((channels, 1, 1)), delta, halved=True)
    return discretize(system, "zoh")


def _data(rng: np.random.Generator, system: StateSpace, length: int, smooth: bool = True) -> LayerData:
    """White noise, or the same through a leaky integrator a tenth of the sequence long, rms 1."""
    u = rng.standard_normal((8, length, system.inputs))
    if smooth:
        for k in range(1, length):
            u[:, k] += (1 - 10 / length) * u[:, k - 1]
        u /= u.std()
    return LayerData(u, simulate(system, u)[0])


def _rms(system: StateSpace, data: LayerData) -> float:
    gap = simulate(system, data.u)[0] - data.target
    return float(np.sqrt(np.square(gap).mean() / np.square(data.target).mean()))


def page(rows: list[Row], found: list[Limit]) -> str:
    """The tables as Markdown."""
    lines = [
        "# How few time constants",
        "",
        "Written by `python -m benchmarks.decays`. `share-decays{levels=K}` gives the states of each layer K decays;",
        "no model was trained again. Accuracy of the whole test set in float64, by what is refitted: nothing (the",
        "decays are clustered), B and C to the layer's kernel over the sequence's steps, then C to the calibration",
        "data, and the decays moved while that helps (`search=true`). The oscillations of single-input channels",
        "(`s4d-digits`) are refitted with C, and with `search=true` exchanged for others. Without a target: nothing is",
        "weighed against the noise of devices.",
        "`realdecay-vowels` has one decay a layer from the start.",
        "",
        f"| sample | decays a layer | {' | '.join(WAYS)} |",
        f"|---|---|{'---|' * len(WAYS)}",
    ]
    for row in rows:
        told = " | ".join(f"{100 * accuracy:.1f} %" for accuracy in row.accuracies)
        lines.append(f"| {row.sample} | {row.levels or 'all'} | {told} |")
    lines += ["", *_fewest(rows), "", *_errors(rows), "", *_limits(found)]
    return "\n".join(lines) + "\n"


def _fewest(rows: list[Row]) -> list[str]:
    lines = []
    for name in dict.fromkeys(row.sample for row in rows):
        mine = [row for row in rows if row.sample == name]
        goal = mine[-1].accuracies[0] - ALLOWED
        told = []
        for way, label in enumerate(WAYS):
            enough = [row.levels for row in mine if row.accuracies[way] > goal]
            told.append(f"{enough[0] or 'all'} ({label})")
        lines.append(f"- `{name}` loses less than half a point from this many on: {', '.join(told)}.")
    return lines


def _errors(rows: list[Row]) -> list[str]:
    lines = [
        "Per layer, the last way: what the output differs by on the calibration data (rms, relative), the distance of",
        "the kernels (H2, relative, white input), and the bound that holds for every input of that length,",
        "`|y - y'| <= b max|u|`; of event-driven layers for every input whose events come no denser than the data's.",
        "",
        "| sample | decays | measured | H2 | bound b |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if row.levels is None:
            continue
        measured = ", ".join(f"{x:.2g}" for x in row.measured)
        h2 = ", ".join(f"{x:.2g}" for x in row.h2)
        bounds = ", ".join("-" if x is None else f"{x:.3g}" for x in row.bounds)
        lines.append(f"| {row.sample} | {row.levels} | {measured} | {h2} | {bounds} |")
    return lines


def _limits(found: list[Limit]) -> list[str]:
    lines = [
        "## Where it stops",
        "",
        "An S4D-Lin layer, time constants of its channels over two decades up to the sequence's length, C fitted to",
        "smooth inputs of that length; errors on other inputs, rms, relative; the bound over the largest output.",
        "For layers that are slower and longer one decay is not enough, and no refit makes it so.",
        "",
        "| length = slowest tau | decays | smooth input | white input | bound |",
        "|---|---|---|---|---|",
    ]
    for row in found:
        lines.append(f"| {row.length} | {row.levels} | {row.smooth:.2g} | {row.white:.2g} | {row.bound:.2g} |")
    return lines


def main() -> int:
    rows = [row for name in ("events-watch", "s4d-digits") for row in sample_rows(name)]
    text = page(rows, list(limits()))
    PAGE.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
