"""Readings of a file, the likeliest first: as a sequence model, or as one step; translated, simplified and proved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Findings, Refusal, finer, identified_in, refusal, replaced
from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.graph.flow import Flow, Refused, Tracked, Unsupported
from ssmc.frontend.loops.alike import join_alike
from ssmc.frontend.loops.chunks import over_chunks
from ssmc.frontend.loops.control import CONTROL_RULES
from ssmc.frontend.loops.layers import in_layers
from ssmc.frontend.loops.parts import Divided, Parts, affine, divide, find_parts, with_parts
from ssmc.frontend.loops.positions import extend_tables
from ssmc.frontend.loops.step import ambiguous, not_linear, pair_states, unpaired, unread
from ssmc.frontend.loops.ticks import apply_tick
from ssmc.frontend.loops.trips import in_wholes
from ssmc.frontend.mixing.explain import explain
from ssmc.frontend.mixing.mixing import explain_region
from ssmc.frontend.mixing.polynomial import is_made_of_scores, is_of_scores
from ssmc.frontend.model import Proof
from ssmc.frontend.proofs.baked import File, runs_at
from ssmc.frontend.proofs.levels import reach
from ssmc.frontend.proofs.proving import Case, prove
from ssmc.frontend.proofs.reference import runner
from ssmc.frontend.rules.merged import is_plain, no_output
from ssmc.frontend.simplify.asynchronous import mark_clocks
from ssmc.frontend.simplify.early_cuts import cut_early
from ssmc.frontend.simplify.simplifying import runs_again, simplify
from ssmc.frontend.source.bounds import behind_bounds
from ssmc.frontend.source.cosines import exact_cosines, with_exact
from ssmc.frontend.source.effort import Probing
from ssmc.frontend.source.interface import (
    concrete_shapes,
    dynamic_features,
    fixed_inputs,
    input_types,
    is_dynamic,
    readings,
    role_of,
    sample_inputs,
    sample_points,
    step_axes,
    with_time,
)
from ssmc.frontend.source.listing import Listing, list_calls
from ssmc.frontend.source.padded import round_before_padding
from ssmc.frontend.source.proto import ModelFile
from ssmc.frontend.source.rounding import STEPS, drop_rounding, rounds
from ssmc.frontend.source.samples import Samples
from ssmc.frontend.source.sizes import BATCH, LONGEST, other_length, stored_steps, strides, studied_length
from ssmc.frontend.source.statics import fold_statics
from ssmc.frontend.source.values import require_allowed
from ssmc.frontend.states.lifting import State
from ssmc.frontend.states.recurrence import lift_states
from ssmc.frontend.states.stabilised import blamed, told
from ssmc.frontend.translator import Meanings, Translator
from ssmc.frontend.unrolled.reroll import reroll
from ssmc.interface import Port
from ssmc.ir.graph import Graph, Value
from ssmc.ir.types import FlowType, SequenceType, StreamType, TensorType

TEMPORAL = frozenset(["Scan", "Loop", "DFT", "STFT", "CumSum", "LinearAttention", "CausalConvWithState"])
MEANINGS = Meanings(CONTROL_RULES, explain, explain_region, apply_tick, over_chunks, is_of_scores, is_made_of_scores)
FINER = (0.1, 0.01)  # ours: of the tolerance, that kernels get where the model is not the file's with all of it
BEHIND, FAR = 16, 4096  # ours: times what was looked at of kernels that go on, and steps, that these are proved at
MANY = 2000  # nodes of a file that onnxruntime takes long to read


@dataclass(eq=False)
class Attempt:
    """One reading of the file, translated."""

    form: str
    graph: Graph
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    states: dict[str, str] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)
    notes: tuple[str, ...] = ()
    proofs: list[Proof] = field(default_factory=list)
    failure: UserError | None = None


@dataclass(eq=False)
class Source:
    """A file as it was read, and the models that it can be read as."""

    path: Path
    model: ModelFile
    graph: Graph
    tolerance: float
    aside: Executor  # where onnxruntime reads and runs the file meanwhile
    dropped: int = 0  # nodes of the file that round, and that the graph does without

    def __post_init__(self) -> None:
        self.as_stored: Listing | None = None
        tables = exact_cosines(self.graph)
        if tables:
            self.as_stored = list_calls(self.graph)
            fold_statics(self.as_stored)
            self.graph = with_exact(self.graph, tables)
        self.file: Listing = list_calls(self.graph)  # as it is, for the proofs
        padded = round_before_padding(self.graph)
        listing = self.file if padded is self.graph else list_calls(padded)
        self.graph = reroll(padded, listing)
        self.listing: Listing = listing if self.graph is padded else list_calls(self.graph)
        fold_statics(self.listing)
        if self.file is not self.listing:
            fold_statics(self.file)
        require_allowed(self.file)
        off = {Value(name): table.off for name, table in tables.items()}
        self.listing.off.update(off)
        if self.as_stored is not None:
            self.as_stored.off.update(off)
        self.listing = cut_early(self.listing)
        # A model of many nodes keeps onnxruntime busy for a second before it runs; meanwhile it is lifted here.
        if len(self.file.calls) > MANY and not self.model.weights:
            self.aside.submit(runner, str(self.path))
        self.types: dict[str, TensorType] = input_types(self.graph)
        self.stored = min(stored_steps(self.listing), default=0)
        self.study(studied_length(self.listing, self.stored, self.types))
        self.listing = in_layers(self.listing, self.point(0))
        self.as_listed, static = self.listing, not is_dynamic(self.types)[1]
        self.listing = join_alike(self.listing, self.point(0)) if static else self.listing

    def study(self, length: int) -> None:
        """Study a dynamic length at so many steps."""
        self.length = length
        self.shapes = concrete_shapes(self.types, BATCH, length)

    def as_file(self) -> File:
        """The file as it is, to be run at other sizes."""
        declared = {node.op["name"]: node.types[0] for node in self.graph.outputs()}
        return File(self.path, self.file, self.types, declared, self.length)  # type: ignore[arg-type]

    def attempts(self, states: Mapping[str, str] | None) -> Any:
        """Readings of the file, the likeliest first: as a sequence model, or as one step."""
        temporal = any(call.kind in TEMPORAL for call in self.listing.calls)
        pairs: dict[str, str] = {}
        rounded = False
        if states is not None or not temporal:
            pairs = pair_states(self.listing, self.types, self.point(0), states)
            if states is None and rounds(self.graph):  # states that are rounded are states
                plain = self.graph.copy()
                drop_rounding(plain, keep_relu=False, kinds=STEPS)
                pairs = pair_states(list_calls(plain), self.types, self.point(0), None)
                rounded = bool(pairs)
        if pairs:
            for letters in step_axes(self.types, pairs):
                yield self._as_step(pairs, letters)
        if states is None:
            dtypes = {name: kind.dtype for name, kind in self.types.items()}
            found = readings(self.shapes, dtypes, fixed_inputs(self.types))
            for axes in sorted(found, key=lambda axes: dynamic_features(self.types, axes)):
                attempt = self._as_sequence(axes, self.listing)
                if attempt.findings.lifts or not rounded:
                    yield attempt
                if (chunked := in_wholes(self.as_listed, self.point(0), axes)) is not None:
                    yield self._as_sequence(axes, chunked)

    def point(self, seed: int) -> dict[Value, Any]:
        """Random inputs at the sizes that are studied."""
        return sample_inputs(self.listing, self.shapes, self.types, seed)

    def _translator(self, listing: Listing, in_step: bool) -> Translator:
        samples = Samples(listing, sample_points(listing, self.shapes, self.types))
        findings, dynamic = Findings(self.tolerance), is_dynamic(self.types)[1]
        given = listing, Builder(Graph("model")), samples, findings, MEANINGS, in_step
        return Translator(*given, dynamic=dynamic, probing=Probing(len(listing.calls)))

    # -- sequence models -----------------------------------------------------------------------------------

    def parts(self) -> Iterator[Attempt]:
        """Readings of the beginning of a file: nothing of it can be proved, and a value at its end that mixes time may
        be clear with what follows alone; only what is refused on the way is of use."""
        dtypes = {name: kind.dtype for name, kind in self.types.items()}
        for axes in readings(self.shapes, dtypes, fixed_inputs(self.types)):
            attempt, translator = self._begin(axes, self.listing)
            translator.translate(list(self.listing.outputs.values()))
            for name, value in self.listing.outputs.items():
                found = translator.lookup(value)
                if isinstance(found, Flow) and is_plain(found):
                    attempt.graph.add("output", [found.value], {"name": name, "axes": found.axes, "role": "data"})
            self._simplify(attempt)
            yield attempt

    def _begin(self, axes: Mapping[str, str], listing: Listing) -> tuple[Attempt, Translator]:
        translator = self._translator(listing, in_step=False)
        ports = tuple(self._input(translator, n, axes[n], axes[n], role_of(axes[n], axes.values())) for n in self.types)
        return Attempt("sequence", translator.builder.graph, ports, findings=translator.findings), translator

    def _as_sequence(self, axes: Mapping[str, str], listing: Listing) -> Attempt:
        """The reading of the file along these axes; where it is not the file's for the systems that kernels became,
        with others."""
        first = self._read(axes, listing, 1.0)
        far = self._far(first.findings) if self.stored and replaced(first.findings) else 0
        if far and (first.failure is not None or identified_in(first.findings)):  # all there is of a kernel it slices
            self.study(far)
            again = self._read(axes, listing, 1.0)
            first = again if again.failure is None or first.failure is not None else first
        if first.failure is None or not identified_in(first.findings):
            return first
        plain = self._read(axes, listing, 0.0)
        if plain.failure is not None:
            return first
        tried = (self._read(axes, listing, share) for share in FINER)
        found = next((attempt for attempt in tried if attempt.failure is None), plain)
        found.notes += (finer(first.failure, self.tolerance, found.findings.share),)
        return found

    def _read(self, axes: Mapping[str, str], listing: Listing, share: float) -> Attempt:
        attempt, translator = self._begin(axes, listing)
        attempt.findings.share = share
        found = translator.demand(list(listing.outputs.values()))
        if translator.builder.tables and is_dynamic(self.types)[1]:
            self._extend_tables(attempt, translator)
        self._outputs(attempt, translator, dict(zip(listing.outputs, found, strict=True)), {})
        return attempt

    def _extend_tables(self, attempt: Attempt, translator: Translator) -> None:
        def point(steps: int) -> dict[Value, Any]:
            return sample_inputs(self.listing, concrete_shapes(self.types, 1, steps), self.types, 0)

        rows = extend_tables(translator, point)
        if rows is not None:
            attempt.notes += (f"positions are known for {rows} steps; longer sequences are refused",)

    def _input(self, translator: Translator, name: str, axes: str, user_axes: str, role: str) -> Port:
        """An input node and the flow that stands for it."""
        kind, shape = self.types[name], self.shapes[name]
        element = "real" if kind.dtype.startswith(("float", "double", "bfloat")) else "index"
        features = tuple(d for d, a in zip(shape, axes, strict=True) if a == "f")
        flow: FlowType = (StreamType if "t" in user_axes else SequenceType)(features, element)  # type: ignore[arg-type]
        attrs = {"name": name, "type": flow, "axes": user_axes, "role": role}
        value = translator.builder.graph.add("input", [], attrs, name=name)
        translator.env[self.listing.inputs[name]] = Flow(value, axes, shape)
        return Port(name, user_axes, tuple(kind.shape or ()), kind.dtype, role, flow)

    # -- one-step models -----------------------------------------------------------------------------------

    def _as_step(self, pairs: dict[str, str], letters: Mapping[str, str]) -> Attempt:
        point, inputs, outputs = self.point(0), self.listing.inputs, self.listing.outputs
        parts: dict[str, Parts] = {}
        for name, target in pairs.items():
            shared = find_parts(self.listing, inputs[name], outputs[target], point)
            if shared is not None and not affine(self.listing, point, inputs[name], outputs[target]):
                parts[target] = shared
        translator = self._translator(with_parts(self.listing, parts.values()), in_step=True)
        ports = []
        for name, axes in letters.items():
            user, role = (axes, "state") if name in pairs else (with_time(axes), "data")
            if name in pairs and "b" not in axes:
                user = "b" + axes
            ports.append(self._input(translator, name, axes, user, role))
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
        self._outputs(attempt, translator, {n: (found | last)[n] for n in outputs}, pairs, streams[0])
        attempt.notes += (*ambiguous(pairs, self.shapes), *unread(self.listing, pairs), *self.suspected(pairs))
        return attempt

    def nonlinear(self, pairs: Mapping[str, str]) -> Iterator[Refusal]:
        """Inputs that look like states, of which the next value is not linear in them."""
        for name, target in unpaired(self.listing, self.types, self.point(0), pairs):
            yield Refusal(name, "state", not_linear(self.listing, name, target))

    def suspected(self, pairs: Mapping[str, str]) -> Iterator[str]:
        """Lines about inputs and outputs that may be states, though they are not paired."""
        for name, target in unpaired(self.listing, self.types, self.point(0), pairs):
            yield f"'{target}' may be the next value of '{name}', not linear in it; it is taken for data at every step"

    # -- outputs, clean-up, proof --------------------------------------------------------------------------

    def _outputs(
        self,
        attempt: Attempt,
        translator: Translator,
        found: Mapping[str, Tracked],
        pairs: Mapping[str, str],
        like: Value | None = None,
    ) -> None:
        """Give the graph its outputs, simplify it and prove it. `pairs` are states and what feeds them, `like` is a
        stream for what no stream leads to."""
        lost = [name for name, item in found.items() if isinstance(item, Refused)]
        if lost and not attempt.findings.refusals:
            attempt.findings.refusals += [Refusal(name, "output", "nothing gives its value") for name in lost]
        if attempt.findings.refusals:
            return
        outputs = []
        for name, item in found.items():
            reason = no_output(item)
            if reason:
                attempt.findings.refusals.append(Refusal(name, "output", reason))
                return
            assert isinstance(item, Flow)
            outputs.append(self._output(attempt, translator.builder, name, item, name in pairs.values(), like))
        attempt.outputs = tuple(outputs)
        self._simplify(attempt)
        self._prove(attempt)

    def _output(
        self, attempt: Attempt, builder: Builder, name: str, flow: Flow, state: bool, like: Value | None
    ) -> Port:
        value, axes, role = flow.value, flow.axes, "state" if state else "data"
        if attempt.form == "step":
            if not state and like is not None:
                value = builder.stream(value, like)
            axes = axes if "b" in axes else "b" + axes if state else axes
            axes = axes if state else with_time(axes)
        kind: Any = attempt.graph.type(value)
        attempt.graph.add("output", [value], {"name": name, "axes": axes, "role": role}, name=name)
        declared: Any = next(node.types[0] for node in self.graph.outputs() if node.op["name"] == name)
        return Port(name, axes, declared.shape or flow.shape, declared.dtype, role, kind)

    def _prove(self, attempt: Attempt) -> None:
        try:
            attempt.proofs, notes = prove(self._case(attempt), (BATCH, self.length), self._other_size(attempt.findings))
            attempt.notes += notes
            attempt.notes += told(attempt.findings)
            if attempt.findings.multiple > 1 and is_dynamic(self.types)[1]:
                attempt.notes += (
                    f"the number of steps must be a multiple of {attempt.findings.multiple} (up-sampling)",
                )
        except UserError as error:
            attempt.failure = blamed(attempt.findings, error)
        except ValueError as error:  # sizes of another reading of the axes
            attempt.failure = UserError("the lifted model does not fit its inputs at another size", why=str(error))

    def _simplify(self, attempt: Attempt) -> None:
        simplify(attempt.graph, attempt.findings)
        attempt.notes += runs_again(attempt.graph, attempt.findings)
        clocks = mark_clocks(attempt.graph)
        attempt.inputs = tuple(replace(p, role="dt") if p.name in clocks else p for p in attempt.inputs)

    def _far(self, findings: Findings) -> int:
        """How long a sequence is that tells whether the systems that kernels became are right behind the taps that were
        looked at, if the file runs so long: as what it has stored of them, or a multiple of what was looked at."""
        if self.stored and replaced(findings):
            far = min(self.stored, LONGEST)
        else:
            far = min(BEHIND * self.length, FAR) if identified_in(findings) else 0
        return far if far > self.length and runs_at(self.as_file(), far) else 0

    def _other_size(self, findings: Findings) -> tuple[int, int]:
        """A size that differs where sizes are dynamic; not longer than what the file has stored."""
        dynamic_batch, dynamic_length = is_dynamic(self.types)
        if not dynamic_length:
            return 1 if dynamic_batch else BATCH, self.length
        least = max(2 * reach(self.file), behind_bounds(self.file, findings.bound))
        if far := self._far(findings):
            return 1 if dynamic_batch else BATCH, far if self.stored else max(far, least)
        other = other_length(self.length, self.stored, strides(self.listing), least)
        return 1 if dynamic_batch else BATCH, other

    def _case(self, attempt: Attempt) -> Case:
        return Case(
            self.path,
            self.model,
            self.file,
            self.types,
            self.tolerance,
            attempt.graph,
            attempt.form,
            attempt.inputs,
            attempt.outputs,
            attempt.states,
            tuple(attempt.findings.lifts),
            self.aside,
            self.dropped,
            self.as_stored,
        )
