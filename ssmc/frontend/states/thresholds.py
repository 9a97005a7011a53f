"""Comparisons of a step as roundings, and what they switch as products: any step of neurons as `rounded_sums`.

A comparison a > b is the rounding clip(ceil(a - b), 0, 1), exactly; logic of comparisons is a comparison of their sums.
What a comparison picks (Where), switches (a product) or bends (Relu) becomes a product with that number, its gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.maker import Maker
from ssmc.frontend.source.samples import Samples
from ssmc.ir.graph import Value
from ssmc.ir.op import Array

COMPARISONS = frozenset(["Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
LAYOUT = frozenset(["Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Expand", "Slice", "Gather"])


@dataclass(frozen=True)
class Product:
    """`result` = `factor` times `gate`, which is 0 or 1, element by element."""

    call: Call
    factor: Value
    gate: Value
    result: Value


@dataclass(frozen=True)
class Mix:
    """constant + sum of factors times numbers that are 0 or 1."""

    constant: float
    parts: tuple[tuple[float, Value], ...]

    def plus(self, other: Mix, by: float) -> Mix:
        return Mix(self.constant + by * other.constant, (*self.parts, *((by * w, v) for w, v in other.parts)))


@dataclass(frozen=True, eq=False)
class Written:
    """A listing with comparisons as roundings: `thresholds` from what is compared with zero to 0 or 1, `products` with
    such numbers, and `spikes`, values of the old listing that are such numbers."""

    listing: Listing
    influenced: set[Value]
    thresholds: dict[Value, Value]
    products: list[Product]
    spikes: list[Value]
    curved: dict[Value, Call]  # results of products of states, and of states and data
    binary: set[Value]  # states that are 0 or 1


@dataclass(eq=False)
class _Writer:
    """The listing as it is written again; `twins` are numbers 0 and 1 for what is true or false."""

    old: Listing
    samples: Samples
    influenced: set[Value]
    known: Callable[[Value], Array | None]  # a value that is the same for all data
    maker: Maker
    twins: dict[Value, Value] = field(default_factory=dict)
    switches: set[Value] = field(default_factory=set)  # numbers that are 0 or 1
    products: list[Product] = field(default_factory=list)
    thresholds: dict[Value, Value] = field(default_factory=dict)
    spikes: list[Value] = field(default_factory=list)
    mixes: dict[Value, Mix] = field(default_factory=dict)  # sums of numbers that are 0 or 1
    curved: dict[Value, Call] = field(default_factory=dict)

    def mix(self, value: Value | None) -> Mix | None:
        """What a value is made of, where that are switches and constants."""
        if value is None:
            return None
        if value in self.switches:
            return Mix(0.0, ((1.0, value),))
        if value in self.mixes:
            return self.mixes[value]
        array = self.known(value)
        return Mix(float(np.reshape(array, -1)[0]), ()) if array is not None and np.ptp(array) == 0 else None

    def node(self, like: Call, kind: str, *operands: Value, result: Value | None = None) -> Value:
        made = self.maker.node(like, kind, operands, result)
        if not self.influenced.isdisjoint(operands):
            self.influenced.add(made)
        return made

    def number(self, like: Call, value: float) -> Value:
        return self.maker.constant(like, np.asarray(value))

    def above(self, like: Call, x: Value) -> Value:
        """1 where x > 0, else 0."""
        ends = self.number(like, 0.0), self.number(like, 1.0)
        self.thresholds[x] = self.switch(self.node(like, "Clip", self.node(like, "Ceil", x), *ends))
        return self.thresholds[x]

    def switch(self, value: Value) -> Value:
        self.switches.add(value)
        return value

    def inverse(self, like: Call, x: Value, result: Value | None = None) -> Value:
        return self.switch(self.node(like, "Sub", self.number(like, 1.0), x, result=result))

    def product(self, like: Call, factor: Value, gate: Value, result: Value | None = None) -> Value:
        made = self.node(like, "Mul", factor, gate, result=result)
        self.products.append(Product(like, factor, gate, made))
        if factor in self.switches:
            self.switches.add(made)
        return made

    def scaled(self, like: Call, by: float, x: Value) -> Value:
        return x if by == 1.0 else self.node(like, "Mul", self.number(like, by), x)

    def truth(self, like: Call, value: Value) -> Value:
        """The number for what is true or false."""
        if value not in self.twins:
            self.twins[value] = self.maker.node(like, "Cast", [value], to=11)  # float64
        return self.twins[value]

    def dtype(self, value: Value | None) -> str:
        return "?" if value is None else np.asarray(self.samples.at(0, [value])[value]).dtype.kind


def as_roundings(
    listing: Listing,
    samples: Samples,
    influenced: set[Value],
    known: Callable[[Value], Array | None],
    carried: Mapping[Value, Value],
) -> Written | None:
    """The listing with comparisons of `influenced` numbers as roundings; None where nothing is compared.

    `carried` are states that are 0 or 1 at first, and their next values.
    """
    if not any(_compares(call, influenced) for call in listing.calls):
        return None
    binary = dict(carried)
    while True:
        writer = _written(listing, samples, influenced, known, set(binary))
        kept = {state: value for state, value in binary.items() if value in writer.switches}
        if len(kept) == len(binary):
            return Written(
                writer.maker.listing,
                writer.influenced,
                writer.thresholds,
                writer.products,
                writer.spikes,
                writer.curved,
                set(binary),
            )
        binary = kept


def _written(
    listing: Listing,
    samples: Samples,
    influenced: set[Value],
    known: Callable[[Value], Array | None],
    switches: set[Value],
) -> _Writer:
    new = replace(listing, calls=[], producer={}, constants=dict(listing.constants))
    writer = _Writer(listing, samples, set(influenced), known, Maker(new), switches=switches)
    for call in listing.calls:
        moved = [v for v in call.operands if v is not None and v in influenced]
        rule = RULES.get(call.kind) if moved else None
        if rule is None or not rule(writer, call):
            writer.maker.add(call)
    return writer


def _compares(call: Call, influenced: set[Value]) -> bool:
    return call.kind in (*COMPARISONS, "Sign") and any(v in influenced for v in call.operands)


def _is_known(writer: _Writer, value: Value) -> bool:
    return writer.known(value) is not None


def _comparison(writer: _Writer, call: Call) -> bool:
    a, b = call.operands
    assert a is not None and b is not None
    if writer.dtype(a) != "f":
        return False
    swapped = call.kind in ("Less", "GreaterOrEqual")
    difference = writer.node(call, "Sub", *((b, a) if swapped else (a, b)))
    found = writer.above(call, difference)
    writer.twins[call.results[0]] = writer.inverse(call, found) if call.kind.endswith("OrEqual") else found
    return False  # it stays for what is no number


def _sign(writer: _Writer, call: Call) -> bool:
    (x,) = call.operands
    assert x is not None
    if writer.dtype(x) != "f":
        return False
    both = writer.above(call, x), writer.above(call, writer.node(call, "Neg", x))
    writer.node(call, "Sub", *both, result=call.results[0])
    return True


def _cast(writer: _Writer, call: Call) -> bool:
    (x,) = call.operands
    if x in writer.switches:  # from one format to another
        writer.switch(writer.node(call, "Identity", x, result=call.results[0]))
        return True
    if x not in writer.twins:
        return False
    writer.switch(writer.node(call, "Identity", writer.twins[x], result=call.results[0]))
    writer.spikes.append(call.results[0])
    return True


def _logic(writer: _Writer, call: Call) -> bool:
    numbers = [writer.truth(call, v) for v in call.operands if v is not None]
    if call.kind == "Not":
        writer.twins[call.results[0]] = writer.inverse(call, numbers[0])
        return False
    total = writer.node(call, "Add", *numbers)
    if call.kind == "And":
        total = writer.node(call, "Sub", total, writer.number(call, 1.0))
    writer.twins[call.results[0]] = writer.above(call, total)
    return False


def _layout(writer: _Writer, call: Call) -> bool:
    (x, *rest) = call.operands
    if x not in writer.twins and x not in writer.switches:
        return False
    if x in writer.twins:
        twin = Value(f"{call.results[0].node}.number")
        writer.maker.add(replace(call, operands=(writer.twins[x], *rest), results=(twin,)))
        writer.twins[call.results[0]] = writer.switch(twin)
        writer.influenced.add(twin)
        return False
    writer.switch(call.results[0])
    return False


def _where(writer: _Writer, call: Call) -> bool:
    condition, x, y = call.operands
    if condition is None or x is None or y is None or writer.dtype(x) != "f":
        return False
    if condition not in writer.twins:
        return False
    gate = writer.twins[condition]
    parts = []
    for value, switch in ((x, gate), (y, writer.inverse(call, gate))):
        varies = value in writer.influenced or not _is_known(writer, value)
        parts.append(writer.product(call, value, switch) if varies else writer.node(call, "Mul", value, switch))
    writer.node(call, "Add", *parts, result=call.results[0])
    return True


def _product(writer: _Writer, call: Call) -> bool:
    a, b = call.operands
    assert a is not None and b is not None
    if b not in writer.influenced or writer.mix(b) is None:
        a, b = b, a
    moving = a in writer.influenced, b in writer.influenced
    mix = writer.mix(b) if moving[1] else None
    if mix is None or not mix.parts:
        if all(moving) or not _is_known(writer, a if moving[1] else b):
            writer.curved[call.results[0]] = call
        return False
    if not moving[0] and _is_known(writer, a):
        return _mixed(writer, call)
    if mix == Mix(0.0, ((1.0, b),)):
        writer.product(call, a, b, call.results[0])
        return True
    parts = [writer.scaled(call, w, writer.product(call, a, switch)) for w, switch in mix.parts]
    parts += [writer.scaled(call, mix.constant, a)] if mix.constant or len(parts) == 1 else []
    for part in parts[1:-1]:
        parts[0] = writer.node(call, "Add", parts[0], part)
    writer.node(call, "Add", parts[0], parts[-1], result=call.results[0])
    return True


def _mixed(writer: _Writer, call: Call) -> bool:
    """Sums and multiples of numbers that are 0 or 1."""
    a, b = (writer.mix(v) for v in call.operands[:2])
    if call.kind == "Div" and call.operands[1] in writer.influenced:
        writer.curved[call.results[0]] = call
    if a is None or b is None:
        return False
    found: Mix | None = None
    if call.kind in ("Add", "Sub"):
        found = a.plus(b, 1.0 if call.kind == "Add" else -1.0)
    elif call.kind == "Mul" and not (a.parts and b.parts):
        found = Mix(0.0, ()).plus(*((a, b.constant) if a.parts else (b, a.constant)))
    elif call.kind == "Div" and not b.parts and b.constant:
        found = Mix(0.0, ()).plus(a, 1.0 / b.constant)
    if found is None:
        return False
    writer.mixes[call.results[0]] = found
    if len(found.parts) == 1 and {found.constant, found.constant + found.parts[0][0]} == {0.0, 1.0}:
        writer.switch(call.results[0])
    return False


def _relu(writer: _Writer, call: Call) -> bool:
    (x,) = call.operands
    assert x is not None
    writer.product(call, x, writer.above(call, x), call.results[0])
    return True


RULES: dict[str, Callable[[_Writer, Call], bool]] = {
    **dict.fromkeys(COMPARISONS, _comparison),
    **dict.fromkeys(("And", "Or", "Not"), _logic),
    **dict.fromkeys(LAYOUT, _layout),
    "Sign": _sign,
    "Cast": _cast,
    "Where": _where,
    "Mul": _product,
    **dict.fromkeys(("Add", "Sub", "Div"), _mixed),
    "Relu": _relu,
}
