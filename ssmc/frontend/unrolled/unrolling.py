"""Nodes that do the same at every step, found by walking backwards over all steps at once.

A tuple of values, one a step, is read as one thing: a value that stays the same, one step of a stream, or a family
of nodes (same op, same attributes) at the same step or some steps before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssmc.frontend.source.listing import Call
from ssmc.frontend.unrolled.families import (
    Family,
    Fixed,
    ForeignFamily,
    NodeFamily,
    Reading,
    Reference,
    StreamFamily,
    Tuple,
)
from ssmc.frontend.unrolled.survey import COLOUR_DEPTH, COMMUTATIVE, COMPARISONS, Interval, Survey
from ssmc.ir.graph import Value

SUMS = ("Add", "Sub", "Sum")
BY_ELEMENT = frozenset(["Add", "Sub", "Mul", "Div", *COMPARISONS])  # what may work on numbers of each step's own


@dataclass(eq=False, repr=False)
class Unrolling:
    """All families of one length and one direction; `backward`: step k works on index length - 1 - k."""

    survey: Survey
    length: int
    backward: bool
    spans: dict[Value, Interval]
    read_elsewhere: Any  # (unrolling, tuple) -> Reading | None, for what runs in the other direction
    families: list[Family] = field(default_factory=list)
    _known: dict[Tuple, Reference | None] = field(default_factory=dict)
    _member: dict[Value, list[tuple[NodeFamily, int, int]]] = field(default_factory=dict)
    _streams: dict[tuple[Any, ...], StreamFamily] = field(default_factory=dict)
    _waiting: deque[NodeFamily] = field(default_factory=deque)

    def span(self, value: Value | None) -> Interval | None:
        """First and last step (in the order of this unrolling) that a value depends on."""
        found = None if value is None else self.spans.get(value)
        if found is None or not self.backward:
            return found
        return self.length - 1 - found[1], self.length - 1 - found[0]

    def members(self, value: Value) -> list[tuple[NodeFamily, int, int]]:
        """(family, result, step) of everything that a value is."""
        return self._member.get(value, [])

    # -- reading a tuple -----------------------------------------------------------------------------------

    def read(self, values: Tuple) -> Reference | None:
        """What a tuple of values, in the order of this unrolling, is; None where its steps have nothing in common."""
        if values not in self._known:
            self._known[values] = self._read(values)
        return self._known[values]

    def _read(self, values: Tuple) -> Reference | None:
        last = max((k for k, v in enumerate(values) if v is not None), default=-1)
        if last < 0:
            return None
        final = values[last]
        assert final is not None
        first = _common_from(values, last, lambda v: v == final)
        if _is_core(values, first, last):
            return Fixed(final)
        survey = self.survey
        if _runs_backward([self.span(v) for v in values[: max(last // 2 + 1, 2)] if v is not None]):
            return self._read_foreign(values)
        if final in survey.accesses:
            stream = self._read_stream(values, last)
            if stream is not None:
                return stream
        if survey.is_static(final):
            return None
        for family, index, step in self.members(final):
            found = self._read_member(values, last, family, index, last - step)
            if found is not None:
                return found
        return self._read_nodes(values, last)

    def _read_foreign(self, values: Tuple) -> Reading | None:
        """What runs in the other direction, as a stream that it gives."""
        source: Reading | None = self.read_elsewhere(self, values)
        if source is None:
            return None
        family = ForeignFamily(self.length, source)
        self.families.append(family)
        return Reading(family)

    def _read_stream(self, values: Tuple, last: int) -> Reference | None:
        accesses = self.survey.accesses
        final = accesses[values[last]]  # type: ignore[index]

        def alike(v: Value) -> bool:
            other = accesses.get(v)
            return other is not None and (other.stream, other.axis, other.keep) == (
                final.stream,
                final.axis,
                final.keep,
            )

        earliest = _common_from(values, last, alike)
        index = {k: accesses[v].index for k in range(earliest, last + 1) if (v := values[k]) is not None}
        if len(index) < 2:
            return None
        before, end = sorted(index)[-2:]
        stride, rest = divmod(index[end] - index[before], end - before)
        if stride == 0 or rest:
            return None
        start, delay, first = index[end] - stride * end, 0, last
        for k in sorted(index, reverse=True):
            if index[k] != start + stride * k:
                break
            first = k
        size = self.survey.shape(final.stream)[final.axis]
        while not 0 <= start < size and delay < self.length:  # it begins before the stream does
            start, delay = start + stride, delay + 1
        if not 0 <= start + stride * (self.length - 1) < size or not _is_core(values, max(first, delay), last):
            return None
        key = (final.stream, final.axis, start, stride, final.keep)
        if key not in self._streams:
            self._streams[key] = StreamFamily(self.length, *key)
            self.families.append(self._streams[key])
        return Reading(self._streams[key], 0, delay, values[:delay])

    def _read_member(self, values: Tuple, last: int, family: NodeFamily, index: int, delay: int) -> Reading | None:
        """The tuple as a known family, some steps before."""
        if delay < 0:
            return None
        first = last
        for k in reversed(range(delay, last + 1)):
            member = family.value(k - delay, index)
            if values[k] is not None and member is not None and values[k] != member:
                break
            first = k
        if not _is_core(values, first, last) and not (first == delay and last > first):
            return None
        if delay == 0:
            for k in range(last + 1):
                value = values[k]
                if value is not None and family.nodes[k] is None:
                    family.claims.setdefault((k, index), value)
        return Reading(family, index, delay, values[:delay])

    # -- new families --------------------------------------------------------------------------------------

    def _read_nodes(self, values: Tuple, last: int) -> Reading | None:
        survey = self.survey
        final = values[last]
        call = None if final is None else survey.listing.producer.get(final)
        if call is None or final is None:
            return None
        signature, index = survey.signature(call), final.index

        def alike(v: Value) -> bool:
            other = None if survey.is_static(v) else survey.listing.producer.get(v)
            return other is not None and v.index == index and survey.signature(other) == signature

        first = _common_from(values, last, alike)
        if not _is_core(values, first, last):
            return None
        delay = self._delay(values, first, last)
        nodes: list[Call | None] = [None] * self.length
        claims: dict[tuple[int, int], Value] = {}
        for k in range(delay, last + 1):
            value = values[k]
            if value is None:
                continue
            if k >= first:
                nodes[k - delay] = survey.listing.producer[value]
            else:
                claims[(k - delay, index)] = value
        family = NodeFamily(self.length, tuple(nodes), claims=claims)
        self.families.append(family)
        for step, node in enumerate(nodes):
            for result in () if node is None else node.results:
                self._member.setdefault(result, []).append((family, result.index, step))
        self._waiting.append(family)
        return Reading(family, index, delay, values[:delay])

    def _delay(self, values: Tuple, first: int, last: int) -> int:
        """How many steps a tuple lags behind a stream that it reads; 0 where it is known families that lag."""
        lags = {
            None if (span := self.span(v)) is None else first + k - span[1]
            for k, v in enumerate(values[first : last + 1])
            if v is not None
        }
        lag = lags.pop() if len(lags) == 1 else None
        if lag is None or not 0 < lag <= first:
            return 0
        waiting, seen = deque([values[last]]), set()
        while waiting:
            value = waiting.popleft()
            if value is None or value in seen or self.span(value) is None or value in self._member:
                continue
            if value in self.survey.accesses:
                return lag
            seen.add(value)
            waiting.extend(self.survey.operands(self.survey.listing.producer[value]))
        return 0

    def settle(self) -> bool:
        """Read the operands of the families that wait for it; were there any?"""
        worked = bool(self._waiting)
        while self._waiting:
            family = self._waiting.popleft()
            self._disown(family)
            self._adopt(family)
            rows = self._aligned(family)
            for slot in range(len(family.sample.operands)):
                values = tuple(None if row is None else row[slot] for row in rows)
                if all(v is None for v in values):
                    family.operands.append(None)
                    continue
                reference = self.read(values)
                if reference is None and family.sample.kind in BY_ELEMENT:
                    reference = self._read_table(values)
                family.operands.append(reference)
                family.unread |= reference is None
        return worked

    def _disown(self, family: NodeFamily) -> None:
        """Of a sum with nothing the first step is what it added, though that may be a sum, too."""
        survey, sample, node = self.survey, family.sample, family.nodes[0]
        if sample.kind not in SUMS or node is None or node is sample or survey.similar(node, sample):
            return
        added = (survey.listing.producer.get(v) for v in survey.operands(sample) if v is not None)
        if any(call is not None and survey.similar(node, call) for call in added):
            family.claims[0, 0] = node.results[0]
            family.nodes = (None, *family.nodes[1:])

    def _adopt(self, family: NodeFamily) -> None:
        """Find nodes of the first steps: of products with zero, and where a sum with nothing became what it added."""
        if all(node is not None for node in family.nodes):
            return
        self._adopt_claims(family, family.claims, [])
        for user in self.families:
            if not isinstance(user, NodeFamily) or not user.claims or user.sample.kind not in SUMS:
                continue
            slots = [k for k, operand in enumerate(user.operands) if operand == Reading(family, delay=0)]
            others = [operand for k, operand in enumerate(user.operands) if k not in slots]
            if len(slots) == 1 and (user.sample.kind != "Sub" or slots == [0]):
                self._adopt_claims(family, user.claims, others)

    def _adopt_claims(
        self, family: NodeFamily, claims: Mapping[tuple[int, int], Value], others: Sequence[Reference | None]
    ) -> None:
        survey, nodes = self.survey, list(family.nodes)
        rivals = [o.family.sample for o in others if isinstance(o, Reading) and isinstance(o.family, NodeFamily)]
        for (step, _), value in claims.items():
            node = survey.listing.producer.get(value)
            if nodes[step] is not None or node is None or not survey.similar(node, family.sample):
                continue
            if not any(survey.similar(node, rival) for rival in rivals):
                nodes[step] = node
                for result in () if survey.is_static(value) else node.results:
                    self._member.setdefault(result, []).append((family, result.index, step))
        family.nodes = tuple(nodes)

    def _read_table(self, values: Tuple) -> Reading | None:
        """Numbers of each step's own, as a stream of constants."""
        seen = [v for v in values if v is not None]
        if 2 * len(seen) <= self.length or not all(self.survey.is_static(v) for v in seen):
            return None
        table = self.survey.stacked(values)
        if table is None:
            return None
        key = (table, 0, 0, 1, False)
        if key not in self._streams:
            self._streams[key] = StreamFamily(self.length, *key)
            self.families.append(self._streams[key])
        return Reading(self._streams[key])

    def _aligned(self, family: NodeFamily) -> list[Sequence[Value | None] | None]:
        """Operands of every node, those of commutative ones in the order of the last."""
        survey = self.survey
        rows: list[Sequence[Value | None] | None] = [
            None if node is None else survey.operands(node) for node in family.nodes
        ]
        if family.sample.kind not in COMMUTATIVE or len(family.sample.operands) != 2:
            return rows
        reference = survey.operands(family.sample)
        levels = [survey.colours[level] for level in reversed(range(COLOUR_DEPTH + 1))]
        wanted = [tuple(colours.get(v, -1) if v else -1 for v in reference) for colours in levels]
        for k, row in enumerate(rows):
            if row is None:
                continue
            for colours, (first, second) in zip(levels, wanted, strict=True):
                found = tuple(colours.get(v, -1) if v else -1 for v in row)
                if found == (first, second):
                    break
                if found == (second, first):
                    rows[k] = row[::-1]
                    break
        return rows


def _common_from(values: Tuple, last: int, alike: Any) -> int:
    """The first step from which on all values are alike, up to `last`."""
    first = last
    for k in reversed(range(last + 1)):
        value = values[k]
        if value is not None:
            if not alike(value):
                break
            first = k
    return first


def _is_core(values: Tuple, first: int, last: int) -> bool:
    """Do the steps from `first` on say enough about all: two at least, and no less than those before?"""
    inside = sum(v is not None for v in values[first : last + 1])
    return inside >= 2 and inside >= sum(v is not None for v in values[:first])


def _runs_backward(spans: Sequence[Interval | None]) -> bool:
    """Do values depend on all later steps, and on fewer the later they are?"""
    known = [span for span in spans if span is not None]
    if len(known) < 2 or len(known) < len(spans):
        return False
    return len({b for _, b in known}) == 1 and len({a for a, _ in known}) == len(known) and known[0][0] < known[-1][0]
