"""What a translation learned, besides the graph: what could not be said, and which systems were found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Refusal:
    """An ONNX node that could not be translated, and why."""

    node: str
    op: str
    reason: str


@dataclass(frozen=True)
class Lift:
    """A linear system found: its node in the new graph, where it came from, how well it was proved."""

    node: str
    disguise: str
    where: tuple[str, ...]
    proof_error: float


@dataclass
class Findings:
    """Shared by the translators of a model and of its bodies.

    `tolerance` is the error allowed to a system that is fitted to a kernel, relative to the largest tap.
    """

    tolerance: float = 1e-6
    refusals: list[Refusal] = field(default_factory=list)
    lifts: list[Lift] = field(default_factory=list)
