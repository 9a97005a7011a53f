"""What the values of a listing are at a few sample inputs: computed when asked for, kept as far as there is room."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmc.frontend.source.effort import Effort
from ssmc.frontend.source.evaluate import SMALL, followed, planned
from ssmc.frontend.source.listing import Listing
from ssmc.frontend.source.outlines import outlined
from ssmc.ir.graph import Value
from ssmc.ir.tensor import widened

KEPT = 1 << 26  # bytes of sample values that are not computed again
OPEN = 1 << 28  # and of those that were computed last, from which the next ones are


@dataclass(eq=False)
class Samples:
    """Arrays of the ONNX values at a few sample inputs.

    Of what is met on the way to a value the small ones stay, and those that other nodes read: what is asked for next
    starts from these, so that large models are run once and not from their inputs each time.
    """

    listing: Listing
    points: list[dict[Value, Any]]

    def __post_init__(self) -> None:
        self._held = [deque[tuple[Value, int]]() for _ in self.points]  # what was computed, the oldest first
        self._size = [0] * len(self.points)
        self._seen: dict[Value, tuple[tuple[int, ...], np.dtype[Any]]] = {}  # at the first point, whether held or not

    def at(self, point: int, values: Iterable[Value]) -> dict[Value, Any]:
        """The arrays of `values` at one of the points."""
        known = self.points[point]
        wanted = list(values)
        missing = [v for v in wanted if v not in known and v not in self.listing.constants]
        passed: dict[Value, Any] = {}
        if missing:
            plan = planned(self.listing, missing, known)
            inside = {call.position for call, _ in plan}

            def note(value: Value, array: Any) -> None:
                if not isinstance(array, np.ndarray):
                    return
                if point == 0:
                    self._seen[value] = array.shape, _wide(array.dtype)
                if array.nbytes <= SMALL or (array.dtype != np.float32 and self._is_open(value, inside)):
                    passed[value] = array

            passed.update(followed(plan, self.listing, known, missing, note, Effort(self.listing.around)))
            known.update(passed)
        found = {v: known[v] if v in known else widened(self.listing.constants[v]) for v in wanted}
        if passed:
            self._keep(point, passed)
        return found

    def shape(self, value: Value) -> tuple[int, ...]:
        """The shape of a value at the first point."""
        if value in self.listing.constants:
            return np.shape(self.listing.constants[value])
        if value not in self._seen:
            self._outline(value)
        return self._seen[value][0] if value in self._seen else np.shape(self.at(0, [value])[value])

    def _outline(self, value: Value) -> None:
        """See the shapes of all on the way to a value at the first point, if these can be told."""
        known = self.points[0]
        found = outlined(planned(self.listing, [value], known), self.listing, known) if value not in known else None
        for other, array in (found or {}).items():
            if isinstance(array, np.ndarray):
                self._seen[other] = array.shape, _wide(array.dtype)

    def dtype(self, value: Value) -> np.dtype[Any]:
        """The format of a value at the first point, where single precision is widened."""
        return self._seen[value][1] if value in self._seen else np.asarray(self.at(0, [value])[value]).dtype

    def _is_open(self, value: Value, inside: set[int]) -> bool:
        return any(call.position not in inside for call in self.listing.users.get(value, ()))

    def _keep(self, point: int, computed: Mapping[Value, Any]) -> None:
        """Note what was computed, and drop what was computed first until the rest is small enough."""
        held = self._held[point]
        for value, array in computed.items():
            held.append((value, np.asarray(array).nbytes if not isinstance(array, list) else 0))
            self._size[point] += held[-1][1]
        while held and self._size[point] > (KEPT if len(held) > len(computed) else OPEN):
            value, size = held.popleft()
            self._size[point] -= size
            self.points[point].pop(value, None)


def _wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64) if dtype == np.float32 else dtype
