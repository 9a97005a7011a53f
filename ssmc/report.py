"""What is reported as JSON: statistics, verification, inspection, compilation, in the shapes that others build on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from ssmc.interface import to_json
from ssmc.target import LayerStats, Stats

if TYPE_CHECKING:
    from ssmc.driver import Executable
    from ssmc.frontend import Model
    from ssmc.trials import Trials
    from ssmc.verification import Error, Verification


def stats_json(stats: Stats) -> dict[str, Any]:
    """The costs of a run, whole batch and all steps; null is what the target cannot know.

    `notes` are the target's own words and numbers.
    """
    told = {f.name: getattr(stats, f.name) for f in fields(Stats) if f.name not in ("layers", "notes")}
    layers = [{f.name: getattr(layer, f.name) for f in fields(LayerStats)} for layer in stats.layers]
    return {**plain(told), "layers": plain(layers), "notes": plain(stats.notes)}


def trials_json(trials: Trials) -> dict[str, Any]:
    """Mean, spread and worst of every output's error and of the accuracy (null without labels)."""
    told = {
        "count": trials.count,
        "seed": trials.seed,
        "errors": {name: asdict(error) for name, error in trials.errors.items()},
        "accuracy": None if trials.accuracy is None else asdict(trials.accuracy),
        "perfect_accuracy": trials.perfect_accuracy,
    }
    return dict(plain(told))


def verification_json(verification: Verification) -> dict[str, Any]:
    """The outcome with every output's and layer's error; relative error is `max|y - ref| / max|ref|`."""
    outputs = {name: _error_json(error) for name, error in verification.outputs.items()}
    layers = [
        {"name": layer.name, "op": layer.op, "onnx_nodes": list(layer.onnx_nodes), **_error_json(layer.error)}
        for layer in verification.layers
    ]
    whole = {"passed": verification.passed, "tolerance": verification.tolerance}
    return {**whole, "outputs": outputs, "layers": layers, "note": verification.note}


def _error_json(error: Error) -> dict[str, Any]:
    told = {
        "max_relative_error": error.relative,
        "max_abs_error": error.absolute,
        "worst_index": list(error.worst_index),
    }
    return dict(plain(told))


def inspection_json(model: Model) -> dict[str, Any]:
    """What is in a model: its systems, its other ops, what would not compile."""
    systems = []
    for system in model.systems:
        systems.append(
            {
                "name": system.name,
                "kind": system.kind,
                "disguise": system.disguise,
                "groups": system.groups,
                "states": system.states,
                "inputs": system.inputs,
                "outputs": system.outputs,
                "complex": system.is_complex,
                "time_constants": plain(system.time_constants),
                "frequencies": plain(system.frequencies),
                "onnx_nodes": list(system.where),
                "proof_error": plain(system.proof_error),
                "kernel": plain(system.replacement),
                "grids": plain(system.grids),
            }
        )
    return {
        "model": str(model.path),
        "interface": to_json(model.interface),
        "systems": systems,
        "other_ops": plain(model.other_ops),
        "proofs": plain(model.proofs),
        "notes": plain(model.notes),
        "unsupported": [{"node": r.node, "op": r.op, "reason": r.reason} for r in model.unsupported],
    }


def compilation_json(executable: Executable) -> dict[str, Any]:
    """How a program came to be: passes with their errors, losses, notes, sizes."""
    program, made = executable.program, executable.compilation
    report: dict[str, Any] = {
        "target": program.target,
        "ideal": executable.ideal,
        "instructions": program.instruction_count,
        "constants_bytes": sum(array.nbytes for array in program.data.values()),
        "sections": {section.name: len(section.code) for section in program.sections},
    }
    for name in ("warning", "copies", "forms", "schedules"):
        if name in program.meta:
            report[name] = plain(program.meta[name])
    if made is None:
        return report
    report["model"] = str(made.model.path)
    report["passes"] = [
        {
            "name": step.pass_.name,
            "changed": step.changed,
            "seconds": step.seconds,
            "checking_seconds": step.checking_seconds,
            "nodes": len(step.after),
            "errors": plain(step.errors),
        }
        for step in made.steps
    ]
    report["losses"] = plain(made.context.losses)
    report["notes"] = plain(made.notes)
    for name in ("decays", "alternatives", "banks", "couplings", "units"):
        report[name] = plain(getattr(made.context, name))
    report["ops"] = dict(sorted(Counter(node.op.name for node in made.graph.nodes()).items()))
    return report


def plain(value: Any) -> Any:
    """`value` as JSON holds it: records as objects, arrays as lists, what is not finite as null."""
    match value:
        case None | str() | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case tuple() | list() | set() | frozenset():
            return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return str(value)
