"""Systems whose states feed each other in one direction only, as a cascade of states that each go their own way.

Where A has no cycles but each state's own, states fall into levels: a level is driven by the input and by the levels
before it, one step ago, `x_l[k] = a_l x_l[k-1] + B_l u[k] + sum_m A_lm x_m[k-1]`. Shift registers are such systems;
any other A becomes one by Schur's triangular form (`diagonalize`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np

from ssmc.ir import Node, Piece, Quantization, Tensor, Value
from ssmc.ir.op import Array
from ssmc.passes.tiling import Ports, Tiling, real_form
from ssmc.statespace import StateSpace


def levels(a: Array) -> list[Array] | None:
    """Indices g * N + n of the states of each level, for A (G, N, N); None where states feed each other in a cycle."""
    groups, states, _ = a.shape
    net: nx.DiGraph[int] = nx.DiGraph()
    net.add_nodes_from(range(groups * states))
    for g, to, source in np.argwhere(a):
        if to != source:
            net.add_edge(int(g * states + source), int(g * states + to))
    if not nx.is_directed_acyclic_graph(net):
        return None
    return [np.array(sorted(level)) for level in nx.topological_generations(net)]


@dataclass(frozen=True)
class _Level:
    index: Array  # (n,) its states
    before: Value  # their values before each step, halves re|im where complex
    now: Value  # and after it
    last: Value


def cascade(t: Tiling, node: Node, system: StateSpace, drive: Tensor, ports: Ports) -> tuple[Value, Value]:
    """The states that the system reads, and the last ones, of a discrete system that has `levels`.

    `drive` (inputs, W) is B for all states, halves re|im where they are complex.
    """
    is_complex, reverse = ports.is_complex, ports.reverse
    found = levels(system.A)
    assert found is not None
    groups, states, _ = system.A.shape
    count = groups * states
    a = np.zeros((count, count), system.A.dtype)
    for g in range(groups):
        a[g * states : (g + 1) * states, g * states : (g + 1) * states] = system.A[g]
    done: list[_Level] = []
    behind: list[Value] = []  # side by side, what all levels so far hold before each step
    for number, index in enumerate(found):
        wide = np.concatenate([index, count + index]) if is_complex else index
        terms = []
        if drive.array[:, wide].any() or not done:
            terms.append(t.matmul(node, ports.u, _columns(drive, wide), f".drive{number}"))
        feeds = [real_form(a[np.ix_(index, earlier.index)].T, is_complex) for earlier in done]
        felt = [place for place, feed in enumerate(feeds) if feed.any()]
        if len(felt) < 2 or t.machine.arrays is None:
            terms += [t.matmul(node, done[place].before, feeds[place], f".feed{number}") for place in felt]
        else:  # where all arrays are at hand, a product's sums are made in one of them
            behind = [t.emit(node, "concat", behind, f".behind{number}", axis=-1)] if len(behind) > 1 else behind
            terms.append(t.matmul(node, behind[0], np.concatenate(feeds), f".feed{number}"))
        v = terms[0]
        for term in terms[1:]:
            v = t.binary(node, "add", v, term, f".drive{number}")
        done.append(_level(t, node, index, np.diag(a)[index], v, _pick(t, node, ports.x0, wide), is_complex, reverse))
        behind.append(done[-1].before)
    seen = [level.before if system.read_before else level.now for level in done]
    order = [level.index for level in done]
    return (
        _in_order(t, node, seen, order, is_complex, ".x"),
        _in_order(t, node, [level.last for level in done], order, is_complex, ".last"),
    )


def _columns(matrix: Tensor, index: Array) -> Tensor:
    """Some columns of a matrix, on the grids they lie on."""
    grid = matrix.quantization
    if grid is not None:
        grid = Quantization(grid.bits, tuple(grid.scale[i] for i in index))
    return Tensor(matrix.array[:, index], grid)


def _level(
    t: Tiling, node: Node, index: Array, decay: Array, v: Value, x0: Value | None, is_complex: bool, reverse: bool
) -> _Level:
    """States read before each step; after it they are `a x + v`."""
    held = np.concatenate([decay, decay]) if is_complex and not np.iscomplexobj(decay) else decay
    before = t.emit(
        node,
        "tile.state",
        [v, None, x0],
        ".state",
        decay=Tensor(held),
        bank=node.op["bank"],
        pieces=(Piece(0, held.size, 0, 1),),
        read_before=True,
        reverse=reverse,
    )
    now = v
    if decay.any():
        now = t.binary(node, "add", _scaled(t, node, before, decay, is_complex), v, ".now")
    return _Level(index, before, now, Value(before.node, 1))


def _scaled(t: Tiling, node: Node, x: Value, factor: Array, is_complex: bool) -> Value:
    """`factor x`, elementwise: `[re | im] [fr | fr] + [im | re] [-fi | fi]`."""
    fr, fi = factor.real, np.imag(factor)
    y = t.binary(node, "mul", x, t.constant(node, np.concatenate([fr, fr]) if is_complex else fr, ".a"), ".kept")
    if not fi.any():
        return y
    swap = np.roll(np.arange(2 * factor.size), factor.size)
    turned = t.emit(node, "take", [x], ".swapped", axis=-1, index=Tensor(swap))
    turned = t.binary(node, "mul", turned, t.constant(node, np.concatenate([-fi, fi]), ".w"), ".turned")
    return t.binary(node, "add", y, turned, ".kept")


def _pick(t: Tiling, node: Node, x0: Value | None, index: Array) -> Value | None:
    return None if x0 is None else t.emit(node, "take", [x0], ".x0", axis=-1, index=Tensor(index))


def _in_order(
    t: Tiling, node: Node, parts: Sequence[Value], order: Sequence[Array], is_complex: bool, suffix: str
) -> Value:
    """States of all levels side by side, in their own order, all real parts first."""
    whole = parts[0] if len(parts) == 1 else t.emit(node, "concat", parts, suffix, axis=-1)
    count = sum(index.size for index in order)
    where = np.empty(count * (2 if is_complex else 1), np.int64)
    start = 0
    for index in order:
        for half in (0, count) if is_complex else (0,):
            where[half + index] = start + np.arange(index.size)
            start += index.size
    if (where == np.arange(where.size)).all():
        return whole
    return t.emit(node, "take", [whole], suffix, axis=-1, index=Tensor(where))
