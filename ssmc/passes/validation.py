"""Translation validation: the graph before a pass against the graph after it, both run by the interpreter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Node, Op, Piece, Value, interpret
from ssmc.ir.op import Array
from ssmc.passes.base import LayerLoss, LossReport, Pass
from ssmc.passes.loss import bound
from ssmc.passes.pipeline import show_pass

Outputs = Mapping[str, Array]
PLACES = ("bank", "unit")  # attributes that say where states lie, and in what unit: no op's numbers follow from them


def relative_error(reference: Array, array: Array) -> float:
    """`max|y - y'| / max|y|`; absolute where the reference is zero, infinite where shapes or NaNs differ."""
    if reference.shape != array.shape:
        return float("inf")
    if not reference.size:
        return 0.0
    known = np.isfinite(reference)
    if not np.array_equal(reference[~known], array[~known], equal_nan=True) or not np.isfinite(array[known]).all():
        return float("inf")
    worst = float(np.abs(reference[known] - array[known]).max(initial=0.0))
    scale = float(np.abs(reference[known]).max(initial=0.0))
    return worst / scale if scale > 0 else worst


def has_meaning(graph: Graph) -> bool:
    """Whether the interpreter can run it: a continuous system has no meaning before it is discretised."""
    systems = (node.op["system"] for node in graph.nodes("ssm"))
    return all(system.discrete or system.asynchronous for system in systems)


def same_numbers(before: Graph, after: Graph) -> bool:
    """Whether two graphs are the same but for where things lie: the interpreter would do the same again."""
    if before is after:
        return True
    if before.order() != after.order():
        return False
    return all(
        before.operands(name) == after.operands(name) and _same_op(before.op(name), after.op(name))
        for name in after.order()
    )


def _same_op(old: Op, new: Op) -> bool:
    if old is new:
        return True
    names = [attribute for attribute in new.attrs if attribute not in PLACES]
    return old.name == new.name and all(_same(old.get(name), new[name]) for name in names)


def _same(old: object, new: object) -> bool:
    """Large values are the same where they are one object."""
    if old is new:
        return True
    if isinstance(old, tuple) and isinstance(new, tuple):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, Piece) and isinstance(new, Piece):
        return old.block == new.block
    return type(old) is type(new) and isinstance(old, int | float | str) and old == new


class Validator:
    """Compares graph after graph of a pipeline on fixed data; each graph is run once, and not again where the next
    one only has its things in other places.

    `data` is inputs by kind ("probe", "calibration") in the graph's layout, on which every pass is checked;
    `loss_data` is what the losses of lossy passes are measured on: a kind and its inputs, None for no measuring.
    """

    def __init__(
        self, data: Mapping[str, Mapping[str, Array]], loss_data: tuple[str, Mapping[str, Array]] | None = None
    ) -> None:
        self.data, self.loss_data = data, loss_data
        self._known: tuple[Graph, dict[str, Outputs]] | None = None

    def outputs(self, graph: Graph) -> dict[str, Outputs]:
        """Outputs by kind of data."""
        if self._known is None or not same_numbers(self._known[0], graph):
            self._known = (graph, {kind: interpret(graph, inputs) for kind, inputs in self.data.items()})
        else:
            self._known = (graph, self._known[1])
        return self._known[1]

    def check(self, pass_: Pass, before: Graph, after: Graph) -> dict[str, dict[str, float]]:
        """Relative errors by kind of data and output.

        Raises UserError that names the pass and the first node that differs where an exact pass exceeds what it
        promises, or where a lossy one gives what is no number.
        """
        if not (has_meaning(before) and has_meaning(after)):
            return {}
        reference = self.outputs(before)
        try:
            found = self.outputs(after)
        except UserError as error:
            raise UserError(
                f"the pass made a graph that cannot run: {error.what}",
                where=f"pass '{pass_.name}', {error.where}",
                why=error.why,
                hint="report this as a defect of the pass",
            ) from error
        limit = float("inf") if pass_.lossy else pass_.tolerance
        errors: dict[str, dict[str, float]] = {}
        for kind, expected in reference.items():
            got = found[kind]
            if set(expected) != set(got):
                lost = ", ".join(sorted(set(expected) ^ set(got)))
                raise UserError(f"the outputs are not the same: {lost}", where=f"pass '{pass_.name}'")
            errors[kind] = {name: relative_error(expected[name], got[name]) for name in expected}
            for name, worst in errors[kind].items():
                if worst > limit or worst == float("inf"):
                    values = (interpret(graph, self.data[kind], keep=True) for graph in (before, after))
                    raise _broken(pass_, before, after, kind, (name, worst), *values)
        return errors

    def report(self, pass_: Pass, before: Graph, after: Graph) -> LossReport:
        """What a lossy pass lost. Raises UserError where that is more than its `tolerance`."""
        kind, outputs = "", {}
        changed = list(_changed(before, after))
        old: Outputs = {}
        new: Outputs = {}
        if self.loss_data is not None and has_meaning(before) and has_meaning(after):
            kind, inputs = self.loss_data
            kept = [str(Value(node.name)) for node in changed]  # every value of a large model would be too many
            old, new = interpret(before, inputs, keep=kept), interpret(after, inputs, keep=kept)
            outputs = {n.op["name"]: relative_error(old[n.op["name"]], new[n.op["name"]]) for n in before.outputs()}
        for name, worst in outputs.items():
            if not worst <= pass_.tolerance:
                values = (interpret(graph, inputs, keep=True) for graph in (before, after))
                raise _broken(pass_, before, after, kind, (name, worst), *values)
        layers = []
        for node in changed:
            value = str(Value(node.name))
            measured = relative_error(old[value], new[value]) if value in old and value in new else None
            limit, note = bound(before, after, node.name)
            layers.append(LayerLoss(node.name, node.provenance, measured, limit, note))
        return LossReport(show_pass(pass_), kind, outputs, tuple(layers))


def _broken(
    pass_: Pass, before: Graph, after: Graph, kind: str, worst: tuple[str, float], old: Outputs, new: Outputs
) -> UserError:
    """The error for a broken promise; it names the first node that differs."""
    where = f"pass '{pass_.name}'"
    for node in after.nodes():
        if node.name not in before or before.node(node.name).types != node.types or node.op.name == "output":
            continue
        value = str(Value(node.name))
        if not relative_error(old[value], new[value]) <= pass_.tolerance:
            where += f", {node.where}"
            break
    return UserError(
        "the pass broke its promise: it changed what the model computes",
        where=where,
        why=f"output '{worst[0]}' differs by {worst[1]:.3g} relative on the {kind} data, promised {pass_.tolerance:g}",
        hint="loosen its tolerance or its options"
        if pass_.lossy
        else "leave the pass out, and report this as a defect of the pass",
    )


def _changed(before: Graph, after: Graph) -> Iterator[Node]:
    """Nodes of the same name whose op is another one, and whose value has the same type."""
    for node in after.nodes():
        if node.name in before:
            old = before.node(node.name)
            if old.op is not node.op and old.types == node.types:
                yield node
