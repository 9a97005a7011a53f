"""The choice of a form by its cost: each is compiled by itself, without its numbers, and timed."""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import Any

import numpy as np

from backends.epochcore.arch import Arch
from backends.epochcore.draft import Draft
from backends.epochcore.flow import plan_flow
from backends.epochcore.gemm import ceil_div, output_fold
from backends.epochcore.lower_windows import weight_parts
from backends.epochcore.lowering import Lowering
from backends.epochcore.request import Alternative, Form, request_of
from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Graph, Node, SequenceType, StreamType, Tensor, Value

FORMS = ("tile.ssm",)
SPANS = (4, 8, 16, 32, 64, 128, 256)


def choose(low: Lowering, node: Node) -> Form:
    """The form of a layer: the one asked for, else the fastest, of equally fast ones that with the least energy.

    Raises UserError where the form asked for cannot be had.
    """
    if low.request.forced is not None:
        return low.request.forced
    key = _key(low, node)
    if key not in low.known_choices:
        low.known_choices[key] = _ranked(low, node)
    found = low.known_choices[key]
    low.choices[node.name] = found
    return next(a.form for a in found if a.chosen)


def compared(graph: Graph, arch: Arch, *, ideal: bool) -> dict[str, list[Alternative]]:
    """The alternatives of every system of a tile graph, which is not lowered itself."""
    low = Lowering(graph, arch, ideal, plan_flow(graph), Draft(arch), request_of(graph))
    for node in graph.nodes():
        if node.op.name in FORMS:
            choose(low, node)
    return low.choices


def _key(low: Lowering, node: Node) -> tuple[Any, ...]:
    """What costs depend on: shapes, never values; the direction does not matter."""
    op, operands = node.op, low.graph.operands(node.name)
    last = bool(low.graph.users(Value(node.name, 1)))
    start = len(operands) > 1 and operands[1] is not None
    return op.name, op["decay"].shape, op["decay"].is_complex, op["liquid"], last, start, start and op["reverse"]


def _ranked(low: Lowering, node: Node) -> list[Alternative]:
    """All forms with their costs, the chosen one marked."""
    found: list[Alternative] = []
    best: dict[bool, int] = {}  # of those asked for, and of the others
    for form in _candidates(low, node):
        asked = _asked(low, form)
        objection, bound = _objection(low, node, form), _bound(low, node, form)
        if objection:
            found.append(Alternative(form, objection=objection))
        elif bound > best.get(asked, bound):
            found.append(Alternative(form, bound, least=True))
        else:
            found.append(_timed(low, node, form))
            if (cycles := found[-1].cycles) is not None:
                best[asked] = min(cycles, best.get(asked, cycles))
    fitting = [(a.cycles, a.joules, a) for a in found if a.joules is not None and _asked(low, a.form)]
    if not fitting:
        for a in found:
            if _asked(low, a.form) and not _objection(low, node, a.form):
                # it is too large for the machine: lowering the whole model says where and why
                return [replace(b, chosen=b is a) for b in found]
        raise UserError(
            f"the layer '{node.name}' cannot be computed in the form asked for",
            where="backend 'epochcore'",
            why="\n       ".join(f"{a.form}: {a.objection}" for a in found if a.objection),
            hint=f"forms: {', '.join(dict.fromkeys(a.form.name for a in found))}",
        )
    chosen = min(fitting, key=lambda fit: fit[:2])[2]
    return [replace(a, chosen=a is chosen) for a in found]


def _asked(low: Lowering, form: Form) -> bool:
    """Whether a form may be chosen."""
    return low.request.name in ("", form.name) and low.request.span in (0, form.span or low.request.span)


def _candidates(low: Lowering, node: Node) -> list[Form]:
    """Forms of a system, the likely ones first: what cannot be faster than one before is not timed."""
    array, asked = low.arch.array, low.request.span
    own = ["state in place"] if ("tri" if node.op["liquid"] else "fri") in array.modes else []
    most = min(low.request.steps, max(array.rows, array.cols))
    spans = sorted({span for span in SPANS if span <= most} | ({asked} if asked else set()), key=_likely)
    products = [mode for mode in ("mac", "mac.os") if mode in array.modes]
    return [*map(Form, own), Form("scan"), *(Form("chunked", span, mode) for mode in products for span in spans)]


def _likely(span: int) -> float:
    return abs(log(span / 20))


def _objection(low: Lowering, node: Node, form: Form) -> str:
    """Why a layer has no such form; empty where it has."""
    if form.name != "chunked":
        return ""
    operands = low.graph.operands(node.name)
    if node.op["liquid"]:
        return "its decay follows the input"
    if low.graph.users(Value(node.name, 1)):
        return "the states at the end are asked for, and a window that is cut ends after it"
    if node.op["reverse"] and len(operands) > 1 and operands[1] is not None:
        return "it starts from states at the end, where a window may be cut"
    return ""


def _bound(low: Lowering, node: Node, form: Form) -> int:
    """Cycles that a form takes at least: weights on their way into the array, or results out of it, and rows."""
    if form.name != "chunked":
        return 0
    channels, states = node.op["decay"].shape
    words = states * (2 if node.op["decay"].is_complex else 1)
    array, rows = low.arch.array, ceil_div(low.request.steps, form.span)
    most = low.arch.room(form.mode, False)[0]
    # as many channels side by side as rows or columns allow, at least parts of one
    across = max(form.span / min(most, array.cols), words / array.cols, words * form.span / (most * array.cols))
    within = form.span / array.cols * max(1.0, form.span / most)
    if form.mode == "mac":
        each = max(rows, array.rows * ceil_div(array.cols, array.port_words_in))
    else:
        out = array.rows * ceil_div(array.cols, array.port_words_out)
        folds = ceil_div(rows, array.rows)
        each = (folds - 1) * (out + array.cols - 1) + output_fold(1, array.rows, array.cols) + out
    return int(channels * (2 * across + within) * each * weight_parts(low))


def _timed(low: Lowering, node: Node, form: Form) -> Alternative:
    """The layer by itself in a form: all its channels see one input, and the sequence leaves their mean."""
    from backends.epochcore.lower import lower
    from backends.epochcore.timing import measure

    try:
        program = lower(_alone(low, node), low.arch, ideal=low.ideal, forced=form)
        stats, _ = measure(program, low.arch, 1, low.request.steps)
    except (Misfit, UserError) as error:
        return Alternative(form, objection=str(error).splitlines()[0])
    return Alternative(form, stats.cycles, stats.energy_joules)


def _alone(low: Lowering, node: Node) -> Graph:
    graph = Graph(node.name)
    u = graph.add("input", [], {"name": "u", "type": StreamType((1,))}, name="u")
    operands = low.graph.operands(node.name)
    channels = low.words(Value(node.name))
    wide = graph.add("take", [u], {"axis": -1, "index": Tensor(np.zeros(channels, np.int64))})
    start = operands[1] if len(operands) > 1 else None
    given = []
    if start is not None:
        kind = SequenceType((low.words(start),))
        given = [graph.add("input", [], {"name": "x0", "type": kind}, name="x0")]
    y = graph.add(node.op.name, [wide, *given], dict(node.op.attrs), name="layer")
    graph.add("output", [graph.add("pool", [y], {"kind": "mean"})], {"name": "y"})
    return graph
