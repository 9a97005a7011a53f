"""Runs a pipeline; after every pass the graph is verified, and what it computes compared with what it computed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TextIO

from ssmc.diagnostics import UserError
from ssmc.ir import Graph
from ssmc.ir.op import Array
from ssmc.ir.verify import verify
from ssmc.passes.base import Context, Pass
from ssmc.passes.pipeline import parse_pipeline, show_pass, show_pipeline
from ssmc.passes.probe import STEPS, excerpt, numbers_a_step, probe
from ssmc.passes.validation import Validator

LOSS_PROBE_STEPS = 128  # random steps that losses are measured on where there is no calibration data
LOSS_WORK = 1 << 32  # or fewer, where these times the numbers that a step takes are more


@dataclass(frozen=True)
class Step:
    """One pass that has run: what observers are told."""

    index: int
    pass_: Pass
    before: Graph
    after: Graph
    seconds: float  # of the pass itself
    checking_seconds: float  # of verifier and validation
    errors: Mapping[str, Mapping[str, float]]  # relative, by kind of data and output

    @property
    def changed(self) -> bool:
        return self.after is not self.before


Observer = Callable[[Step], None]


@dataclass(frozen=True)
class PassManager:
    """A pipeline, as text or as passes, and how it is watched.

    `validate` runs the interpreter before and after each pass, on a seeded probe and on `validation_steps` steps of the
    calibration data (whole sequences where they are shorter); losses are measured on `loss_steps` steps of it.
    `observers` are called after each pass that kept its promise; see `print_after`.
    """

    pipeline: str | Sequence[Pass]
    validate: bool = True
    validation_steps: int = 512
    loss_steps: int = 1024
    observers: Sequence[Observer] = ()

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Raises UserError where the text is not a pipeline."""
        return parse_pipeline(self.pipeline) if isinstance(self.pipeline, str) else tuple(self.pipeline)

    def __str__(self) -> str:
        return show_pipeline(self.passes)

    def run(self, graph: Graph, context: Context | None = None) -> Graph:
        """The graph that the pipeline makes of `graph`, which stays as it is.

        Raises UserError where a pass refuses, leaves a graph that is not well formed, or breaks its promise.
        """
        context = context or Context()
        passes = self.passes
        verify(graph, where="before the first pass")
        validator = self._validator(graph, context)
        for index, pass_ in enumerate(passes):
            context.later = passes[index + 1 :]
            start = perf_counter()
            after = _run(pass_, graph, context)
            ran = perf_counter()
            errors: Mapping[str, Mapping[str, float]] = {}
            if after is not graph:
                self._verify(passes, index, after)
                errors = validator.check(pass_, graph, after)
                if pass_.lossy:
                    context.losses.append(validator.report(pass_, graph, after))
            step = Step(index, pass_, graph, after, ran - start, perf_counter() - ran, errors)
            for observer in self.observers:
                observer(step)
            graph = after
        return graph

    def _verify(self, passes: Sequence[Pass], index: int, graph: Graph) -> None:
        pass_ = passes[index]
        if not isinstance(graph, Graph):
            raise UserError(f"the pass returned a {type(graph).__name__}, not a graph", where=f"pass '{pass_.name}'")
        earlier = f", after {show_pipeline(passes[:index])}" if index else ""
        verify(graph, where=f"pass '{show_pass(pass_)}'{earlier}")

    def _validator(self, graph: Graph, context: Context) -> Validator:
        if not self.validate:
            return Validator({})
        data: dict[str, Mapping[str, Array]] = {}
        drawn = probe(graph, context.seed)
        if drawn is not None:
            data["probe"] = drawn
        if not context.calibration:
            affordable = max(STEPS, LOSS_WORK // max(1, numbers_a_step(graph)))
            longer = probe(graph, context.seed, min(LOSS_PROBE_STEPS, affordable))
            return Validator(data, None if longer is None else ("probe", longer))
        data["calibration"] = excerpt(graph, context.calibration, self.validation_steps)
        return Validator(data, ("calibration", excerpt(graph, context.calibration, self.loss_steps)))


def _run(pass_: Pass, graph: Graph, context: Context) -> Graph:
    """What the pass makes of the graph. What goes wrong in someone else's pass is told with its name."""
    try:
        return pass_.run(graph, context)
    except UserError:
        raise
    except Exception as error:
        if type(pass_).__module__.startswith("ssmc."):
            raise
        why = f"{type(error).__name__}: {error}"
        hint = "mend the pass; --debug shows where it is"
        raise UserError("the pass failed", where=f"pass '{show_pass(pass_)}'", why=why, hint=hint) from error


def print_after(names: Container[str] | None = None, out: TextIO | None = None) -> Observer:
    """An observer that prints the graph after each of the named passes (None: after all)."""

    def show(step: Step) -> None:
        if names is None or step.pass_.name in names:
            from ssmc.ir.text import print_graph

            print(f"// after {show_pass(step.pass_)}\n{print_graph(step.after)}", file=out or sys.stderr)

    return show
