"""Does the lifted model do what the file does: compared with the file in float64, and with onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Lift
from ssmc.frontend.model import Proof
from ssmc.frontend.proofs.reference import step_through
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Listing
from ssmc.interface import Port
from ssmc.ir.graph import Graph
from ssmc.ir.interpreter import interpret
from ssmc.ir.layout import from_graph, to_graph
from ssmc.ir.op import Array

RUNTIME_TOLERANCE = 1e-3  # onnxruntime computes in float32; this is only to catch a misread op


def relative_error(y: Array, reference: Array) -> float:
    """max|y - ref| / max|ref|; infinite where shapes differ or a value is not finite."""
    y, reference = np.asarray(y, np.float64), np.asarray(reference, np.float64)
    if y.shape != reference.shape or not np.isfinite(y).all():
        return float("inf")
    scale = max(float(np.abs(reference).max(initial=0.0)), 1e-12)
    return float(np.abs(y - reference).max(initial=0.0)) / scale


def run_graph(
    graph: Graph, inputs: tuple[Port, ...], outputs: tuple[Port, ...], arrays: Mapping[str, Any]
) -> dict[str, Array]:
    """The lifted graph on user-shaped arrays."""
    ports = {port.name: port for port in inputs}
    feed = {name: to_graph(np.asarray(a), ports[name].axes, ports[name].type) for name, a in arrays.items()}
    found = interpret(graph, feed)
    return {port.name: from_graph(found[port.name], port.axes) for port in outputs}


def run_file(
    listing: Listing, inputs: tuple[Port, ...], states: Mapping[str, str], form: str, arrays: Mapping[str, Any]
) -> dict[str, Array]:
    """The file's own nodes in float64, on user-shaped arrays that fit its dimensions."""
    if form == "sequence":
        given = {listing.inputs[name]: _wide(a) for name, a in arrays.items()}
        found = evaluate(listing, given, listing.outputs.values())
        return {name: np.asarray(found[value]) for name, value in listing.outputs.items()}

    def step(feed: dict[str, Array]) -> dict[str, Array]:
        found = evaluate(listing, {listing.inputs[n]: _wide(a) for n, a in feed.items()}, listing.outputs.values())
        return {name: np.asarray(found[value]) for name, value in listing.outputs.items()}

    return step_through(step, inputs, states, arrays)


def _wide(array: Any) -> Array:
    array = np.asarray(array)
    return np.asarray(array, np.float64) if array.dtype.kind == "f" else array


def compare(
    against: str, found: Mapping[str, Array], expected: Mapping[str, Array], batch: int, length: int, tolerance: float
) -> list[Proof]:
    """How far what was found is from what was expected, output by output."""
    return [
        Proof(against, batch, length, name, relative_error(found[name], expected[name]), tolerance) for name in expected
    ]


def effect_of_fits(
    graph: Graph,
    lifts: Sequence[Lift],
    inputs: tuple[Port, ...],
    outputs: tuple[Port, ...],
    arrays: Mapping[str, Any],
    found: Mapping[str, Array],
) -> float:
    """What the systems' own errors do to the outputs: the relative error where each `ssm` is off by its proof error.

    Every gain to the states is off by that much, up or down at random. A sum of large terms that nearly cancel, or a
    nonlinearity where it is steep, makes more of it than it was.
    """
    shaken, rng = graph.copy(), np.random.default_rng(23)
    for lift in lifts:
        op = shaken.op(lift.node)
        if op.name == "ssm" and lift.proof_error:
            system = op["system"]
            sign = rng.choice([-1.0, 1.0], system.B.shape)
            shaken.set_op(lift.node, op.with_attrs(system=replace(system, B=system.B * (1 + lift.proof_error * sign))))
    moved = run_graph(shaken, inputs, outputs, arrays)
    return max((relative_error(moved[name], array) for name, array in found.items()), default=0.0)


def require(proofs: list[Proof], path: str) -> None:
    """Raise UserError where a proof failed."""
    bad = [proof for proof in proofs if not proof.passed]
    if bad:
        worst = max(bad, key=lambda proof: proof.error)
        raise UserError(
            f"the lifted model is not the model in the file: output '{worst.output}' is off by {worst.error:.1e}",
            where=path,
            why=f"compared with {worst.against} at batch {worst.batch}, length {worst.length}; "
            f"allowed is {worst.tolerance:.0e} of the largest value",
            hint="if the file is right at its traced length only, export it at the length you need; "
            "else please report this model",
        )
