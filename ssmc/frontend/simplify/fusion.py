"""Put the linear maps around a system into it: what drives it into B, what reads it into C and D.

A lifted recurrence has identities for B and C. Walking up from its drive and down from its states, as long as
every step is linear and the product of the matrices is no costlier than its factors, gives the system that the
model's author wrote: S5 as one group of P states, S4D as one group per channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from math import prod
from typing import Any

import numpy as np
import scipy.sparse.linalg  # noqa: F401 - makes sparse.linalg an attribute
from scipy import sparse

from ssmc.frontend.graph.builder import Builder, Operand, kind_of, size_of
from ssmc.frontend.graph.grouping import SAME, Grouped, alike, group_system, without_copies, without_idle
from ssmc.frontend.graph.linear_form import Form, Linearity, identity_form, resolve
from ssmc.ir.graph import Graph, Value
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import StreamType
from ssmc.statespace import StateSpace

MAX_FILL = 4  # how many entries a matrix of a fused system may have for each one that is not zero
MAX_DENSE = 1 << 16  # what is smaller than this may be as empty as it likes


def fuse_systems(graph: Graph) -> dict[str, str]:
    """Fuse every `ssm` of the graph with the linear maps around it, in place; old name -> new name."""
    renamed: dict[str, str] = {}
    done: set[str] = set()
    position = {name: (i, 0) for i, name in enumerate(graph.order())}
    for node in list(graph.nodes("ssm")):
        if node.name in done or node.name not in graph:
            continue
        twins = _twins(graph, node.name)
        done.update(twins)
        new = _Fusion(graph, twins, position).run()
        renamed.update(dict.fromkeys(twins, new))
        graph.prune()
    return renamed


def _twins(graph: Graph, name: str) -> list[str]:
    """The node and those that read the same states, perhaps in another way or before they are updated."""
    op, operands = graph.op(name), graph.operands(name)
    found = [name]
    for user, slot in graph.users(graph.operand(name, 0)):
        other = graph.op(user)
        if slot or user == name or other.name != "ssm" or graph.operands(user) != operands:
            continue
        if other["reverse"] != op["reverse"]:
            continue
        if _same_states(op["system"], other["system"]):
            found.append(user)
        elif not any(graph.users(Value(each, 1)) for each in (*found, user)):
            one = _as_one(op["system"], other["system"])
            if one is not None and len(found) == 1:
                op = op.with_attrs(system=one[0])
                graph.set_op(name, op)
                graph.set_op(user, other.with_attrs(system=one[1]))
                found.append(user)
    return found


def _as_one(a: StateSpace, b: StateSpace) -> tuple[StateSpace, StateSpace] | None:
    """Systems that differ in what drives their real states alone, as two ways to read one: it is driven by both.

    They are the real and the imaginary part of complex states, some of which have a real pole. Else None.
    """
    plain = a.diagonal and b.diagonal and a.A.shape == b.A.shape and a.B.shape == b.B.shape and np.any(a.A.imag)
    held = (a.delta, b.delta, a.x0, b.x0, a.halved or b.halved or a.asynchronous or b.asynchronous or None)
    if not plain or any(x is not None for x in held) or a.read_before != b.read_before:
        return None
    if not (a.real_output and b.real_output and _same_poles(a, b)):
        return None
    apart = np.abs(a.B - b.B).max(axis=2) > SAME * np.abs(a.B).max()  # (groups, states)
    parts = (a.A[apart], a.B[apart], b.B[apart], *(s.C.transpose(0, 2, 1)[apart] for s in (a, b)))
    if any(np.any(part.imag) for part in parts):
        return None
    both = a.B + 1j * np.where(apart[..., None], b.B, 0.0)
    return replace(a, B=both), replace(b, B=both, C=np.where(apart[:, None], -1j * b.C, b.C))


def _same_states(a: StateSpace, b: StateSpace) -> bool:
    if a.asynchronous != b.asynchronous or (a.asynchronous and a.read_before != b.read_before):
        return False
    pairs = ((a.B, b.B), (a.delta, b.delta), (a.x0, b.x0))
    return _same_poles(a, b) and all(x is y or (x is not None and y is not None and _close(x, y)) for x, y in pairs)


def _same_poles(a: StateSpace, b: StateSpace) -> bool:
    if a.diagonal and b.diagonal and a.A.shape == b.A.shape:
        return bool(alike(a.A, b.A, continuous=a.asynchronous or a.delta is not None).all())
    return np.array_equal(a.A, b.A)


def _close(x: Any, y: Any) -> bool:
    return x.shape == y.shape and bool(np.abs(x - y).max(initial=0.0) <= SAME * np.abs(x).max(initial=0.0))


@dataclass(eq=False)
class _Fusion:
    graph: Graph
    names: list[str]
    position: dict[str, tuple[int, int]]  # of every node in a topological order

    def run(self) -> str:
        graph = self.graph
        self.linearity = Linearity(graph)
        self.first = graph.node(self.names[0])
        self.system: StateSpace = self.first.op["system"]
        self.states = [Value(name) for name in self.names]
        drive, roots = self._drive()
        forms = self._readout(roots)
        inside = {value.node for value in forms}
        self.absorbed |= inside - {root.node for root in roots}
        exits = [v for v in forms if any(user not in inside for user, _ in graph.users(v))]
        return self._rebuild(drive, roots, exits, forms)

    # -- upwards -------------------------------------------------------------------------------------------

    def _drive(self) -> tuple[Form, list[Value]]:
        """The drive as a form over roots: values that are not linear, or that others need too."""
        graph, u = self.graph, self.graph.operand(self.names[0], 0)
        inside = set(self.names)
        form = identity_form(u, size_of(graph, u))
        blocked: set[Value] = set()
        while True:
            root = next((r for r in form.matrices if r not in blocked), None)
            if root is None:
                self.absorbed = inside
                return form, list(form.matrices)
            wider = self._expanded(form, root, inside)
            if wider is None:
                blocked.add(root)
            else:
                inside.add(root.node)
                form = wider

    def _expanded(self, form: Form, root: Value, inside: set[str]) -> Form | None:
        graph, node = self.graph, self.graph.node(root.node)
        if any(user not in inside for user, _ in graph.users(root)) or root.index:
            return None
        operands = graph.operands(root.node)
        leaves: list[Form] = []
        for operand in operands:
            if operand is None:
                return None
            if graph.op(operand.node).name == "constant":
                found = resolve(self.linearity, operand, ())
            elif isinstance(graph.type(operand), StreamType) and kind_of(graph, operand).element == "real":
                found = identity_form(operand, size_of(graph, operand))
            else:
                found = None
            if found is None:
                return None
            leaves.append(found)
        step = self.linearity.step(node, leaves) if leaves else None
        if step is None or not step.matrices or np.any(step.offset):
            return None
        through = step.through(form.matrices[root])
        rest = {r: m for r, m in form.matrices.items() if r != root}
        for r, m in through.matrices.items():
            rest[r] = (rest[r] + m).tocsr() if r in rest else m
        wider = Form(rest, form.offset, form.size)
        near = inside | {r.node for r in form.matrices}
        for r, m in rest.items():
            if np.any(abs(m).sum(axis=0) == 0) and any(user not in near for user, _ in graph.users(r)):
                return None  # a part of a larger value, whose rest is none of this system's business
        return wider if wider.entries <= form.entries + self.linearity.parameters(node) else None

    # -- downwards -----------------------------------------------------------------------------------------

    def _readout(self, roots: Sequence[Value]) -> dict[Value, Form]:
        """Values that are linear in the states (and the roots of the drive), with their forms."""
        graph = self.graph
        forms = {v: identity_form(v, size_of(graph, v)) for v in self.states}
        direct: dict[Value, Form | None] = {}
        waiting = [(self.position[user], user) for v in self.states for user, _ in graph.users(v)]
        heapify(waiting)
        seen: set[str] = set()
        while waiting:
            _, name = heappop(waiting)
            if name in seen:
                continue
            seen.add(name)
            form = self._read(name, forms, direct, roots)
            if form is not None:
                forms[Value(name)] = form
                for user, _ in graph.users(Value(name)):
                    heappush(waiting, (self.position[user], user))
        return forms

    def _read(
        self, name: str, forms: dict[Value, Form], direct: dict[Value, Form | None], roots: Sequence[Value]
    ) -> Form | None:
        node = self.graph.node(name)
        if not isinstance(node.types[0], StreamType) or node.op.name in ("output", "ssm", "reverse"):
            return None
        operands, budget = [], self.linearity.parameters(node)
        for value in self.graph.operands(name):
            if value is None:
                return None
            form = forms.get(value)
            if form is None:
                if value not in direct:
                    direct[value] = resolve(self.linearity, value, roots, limit=8)
                form = direct[value]
            if form is None:
                return None
            operands.append(form)
            budget += form.entries
        found = self.linearity.step(node, operands)
        return found if found is not None and found.entries <= budget else None

    # -- the new system ------------------------------------------------------------------------------------

    def _rebuild(self, drive: Form, roots: list[Value], exits: list[Value], forms: Mapping[Value, Form]) -> str:
        graph, system = self.graph, self.system
        inputs = sparse.hstack([drive.matrices[r] for r in roots], format="csr")
        b = block_diagonal(system.B) @ inputs
        now, before, d, offsets = self._outputs(roots, exits, forms, inputs)
        early = any(graph.op(name)["system"].read_before for name in self.names)
        if early and now.nnz:  # y = C x_k + C' x_{k-1} with x_k = A x_{k-1} + B u
            a = sparse.diags_array(system.A.reshape(-1)) if system.diagonal else block_diagonal(system.A)
            c, d = now @ a + before, d + (now @ b).real
        elif early:
            early, c, d = _read_after(system, b, before, d)
        else:
            c = now
        if system.diagonal and not any(self.graph.users(Value(name, 1)) for name in self.names):
            system, b, c = without_copies(system, b.tocsr(), c.tocsr())
            system, b, c = without_idle(system, b.tocsr(), c.tocsr())
        grouped = _grouped(replace(system, read_before=early, halved=False), b.tocsr(), c.tocsr(), d.tocsr())
        new = grouped.system
        if max(new.B.size, new.C.size, new.D.size) > MAX_FILL * (b.nnz + c.nnz + d.nnz) + MAX_DENSE:
            return self.names[0]  # many unequal groups: apart they cost less
        mark, (first, _) = graph.mark, self.position[self.names[0]]
        name = self._replace(grouped, roots, exits, offsets)
        # where the old system stood: behind what drives it, in front of what reads it
        self.position.update((new, (first, 1 + k)) for k, new in enumerate(graph.added_since(mark)))
        return name

    def _outputs(
        self, roots: list[Value], exits: list[Value], forms: Mapping[Value, Form], inputs: Any
    ) -> tuple[Any, Any, Any, list[Any]]:
        """Matrices from the states after and before the step, and from the drive's roots, to all exits."""
        sizes = {r: size_of(self.graph, r) for r in roots}
        n = self.system.groups * self.system.states
        total = sum(forms[value].size for value in exits)
        parts = [sparse.csr_array((max(total, 1), n)), sparse.csr_array((max(total, 1), n))]
        if not exits:  # only the last state is wanted: read nothing
            return parts[0], parts[1], sparse.csr_array((1, inputs.shape[1])), []
        direct: Any = sparse.vstack(
            [
                sparse.hstack(
                    [forms[v].matrices.get(r, sparse.csr_array((forms[v].size, k))) for r, k in sizes.items()]
                )
                for v in exits
            ],
            format="csr",
        )
        for state in self.states:
            system: StateSpace = self.graph.op(state.node)["system"]
            width = size_of(self.graph, state)
            read = sparse.vstack(
                [forms[v].matrices.get(state, sparse.csr_array((forms[v].size, width))) for v in exits], format="csr"
            )
            late = int(system.read_before)
            parts[late] = parts[late] + system.gain * (read @ block_diagonal(system.C))
            direct = direct + read @ block_diagonal(system.D) @ inputs
        offsets = [forms[v].offset if np.any(forms[v].offset) else None for v in exits]
        return parts[0].tocsr(), parts[1].tocsr(), direct.tocsr(), offsets

    def _replace(self, grouped: Grouped, roots: list[Value], exits: list[Value], offsets: list[Any]) -> str:
        graph, builder = self.graph, Builder(self.graph)
        order = [*self.names, *sorted(self.absorbed, key=self.position.__getitem__)]
        sources = tuple(dict.fromkeys(p for name in order for p in graph.node(name).provenance))
        with builder.origin(sources):
            flat = [builder.reshape(r, (prod(builder.features(r)),)) for r in roots]
            u = _taken(builder, builder.concat(flat, -1), grouped.inputs)
            operands = [*graph.operands(self.names[0]), None, None]
            x0 = operands[2]
            if x0 is not None:
                x0 = _taken(builder, x0, grouped.states)  # type: ignore[assignment]
            attrs = {"system": grouped.system, "reverse": self.first.op["reverse"]}
            new = builder.add("ssm", [u, operands[1], x0], **attrs)
            size = sum(prod(builder.features(v)) for v in exits)
            whole = _spread(builder, new, grouped.outputs, max(size, 1))  # one that nobody reads where there is none
            start = 0
            replacements: list[tuple[Value, Operand]] = []
            for value, offset in zip(exits, offsets, strict=True):
                shape = builder.features(value)
                part = builder.slice(whole, -1, start, start + prod(shape))
                start += prod(shape)
                if offset is not None:
                    part = builder.binary("add", part, offset)
                replacements.append((value, builder.reshape(part, shape)))
            last = _taken(builder, Value(new.node, 1), np.argsort(grouped.states))
        made = {new.node} | _behind(graph, new.node)
        for old, fresh in [*replacements, *((Value(name, 1), last) for name in self.names)]:
            assert isinstance(fresh, Value)
            for user, slot in graph.users(old):
                if user not in made:
                    graph.connect(user, slot, fresh)
        return new.node


def _read_after(system: StateSpace, b: Any, c: Any, d: Any) -> tuple[bool, Any, Any]:
    """`C x_{k-1} + D u` read after the update instead, `C A^-1 x_k + (D - C A^-1 B) u`, if that has less feedthrough.

    So a reader that took the state's next value apart is seen to read the next state. Returns (reads before, C, D).
    """
    if not system.diagonal or system.asynchronous or np.abs(system.A).min(initial=1.0) < 1e-2:
        return True, c, d
    later = c @ sparse.diags_array(1.0 / system.A.reshape(-1))
    through = (d - (later @ b).real).tocsr()
    through.data[np.abs(through.data) < 1e-13 * max(abs(d).max(), 1e-300)] = 0.0
    through.eliminate_zeros()
    if sparse.linalg.norm(through) < 0.999 * sparse.linalg.norm(d):
        return False, later, through
    return True, c, d


def _behind(graph: Graph, name: str) -> set[str]:
    found, waiting = set(), [name]
    while waiting:
        for user in graph.net.successors(waiting.pop()):
            if user not in found:
                found.add(user)
                waiting.append(user)
    return found


def _grouped(system: StateSpace, b: Any, c: Any, d: Any) -> Grouped:
    """The system in groups; without inputs that reach nothing and outputs that nothing reaches, where they alone are
    in the way of groups that are equal."""
    whole = group_system(system, b, c, d)
    inputs = np.flatnonzero((abs(b).sum(axis=0) > 0) | (abs(d).sum(axis=0) > 0))
    outputs = np.flatnonzero((abs(c).sum(axis=1) > 0) | (abs(d).sum(axis=1) > 0))
    if whole.system.groups > 1 or (len(inputs), len(outputs)) == d.shape[::-1] or 0 in (len(inputs), len(outputs)):
        return whole
    found = group_system(system, b[:, inputs], c[outputs], d[outputs][:, inputs])
    if found.system.groups == 1:
        return whole
    return replace(found, inputs=inputs[found.inputs], outputs=outputs[found.outputs])


def _spread(builder: Builder, x: Operand, places: Any, size: int) -> Operand:
    """The numbers of x, each at its place among `size`; the others are zero."""
    index = np.full(size, len(places))
    index[places] = np.arange(len(places))
    return _taken(builder, x if len(places) == size else builder.concat([x, np.zeros(1)], -1), index)


def _taken(builder: Builder, x: Operand, index: Any) -> Operand:
    if np.array_equal(index, np.arange(builder.features(x)[-1])):
        return x
    return builder.emit("take", [x], axis=-1, index=Tensor(np.asarray(index, np.int64)))


def block_diagonal(blocks: Any) -> Any:
    """(G, rows, columns) as one sparse block-diagonal matrix."""
    groups, rows, columns = blocks.shape
    g, i, j = np.nonzero(blocks)
    return sparse.csr_array((blocks[g, i, j], (g * rows + i, g * columns + j)), shape=(groups * rows, groups * columns))
