"""Transitions of a state as systems: one group for each block of the matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ssmc.frontend.graph.builder import Builder, Operand
from ssmc.frontend.states.transition import Transition
from ssmc.ir.op import Array
from ssmc.statespace import StateSpace


def widest(transitions: Sequence[Transition]) -> Transition:
    """The transition with the widest blocks: at some points a matrix can look simpler than it is."""
    return max(transitions, key=lambda t: t.width)


def block_system(transition: Transition, pairs: Array | None) -> StateSpace:
    """A system with one group per block, B and C identities; `pairs` are its blocks as complex numbers."""
    blocks, width = transition.index.shape
    if pairs is not None:
        return StateSpace(
            A=pairs[0][:, None],
            B=np.tile([[[1.0, 1.0j]]], (blocks, 1, 1)),
            C=np.tile([[[1.0], [-1.0j]]], (blocks, 1, 1)),
            D=np.zeros((blocks, 2, 2)),
        )
    eye = np.tile(np.eye(width), (blocks, 1, 1))
    a = transition.matrices[0]
    return StateSpace(A=a[:, :, 0] if width == 1 else a, B=eye, C=eye, D=np.zeros((blocks, width, width)))


def reads_before(system: StateSpace) -> StateSpace:
    """The system that reads its states before it updates them."""
    return replace(system, read_before=True)


def every_other(builder: Builder, x: Operand, first: int) -> Operand:
    """The elements of a vector at even or odd places."""
    return builder.slice(x, -1, first, None, 2)
