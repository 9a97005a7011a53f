"""Systems with many inputs as the tile level has them: a matrix drives the states, each by itself, and a matrix reads
them out. On an array without states all three together have the forms of `lower_windows`, as matrices of T steps with
all inputs and outputs; so have states alone, as many systems of one state each.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from backends.epochcore.lower.flow import is_loop
from backends.epochcore.lower.lowering import Lowering
from backends.epochcore.lower.window_matrices import MOST_TAPS, TAIL
from ssmc.ir import Node, Value
from ssmc.ir.op import Array


@dataclass(frozen=True)
class Group:
    """The matrix that drives states, the states, and the matrix that reads them; nobody else sees what is between."""

    drive: Node
    state: Node
    read: Node


@dataclass(frozen=True)
class Wide:
    """x <- a x + u b, y = Re(x c): a (states,), b (inputs, states), c (states, outputs)."""

    a: Array
    b: Array
    c: Array
    before: bool
    reverse: bool

    @property
    def halves(self) -> int:
        return 2 if np.iscomplexobj(self.a) else 1

    def powers(self, count: int) -> Array:
        """a^0 .. a^(count-1), (count, states)."""
        return np.asarray(self.a ** np.arange(count)[:, None])

    def kernel(self, length: int) -> Array:
        """What impulses give, (length, inputs, outputs)."""
        late = int(self.before)
        taps = np.zeros((length, len(self.b), self.c.shape[1]))
        powers = self.powers(length)[: length - late]
        taps[late:] = np.einsum("ip,kp,po->kio", self.b, powers, self.c, optimize=True).real
        return taps

    def within(self, span: int, past: int = 0) -> Array:
        """(inputs, past + T) to (outputs, T): y_j = sum_m u_m K_{past + j - m}."""
        taps = self.kernel(past + span)
        lag = np.arange(span) + past - np.arange(past + span)[:, None]
        blocks = np.where((lag >= 0)[:, :, None, None], taps[np.clip(lag, 0, None)], 0.0)  # (m, j, i, o)
        return _flat(self._turned(blocks.transpose(2, 0, 3, 1), 1, 3))

    def inward(self, span: int) -> Array:
        """(inputs, T) to halves of the states: sum_i a^(T-1-i) b u_i."""
        drive = self.powers(span)[::-1][None] * self.b[:, None]  # (i, t, p)
        return _flat(self._turned(np.stack([drive.real, drive.imag][: self.halves], 2), 1))

    def outward(self, span: int) -> Array:
        """Halves of the states to (outputs, T): Re(a^(j+1) x c)."""
        powers = self.powers(span + 1)[1 - self.before : span + 1 - self.before]
        read = powers.T[:, None] * self.c[:, :, None]  # (p, o, t)
        return _flat(self._turned(np.stack([read.real, -read.imag][: self.halves]), 3))

    def _turned(self, blocks: Array, *times: int) -> Array:
        return np.flip(blocks, times) if self.reverse else blocks


def _flat(blocks: Array) -> Array:
    """(a, b, c, d) to one matrix, (1, a b, c d)."""
    a, b, c, d = blocks.shape
    return np.ascontiguousarray(blocks).reshape(1, a * b, c * d)


def group_of(low: Lowering, state: Node) -> Group | None:
    """The group of states; None where they have none."""
    if state.op.name != "tile.state" or state.op["asynchronous"] or not is_loop(low.stage(state)):
        return None
    source, users = low.graph.operand(state.name, 0), low.graph.users(Value(state.name))
    if len(users) != 1 or users[0][1] != 0:
        return None
    drive, read = low.graph.node(source.node), low.graph.node(users[0][0])
    alone = low.graph.users(source) == [(state.name, 0)] or list(low.graph.users(source)) == [(state.name, 0)]
    together = all(_is_plain(low, m) and low.stage(m) == low.stage(state) for m in (drive, read))
    hidden = source not in low.spilled and Value(state.name) not in low.spilled
    return Group(drive, state, read) if alone and together and hidden else None


def driven(low: Lowering, drive: Node) -> Node | None:
    """The states that a matrix drives, if it and what reads them form a group."""
    users = low.graph.users(Value(drive.name))
    if len(users) != 1 or users[0][1] != 0:
        return None
    group = group_of(low, low.graph.node(users[0][0]))
    return group.state if group is not None and group.drive.name == drive.name else None


def read_by(low: Lowering, read: Node) -> Group | None:
    """The group whose states a matrix reads."""
    source = low.graph.operand(read.name, 0)
    group = group_of(low, low.graph.node(source.node)) if source.index == 0 else None
    return group if group is not None and group.read.name == read.name else None


def _is_plain(low: Lowering, node: Node) -> bool:
    if node.op.name != "tile.matmul" or node.op["bias"] is not None or Value(node.name) in low.constants:
        return False
    return low.words(low.graph.operand(node.name, 0)) == int(node.op["weight"].shape[0])


def wide_of(group: Group) -> Wide:
    """The system of a group."""
    op, b, c = group.state.op, group.drive.op["weight"].array, group.read.op["weight"].array
    a = op["decay"].array
    if np.iscomplexobj(a):
        b, c = b[:, : a.size] + 1j * b[:, a.size :], c[: a.size] - 1j * c[a.size :]
    return Wide(a, np.asarray(b), np.asarray(c), op["read_before"], op["reverse"])


def kernel_length(wide: Wide) -> int | None:
    """Taps after which the sum of all others is under `TAIL` of the largest one; None for more than `MOST_TAPS`."""
    gain, size = np.abs(wide.b).max(0) * np.abs(wide.c).max(1), np.abs(wide.a)
    lasting = (gain > 0) & (size > 0)
    if not lasting.any():
        return 1 + int(wide.before)
    room = TAIL * np.abs(wide.kernel(64)).max() / size.size
    with np.errstate(divide="ignore", invalid="ignore"):
        share = room * (1 - size) / gain
        taps = np.where(share < 1, np.log(share) / np.log(size), 0.0)[lasting]
    if (size[lasting] >= 1).any() or not taps.max() < MOST_TAPS - 2:
        return None
    return ceil(float(taps.max())) + 1 + int(wide.before)
