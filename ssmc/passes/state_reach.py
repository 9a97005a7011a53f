"""How far states go: measured on data, expected of random inputs, or bounded for every input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssmc.ir import ConstantType, Graph, Node, Value, interpret
from ssmc.ir.op import Array
from ssmc.ir.ops.tile import join_halves
from ssmc.passes.bounds import largest_values

PEAK = 2.0  # ours: the largest number of a long random drive over that of a few steps of it
NEVER = 1e-9  # 1 - |a| of a state that does not decay
STATES = ("tile.ssm", "tile.state", "tile.recurrence")


def growth(size: Array, steps: float) -> Array:
    """`sum_{k < steps} |a|^k`: what a drive of 1 makes of a state in so many steps, at most (l1 norm of its response).

    `size` is |a|; a state that grows by itself counts as one that stays. `steps` may be infinite.
    """
    a = np.minimum(size, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (1.0 - a**steps) / (1.0 - a)
    return np.where(a < 1.0, found, steps)


def steady(decay: Array, steps: float) -> Array:
    """What a drive that is 1 at every step makes of a state in so many, at most: `|1 - a^k| / |1 - a|` for k <= steps.

    Of a state that oscillates that is far less than its l1 norm, which only a drive of its own frequency reaches.
    """
    size = np.abs(decay)
    with np.errstate(divide="ignore"):
        turned = (1.0 + np.minimum(size, 1.0)) / np.abs(1.0 - decay)
    return np.minimum(growth(size, steps), turned)


def fill(peaks: Array) -> Array:
    """What never moved takes after its neighbours: states of a channel after the one that moves least (a drive of zero
    then, and no weight in the channel's C), all others after the one that moves most; 1 where none does."""
    least = np.where(peaks > 0, peaks, np.inf).min(-1, keepdims=True) if peaks.ndim > 1 else np.inf
    known = np.where(peaks > 0, peaks, least)
    most = float(peaks.max(initial=0.0)) or 1.0
    return np.where(np.isfinite(known), known, most)


@dataclass
class Reach:
    """What a run of the interpreter shows of the states of each layer, (states,) or (channels, states).

    `peaks` are the largest |re| or |im| of each state, `drives` the largest |v| that drives it, `sizes` its |a|, of
    decays that vary the mean: where they are independent of each other, the mean of their products is the product of
    their means. Of liquid systems it is the root of the mean square, as what their states' variance grows by. `held`
    are the decays under drives that stay, (ways, ..., states): liquid systems' under the largest of either sign. Layers
    that drive their states themselves are `stepped` for the sake of their peaks alone.
    """

    stepped: bool = True
    peaks: dict[str, Array] = field(default_factory=dict)
    drives: dict[str, Array] = field(default_factory=dict)
    sizes: dict[str, Array] = field(default_factory=dict)
    held: dict[str, Array] = field(default_factory=dict)

    def expected(self, steps: int) -> dict[str, Array]:
        """How far drives like those that were seen make each state go in so many steps: held as they were largest, or
        at random, as `E |x|^2 <- E |a|^2 E |x|^2 + E |v|^2` of independent ones tells."""
        found = {}
        for name, drives in self.drives.items():
            straying = PEAK * np.sqrt(growth(self.sizes[name] ** 2, steps))
            found[name] = fill(drives * np.maximum(steady(self.held[name], steps).max(0), straying))
        return found

    def lasting(self, steps: int) -> dict[str, int]:
        """`steps` for each layer with states that never decay."""
        return {name: steps for name, sizes in self.sizes.items() if (sizes >= 1.0 - NEVER).any()}

    def watch(self, node: Node, operands: Sequence[Any], results: Sequence[Array]) -> None:
        given = (*operands, None, None)
        match node.op.name:
            case "tile.ssm":
                self._system(node, given[0], given[1])
            case "tile.state":
                decay = node.op["decay"].array
                if node.op["asynchronous"]:
                    decay = np.exp(decay * np.asarray(given[1]).reshape(-1, 1))
                self._driven(node, given[0], decay, given[2], results, node.op["decay"].is_complex)
            case "tile.recurrence":
                paired = node.op["is_complex"]
                self._driven(node, given[1], join_halves(np.asarray(given[0]), paired), given[2], results, paired)

    def _driven(
        self, node: Node, v: Array, decay: Array, x0: Array | None, results: Sequence[Array], paired: bool
    ) -> None:
        starts = () if x0 is None else (x0,)
        self.peaks[node.name] = np.maximum.reduce([_halves(array, paired) for array in (*results, *starts)])
        self.drives[node.name] = _most(np.abs(join_halves(v, paired)))
        size = np.abs(decay).reshape(-1, decay.shape[-1]).mean(0)
        self.sizes[node.name] = size
        self.held[node.name] = decay[None] if decay.ndim == 1 else size[None]

    def _system(self, node: Node, u: Array, x0: Array | None) -> None:
        a, b, liquid = node.op["decay"].array, node.op["b"].array, node.op["liquid"]
        drive = b * np.abs(u).max((0, 1), initial=0.0)[:, None]
        self.drives[node.name] = np.abs(drive)
        self.sizes[node.name] = _liquid_sizes(a, b, u) if liquid else np.abs(a)
        self.held[node.name] = np.stack([a + drive, a - drive]) if liquid else a[None]
        if self.stepped:
            self.peaks[node.name] = _peaks(node, u[:, ::-1] if node.op["reverse"] else u, x0)


def _peaks(node: Node, u: Array, x0: Array | None) -> Array:
    """The largest half of each state of a `tile.ssm`, driven by u (samples, steps, channels)."""
    a, b = (node.op[name].array for name in ("decay", "b"))
    x = np.zeros((len(u), *a.shape), np.result_type(a, b))
    if x0 is not None:
        x = join_halves(np.broadcast_to(x0, (len(u), x0.shape[-1])), node.op["decay"].is_complex)
        x = x.reshape(-1, *a.shape)
    peak: Array = _extent(x).max(0)
    for k in range(u.shape[1]):
        v = b * u[:, k, :, None]
        x = (a + v if node.op["liquid"] else a) * x + v
        np.maximum(peak, _extent(x).max(0), out=peak)
    return peak


def _liquid_sizes(a: Array, b: Array, u: Array) -> Array:
    """The root of the mean of |a + b u|^2 over samples and steps of u (samples, steps, channels):
    `|a + b u|^2 = |a|^2 + 2 Re(a conj b) u + |b|^2 u^2`."""
    mean, square = (power.mean((0, 1))[:, None] if u.size else 0.0 for power in (u, u**2))
    found = np.abs(a) ** 2 + 2 * (a * b.conj()).real * mean + np.abs(b) ** 2 * square
    return np.asarray(np.sqrt(np.maximum(found, 0.0)))


def _extent(x: Array) -> Array:
    """The larger half of each number."""
    return np.maximum(np.abs(x.real), np.abs(x.imag)) if np.iscomplexobj(x) else np.abs(x)


def _most(values: Array) -> Array:
    """The largest over all axes but the last."""
    return np.asarray(values.max(tuple(range(values.ndim - 1)), initial=0.0))


def _halves(values: Array, paired: bool) -> Array:
    """The largest |value| of each state of a stream or a row, the larger half of complex ones."""
    most = _most(np.abs(values))
    return most.reshape(2, -1).max(0) if paired else most


def seen(graph: Graph, inputs: Mapping[str, Array], *, peaks: bool = True) -> Reach:
    """What the states of a tile graph do on some inputs; without `peaks` what drives systems, and how they decay."""
    reach = Reach(stepped=peaks)
    interpret(graph, inputs, watch=reach.watch)
    return reach


@dataclass(frozen=True)
class Bound:
    """What no input makes a layer's states exceed, infinite where nothing is known, and how often over a state holds
    what it is given at every step (`growth`)."""

    most: Array
    growth: Array


def bounded(graph: Graph) -> dict[str, Bound]:
    """`|b| max|u| / (1 - |a|)`, and what states start from, for layers whose decays are no streams."""
    largest, found = largest_values(graph), {}
    for node in graph.nodes("tile.ssm", "tile.state"):
        if node.op.get("asynchronous"):  # where no time passes nothing decays
            continue
        fused, operands, decay = node.op.name == "tile.ssm", graph.operands(node.name), node.op["decay"]
        assert operands[0] is not None
        drive, start = largest[operands[0]], _start(graph, operands[1 if fused else 2 :], largest)
        with np.errstate(invalid="ignore"):
            # of halves, the pair counts
            drives = drive * (np.abs(node.op["b"].array) if fused else math.sqrt(1 + decay.is_complex))
            size = np.abs(decay.array) + (drives if node.op.get("liquid") else 0.0)
            times = growth(size, math.inf)
            most = drives * times + start
        found[node.name] = Bound(np.where(np.isnan(most), math.inf, most), times)
    return found


def _start(graph: Graph, operands: Sequence[Value | None], largest: Mapping[Value, float]) -> float:
    """What |x0|, the first of the operands, is at most."""
    if not operands or operands[0] is None:
        return 0.0
    value = operands[0]
    return largest[value] * math.sqrt(2.0) if isinstance(graph.type(value), ConstantType) else math.inf
