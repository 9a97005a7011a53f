"""States that are being lifted: their layouts as rows of features, and what is made of them in the new graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from ssmc.frontend.findings import Lift
from ssmc.frontend.graph.builder import Operand
from ssmc.frontend.graph.flow import Flow, Known, Refused, Tick, Tracked, Unsupported, known_operand
from ssmc.frontend.graph.rows import Layout, layout_of
from ssmc.frontend.reasons import Kind, Reason
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.tensor import Tensor
from ssmc.statespace import StateSpace

UNTRANSLATED = Reason("the drive of the state could not be translated", Kind.UNTRANSLATED)


@dataclass(frozen=True)
class State:
    """A carried value: `current` is read in a step, `following` is its next value, `initial` what it starts from."""

    name: str
    current: Value
    following: Value
    initial: Flow | Known


@dataclass(eq=False)
class Lifting:
    """States that depend on each other, lifted together."""

    translator: Translator
    states: Sequence[State]
    disguise: str
    like: Value
    influenced: set[Value] = field(default_factory=set)  # values between the states and their next values
    layouts: list[Layout] = field(default_factory=list)  # of the states' tensors
    features: list[tuple[int, ...]] = field(default_factory=list)
    where: tuple[str, ...] = ()  # the file's nodes between the states and their next values
    error: float = 0.0  # of the next states as found, relatively
    last: dict[str, Tracked] = field(default_factory=dict)

    def give_up(self) -> dict[str, Tracked]:
        for state in self.states:
            self.translator.env[state.current] = self.translator.env[state.following] = Refused()
        return {state.name: Refused() for state in self.states}

    def delayed(self, following: Flow, start: Flow | Known) -> Tracked:
        """What was there a step before, at first `start`."""
        builder, layout = self.translator.builder, layout_of(following, following.shape)
        shape = layout.features
        if isinstance(start, Known) and not np.any(start.array):
            return replace(following, value=builder.add("delay", [following.value], steps=1))
        one = np.ones((prod(shape), 1, 1))
        whole = Lifting(self.translator, [], self.disguise, self.like)
        whole.layouts, whole.features = [layout], [shape]
        x0 = whole.vector([start])
        x0 = x0 if isinstance(x0, Value) else builder.constant(x0)
        system = StateSpace(A=np.zeros(one.shape[:2]), B=one, C=one, D=0 * one, read_before=True)
        y, _ = builder.recurrent("ssm", [builder.reshape(following.value, one.shape[:1]), None, x0], system=system)
        return layout.tracked(builder.reshape(y, shape))

    def recurrent(self, name: str, operands: Sequence[Operand | None], **attrs: Any) -> tuple[Value, Value]:
        """A system, noted as found."""
        y, last = self.translator.builder.recurrent(name, operands, **attrs)
        self.translator.findings.lifts.append(Lift(last.node, self.disguise, self.where, self.error))
        return y, last

    @property
    def batch(self) -> int:
        return self.layouts[0].batch

    def vector(self, items: Sequence[Tracked]) -> Operand:
        """Tensors of the states' shapes as one vector of all n states."""
        builder = self.translator.builder
        parts: list[Operand] = []
        for item, features, layout in zip(items, self.features, self.layouts, strict=True):
            if isinstance(item, Known):
                value = known_operand(builder, layout.spread(np.asarray(item.array, np.float64)), layout.axes)
            elif isinstance(item, Tick):
                rows = np.asarray(item.values, np.float64)
                rows = rows.reshape(len(rows), *(1,) * (len(layout.shape) + 1 - rows.ndim), *rows.shape[1:])
                steps = np.stack([layout.spread(row) for row in rows])
                value = known_operand(builder, steps, "t" + layout.axes, self.like)
            else:
                assert isinstance(item, Flow)
                fits = [d in (1, e) for d, e in zip(item.features[::-1], features[::-1], strict=False)]
                if len(item.features) > len(features) or not all(fits):
                    raise Unsupported("its first value is of another shape than its next one")
                value = builder.broadcast(item.value, features)
            parts.append(builder.reshape(value, (prod(features),)))
        return builder.concat(parts, -1)

    def take(self, x: Operand, index: Any) -> Operand:
        """Features of `x` in another order."""
        size = self.translator.builder.features(x)[-1]
        if np.array_equal(index, np.arange(size)):
            return x
        return self.translator.builder.emit("take", [x], axis=-1, index=Tensor(np.asarray(index, np.int64)))

    def initial(self) -> Operand | None:
        initial = self.vector([state.initial for state in self.states])
        return None if not isinstance(initial, Value) and not np.any(initial) else initial

    def pieces(self, vector: Operand) -> list[Tracked]:
        """The vector of all n states as tensors of the states' shapes."""
        found: list[Tracked] = []
        start = 0
        for layout, features in zip(self.layouts, self.features, strict=True):
            piece = self.translator.builder.slice(vector, -1, start, start + prod(features))
            found.append(layout.tracked(self.translator.builder.reshape(piece, features)))
            start += prod(features)
        return found

    def publish(self, x: Operand, last: Operand) -> None:
        for state, item in zip(self.states, self.pieces(x), strict=True):
            self.translator.env[state.following] = item
        self.last = {state.name: item for state, item in zip(self.states, self.pieces(last), strict=True)}

    def later(self, before: Any) -> None:
        """The states before each step, made when something other than the recurrence reads them."""
        made: list[Tracked] = []

        def piece(i: int) -> Tracked:
            if not made:
                made.extend(self.pieces(before()))
            return made[i]

        for i, state in enumerate(self.states):
            self.translator.later[state.current] = lambda i=i: piece(i)  # type: ignore[misc]
