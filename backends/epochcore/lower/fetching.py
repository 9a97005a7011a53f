"""Where parameters lie in the parameter memory: all beside each other or, where it has no room for all, in turns.

What is fetched again and still lies where it was takes no time. So the parameters of a loop of several chunks come once
where they have room beside each other. Where they have not, half of the memory keeps some, at even distances in the
program; the others go round in the rest, in whole rounds, so that the first one of a chunk takes the oldest's place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from backends.epochcore.clock.gemm import ceil_div
from backends.epochcore.lower.draft import Draft, Param
from backends.epochcore.lower.flow import is_loop
from backends.epochcore.program.parameters import param_words
from ssmc.diagnostics import Misfit

Places = dict[tuple[int, str], int]
Uses = Sequence[tuple[int, Sequence[str]]]  # by the number of a step, the constants that it reads


def place_params(draft: Draft, several: Callable[[int], bool]) -> tuple[Places, bool]:
    """Addresses by step and constant, where loops are of `several` chunks or of one; True where not all fit at once and
    each is fetched before its use.

    Raises Misfit where the parameters of one pass are more than half of the memory.
    """
    uses = {stage: _uses(draft, stage) for stage in draft.blocks}
    names = dict.fromkeys(name for some in uses.values() for _, each in some for name in each)
    sizes = {name: param_words(draft.data[name], draft.arch.memory.word_bits) for name in names}
    bound = draft.arch.memory.parameter_words
    memory = _Memory(sizes, bound)
    if sum(sizes.values()) <= bound:
        for some in uses.values():
            memory.beside(some)
        return memory.places, False
    for stage, some in uses.items():
        memory.check(some)
        if not (is_loop(stage) and several(stage)):
            memory.go_round(some)
            continue
        memory.known.clear()
        need = memory.words({name for _, each in some for name in each})
        if need <= bound:
            memory.at = 0 if memory.at + need > bound else memory.at
            memory.beside(some)
        else:
            memory.partly(some)
    return memory.places, True


def _uses(draft: Draft, stage: int) -> Uses:
    found = [
        (step.number, dict.fromkeys(value.name for value in step.operands.values() if isinstance(value, Param)))
        for step in draft.blocks[stage]
    ]
    return [(number, tuple(names)) for number, names in found if names]


@dataclass
class _Memory:
    """The places given so far, and the word behind the last one. `known` is where constants stay."""

    sizes: Mapping[str, int]
    bound: int
    places: Places = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    at: int = 0

    def words(self, names: Sequence[str] | set[str]) -> int:
        return sum(self.sizes[name] for name in names)

    def check(self, uses: Uses) -> None:
        """Raises Misfit where one pass reads more than half of the memory."""
        need, half = max((self.words(names) for _, names in uses), default=0), self.bound // 2
        if need > half:
            raise Misfit(
                "parameters of one pass over the array in half of the parameter memory",
                need,
                half,
                unit="words",
                levers="a larger memory.parameter_words, or a smaller array",
            )

    def put(self, step: int, names: Sequence[str]) -> None:
        for name in names:
            self.places[step, name] = self.at
            self.at += self.sizes[name]

    def beside(self, uses: Uses) -> None:
        """A place for each constant, behind the last one."""
        for step, names in uses:
            for name in names:
                if name not in self.known:
                    self.known[name], self.at = self.at, self.at + self.sizes[name]
                self.places[step, name] = self.known[name]

    def go_round(self, uses: Uses) -> None:
        """One behind the other, and from the beginning again: as many are fetched ahead as there is room for."""
        for step, names in uses:
            self.at = 0 if self.at + self.words(names) > self.bound else self.at
            self.put(step, names)

    def partly(self, uses: Uses) -> None:
        """Some stay, at even distances, and the others go round."""
        half, owed, moving = self.bound // 2, 0.0, []
        share, self.at = half / sum(self.words(names) for _, names in uses), 0
        for step, names in uses:
            need = self.words(names)
            owed += share * need
            if owed >= need and self.at + need <= half:
                owed -= need
                self.put(step, names)
            else:
                moving.append((step, names))
        first = self.at
        for some in _rounds(moving, [self.words(names) for _, names in moving], self.bound - first):
            self.at = first
            for step, names in some:
                self.put(step, names)


def _rounds(uses: Uses, needs: Sequence[int], room: int) -> list[Uses]:
    """As few runs of uses that each have room, and are about as long as each other, as can be."""
    total, number = sum(needs), ceil_div(sum(needs), room)
    while True:
        found: dict[int, list[int]] = {}
        gone = 0
        for place, need in enumerate(needs):
            found.setdefault(number * gone // total, []).append(place)
            gone += need
        if all(sum(needs[place] for place in places) <= room for places in found.values()):
            return [[uses[place] for place in places] for places in found.values()]
        number += ceil_div(number, 4)
