"""What a translation rule gets, and what it may ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from ssmc.frontend.findings import Findings
from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.graph.flow import Flow, Known, Tracked, Unsupported
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.operands import Attrs, conv_padding, steady_padding, text
from ssmc.ir.graph import Value


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


class Samples(Protocol):
    """Arrays of the file's values at a few sample inputs."""

    def at(self, point: int, values: Iterable[Value]) -> dict[Value, Any]:
        """The arrays of `values` at one of the points."""


class Surroundings(Context, Protocol):
    """The translator, as those rules see it that look at what is around a node.

    What is known of another value may be nothing, or that it was refused: whoever reads it has to look which it is.
    """

    listing: Listing

    @property
    def samples(self) -> Samples: ...

    def lookup(self, value: Value | None) -> Tracked | None:
        """What is known of a value, None if nothing yet, or where an operand is absent."""

    def settled(self, value: Value) -> Tracked:
        """What is known of a value that was translated; a region that mixes time is explained now."""

    def apply(self, call: Call, items: Sequence[Any]) -> list[Tracked]:
        """The results of a node on other operands. Raises TimeMixing or Unsupported."""


def sampled(translator: Surroundings, value: Value | None) -> Any:
    """The array of a value at the first sample input. Raises Unsupported where an operand is absent."""
    if value is None:
        raise Unsupported("it lacks an operand")
    return np.asarray(translator.samples.at(0, [value])[value])


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


def own_padding(context: Context, attrs: Attrs, length: int, taps: int) -> tuple[int, int]:
    """How many steps a filter or a pooling along time puts before and after the sequence, the same at every length.

    Raises Unsupported where it is another at another length, and lengths differ from run to run.
    """
    steady = steady_padding(attrs, taps)
    if steady is None and context.dynamic:
        mode, stride = text(attrs["auto_pad"]), attrs["strides"][0]
        why = f"with {mode} and a stride of {stride}, where its windows stand depends on how many steps there are"
        raise Unsupported(f"{why}; export it with a fixed length, or with pads in numbers")
    return conv_padding(attrs, length, taps) if steady is None else steady


def present(items: Sequence[Any]) -> list[Any]:
    """The operands that are there."""
    return [item for item in items if item is not None]


def arrays_or_flows(items: Sequence[Any]) -> list[Any]:
    """Operands with the constants as arrays, for the attribute readers of `kernels`."""
    return [item.array if isinstance(item, Known) else item for item in items]
