"""Weights and decays on the grids on which a target stores them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ssmc.ir import Graph, Node, Op, Tensor, Value
from ssmc.ir.op import Array
from ssmc.passes.base import Context, Pass
from ssmc.passes.grid import column_grid, decay_grid, rate_grid, row_grid
from ssmc.passes.rewrite import recast
from ssmc.passes.tile_systems import fold_b
from ssmc.passes.tile_triangular import levels
from ssmc.statespace import StateSpace
from ssmc.statespace.system import rates


@dataclass(frozen=True)
class Quantize(Pass):
    """Round weights to integers times a scale a column, and decays to a fixed point of 1 - |Abar|.

    before  linear {weight = tensor<64x10 f64>}
    after   linear {weight = tensor<64x10 f64 q8>}      each column 255 levels, symmetric, by its largest weight

    `weights` and `decays` are bits; where one is not given the machine's is taken, if it has one. Rounded are the
    weights of `linear` and `fir`, and B, C, D of systems: B of a single-input system whose states nobody sees goes
    into C first. A decay keeps 1 - |Abar| in `decays` fractional bits, never 0, so that what was stable stays so, and
    its angle in as many. Biases and tables stay. Works before `tile` and after it. `tolerance` is how much the outputs
    may change on the data, relative, before it is an error.
    """

    name = "quantize"
    lossy = True
    weights: int | None = None
    decays: int | None = None
    tolerance: float = math.inf

    def __post_init__(self) -> None:
        for name, bits in (("weights", self.weights), ("decays", self.decays)):
            if bits is not None and not 2 <= bits <= 52:
                raise ValueError(f"{name} takes 2 to 52 bits, not {bits}")

    def run(self, graph: Graph, context: Context) -> Graph:
        machine = None if context.ideal else context.machine
        weights = self.weights if self.weights is not None or machine is None else machine.weight_bits
        decays = self.decays if self.decays is not None or machine is None else machine.state_parameter_bits
        if weights is None and decays is None:
            return graph
        out = graph.copy()
        count = 0
        for node in graph.nodes("linear", "fir", "ssm", "tile.matmul", "tile.ssm", "tile.state"):
            op, numbers = _rounded(graph, node, weights, decays)
            recast(out, node.name, op, out.operands(node.name))
            count += numbers
        if weights is not None:
            sizes = f"{4 * count / 1024:.1f} KiB as float32, {count * weights / 8192:.1f} KiB in {weights} bits"
            context.note(self, "", f"{count} weights: {sizes}")
        return out


def _rounded(graph: Graph, node: Node, weights: int | None, decays: int | None) -> tuple[Op, int]:
    """The node's op with rounded numbers, and how many weights it has."""
    op = node.op
    match op.name:
        case "ssm":
            return _rounded_system(graph, node, weights, decays)
        case "linear" if op["weight"].is_complex:
            return op, 0
        case "linear" | "tile.matmul":
            weight = op["weight"]
            return op.with_attrs(weight=column_grid(weight.stored, weights) if weights else weight), _stored(op)
        case "fir":
            kernel = op["kernel"]
            return op.with_attrs(kernel=row_grid(kernel.array, weights) if weights else kernel), math.prod(kernel.shape)
        case "tile.ssm":
            b, c, decay = op["b"], op["c"], op["decay"]
            if weights:
                b, c = _input_grid(b.array, weights), row_grid(c.array, weights)
            if decays:
                decay = Tensor(decay_grid(decay.array, decays))
            return op.with_attrs(b=b, c=c, decay=decay), c.array.size * (2 if c.is_complex else 1)
    if not decays:
        return op, 0
    grid = rate_grid if op["asynchronous"] else decay_grid
    return op.with_attrs(decay=Tensor(grid(op["decay"].array, decays))), 0


def _stored(op: Op) -> int:
    """Weights that a matrix keeps: what its pieces cover."""
    if op.name == "linear":
        return math.prod(op["weight"].shape)
    return sum((p.k1 - p.k0) * (p.n1 - p.n0) for p in op["pieces"])


def _input_grid(b: Array, bits: int) -> Tensor:
    """A `b` of ones is no weight: it was folded into c."""
    return Tensor(b) if (b == 1).all() else row_grid(b, bits)


def _rounded_system(graph: Graph, node: Node, weights: int | None, decays: int | None) -> tuple[Op, int]:
    """B, C and D on the grids that the columns of their matrices will have when `tile` has made them."""
    system: StateSpace = node.op["system"]
    op, count = node.op, 0
    if decays and system.diagonal and (system.discrete or system.asynchronous):
        system = _rounded_decays(system, decays)
    if weights:
        seen = len(graph.operands(node.name)) > 2 or bool(graph.users(Value(node.name, 1)))
        if system.B.shape[2] == 1 and system.x0 is None and not seen and system.diagonal:
            system = fold_b(system)
        system = _rounded_weights(system, weights)
        op = op.with_attrs(weight_bits=weights)
        width = 2 if system.is_complex else 1
        folded = system.B.shape[2] == 1 and bool((system.B == 1).all())
        count = width * (system.C.size + (0 if folded else system.B.size))
        if not system.diagonal and levels(system.A) is None:  # `tile` puts A into arrays, too
            flat = system.A.reshape(-1, system.states)
            system = replace(system, A=row_grid(flat, weights).array.reshape(system.A.shape))
            count += width**2 * system.A.size
    return op.with_attrs(system=system), count


def _rounded_decays(system: StateSpace, bits: int) -> StateSpace:
    if system.discrete:
        return replace(system, A=decay_grid(system.A, bits))
    return replace(system, A=rate_grid(rates(system), bits), delta=np.ones((1, 1)))


def _rounded_weights(system: StateSpace, bits: int) -> StateSpace:
    groups, states, wide = system.B.shape
    high = system.C.shape[1]

    def by_row(array: Array) -> Array:
        return row_grid(array, bits).array

    b, c, d = system.B, system.C, system.D
    if wide == 1:  # one scale a group
        b = b if (b == 1).all() else by_row(b[:, :, 0])[:, :, None]
    else:  # a column of the matrix is a state, its halves two
        flat = b.reshape(groups * states, wide)
        b = _parts(flat, by_row).reshape(b.shape)
    if system.real_output and not system.is_complex:
        c = c.real
    c = by_row(c.reshape(groups * high, states)).reshape(c.shape)  # a column is an output, over both halves
    d = _parts(d.reshape(groups * high, wide), by_row).reshape(d.shape)
    return replace(system, B=b, C=c, D=d)


def _parts(array: Array, rule: Callable[[Array], Array]) -> Array:
    """A rule applied to real and imaginary part each by itself."""
    if not np.iscomplexobj(array):
        return np.asarray(rule(array))
    return np.asarray(rule(array.real) + 1j * rule(array.imag))
