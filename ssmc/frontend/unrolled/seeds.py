"""Where to start looking for unrolled steps: values that are joined along time, and those left at the last step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ssmc.frontend.unrolled.families import Reading, Tuple
from ssmc.frontend.unrolled.joins import Join, find_joins
from ssmc.frontend.unrolled.survey import COLOUR_DEPTH, MIN_STEPS, Interval, Survey
from ssmc.frontend.unrolled.unrolling import Unrolling
from ssmc.ir.graph import Value


@dataclass(frozen=True)
class Seed:
    """A join as read by an unrolling; `flipped`: its members stand in the order opposite to that of the steps."""

    join: Join
    unrolling: Unrolling
    reading: Reading
    flipped: bool


@dataclass(eq=False, repr=False)
class Search:
    """Unrollings of all lengths and directions that the seeds of a graph lead to."""

    survey: Survey
    unrollings: dict[tuple[int, bool], Unrolling] = field(default_factory=dict)
    seeds: list[Seed] = field(default_factory=list)
    _spans: dict[int, dict[Value, Interval]] = field(default_factory=dict)
    _cut: set[Value] = field(default_factory=set)

    def run(self) -> None:
        """Read all joins, then what is left at the last step."""
        joins = find_joins(self.survey)
        self._cut = {join.value for join in joins}
        for join in joins:
            self._read_join(join)
        self._settle()
        lengths = {self.survey.shape(a.stream)[a.axis] for a in self.survey.accesses.values()}
        for length in sorted(lengths):
            for backward in (False, True):
                for values in self._chains(length, backward):
                    self.unrolling(length, backward).read(values)
        self._settle()

    def _settle(self) -> None:
        working = True
        while working:  # one may give another work
            working = sum(unrolling.settle() for unrolling in list(self.unrollings.values())) > 0

    def spans(self, length: int) -> dict[Value, Interval]:
        if length not in self._spans:
            self._spans[length] = self.survey.intervals(length, self._cut)
        return self._spans[length]

    def unrolling(self, length: int, backward: bool) -> Unrolling:
        key = (length, backward)
        if key not in self.unrollings:
            self.unrollings[key] = Unrolling(self.survey, length, backward, self.spans(length), self._elsewhere)
        return self.unrollings[key]

    def _elsewhere(self, asking: Unrolling, values: Tuple) -> Reading | None:
        """The tuple as the unrolling in the other direction reads it."""
        found = self.unrolling(asking.length, not asking.backward).read(values[::-1])
        return found if isinstance(found, Reading) else None

    # -- joins ---------------------------------------------------------------------------------------------

    def _read_join(self, join: Join) -> None:
        length = len(join.members)
        backward, flipped = _direction([self.spans(length).get(v) for v in join.members])
        unrolling = self.unrolling(length, backward)
        reading = unrolling.read(join.members[::-1] if flipped else join.members)
        if isinstance(reading, Reading):
            self.seeds.append(Seed(join, unrolling, reading, flipped))

    # -- chains --------------------------------------------------------------------------------------------

    def _chains(self, length: int, backward: bool) -> Iterator[Tuple]:
        """Tuples that end in a value which depends on every step and is read by something that no step repeats."""
        if length < MIN_STEPS:
            return
        unrolling = self.unrolling(length, backward)
        survey, colours = self.survey, self.survey.colours[COLOUR_DEPTH]
        classes: dict[object, dict[int, list[Value]]] = {}
        for value in self.spans(length):
            span = unrolling.span(value)
            if span is not None and span[0] == 0 and survey.canon[value] == value:
                classes.setdefault(colours[value], {}).setdefault(span[1], []).append(value)
        repeated = {
            value
            for members in classes.values()
            if len(members.get(length - 2, ())) == len(members.get(length - 1, ())) > 0
            for value in members[length - 1]
        }
        repeated |= self._cut
        outputs = {survey.canon[value] for value in survey.listing.outputs.values()}
        for colour, members in classes.items():
            for rank, value in enumerate(members.get(length - 1, ())):
                if value not in repeated or unrolling.members(value):
                    continue
                users = [result for call in survey.listing.users.get(value, []) for result in call.results]
                if value in outputs or any(survey.canon[user] not in repeated for user in users):
                    yield _chain(classes[colour], rank, length)


def _chain(members: dict[int, list[Value]], rank: int, length: int) -> Tuple:
    values: list[Value | None] = [None] * length
    for step in reversed(range(length)):
        if len(members.get(step, ())) != len(members[length - 1]):
            break
        values[step] = members[step][rank]
    return tuple(values)


def _direction(spans: Sequence[Interval | None]) -> tuple[bool, bool]:
    """(do the steps run backward, do they stand in the opposite order) of values with these dependences."""
    tail = [span for span in spans[len(spans) // 2 :] if span is not None]
    if len(tail) < 2:
        return False, False
    firsts, lasts = [a for a, _ in tail], [b for _, b in tail]
    if len(set(lasts)) > 1:  # they reach further and further, or each sees one step
        return False, lasts[0] > lasts[-1]
    if len(set(firsts)) > 1:
        return True, firsts[0] < firsts[-1]
    return False, False
