"""What the model takes and gives: axes and roles of inputs and outputs, and concrete sizes to study it at."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from math import prod
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.source.listing import Listing
from ssmc.ir.graph import Graph, Value
from ssmc.ir.op import Array
from ssmc.ir.types import TensorType

MAX_INPUT = 1 << 27  # numbers in an input, of one sample and step where those axes are dynamic
MAX_READINGS = 24  # ways to read the inputs' axes that are tried before giving up
SHORTEST = 5  # whole numbers in a row of which some are made alike (ours)
MAX_TRIED = 1 << 17  # beginnings of such ways that are looked at (ours: a second)


def input_types(graph: Graph) -> dict[str, TensorType]:
    """Declared types of the model's inputs. Raises UserError for one of no declared rank, or none."""
    found = {}
    for node in graph.inputs():
        kind = node.op["type"]
        if kind.shape is None:
            raise UserError(
                f"the input '{node.op['name']}' has no declared shape",
                why="it may be no tensor: sequences, maps and optional values are not supported",
                hint="export the model with its input shapes (dynamic axes may be named)",
            )
        if 0 in kind.shape:
            raise UserError(
                f"the input '{node.op['name']}' is empty: it is declared as ({', '.join(map(str, kind.shape))})",
                hint="export the model at the sizes that it is to have (dynamic axes may be named)",
            )
        if kind.dtype.startswith(("str", "object", "complex", "?")):
            raise UserError(f"the input '{node.op['name']}' holds no real numbers ({kind.dtype})")
        size = prod(d for d in kind.shape if isinstance(d, int) and d > 0)
        if size > MAX_INPUT:
            raise UserError(
                f"the input '{node.op['name']}' is too large: {size} numbers",
                hint=f"at most {MAX_INPUT}; export the model with a dynamic or a shorter length",
            )
        found[node.op["name"]] = kind
    if not found:
        raise UserError("the model has no inputs", hint="export it with the data as its inputs, not as weights")
    return found


def concrete_shapes(types: Mapping[str, TensorType], batch: int, length: int) -> dict[str, tuple[int, ...]]:
    """Sizes for the dynamic axes, by what they are taken for (`dynamic_axes`)."""
    letters, found = dynamic_axes(types), {}
    for name, kind in types.items():
        assert kind.shape is not None
        sizes = zip(kind.shape, letters[name], strict=True)
        found[name] = tuple(int(d) if a == "." else {"b": batch, "t": length}[a] for d, a in sizes)  # type: ignore[arg-type]
    return found


def dynamic_lengths(types: Mapping[str, TensorType]) -> list[str]:
    """The names of the axes that are taken for time."""
    letters = dynamic_axes(types)
    dims = [(d, a) for name, kind in types.items() for d, a in zip(kind.shape or (), letters[name], strict=True)]
    return list(dict.fromkeys(str(d) for d, a in dims if a == "t" and isinstance(d, str)))


def dynamic_axes(types: Mapping[str, TensorType]) -> dict[str, str]:
    """A letter for each axis of each input: `b` and `t` for a dynamic one, by what it is taken for, `.` for any other.

    The first axis is taken for the batch, any other for time; unless its name is that of a first axis, or no input has
    two dynamic axes and some have the first (states of several layers, which stand before the batch).
    """
    dims = {name: kind.shape or () for name, kind in types.items()}
    free = {n: [i for i, d in enumerate(shape) if not (isinstance(d, int) and d > 0)] for n, shape in dims.items()}
    first = {shape[0] for n, shape in dims.items() if 0 in free[n]} - {None}
    later = {shape[i] for n, shape in dims.items() for i in free[n] if i > 0} - {None}
    batch = first - later or first
    alone = all(len(axes) < 2 for axes in free.values()) and any(0 in axes for axes in free.values())

    def meaning(i: int, d: int | str | None) -> str:
        return "b" if alone or d in batch or (i == 0 and d is None) else "t"

    return {
        n: "".join(meaning(i, d) if i in free[n] else "." for i, d in enumerate(shape)) for n, shape in dims.items()
    }


def is_dynamic(types: Mapping[str, TensorType]) -> tuple[bool, bool]:
    """Is the batch dynamic, is the length?"""
    letters = "".join(dynamic_axes(types).values())
    return "b" in letters, "t" in letters


def step_axes(types: Mapping[str, TensorType], states: Collection[str]) -> Iterator[dict[str, str]]:
    """Ways to read the axes of a one-step model, the likeliest first: where the batch is in each input, if anywhere.

    It is the first axis of the data; of states another may be of its size, after one for the layers.
    """
    ranks = {name: len(kind.shape or ()) for name, kind in types.items()}
    letters = dynamic_axes(types)
    if any(is_dynamic(types)):
        first = "b" if any("b" in told for told in letters.values()) else "t"  # behind beams or layers everywhere
        places = {name: max(letters[name].find(first), 0) for name in types}
        alone = {name: places[name] if first in letters[name] else -1 for name in types}
        for chosen in (alone, places) if alone != places else (places,):  # what is of fixed size may have no batch
            yield {name: _with_batch(rank, chosen[name]) for name, rank in ranks.items()}
        return
    data = {kind.shape[0] if kind.shape else None for name, kind in types.items() if name not in states}
    size = next(iter(data)) if len(data) == 1 else None
    if size is not None:
        options = [
            [i for i, d in enumerate((kind.shape or ())[: 2 if name in states else 1]) if d == size]
            for name, kind in types.items()
        ]
        single = [kind.shape == (1,) and kind.dtype.startswith(("int", "uint")) for kind in types.values()]
        if size == 1 and not all(single):  # one number for all, as what counts the steps
            options = [[*places, -1] if alone else places for places, alone in zip(options, single, strict=True)]
        shapes = [(len(kind.shape or ()), kind.dtype) for name, kind in types.items() if name not in states]
        tokens = all(dtype.startswith(("int", "uint")) for _, dtype in shapes)
        sure = size == 1 or max(rank for rank, _ in shapes) > 1 or tokens
        for told in islice(product(*options), MAX_READINGS) if sure else ():
            yield {n: _with_batch(rank, place) for (n, rank), place in zip(ranks.items(), told, strict=True)}
    yield {name: "f" * rank for name, rank in ranks.items()}


def _with_batch(rank: int, place: int) -> str:
    return "".join("b" if i == place else "f" for i in range(rank))


def readings(
    shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str], weights: Collection[str] = ()
) -> Iterator[dict[str, str]]:
    """Ways to read the inputs of a sequence model, the likeliest first: axes for each input.

    `weights` are likely to have neither a batch nor steps.
    """
    options = []
    for name, shape in shapes.items():
        integer = not dtypes[name].startswith(("float", "bfloat", "double"))
        match len(shape):
            case 0:
                options.append([""])
            case 1:
                options.append(["t", "b", "f"])
            case 2:
                options.append(["bt", "tb"] if integer else ["bt", "bf", "tf", "tb", "ff", "ft"])
            case n:
                rest = "f" * (n - 3)
                options.append(["btf" + rest, "bft" + rest, "tbf" + rest, "bff" + rest])
                if n == 4:
                    options[-1].append("bfft")
        if name in weights:
            features = "f" * len(shape)
            options[-1] = [features, *(axes for axes in options[-1] if axes != features)]
    found = _ranked(options, list(shapes.values()))
    yield from islice((dict(zip(shapes, axes, strict=True)) for axes in found), MAX_READINGS)


def _ranked(options: Sequence[Sequence[str]], shapes: Sequence[tuple[int, ...]]) -> Iterator[list[str]]:
    """Choices of axes that agree in batch and length, by the sum of their places among the options."""
    room = [sum(len(o) - 1 for o in options[k:]) for k in range(len(options) + 1)]
    tried = 0
    for total in range(room[0] + 1):
        waiting: list[_Choice] = [_Choice(0, total)]
        while waiting and tried < MAX_TRIED:
            here = waiting.pop()
            tried += 1
            if here.inputs < len(options):
                k = here.inputs
                places = range(max(0, here.left - room[k + 1]), min(here.left, len(options[k]) - 1) + 1)
                following = (here.then(i, options[k][i], shapes[k]) for i in places)
                waiting += reversed([choice for choice in following if choice is not None])
            elif here.steps not in (None, 1):
                yield here.axes()


@dataclass(frozen=True)
class _Choice:
    """Axes of the first `inputs` inputs; `left` is the sum of the places of those to come."""

    inputs: int
    left: int
    batch: int | None = None
    steps: int | None = None
    letters: str = ""
    before: _Choice | None = None

    def then(self, place: int, letters: str, shape: tuple[int, ...]) -> _Choice | None:
        """With the axes of the next input; None where its sizes are others."""
        sizes = {"b": self.batch, "t": self.steps}
        for letter, size in zip(letters, shape, strict=True):
            if letter in "bt":
                if sizes[letter] not in (None, size):
                    return None
                sizes[letter] = size
        return _Choice(self.inputs + 1, self.left - place, sizes["b"], sizes["t"], letters, self)

    def axes(self) -> list[str]:
        found, here = [], self
        while here.before is not None:
            found.append(here.letters)
            here = here.before
        return found[::-1]


def fixed_inputs(types: Mapping[str, TensorType]) -> list[str]:
    """Inputs of a fixed shape beside others with dynamic axes, as weights that are given with the data."""
    fixed = [name for name, kind in types.items() if all(isinstance(d, int) for d in kind.shape or ())]
    return [n for n in fixed if types[n].dtype.startswith("float")] if len(fixed) < len(types) else []


def role_of(axes: str, others: Collection[str]) -> str:
    """The role of an input of a sequence model: a state that it starts from may be left out, weights may not."""
    starts = "t" not in axes and "f" in axes and ("b" in axes or not any("b" in other for other in others))
    return "state" if starts else "data"


def with_time(axes: str) -> str:
    """The axes of a stream of which one step has these."""
    return f"{axes[0]}t{axes[1:]}" if "b" in axes else f"bt{axes}"


def dynamic_features(types: Mapping[str, TensorType], axes: Mapping[str, str]) -> int:
    """Axes of unknown size that a reading takes for features."""
    shapes = {name: kind.shape or () for name, kind in types.items()}
    return sum(
        letter == "f" and not isinstance(d, int)
        for name, letters in axes.items()
        for letter, d in zip(letters, shapes[name], strict=True)
    )


def sample_inputs(
    listing: Listing, shapes: Mapping[str, tuple[int, ...]], types: Mapping[str, TensorType], seed: int
) -> dict[Value, Array]:
    """Random inputs of the given shapes: tokens inside the tables they index, single numbers a step positive."""
    rng = np.random.default_rng(seed)
    found: dict[Value, Any] = {}
    steps = max((shape[1] for shape in shapes.values() if len(shape) > 1), default=1)
    for name, value in listing.inputs.items():
        shape, dtype = shapes[name], types[name].dtype
        if dtype == "bool":
            found[value] = rng.integers(0, 2, shape).astype(bool)
        elif dtype.startswith(("int", "uint")):
            counts = len(shape) < 2 or shape[1:] == (1,)  # one a sequence: how many steps of it are valid, say
            most = _rows(listing, value, steps + 1 if counts else 2)
            found[value] = rng.integers(int(counts and most == steps + 1), most, shape)
        elif len(shape) < 3 and (len(shape) < 2 or shape[-1] == 1 or (len(shapes) > 1 and len(shape) == 2)):
            found[value] = np.float32(rng.uniform(0.05, 1.0, shape)).astype(np.float64)
        else:
            found[value] = np.float32(rng.standard_normal(shape)).astype(np.float64)
    return found


def sample_points(
    listing: Listing, shapes: Mapping[str, tuple[int, ...]], types: Mapping[str, TensorType]
) -> list[dict[Value, Array]]:
    """Sample inputs that show what depends on the data: two, of which no integers are all the same where they can
    differ; and where a single number a step counts, such as a position, one at its start."""
    whole = [name for name in listing.inputs if types[name].dtype.startswith(("int", "uint"))]
    values = [listing.inputs[name] for name in whole]
    first, second = (sample_inputs(listing, shapes, types, seed) for seed in range(2))
    for seed in range(2, 9):
        if any(np.array_equal(first[v], second[v]) for v in values):
            second = sample_inputs(listing, shapes, types, seed)
    for name in listing.inputs:
        if not types[name].dtype.startswith("float"):
            _alike_and_apart(first[listing.inputs[name]], second[listing.inputs[name]])
    counts = {listing.inputs[name]: shapes[name] for name in whole if int(np.prod(shapes[name])) == 1}
    start = {**second, **{v: np.zeros(shape, np.int64) for v, shape in counts.items()}}
    return [first, second, start] if counts else [first, second]


def _alike_and_apart(first: Array, second: Array) -> None:
    """Let whole numbers in the middle of the longest axis be alike in one sample and change in the other: models may
    compare neighbours, as where a segment begins."""
    axis = int(np.argmax(first.shape)) if first.ndim else 0
    if first.ndim == 0 or first.shape[axis] < SHORTEST:
        return
    middle, some, other = first.shape[axis] // 2, np.moveaxis(first, axis, 0), np.moveaxis(second, axis, 0)
    some[middle - 1 : middle + 2] = first.min() if first.dtype == bool else some[middle - 1]
    other[middle - 1 : middle + 2] = second.min()
    other[middle] = second.max()


def _rows(listing: Listing, value: Value, default: int) -> int:
    """How many different integers an input may hold: the shortest table that it looks up."""
    sizes = [default if not listing.users.get(value) else 1 << 16]
    reached = listing.influenced({value})
    for call in listing.calls:
        if call.kind == "Gather" and call.operands[1] in reached and call.operands[0] in listing.constants:
            sizes.append(listing.constants[call.operands[0]].shape[int(call.attrs.get("axis", 0))])
    return max(min(sizes), 1) if min(sizes) < 1 << 16 else default
