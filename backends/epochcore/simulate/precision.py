"""Which values of an ideal program are float32, as the model's own are, and which stay float64.

The words of a model are float32 where all its floating inputs and outputs are; else, and in a program that does not
say or that rounds words to whole numbers, everything is float64: in float32 a code of 16 bits is off by a step once in
some hundred words. Between layers such words lose what the reference loses too. Around states that is not
so: how well a system is conditioned in the basis that the compiler chose says nothing about the model. These stay
float64, whatever the model's words are:

* single rows: constants, carried values and states, values given once a sequence;
* decays that are streamed (a decay near 1 in float32 has lost its time constant) and what they are made from;
* states that are summed up afterwards, and their drives: in y = C x large terms may cancel. A state that is an output
  by itself has nothing to cancel with; it is accumulated in float64 and rounded once;
* outputs of systems that are summed up pass by pass;
* potentials that are compared with a threshold, states that are rounded, and their drives;
* whole numbers and timestamps, until a function or a matrix takes them.

"From" and "afterwards" mean through instructions that move values or are linear in each of them. The choice reads the
code alone, never the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from backends.epochcore.program.table import parts_of
from backends.epochcore.simulate.buffers import Use
from isa import Program

NARROW = ("float32", "complex64", "float16", "bfloat16")
# whole numbers that float32 holds exactly
SMALL = ("bool", "int8", "uint8", "int16", "uint16")
WHOLE = ("round", "floor", "ceil")
STEPPED = ("spike", "rounded", "rounded.sums")
STATES = ("fri.x", "tri.x", "sel", "scan", *STEPPED)
LINEAR = (
    *(
        "copy",
        "gather",
        "binary",
        "select",
        "delay",
        "downsample",
        "unfold",
        "fold",
        "fir",
        "load",
        "store",
        "pool",
        "average",
    ),
    *STATES,
)
SYSTEMS = ("fri", "tri")
SUMS = ("mac", "contract", "reduce", *SYSTEMS)


def narrow_makers(program: Program, uses: Iterable[Use]) -> frozenset[int]:
    """The instructions that make float32 buffers; `uses` are the buffers' reads and writes."""
    codes = any(ins.mnemonic == "unary" and ins["fn"] in WHOLE for ins in program.sections[0].code)
    if codes or not _is_narrow(program):
        return frozenset()
    return _Flow(program, uses).narrow()


def _ports(program: Program) -> dict[str, str]:
    """The model's element types by name, as far as the program tells them."""
    interface: Any = program.meta.get("interface")
    if not isinstance(interface, dict):
        return {}
    return {str(port["name"]): str(port["dtype"]) for kind in ("inputs", "outputs") for port in interface[kind]}


def _is_narrow(program: Program) -> bool:
    kinds = [kind for kind in _ports(program).values() if not kind.startswith(("int", "uint", "bool"))]
    return bool(kinds) and all(kind in NARROW for kind in kinds)


class _Flow:
    """Buffers (by maker) and streams (by number, as ~number) that values move along."""

    def __init__(self, program: Program, uses: Iterable[Use]) -> None:
        self.program, self.code = program, program.sections[0].code
        self.reads: dict[int, set[int]] = {}
        self.writes: dict[int, set[int]] = {}
        for use in uses:
            (self.writes if use.writes else self.reads).setdefault(use.index, set()).add(use.maker)
        for index, ins in enumerate(self.code):
            if ins.mnemonic == "load":
                self.reads[index] = {~int(ins["src"])}
            elif ins.mnemonic == "store":
                self.writes[index] = {~int(ins["dst"])}
        self.forward: dict[int, set[int]] = {}
        self.backward: dict[int, set[int]] = {}
        for index in self.of(*LINEAR):
            for source, target in product(self.read(index), self.written(index)):
                self.forward.setdefault(source, set()).add(target)
                self.backward.setdefault(target, set()).add(source)

    def of(self, *mnemonics: str) -> list[int]:
        return [index for index, ins in enumerate(self.code) if ins.mnemonic in mnemonics]

    def read(self, index: int) -> set[int]:
        return self.reads.get(index, set())

    def written(self, index: int) -> set[int]:
        return self.writes.get(index, set())

    def after(self, nodes: Iterable[int]) -> set[int]:
        return _closure(self.forward, nodes)

    def before(self, nodes: Iterable[int]) -> set[int]:
        return _closure(self.backward, nodes)

    def narrow(self) -> frozenset[int]:
        summed = self.summed()
        wide = summed | self.before(self.drives(summed)) | self.partial(summed) | self.after(self.exact())
        wide |= self.after(node for index in self.of(*STEPPED) for node in self.written(index))
        makers = set().union(*self.writes.values()) if self.writes else set()
        return frozenset(maker for maker in makers - wide if maker >= 0)

    def summed(self) -> set[int]:
        """States, and what they become, on the way to a sum over several of them."""
        from_states = self.after(node for index in self.of(*STATES) for node in self.written(index))
        ends = {node for index in self.of(*SUMS) for node in self.read(index)}
        for index in self.of("binary"):
            if len(both := self.read(index) & from_states) > 1:
                ends |= both
        return self.before(ends & from_states) & from_states

    def drives(self, summed: set[int]) -> set[int]:
        """What summed states take up, and decays that change."""
        found = set()
        for index in self.of(*STATES):
            ins = self.code[index]
            changes = ins.mnemonic in ("tri.x", *STEPPED) or (ins.mnemonic in ("sel", "scan") and not ins["a_held"])
            if changes or self.written(index) & summed:
                found |= self.read(index)
        return found

    def partial(self, summed: set[int]) -> set[int]:
        """Results to which passes over states add."""
        found = set()
        for index in self.of("mac", *SYSTEMS):
            if self.code[index]["accumulate"]:
                found |= self.written(index)
        over_states = self.of(*SYSTEMS) + [index for index in self.of("mac") if self.read(index) & summed]
        return found & {node for index in over_states for node in self.written(index)}

    def exact(self) -> set[int]:
        """Inputs that float32 would not hold."""
        kinds = _ports(self.program)
        streams = {
            ~int(port.binding["stream"])
            for port in self.program.inputs
            if isinstance(port.binding, dict) and kinds.get(port.name, "") not in (*NARROW, *SMALL)
        }
        streams |= {~number for number, (whole, _, _) in parts_of(self.program).items() if ~whole in streams}
        return {node for index in self.of("load") if self.read(index) & streams for node in self.written(index)}


def _closure(edges: Mapping[int, set[int]], nodes: Iterable[int]) -> set[int]:
    """The nodes and all that can be reached from them."""
    found = set(nodes)
    waiting = list(found)
    while waiting:
        new = edges.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found
