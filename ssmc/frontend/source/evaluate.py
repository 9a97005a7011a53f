"""Run ONNX-level graphs, or parts of them between given values, in float64."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.source.announced import FOUND, MAX_FOUND, MAX_MOVED, MAX_RESULT, TooLarge, announced
from ssmc.frontend.source.effort import MAX_TRIPS, STEPWISE, WRITE_OUT, Effort, ends_in_time
from ssmc.frontend.source.kernels import KERNELS
from ssmc.frontend.source.kernels_time import LeftToReference
from ssmc.frontend.source.listing import Call, Listing, MissingAttribute, list_calls
from ssmc.ir.graph import Graph, Value
from ssmc.ir.op import Array
from ssmc.ir.table import spec_of
from ssmc.ir.tensor import widened


def evaluate(
    listing: Listing,
    given: Mapping[Value, Array],
    wanted: Iterable[Value],
    note: Callable[[Value, Any], None] | None = None,
) -> dict[Value, Any]:
    """Arrays of the `wanted` values, for arrays of the `given` ones; only what lies between is run.

    `note` is told of all that is met on the way.
    Raises UserError where a node cannot run on its operands.
    """
    wanted = list(wanted)
    return followed(planned(listing, wanted, given), listing, given, wanted, note, Effort(listing.around))


SMALL = 1 << 18  # bytes: what a step of a layer carries on, not what it widens to inside


def keeping_small(passed: dict[Value, Any]) -> Callable[[Value, Any], None]:
    """What is met on the way added to `passed`, where it is a small array."""

    def note(value: Value, array: Any) -> None:
        if isinstance(array, np.ndarray) and array.nbytes <= SMALL:
            passed[value] = array

    return note


def evaluator(
    listing: Listing, given: Collection[Value], wanted: Sequence[Value]
) -> Callable[[Mapping[Value, Array]], dict[Value, Any]]:
    """`evaluate` for the same values over and over: what is run is found out once."""
    plan = planned(listing, wanted, given)
    return lambda arrays: followed(plan, listing, arrays, wanted, None, Effort(listing.around))


# The calls to run, and after each what nothing reads any more.
Plan = Sequence[tuple[Call, Sequence[Value]]]


def planned(listing: Listing, wanted: Sequence[Value], given: Collection[Value]) -> Plan:
    """What is to be run for the `wanted` values."""
    calls = listing.needed(wanted, given)
    last = {value: call.position for call in calls for value in call.operands if value is not None}
    keep = {*wanted, *given}
    return [
        (call, [v for v in call.operands if v is not None and last[v] == call.position and v not in keep])
        for call in calls
    ]


def followed(
    plan: Plan,
    listing: Listing,
    given: Mapping[Value, Array],
    wanted: Sequence[Value],
    note: Callable[[Value, Any], None] | None,
    effort: Effort,
) -> dict[Value, Any]:
    """As `evaluate`, by a plan; `around` are the trips of the loops that it is in."""
    values: dict[Value, Any] = dict(given)
    constants = listing.constants
    with np.errstate(all="ignore"):
        for call, done in plan:
            arrays = [None if v is None else values[v] if v in values else constants[v] for v in call.operands]
            for value, array in zip(call.results, run_quietly(call, arrays, effort), strict=False):
                values[value] = array
                if note is not None:
                    note(value, array)
            for value in done:
                values.pop(value, None)
    return {v: widened(values[v] if v in values else constants[v]) for v in wanted}


def run_call(call: Call, arrays: Sequence[Any]) -> Sequence[Any]:
    """Results of one ONNX node. Raises UserError that names it where it cannot run, or gives too much."""
    with np.errstate(all="ignore"):
        return run_quietly(call, arrays, Effort())


def run_quietly(call: Call, arrays: Sequence[Any], effort: Effort) -> Sequence[Any]:
    """As `run_call`, where numpy has been told not to warn, which takes as long as a small node.

    `effort` is that of the loops that it is in.
    """
    most = MAX_MOVED if call.kind in MOVES else MAX_FOUND if call.kind in FOUND else MAX_RESULT
    size = announced(call.kind, arrays, call.attrs)
    if size <= most:
        results = _results(call, arrays, effort)
        size = max((a.size for a in results if isinstance(a, np.ndarray)), default=0)
    if size > most:
        raise TooLarge(
            f"'{call.kind}' {'may give' if call.kind in FOUND else 'gives'} {size} numbers (at most {most})",
            node=call.name,
            hint="export the model at a shorter length",
        )
    effort.numbers += size
    return results


def _results(call: Call, arrays: Sequence[Any], effort: Effort) -> Sequence[Any]:
    try:
        control = CONTROL.get(call.kind)
        if control is not None:
            return control(call, arrays, effort)
        if call.kind not in MOVES and call.kind != "MatMul":
            arrays = [widened(a) for a in arrays]
        kernel = KERNELS.get(call.kind)
        if kernel is not None:
            try:
                return kernel(arrays, call.attrs, len(call.results))
            except LeftToReference:
                pass
        return spec_of(call.op.name).evaluate(call.op, list(arrays), [None] * len(arrays))
    except UserError:
        raise
    except MemoryError as error:
        raise TooLarge(
            f"'{call.kind}' needs more memory than there is",
            node=call.name,
            why=str(error),
            hint="export the model at a shorter length",
        ) from error
    except MissingAttribute as error:
        raise UserError(f"'{call.kind}' lacks the attribute {error}", node=call.name) from error
    except Exception as error:
        operands = ", ".join(map(_told, arrays))
        missed = isinstance(error, IndexError) and any(isinstance(a, list) for a in arrays)
        why = "the sequence has no entry of that number" if missed else str(error)
        raise UserError(f"'{call.kind}' cannot run on operands {operands}", node=call.name, why=why) from error


def _told(operand: Any) -> str:
    if operand is None:
        return "-"
    return f"a sequence of {len(operand)}" if isinstance(operand, list) else str(np.shape(operand))


# Ops that only say where numbers stand: what is float32 stays so until something is computed of it.
MOVES = frozenset(
    ["Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Slice", "Split", "Gather", "Shape", "Size"]
)


BODIES = 1024  # subgraphs that are kept listed


def body_of(call: Call, attribute: str = "body") -> Listing:
    """The flat view of a subgraph of a Scan, Loop or If, made once."""
    return _listed(call.op["regions"][attribute])


@lru_cache(maxsize=BODIES)
def _listed(graph: Graph) -> Listing:
    return list_calls(graph)


@lru_cache(maxsize=BODIES)
def _bodyplanned(graph: Graph) -> Plan:
    body = _listed(graph)
    return planned(body, list(body.outputs.values()), body.inputs.values())


def body_feed(call: Call, body: Listing, own: Sequence[Any], captured: Sequence[Any]) -> dict[Value, Any]:
    """Arrays for the inputs of a body: its own, then the captured ones."""
    return dict(zip(body.inputs.values(), (*own, *captured), strict=True))


def _split_captured(call: Call, arrays: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    cut = len(arrays) - int(call.op["captured"])
    return list(arrays[:cut]), list(arrays[cut:])


def _run_body(call: Call, attribute: str, own: Sequence[Any], captured: Sequence[Any], effort: Effort) -> list[Any]:
    body = body_of(call, attribute)
    wanted = list(body.outputs.values())
    plan = _bodyplanned(call.op["regions"][attribute])
    found = followed(plan, body, body_feed(call, body, own, captured), wanted, None, effort)
    return [found[value] for value in wanted]


def _scan(call: Call, arrays: Sequence[Any], effort: Effort) -> Sequence[Any]:
    own, captured = _split_captured(call, arrays)
    form = scan_form(call, len(own), [np.ndim(a) for a in own])
    states, sequences = own[: form.states], own[form.states :]
    sequences = [
        np.flip(np.moveaxis(s, a, 0), 0) if backward else np.moveaxis(s, a, 0)
        for s, a, backward in zip(sequences, form.input_axes, form.input_reversed, strict=True)
    ]
    collected: list[list[Any]] = []
    trips = len(sequences[0])
    inner = effort.within(call, trips, len(_bodyplanned(call.op["regions"]["body"])))
    for k in range(trips):
        found = _run_body(call, "body", [*states, *(s[k] for s in sequences)], captured, inner)
        states = found[: form.states]
        collected.append(found[form.states :])
        inner.foresee(call, collected[-1], k + 1, trips)
    effort.numbers += inner.numbers
    outputs = []
    for j, backward in enumerate(form.output_reversed):
        stacked = np.stack([row[j] for row in collected][:: -1 if backward else 1])
        axis = form.output_axes[j]
        outputs.append(np.moveaxis(stacked, 0, axis))
    return [*states, *outputs]


class ScanForm:
    """Number of states, and axes and directions of the sequences, of a Scan node (opset 9 and later)."""

    def __init__(self, call: Call, operands: int, ranks: Sequence[int]) -> None:
        attrs = call.attrs
        sequences = int(attrs["num_scan_inputs"])
        self.states = operands - sequences
        outputs = len(list(body_of(call).outputs)) - self.states
        axes = list(attrs.get("scan_input_axes", [0] * sequences))
        self.input_axes = [int(a) % max(r, 1) for a, r in zip(axes, ranks[self.states :], strict=True)]
        self.input_reversed = [bool(d) for d in attrs.get("scan_input_directions", [0] * sequences)]
        self.output_axes = [int(a) for a in attrs.get("scan_output_axes", [0] * outputs)]
        self.output_reversed = [bool(d) for d in attrs.get("scan_output_directions", [0] * outputs)]


def scan_form(call: Call, operands: int, ranks: Sequence[int]) -> ScanForm:
    """The axes and directions of a Scan. Raises UserError for opset 8, where it is another op."""
    if int(call.op["version"]) < 9:
        raise UserError("Scan of opset 8 is not supported", node=call.name, hint="export with opset >= 9")
    return ScanForm(call, operands, ranks)


def _goes_on(body: Listing) -> bool:
    """Does the body of a loop hand on the condition that it is given, or true, so that its count alone ends it?"""
    value, given = next(iter(body.outputs.values())), list(body.inputs.values())[1]
    while value != given and (call := body.producer.get(value)) is not None and call.kind == "Identity":
        source = call.operands[0]
        if source is None:
            return False
        value = source
    return value == given or (value in body.constants and bool(np.all(body.constants[value])))


def _trips_of(body: Listing) -> int:
    """Trips of the loops of constant counts in the body of a loop, with those in them; at least 1."""
    found = 0
    for call in body.calls:
        if call.kind != "Loop" or call.operands[0] not in body.constants:
            continue
        inner = body_of(call)
        count = int(np.asarray(body.constants[call.operands[0]]).reshape(-1)[0])
        if _goes_on(inner) and count > 0:
            found += count * _trips_of(inner)
    return max(1, found)


def _loop(call: Call, arrays: Sequence[Any], effort: Effort) -> Sequence[Any]:
    own, captured = _split_captured(call, arrays)
    trips = None if own[0] is None else int(np.asarray(own[0]).reshape(-1)[0])
    going = True if len(own) < 2 or own[1] is None else bool(np.asarray(own[1]).reshape(-1)[0])
    carried = list(own[2:])
    body = body_of(call)
    fixed = going and _goes_on(body)
    ends_in_time(call, trips, going, fixed)
    if fixed and trips is not None and trips * (nested := _trips_of(body)) > MAX_TRIPS:
        raise TooLarge(
            f"a loop of {trips} trips around loops of {nested} trips (at most {MAX_TRIPS} in all)",
            node=call.name,
            why=STEPWISE,
            hint=WRITE_OUT,
        )
    collected: list[list[Any]] = []
    nodes, k = len(_bodyplanned(call.op["regions"]["body"])), 0
    inner = effort.within(call, trips if fixed and trips is not None else 1, nodes)
    while going and (trips is None or k < trips):
        if k >= MAX_TRIPS:
            raise UserError(f"the loop does not end within {MAX_TRIPS} trips", node=call.name)
        if not fixed:  # it may make fewer trips than it counts to: those that it makes are counted
            inner.around = effort.within(call, k + 1, nodes).around
        found = _run_body(call, "body", [np.asarray(k, np.int64), np.asarray(going), *carried], captured, inner)
        going = bool(np.asarray(found[0]).reshape(-1)[0])
        carried = found[1 : 1 + len(carried)]
        collected.append(found[1 + len(carried) :])
        k += 1
        inner.foresee(call, collected[-1], k, trips if fixed and trips is not None else k)
    effort.numbers += inner.numbers
    count = len(call.results) - len(carried)
    return [*carried, *(np.stack([row[j] for row in collected]) for j in range(count) if collected)]


def _if(call: Call, arrays: Sequence[Any], effort: Effort) -> Sequence[Any]:
    own, captured = _split_captured(call, arrays)
    chosen = "then_branch" if bool(np.asarray(own[0]).reshape(-1)[0]) else "else_branch"
    return _run_body(call, chosen, [], captured, effort)


CONTROL = {"Scan": _scan, "Loop": _loop, "If": _if}
