"""The choice of a form by its cost: each is compiled by itself, without its numbers, and timed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from backends.epochcore.arch import Arch
from backends.epochcore.clock.timing import measure
from backends.epochcore.lower.flow import WORDS, is_loop
from backends.epochcore.lower.form_bounds import least, taps, words_of_channel
from backends.epochcore.lower.inputs import group_of
from backends.epochcore.lower.lowering import Lowering, liquid_decay
from backends.epochcore.lower.matvec import side_by_side
from backends.epochcore.lower.mimo import one_product
from backends.epochcore.lower.objective import Costs, best, hopeless
from backends.epochcore.lower.request import NAMES, Alternative, Form, Request
from backends.epochcore.lower.scan import parts_of
from backends.epochcore.lower.segments import copies_of
from backends.epochcore.lower.window_matrices import MOST_TAPS
from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Graph, Node, SequenceType, StreamType, Tensor, Value

FORMS = ("tile.ssm", "fir", "tile.state", "tile.matmul", "tile.recurrence")
AS_PRODUCTS = ("chunked", "convolution", "mat-vec")  # forms that take all of a system's matrices together
STEP_BY_STEP = 128  # steps that are timed where every step is a chunk
SPANS = (4, 8, 16, 32, 64, 128, 256)


def choose(low: Lowering, node: Node) -> Form:
    """The form of a layer: the one asked for, else the one that serves the objective best.

    Raises UserError where the form asked for cannot be had.
    """
    if low.request.forced is not None:
        return low.request.forced
    if low.request.name not in ("", *NAMES):
        raise UserError(f"no form is called '{low.request.name}'", hint=f"forms: {', '.join(NAMES)}")
    if not _is_open(low, node):
        return Form(_usual(low, node))
    known = _answers(_Question(_key(low, node), low.arch, low.ideal, _alone_asked(low.request)))
    if not known:
        known += _ranked(low, node)
    low.choices[node.name] = list(known)
    return next(a.form for a in known if a.chosen)


def _usual(low: Lowering, node: Node) -> str:
    """The form of a layer that is not asked for one."""
    if node.op.name == "tile.matmul":
        return "weights in place"
    if _streams_decays(node):
        return "state in place"
    return "state in place" if "fri.x" in low.arch.array.modes else "scan"


def _is_open(low: Lowering, node: Node) -> bool:
    """Whether there is a choice."""
    if _streams_decays(node):
        return is_loop(low.stage(node)) and "sel" in low.arch.array.modes and not _is_liquid(low, node)
    if node.op.name not in ("tile.state", "tile.matmul"):
        return True
    if not is_loop(low.stage(node)):
        return False
    if node.op.name == "tile.state" and "fri.x" not in low.arch.array.modes:
        return True
    mode = "mac" if node.op.name == "tile.matmul" else "fri.x"
    return mode in low.arch.array.modes and copies_of(low, node) > 1


def _streams_decays(node: Node) -> bool:
    """Whether a decay is computed for every step."""
    return node.op.name == "tile.recurrence" or bool(node.op.get("asynchronous"))


def _is_liquid(low: Lowering, node: Node) -> bool:
    """Whether elements add the drive to the decay themselves."""
    found = node.op.name == "tile.recurrence" and "tri.x" in low.arch.array.modes
    return found and liquid_decay(low, node) is not None


def _alone_asked(request: Request) -> Request:
    """What a request says of a layer by itself: not what it shares with others, nor where its numbers come from."""
    return replace(request, dataflow="", directions="", batch=0, loops=WORDS, streamed=False, apart=0)


@dataclass(frozen=True)
class _Question:
    """What a choice depends on: models have the same layers many times."""

    key: tuple[Any, ...]
    arch: Arch
    ideal: bool
    request: Request


@lru_cache(maxsize=256)
def _answers(question: _Question) -> list[Alternative]:
    """The answers to a question so far: none where it was not asked before."""
    return []


def _key(low: Lowering, node: Node) -> tuple[Any, ...]:
    """What costs depend on: shapes, and how long a kernel is; the direction does not matter."""
    op, operands = node.op, low.graph.operands(node.name)
    last = bool(low.graph.users(Value(node.name, 1)))
    start = len(operands) > 1 and operands[1] is not None
    if op.name == "fir":
        return op.name, op["kernel"].shape, start
    rates = low.flow.rates[Value(node.name)]
    if op.name == "tile.matmul":
        return op.name, op["weight"].shape, op["bias"] is None, rates
    if op.name == "tile.recurrence":
        start = len(operands) > 2 and operands[2] is not None
        return op.name, low.words(Value(node.name)), op["is_complex"], last, start, start and op["reverse"], rates
    if op.name == "tile.state":
        start = len(operands) > 2 and operands[2] is not None
        group = group_of(low, node)
        sizes = None if group is None else (group.drive.op["weight"].shape, group.read.op["weight"].shape)
        own = (op["decay"].shape, op["decay"].is_complex, op["asynchronous"], sizes)
        return op.name, own, taps(low, node), last, start, start and op["reverse"], rates
    shape = (op["decay"].shape, op["decay"].is_complex, op["liquid"])
    return op.name, shape, taps(low, node), last, start, start and op["reverse"], rates


def _ranked(low: Lowering, node: Node) -> list[Alternative]:
    """All forms with their costs, the chosen one marked."""
    found: list[Alternative] = []
    timed: dict[bool, list[Costs]] = {True: [], False: []}  # of those asked for, and of the others
    candidates = _candidates(low, node)
    wanted = low.request
    if not any(_asked(wanted, form) for form in candidates):  # a layer that has no such form, or not so many segments
        wanted = replace(wanted, name="", segments=0)
    for form in candidates:
        asked = _asked(wanted, form)
        objection, bound = _objection(low, node, form), least(low, node, form)
        if objection:
            found.append(Alternative(form, objection=objection))
            continue
        joules = low.arch.energy.static_watts * bound / low.arch.clock_hz
        if hopeless((bound, joules), timed[asked], low.request.objective):
            found.append(Alternative(form, bound, joules, least=True))
            continue
        found.append(_timed(low, node, form))
        if found[-1].costs is not None:
            timed[asked].append(found[-1].costs)
    fitting = [a for a in found if a.costs is not None and _asked(wanted, a.form)]
    if not fitting:
        for a in found:
            if _asked(wanted, a.form) and not _objection(low, node, a.form):
                # it is too large for the machine: lowering the whole model says where and why
                return [replace(b, chosen=b is a) for b in found]
        raise UserError(
            f"the layer '{node.name}' cannot be computed in the form asked for",
            where="backend 'epochcore'",
            why="\n       ".join(f"{a.form}: {a.objection}" for a in found if a.objection),
            hint=f"forms: {', '.join(dict.fromkeys(a.form.name for a in found))}",
        )
    chosen = fitting[best([a.costs for a in fitting if a.costs is not None], low.request.objective)]
    return [replace(a, chosen=a is chosen) for a in found]


def _asked(request: Request, form: Form) -> bool:
    """Whether a form may be chosen."""
    number = form.segments if form.name == "segmented" else request.segments
    return (
        request.name in ("", form.name)
        and request.span in (0, form.span or request.span)
        and request.segments in (0, number)
    )


def _candidates(low: Lowering, node: Node) -> list[Form]:
    """Forms of a layer, the likely ones first: what cannot be faster than one before is not timed."""
    array, asked = low.arch.array, low.request.span
    most = min(low.request.steps, max(array.rows, array.cols))
    spans = {span for span in SPANS if span <= most} | ({asked} if asked else set())
    products = [mode for mode in ("mac", "mac.os") if mode in array.modes]
    usual = Form(_usual(low, node))
    if _streams_decays(node):
        return [usual, Form("scan")]
    if node.op.name in ("tile.state", "tile.matmul") and usual.name != "scan":
        return [usual, *_segmented(low, node)]
    if node.op.name == "fir":
        own, windowed = ["vector unit"], ["convolution"]
    elif node.op.name == "tile.state":
        grouped = group_of(low, node) is not None
        own = ["scan", *(["mat-vec"] * grouped)]
        windowed = ["chunked", *(["convolution"] * grouped)]
    else:
        in_place = ("tri" if node.op["liquid"] else "fri") in array.modes
        own, windowed = [*(["state in place"] * in_place), "mat-vec"], ["chunked", "convolution"]
    every = [Form(name, span, mode) for name in windowed for mode in products for span in sorted(spans)]
    some, last = ([Form(name) for name in own if (name == "mat-vec") == late] for late in (False, True))
    if node.op.name == "tile.ssm":
        every += [Form("scan", parts=n) for n in parts_of(node)]
    cut = _segmented(low, node) if "state in place" in own else []
    return [*some, *cut, *sorted(every, key=lambda form: least(low, node, form)), *last]


def _segmented(low: Lowering, node: Node) -> list[Form]:
    """As many segments as there is room for, and fewer: so many that passing twice can be worth it."""
    most, least = copies_of(low, node), 2 if node.op.name == "tile.matmul" else 3
    if node.op.name == "tile.ssm" and node.op["liquid"]:
        return []
    numbers = {2**n for n in range(1, 8) if least <= 2**n < most} | ({most} if most >= least else set())
    numbers |= {low.request.segments} if 1 < low.request.segments <= most else set()
    return [Form("segmented", segments=n) for n in sorted(numbers, reverse=True)]


def _objection(low: Lowering, node: Node, form: Form) -> str:
    """Why a layer has no such form; empty where it has."""
    if form.name == "segmented" and not low.request.chunk:
        return low.request.refused
    if form.name == "mat-vec":
        return _no_matvec(low, node)
    if node.op.name == "fir" or form.name not in ("chunked", "convolution"):
        return ""
    operands = low.graph.operands(node.name)
    start = any(value is not None for value in operands[1:])
    if node.op.get("liquid"):
        return "its decay follows the input"
    if low.graph.users(Value(node.name, 1)):
        return "the states at the end are asked for, and a window that is cut ends after it"
    if form.name == "convolution":
        if start:
            return "it starts from states, which are no past inputs"
        return "" if taps(low, node) else f"its kernel does not end within {MOST_TAPS} steps"
    return "it starts from states at the end, where a window may be cut" if node.op["reverse"] and start else ""


def _no_matvec(low: Lowering, node: Node) -> str:
    if node.op.get("liquid"):
        return "its decay follows the input"
    if "mac" not in low.arch.array.modes:
        return "the array keeps no weights in place"
    if low.flow.rates[Value(node.name)]:
        return "it runs at a lower rate than the loop"
    if not low.ideal and low.arch.numbers.fixed:
        return f"its states would be rounded to {low.arch.numbers.activation_bits} bits on their way in, at every step"
    if (group := group_of(low, node)) is not None:
        return (
            "" if one_product(low, group) else "its states with its inputs, or outputs, are more than the array holds"
        )
    if not side_by_side(low, words_of_channel(node)):
        return f"the {words_of_channel(node)} words of a channel are more than the array has rows or columns"
    return ""


def _timed(low: Lowering, node: Node, form: Form) -> Alternative:
    """The layer by itself in a form: all its channels see one input, and the sequence leaves their mean."""
    steps, short = low.request.steps, STEP_BY_STEP if form.name == "mat-vec" else low.request.steps
    try:
        program = low.compiled(_alone(low, node), low.arch, low.ideal, form)
        stats, _ = measure(program, low.arch, 1, min(steps, short))
        if steps <= short:
            return Alternative(form, stats.cycles, stats.energy_joules)
        half, _ = measure(program, low.arch, 1, short // 2)
    except (Misfit, UserError) as error:
        return Alternative(form, objection=str(error).splitlines()[0])
    # chunks of a step are all alike: every further one adds as much as the last ones did
    cycles, joules = stats.cycles or 0, stats.energy_joules or 0.0
    more = (steps - short) / (short - short // 2)
    return Alternative(
        form,
        cycles + round(more * (cycles - (half.cycles or 0))),
        joules + more * (joules - (half.energy_joules or 0.0)),
    )


def _alone(low: Lowering, node: Node) -> Graph:
    asked = {"steps": low.request.steps, "chunk": low.request.chunk, "groups": low.request.groups}
    graph = Graph(node.name, {"schedule": asked})
    u = graph.add("input", [], {"name": "u", "type": StreamType((1,))}, name="u")
    op, operands = node.op, low.graph.operands(node.name)
    group = group_of(low, node)
    source = operands[0] if group is None else low.graph.operand(group.drive.name, 0)
    assert source is not None
    channels = low.words(source)
    wide = graph.add("take", [u], {"axis": -1, "index": Tensor(np.zeros(channels, np.int64))})
    two = op.name in ("tile.recurrence", "tile.state")  # a decay, or a time, beside the drive
    start = (*operands, None, None)[2 if two else 1]
    given: list[Value | None] = []
    if start is not None:
        kind = SequenceType(low.shape(start))
        given = [graph.add("input", [], {"name": "x0", "type": kind}, name="x0")]
    if op.get("asynchronous"):
        given = [graph.add("input", [], {"name": "dt", "type": StreamType(())}, name="dt"), *given]
    elif two:
        given = [wide if op.name == "tile.recurrence" else None, *given]
    if group is not None:
        wide = graph.add("tile.matmul", [wide], dict(group.drive.op.attrs))
    y = graph.add(node.op.name, [wide, *given], dict(node.op.attrs), name="layer")
    if group is not None:
        y = graph.add("tile.matmul", [y], dict(group.read.op.attrs))
    graph.add("output", [graph.add("pool", [y], {"kind": "mean"})], {"name": "y"})
    return graph
