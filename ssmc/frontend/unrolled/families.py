"""What a tuple of values is, one a step of an unrolled loop: one value, a stream's steps, or a family's results.

The first steps of an unrolled loop may look different, since exporters simplify what starts from zeros: there a family
has no node, only a `claim`, the value that it ought to have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from ssmc.frontend.source.listing import Call
from ssmc.ir.graph import Value

Tuple: TypeAlias = tuple[Value | None, ...]  # one value a step, None where there is none to be seen


@dataclass(frozen=True)
class Fixed:
    """The same value at every step."""

    value: Value


@dataclass(eq=False, repr=False)
class Family:
    """What happens at every step: a node, the reading of a stream, or what another unrolling gives."""

    steps: int

    @property
    def failed(self) -> bool:
        """Could something that it reads not be read?"""
        return False


@dataclass(eq=False, repr=False)
class StreamFamily(Family):
    """Step k is index `start + k * stride` of the axis; `keep`: the axis stays, with size one."""

    stream: Value
    axis: int
    start: int
    stride: int
    keep: bool


@dataclass(eq=False, repr=False)
class ForeignFamily(Family):
    """What the unrolling in the other direction computes at the same moment."""

    source: Reading | None = None


@dataclass(eq=False, repr=False)
class NodeFamily(Family):
    """`nodes` by step, None where there is none; `claims` by (step, result)."""

    nodes: tuple[Call | None, ...]
    operands: list[Reference | None] = field(default_factory=list)
    claims: dict[tuple[int, int], Value] = field(default_factory=dict)
    unread: bool = False  # an operand could not be read

    @property
    def failed(self) -> bool:
        """Could something that it reads not be read?"""
        return self.unread

    @property
    def sample(self) -> Call:
        """The node of the last step that has one."""
        return next(node for node in reversed(self.nodes) if node is not None)

    def value(self, step: int, index: int) -> Value | None:
        """Its result at a step: the node's, or what is claimed to be it."""
        node = self.nodes[step]
        return self.claims.get((step, index)) if node is None else node.results[index]


@dataclass(frozen=True)
class Reading:
    """Result `index` of a family, `delay` steps before; `initial` is read in the first `delay` steps."""

    family: Family
    index: int = 0
    delay: int = 0
    initial: Tuple = ()


Reference: TypeAlias = Fixed | Reading
