"""What a translation rule gets, and what it may ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from ssmc.frontend.findings import Findings
from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.graph.flow import Flow, Known, Tracked, Unsupported
from ssmc.frontend.source.listing import Call


class Context(Protocol):
    """The translator, as its rules see it."""

    builder: Builder
    findings: Findings
    in_step: bool  # streams have no time axis in the ONNX tensors
    dynamic: bool  # whether the number of steps differs from run to run

    def dtype(self, call: Call, slot: int) -> str:
        """'f', 'i', 'u' or 'b': what an operand holds in the file."""

    def bits(self, call: Call, slot: int) -> int:
        """The bits of a number that an operand holds in the file."""


# (context, node, its tracked operands; None where absent) -> its tracked results.
# Raises TimeMixing or Unsupported, with the reason for the user.
Rule: TypeAlias = Callable[[Any, Call, Sequence[Any]], list[Tracked]]


def flow_of(item: Flow | Known | None) -> Flow:
    """The operand, which must depend on the input."""
    if not isinstance(item, Flow):
        raise Unsupported("this operand must depend on the model's input")
    return item


def known_of(item: Flow | Known | None, what: str) -> Any:
    """The operand's array, which must not depend on the input."""
    if not isinstance(item, Known):
        raise Unsupported(f"its {what} is computed from the input")
    return item.array


def present(items: Sequence[Any]) -> list[Any]:
    """The operands that are there."""
    return [item for item in items if item is not None]


def arrays_or_flows(items: Sequence[Any]) -> list[Any]:
    """Operands with the constants as arrays, for the attribute readers of `kernels`."""
    return [item.array if isinstance(item, Known) else item for item in items]
