"""Walk ONNX nodes in order and say each in ops of the new graph, by the table of rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Findings, refusal
from ssmc.frontend.graph.builder import Builder
from ssmc.frontend.graph.flow import Flow, Known, Raw, Refused, Tick, TimeMixing, Tracked, Unsupported
from ssmc.frontend.graph.joint import is_joint
from ssmc.frontend.reasons import Kind, Reason
from ssmc.frontend.rules.lengths import with_lengths
from ssmc.frontend.rules.merged import apply_merged, is_plain
from ssmc.frontend.rules.resampling import raises_rate
from ssmc.frontend.rules.spreading import along_steps
from ssmc.frontend.rules.table import RAW_RULES, RULES
from ssmc.frontend.source.blame import BROKEN, failure
from ssmc.frontend.source.effort import Probing
from ssmc.frontend.source.evaluate import run_call
from ssmc.frontend.source.listing import Call, Listing, MissingAttribute
from ssmc.frontend.source.refused import NONLINEAR, OF_SCORES, RANDOM, REFUSED_OPS, refused_for
from ssmc.frontend.source.samples import Samples
from ssmc.ir.graph import Value

LOST = "what it is given could not be translated"
SUMMING = frozenset(["Einsum", "MatMul", "Gemm"])


@dataclass(frozen=True)
class Meanings:
    """What nodes mean that is found with translators: loops, regions that mix time. These stand on this module."""

    control: Mapping[str, Callable[[Translator, Call, Sequence[Any]], list[Tracked]]]  # by the op
    explain: Callable[[Translator, Value], Tracked]  # a value that mixes time
    region: Callable[[Translator, Any], Flow]  # what several nodes make of what enters them (see `mixing.regions`)
    at_tick: Callable[[Translator, Call, Sequence[Any]], list[Tracked]]  # a node that is given the number of its step
    over_chunks: Callable[[Translator, Call, Sequence[Any]], list[Tracked] | None]  # None if it is no loop over chunks
    of_scores: Callable[[Translator, Value], bool]  # is the value made of a product of queries and keys?
    with_scores: Callable[[Translator, Value], bool]  # and among other things?


@dataclass(eq=False)
class Translator:
    """Translates one listing: a model, the body of a Scan or Loop.

    `env` holds what is known of each value; `later` how to make it when it is first asked for.
    """

    listing: Listing
    builder: Builder
    samples: Samples
    findings: Findings
    meanings: Meanings
    in_step: bool = False
    env: dict[Value, Tracked] = field(default_factory=dict)
    later: dict[Value, Callable[[], Tracked]] = field(default_factory=dict)
    dynamic: bool = False  # whether the number of steps differs from run to run
    stream: Value | None = None  # one whose steps the trips are, in the body of a Loop
    lead: int = 0  # steps in front of the first trip, in the body of a Loop; what is computed in them does not count
    probing: Probing = field(default_factory=Probing)
    outer: Translator | None = None  # the same listing without this one's substitutions

    def lookup(self, value: Value | None) -> Tracked | None:
        """What is known of a value, None if nothing yet, or where an operand is absent."""
        if value is None:
            return None
        if value in self.env:
            return self.env[value]
        if value in self.later:
            self.env[value] = self.later.pop(value)()
            return self.env[value]
        if value in self.listing.constants:
            return Known(self.listing.constants[value])
        return self.outer.lookup(value) if self.outer is not None else None

    @property
    def steps(self) -> int:
        """Of the longest input, as it is studied; 0 where none has a time axis."""
        inputs = (self.lookup(value) for value in self.listing.inputs.values())
        return max((f.shape[f.axes.index("t")] for f in inputs if isinstance(f, Flow) and "t" in f.axes), default=0)

    def translate(self, values: Sequence[Value]) -> None:
        """Translate what the values need, and the values; one that mixes time may stay unexplained."""
        for call in self._missing(values):
            for value, tracked in zip(call.results, self.visit(call), strict=False):
                self.env.setdefault(value, tracked)

    def demand(self, values: Sequence[Value]) -> list[Tracked]:
        """Translate what the values need, and the values."""
        self.translate(values)
        return [self.settled(value) for value in values]

    def settled(self, value: Value) -> Tracked:
        """What is known of a value that was translated; a region that mixes time is explained now."""
        item = self.lookup(value)
        if isinstance(item, Raw):
            item = self.env[value] = self.meanings.explain(self, value)
        return item or Refused()

    def _missing(self, values: Sequence[Value]) -> list[Call]:
        found: dict[int, Call] = {}
        waiting = [value for value in values if self.lookup(value) is None]
        while waiting:
            call = self.listing.producer.get(waiting.pop())
            if call is None or call.position in found:
                continue
            found[call.position] = call
            waiting.extend(v for v in call.operands if v is not None and self.lookup(v) is None)
        return [found[position] for position in sorted(found)]

    def visit(self, call: Call) -> list[Tracked]:
        """The results of one node; Refused (and a line in the findings) where it has no translation."""
        items = [None if v is None else self.lookup(v) or Refused() for v in call.operands]
        if any(isinstance(item, Refused) for item in items):
            told = refused_for(call.kind, call.attrs)
            if told is not None and call.kind != "NonZero":  # whatever it is given: told along with the rest
                return self.refuse(call, told)
            return [Refused()] * len(call.results)
        in_chunks = self.meanings.over_chunks(self, call, items)
        if in_chunks is not None:
            return in_chunks
        reason = next((item.reason for item in items if isinstance(item, Raw)), None)
        if reason is None:
            return self._applied(call, items)
        kept = self._kept_raw(call, items, reason)
        return self._settled(call, reason) if kept is None else kept

    def _kept_raw(self, call: Call, items: Sequence[Any], reason: Reason) -> list[Tracked] | None:
        """The results of a node that need no explanation of the raw values that it is given; None if they do."""
        if call.kind in ("Shape", "Size"):  # known without knowing what the value is
            found = self.samples.at(0, [v for v in call.operands if v is not None])
            return [Known(array) for array in run_call(call, [np.asarray(a) for a in found.values()])]
        if (call.kind in RAW_OPS and not self._is_apart(call)) or self._is_power_of_scores(call):
            return [Raw(reason)] * len(call.results)
        if call.kind not in RAW_RULES:
            return None
        with self.builder.origin(call.provenance):
            return RAW_RULES[call.kind](self, call, items)

    def _settled(self, call: Call, reason: Reason) -> list[Tracked]:
        """The results of a node once the raw values that it is given are explained."""
        of_scores = self.meanings.with_scores if call.kind == "Softmax" else self.meanings.of_scores
        scores = any(v is not None and of_scores(self, v) for v in call.operands)
        refusals = len(self.findings.refusals)
        items = [None if v is None else self.settled(v) for v in call.operands]
        if any(isinstance(item, Refused) for item in items):
            return self._refuse_nonlinear(call, reason, scores, refusals)
        return self._applied(call, items)

    def _applied(self, call: Call, items: Sequence[Any]) -> list[Tracked]:
        """`apply`, with what it raises told as refusals; values that mix time stay raw where a region may have them."""
        try:
            with self.builder.origin(call.provenance):
                return self.apply(call, items)
        except UserError:
            raise
        except TimeMixing as mixing:
            if self.in_step or (call.kind not in RAW_OPS and not self._gives_only_shape(call)):
                return self.refuse(call, mixing.reason)
            return [Raw(mixing.reason)] * len(call.results)
        except Unsupported as unsupported:
            return self.refuse(call, unsupported.reason)
        except ValueError as error:
            return self.refuse(call, f"its operands do not fit: {error}", error)
        except MissingAttribute as error:
            return self.refuse(call, f"it lacks the attribute {error}")
        except BROKEN as error:
            return self.refuse(call, failure(call.name, error), error)

    def apply(self, call: Call, items: Sequence[Any]) -> list[Tracked]:
        """One node on tracked operands: constants fold, the rest goes by the table.

        Raises TimeMixing or Unsupported, this too where an operand was refused or is not known yet.
        """
        for value, item in zip(call.operands, items, strict=False):
            if isinstance(item, Refused) or (item is None and value is not None):
                raise Unsupported(LOST)
        if all(item is None or isinstance(item, Known) for item in items) and call.kind not in RANDOM:
            arrays = [None if item is None else item.stored for item in items]
            return [Known(array) for array in run_call(call, arrays)]
        if any(isinstance(item, Tick) for item in items):
            return self.meanings.at_tick(self, call, items)
        rule = self.meanings.control.get(call.kind) or RULES.get(call.kind)
        if rule is None and call.kind in RAW_OPS:
            raise TimeMixing("it brings several steps together")
        if rule is None:
            raise Unsupported(REFUSED_OPS.get(call.kind, "there is no rule for this op"))
        if not self.in_step:
            items = along_steps(self, call, items)
        if self.dynamic and not self.in_step:
            items = with_lengths(self, call, items)
        if not all(is_plain(item) or (call.kind in self.meanings.control and is_joint(item)) for item in items):
            return apply_merged(self, call, items, rule)
        return rule(self, call, items)

    def _refuse_nonlinear(self, call: Call, mixed: Reason, scores: bool, known: int) -> list[Tracked]:
        """Refuse a call, given what could not be explained (its refusals are those from number `known` on)."""
        told = self.findings.refusals[known:]
        if scores:  # the call is the reason, not what it is given
            del self.findings.refusals[known:]
            return self.refuse(call, OF_SCORES.get(call.kind, OF_SCORES[""]))
        if told and all(refused in self.findings.told for refused in told):
            return [Refused()] * len(call.results)
        if call.kind in NONLINEAR and all(r.op in SUMMING and Kind.UNLIKE in r.kind for r in told):
            del self.findings.refusals[known:]  # sums of which the rounding left a part, which treats no steps alike
        kind = mixed.kind | (Kind.ROUNDING if call.kind in NONLINEAR else Kind.NONLINEAR)
        what = NONLINEAR.get(call.kind, "not linear in what it is given")
        return self.refuse(call, Reason(f"{what}, where {mixed}", kind))

    def refuse(self, call: Call, reason: Reason | str, cause: Exception | None = None) -> list[Tracked]:
        self.findings.refusals.append(refusal(call.name, call.kind, reason, cause))
        return [Refused()] * len(call.results)

    def substituted(self, values: Mapping[Value, Tracked]) -> Translator:
        """A translator of the same listing in which these values are something else.

        Only values that do not depend on them may have been translated before.
        """
        return Translator(
            self.listing,
            self.builder,
            self.samples,
            self.findings,
            self.meanings,
            self.in_step,
            env=dict(values),
            dynamic=self.dynamic,
            probing=self.probing,
            outer=self,
        )

    def inside(self, body: Listing, points: list[dict[Value, Any]], in_step: bool) -> Translator:
        """A translator of a body of one of the nodes, whose samples these are."""
        samples = Samples(body, points)
        given = self.findings, self.meanings, in_step
        return Translator(body, self.builder, samples, *given, stream=self.stream, probing=self.probing)

    def _gives_only_shape(self, call: Call) -> bool:
        """Is nothing but the shape of its result asked for, as that to which several indices are spread?"""
        users = self.listing.users.get(call.results[0], [])
        given = call.results[0] in self.listing.outputs.values()
        return bool(users) and not given and all(user.kind in ("Shape", "Size") for user in users)

    def _is_apart(self, call: Call) -> bool:
        """Does it have a meaning, or a reason to be refused, of its own, whatever region of several ops it is in?"""
        if call.kind == "ScatterElements":
            return isinstance(call.operands[1] and self.lookup(call.operands[1]), Flow)
        if call.kind == "Dropout" and len(call.operands) > 2 and call.operands[2] is not None:
            training = self.lookup(call.operands[2])
            return isinstance(training, Known) and bool(np.any(training.array))
        if call.kind == "AveragePool":
            return bool(call.attrs.get("ceil_mode", 0))
        return raises_rate(call)

    def _is_power_of_scores(self, call: Call) -> bool:
        return call.kind == "Pow" and self.meanings.of_scores(self, call.results[0])

    def dtype(self, call: Call, slot: int) -> str:
        """'f', 'i', 'u' or 'b': what an operand holds in the file."""
        return self._held(call, slot).kind

    def bits(self, call: Call, slot: int) -> int:
        """The bits of a number that an operand holds in the file."""
        return 8 * self._held(call, slot).itemsize

    def _held(self, call: Call, slot: int) -> np.dtype[Any]:
        value = call.operands[slot]
        assert value is not None
        return self.samples.dtype(value)


# Ops through which a value may pass that mixes time, until something asks what it is.
RAW_OPS = frozenset(
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Neg",
        "Sum",
        "MatMul",
        "Gemm",
        "Einsum",
        "Conv",
        "ConvTranspose",
        "AveragePool",
        "Pad",
        "DFT",
        "Slice",
        "Split",
        "Gather",
        "GatherElements",
        "GatherND",
        "Concat",
        "Reshape",
        "Flatten",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Expand",
        "Tile",
        "Cast",
        "Identity",
        "Dropout",
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "CumSum",
        "CumProd",
        "Where",
        "ScatterND",
        "ScatterElements",
        "Exp",
        "Log",
        "Reciprocal",
        "Trilu",
        "FusedMatMul",
        "ConcatFromSequence",
    ]
)
