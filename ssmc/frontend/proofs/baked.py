"""A traced batch or length that an exporter wrote into a file which declares that axis dynamic: which, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Refusal
from ssmc.frontend.proofs.reference import runner
from ssmc.frontend.source.evaluate import body_of, evaluate, run_call
from ssmc.frontend.source.interface import concrete_shapes, is_dynamic, sample_inputs
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.sizes import BATCH, LONGEST
from ssmc.frontend.source.values import forbidden
from ssmc.ir.graph import Value
from ssmc.ir.types import TensorType

TRIES = 64  # sizes at which a file is run that does not run at any (ours)
SHORT = 34  # lengths below it that are tried though the file does not show them, as the stages of a scan do not (ours)
PARTS = frozenset(["Gather", "Squeeze", "Unsqueeze", "Slice", "Reshape", "Cast", "Identity"])
Size = tuple[int, int]  # batch and length


@dataclass(frozen=True, eq=False)
class File:
    """A file as it is, its declared types, and at which length it is studied."""

    path: Path
    listing: Listing
    types: Mapping[str, TensorType]
    declared: Mapping[str, TensorType]  # of its outputs
    length: int


def baked_size(file: File) -> Refusal | None:
    """Which node holds a size that is declared dynamic; None where it runs at any, or at none.

    Asked only of a file that could not be lifted: it is run at the sizes that its shapes tell.
    """
    usual = BATCH, file.length
    if _loops(file.listing):
        return None  # onnxruntime runs one that never ends for ever
    if not any(is_dynamic(file.types)) or _runs(file, usual):
        return None
    good = next((size for size in islice(_written_sizes(file, usual), TRIES) if _runs(file, size)), None)
    if good is None:
        return None
    which = [k for k in range(2) if good[k] != usual[k] and not _runs(file, _with(good, k, usual[k]))]
    if not which or (which[-1] == 1 and _runs(file, _with(good, 1, 2 * good[1]))):  # only not at every length
        return None
    what = " and ".join(f"the {('batch', 'length')[k]} {good[k]}" for k in which)
    other = _with(good, which[0], usual[which[0]])
    node = _holder(file, good, other, which[0])
    usually = f"batch {usual[0]}, length {usual[1]}"
    reason = f"it holds {what}, which the file declares dynamic; the file runs at {what}, not at {usually}"
    return Refusal(file.path.name if node is None else node.name, "model" if node is None else node.kind, reason)


def runs_at(file: File, length: int) -> bool:
    """Does the file run at a length, as far as can be told by running it?"""
    return _loops(file.listing) or _runs(file, (BATCH, length))


def breaks_anywhere(file: File, error: UserError) -> bool:
    """Does a node break for one reason whatever the length is, so that it is not the length that breaks it?"""
    if not error.node or _loops(file.listing):
        return False
    for length in (file.length + 1, 2 * file.length):
        point = sample_inputs(file.listing, concrete_shapes(file.types, BATCH, length), file.types, 0)
        try:
            evaluate(file.listing, point, list(file.listing.outputs.values()))
        except UserError as other:
            if (other.node, other.why) != (error.node, error.why):
                return False
        else:
            return False
    return True


def _loops(listing: Listing) -> bool:
    """May the file, or a body in it, loop for ever? Not where its trips are told, or are what a shape says."""
    return any(
        (call.kind == "Loop" and not _ends(listing, call.operands[0]))
        or any(_loops(body_of(call, name)) for name in call.op["regions"])
        for call in listing.calls
    )


def _ends(listing: Listing, trips: Value | None) -> bool:
    """Is this number of trips a small constant, or a part of a shape?"""
    if trips is None or trips in listing.constants:
        return trips is not None and int(np.max(listing.constants[trips], initial=0)) <= LONGEST
    call = listing.producer.get(trips)
    if call is None:
        return False
    return call.kind == "Shape" or (call.kind in PARTS and _ends(listing, call.operands[0]))


def _with(size: Size, which: int, value: int) -> Size:
    return (value, size[1]) if which == 0 else (size[0], value)


def _written_sizes(file: File, usual: Size) -> Iterator[Size]:
    """Batches and lengths that stand in the file's shapes, the likeliest first."""
    dynamic, calls = is_dynamic(file.types), file.listing.calls
    told = [file.listing.constants[v] for call in calls for v in _shape_operands(file.listing, call)]
    shapes = [tuple(int(d) for d in np.ravel(a)) for a in told]
    tables = [a.shape for a in file.listing.constants.values() if 1 < np.ndim(a) <= 4]
    steps = [1 + max((int(np.max(a)) for call in calls for a in _indices(file.listing, call)), default=0)]
    trips = [_trips(file.listing, call) for call in calls]
    written = dict.fromkeys(d for shape in (*trips, steps, *shapes, *tables) for d in shape if 1 < d <= LONGEST)
    begun, first = ([s[0] for s in told if s and 1 < s[0] <= 64] for told in (_starts(file.listing), shapes))
    batches = [usual[0], *begun, 1, *first] if dynamic[0] else [usual[0]]
    lengths = [usual[1], *written, *range(2, SHORT)] if dynamic[1] else [usual[1]]
    pairs = product(dict.fromkeys(batches), dict.fromkeys(lengths))
    yield from sorted(pairs, key=lambda s: (s[1] != usual[1], s[1] not in written))


def _starts(listing: Listing) -> list[tuple[int, ...]]:
    """The shapes of constants from which a loop starts."""
    loops = [call for call in listing.calls if call.kind in ("Scan", "Loop")]
    return [np.shape(listing.constants[v]) for call in loops for v in call.operands if v in listing.constants]


def _trips(listing: Listing, call: Call) -> tuple[int, ...]:
    """How often a Loop runs, if the file says it."""
    told = listing.constants.get(call.operands[0]) if call.kind == "Loop" and call.operands[0] is not None else None
    return () if told is None else tuple(int(d) for d in np.ravel(told))


def _shape_operands(listing: Listing, call: Call) -> list[Value]:
    """The operand that says what shape the result has, if the file says it."""
    operands = call.operands[1:2] if call.kind in ("Reshape", "Expand") else ()
    return [v for v in operands if v is not None and v in listing.constants]


def _indices(listing: Listing, call: Call) -> list[np.ndarray]:
    """The places that a Gather takes, if the file says them: steps that are unrolled are taken one by one."""
    places = call.operands[1] if call.kind == "Gather" else None
    return [listing.constants[places]] if places in listing.constants and np.size(listing.constants[places]) else []


def _allowed(listing: Listing, point: Mapping[Value, Any]) -> bool:
    """May frames be what they are computed to be? onnxruntime ends the process where they are not."""
    calls = [call for call in listing.calls if call.kind == "STFT"]
    told = [v for call in calls for v in call.operands[1:] if v is not None]
    try:
        found = evaluate(listing, point, told) if told else {}
    except UserError:  # nor will it run anywhere else
        return False
    return all(forbidden(c, [None, *(None if v is None else found[v] for v in c.operands[1:])]) is None for c in calls)


def _runs(file: File, size: Size) -> bool:
    """Does onnxruntime run the file at a size, and are its outputs of the size that they are declared to be?"""
    shapes = concrete_shapes(file.types, *size)
    point = sample_inputs(file.listing, shapes, file.types, 0)
    if not _allowed(file.listing, point):
        return False
    try:
        feed = {n: np.asarray(point[v]).astype(file.types[n].dtype) for n, v in file.listing.inputs.items()}
        found = runner(str(file.path))(feed)
    except Exception:  # whatever it is that it says
        return False
    sizes: dict[Any, int] = {
        d: s for n, kind in file.types.items() for d, s in zip(kind.shape or (), shapes[n], strict=True)
    }
    for name, kind in file.declared.items():
        if kind.shape is None:
            continue
        shape = np.shape(found[name])
        if len(shape) != len(kind.shape):
            return False
        if any(sizes.get(d, s) != s for d, s in zip(kind.shape, shape, strict=True) if isinstance(d, str)):
            return False
    return True


def _holder(file: File, good: Size, other: Size, which: int) -> Call | None:
    """The first node that breaks at the other size; else the first that is told the good one and given the other."""
    here, _ = _shapes(file, good)
    there, broken = _shapes(file, other)
    if broken is not None:
        return broken
    for call in file.listing.calls:
        told = [np.ravel(file.listing.constants[v]) for v in _shape_operands(file.listing, call)]
        told.append(np.asarray(_trips(file.listing, call)))
        if call.kind in ("Scan", "Loop"):  # states start from weights of one size
            told += [np.shape(file.listing.constants[v]) for v in call.operands if v in file.listing.constants]  # type: ignore[misc]
        changed = any(here.get(v) != there.get(v) for v in call.operands if v is not None)
        if changed and any(good[which] in shape[: 1 if which == 0 else None] for shape in told):
            return call
    return None


def _shapes(file: File, size: Size) -> tuple[dict[Value, tuple[int, ...]], Call | None]:
    """Shapes of the file's values at a size, as far as it runs, and the node at which it breaks."""
    shapes = concrete_shapes(file.types, *size)
    values: dict[Value, Any] = {**file.listing.constants, **sample_inputs(file.listing, shapes, file.types, 0)}
    broken = None
    for call in file.listing.calls:
        try:
            results = run_call(call, [None if v is None else values[v] for v in call.operands])
        except (UserError, KeyError):
            broken = call
            break
        values.update(zip(call.results, results, strict=False))
    return {v: np.shape(a) for v, a in values.items() if isinstance(a, np.ndarray)}, broken
