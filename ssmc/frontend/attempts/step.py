"""A file read as one step of a recurrent model, given which output is the next value of which input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ssmc.frontend.attempts.attempt import Attempt, add_input, begin_translation
from ssmc.frontend.attempts.outcome import conclude
from ssmc.frontend.attempts.source import Source
from ssmc.frontend.findings import Refusal, refusal
from ssmc.frontend.graph.flow import Flow, Unsupported
from ssmc.frontend.loops.parts import Divided, Parts, affine, divide, find_parts, with_parts
from ssmc.frontend.loops.step import ambiguous, not_linear, unpaired, unread
from ssmc.frontend.source.interface import with_time
from ssmc.frontend.states.lifting import State
from ssmc.frontend.states.recurrence import lift_states


def as_step(source: Source, pairs: dict[str, str], letters: Mapping[str, str]) -> Attempt:
    """The reading of the file as one step: `pairs` are the inputs that are states and the outputs that are their next
    values, `letters` the axes of each input (b, f)."""
    point, inputs, outputs = source.point(0), source.listing.inputs, source.listing.outputs
    parts: dict[str, Parts] = {}
    for name, target in pairs.items():
        shared = find_parts(source.listing, inputs[name], outputs[target], point)
        if shared is not None and not affine(source.listing, point, inputs[name], outputs[target]):
            parts[target] = shared
    translator = begin_translation(source, with_parts(source.listing, parts.values()), in_step=True)
    ports = []
    for name, axes in letters.items():
        user, role = (axes, "state") if name in pairs else (with_time(axes), "data")
        if name in pairs and "b" not in axes:
            user = "b" + axes
        ports.append(add_input(source, translator, name, axes, user, role))
    streams = [f.value for n, v in inputs.items() if n not in pairs and isinstance(f := translator.env[v], Flow)]
    attempt = Attempt("step", translator.builder.graph, tuple(ports), (), pairs, translator.findings)
    carried: list[State] = []
    divided: dict[str, Divided] = {}
    for name, target in pairs.items():
        initial = translator.env[inputs[name]]
        assert isinstance(initial, Flow)
        whole = State(target, inputs[name], outputs[target], initial)
        if target in parts:  # what is not written of it stays
            try:
                divided[target] = divide(translator, whole, parts[target])
            except Unsupported as unsupported:
                translator.findings.refusals.append(refusal(name, "state", unsupported.reason))
                return attempt
            carried += divided[target].states
        else:
            translator.env.pop(inputs[name])
            carried.append(whole)
    last = lift_states(translator, carried, "step", streams[0])
    for target, layers in divided.items():
        last[target] = layers.together(last)
    names = [name for name in outputs if name not in last]
    found = dict(zip(names, translator.demand([outputs[n] for n in names]), strict=True))
    conclude(source, attempt, translator, {n: (found | last)[n] for n in outputs}, pairs, streams[0])
    attempt.notes += (*ambiguous(pairs, source.shapes), *unread(source.listing, pairs), *suspected(source, pairs))
    return attempt


def nonlinear(source: Source, pairs: Mapping[str, str]) -> Iterator[Refusal]:
    """Inputs that look like states, of which the next value is not linear in them."""
    for name, target in unpaired(source.listing, source.types, source.point(0), pairs):
        yield Refusal(name, "state", not_linear(source.listing, name, target))


def suspected(source: Source, pairs: Mapping[str, str]) -> Iterator[str]:
    """Lines about inputs and outputs that may be states, though they are not paired."""
    for name, target in unpaired(source.listing, source.types, source.point(0), pairs):
        yield f"'{target}' may be the next value of '{name}', not linear in it; it is taken for data at every step"
