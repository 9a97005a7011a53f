"""Which bank is to hold a layer's states, by cost and error, before anything is made to suit one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Node, interpret
from ssmc.ir.op import Array
from ssmc.passes.bank_choice import Rule, candidates, choose
from ssmc.passes.banks import demand
from ssmc.passes.base import Context, Pass
from ssmc.passes.choices import Alternative, BankChoice
from ssmc.passes.couple import spared
from ssmc.passes.machine import Machine, StateBank
from ssmc.passes.probe import excerpt
from ssmc.passes.share_decays import ShareDecays, Sharing, obstacle
from ssmc.passes.tile import Tile, tiled

CHOICE, ORDER = "choice", "order"
HELD = ("tile.state", "tile.recurrence", "tile.feedback")
ELAPSED = 4096  # steps of the calibration data whose times are averaged


@dataclass(frozen=True)
class ChooseBanks(Pass):
    """Name the bank that shall hold each layer's states; what is named stays.

    before  ssm(%u) {system = ...}
    after   ssm(%u) {system = ..., bank = "digital"}

    Every bank that can hold the states is weighed by the energy of a step, B and C included, and by the expected error
    of the response: that of the bank, of the arrays around it in the basis that it counts in, and, where the pipeline
    is still to share decays for it, of that (on the calibration data, else of the kernel). A bank counts whose error is
    within `error`, or no more than `worse` times the least; of those the one that takes the least energy, of several
    within `margin` of that the one that errs least, then the target's order. Room goes to the layers that can go to
    one bank only, then in the model's order. `--explain` shows what was weighed.

    `banks=order` names the target's first bank for all layers, `banks=volatile` the one of that kind; a layer that
    cannot go there goes where it can. Passes that suit one bank leave the layers of others alone (`share-decays`,
    `scale-states`); `map-weights` keeps to what is named where there is room.
    """

    name = "choose-banks"
    banks: str = CHOICE
    worse: float = 1.5  # ours, as for coupling
    error: float = 0.02  # ours
    margin: float = 0.05  # ours

    def __post_init__(self) -> None:
        if not self.worse >= 1:
            raise ValueError(f"worse must be at least 1, not {self.worse:g}")
        if not (self.error >= 0 and self.margin >= 0):
            raise ValueError(f"error and margin must not be negative, not {self.error:g} and {self.margin:g}")

    def run(self, graph: Graph, context: Context) -> Graph:
        """Raises UserError for a kind of bank that the target lacks, for a system that is continuous or dense."""
        machine = context.machine
        if machine is None or not machine.banks:
            return graph
        nodes = [node for node in graph.nodes("ssm", "recurrence") if not node.op["bank"]]
        named = {}
        if self.banks != CHOICE:
            named = dict.fromkeys((node.name for node in nodes), self._kind(machine))
        elif nodes and len(machine.banks) > 1:
            named = self._chosen(graph, context, machine, nodes)
        if not named:
            return graph
        out = graph.copy()
        for name, kind in named.items():
            out.set_op(name, out.op(name).with_attrs(bank=kind))
        return out

    def _kind(self, machine: Machine) -> str:
        kinds = [bank.kind for bank in machine.banks]
        if self.banks == ORDER:
            return kinds[0]
        if self.banks not in kinds:
            raise UserError(
                f"the target has no bank '{self.banks}'",
                where=f"pass '{self.name}'",
                hint=f"banks is one of: {', '.join((CHOICE, ORDER, *kinds))}",
            )
        return self.banks

    def _chosen(self, graph: Graph, context: Context, machine: Machine, nodes: list[Node]) -> dict[str, str]:
        """The banks by layer; what was weighed goes to the context's report."""
        rule = Rule(self.worse, self.error, self.margin)
        work = _Work(graph, context, machine, nodes, self.name)
        nodes = [node for node in nodes if node.name in work.found]
        work.share({node.name for node in nodes if _may_win(choose(work.found[node.name], (), rule), work, node)})
        order = sorted(work.found, key=lambda name: sum(not one.objection for one in work.found[name]) > 1)
        chosen = _with_room(work, order, rule)
        if machine.reloads and any(not any(one.chosen for one in found) for found in chosen.values()):
            chosen = {name: choose(work.found[name], (), rule) for name in order}
        named = {}
        for node in nodes:
            found = chosen[node.name]
            context.alternatives += found
            won = next((one for one in found if one.chosen), None)
            if won is None:
                continue
            named[node.name] = won.bank
            if won.bank != machine.banks[0].kind:
                context.note(self, node.name, f"states in bank '{won.bank}' (bank '{found[0].bank}': {found[0].why})")
        return named


def _may_win(found: list[Alternative], work: _Work, node: Node) -> bool:
    """Whether a bank for which decays are to be shared would win if that cost nothing."""
    return any(one.chosen and one.bank in work.shared_for(node) for one in found)


def _with_room(work: _Work, order: list[str], rule: Rule) -> dict[str, list[Alternative]]:
    """Each layer's choice in turn, of the banks with room."""
    used, chosen = dict.fromkeys((bank.kind for bank in work.machine.banks), 0), {}
    for name in order:
        size = work.sizes[name]
        full = {
            bank.kind
            for bank in work.machine.banks
            if bank.count is not None and used[bank.kind] + size[bank.kind] > bank.count
        }
        chosen[name] = choose(work.found[name], full, rule)
        for one in chosen[name]:
            used[one.bank] += size[one.bank] if one.chosen else 0
    return chosen


@dataclass
class _Work:
    """What each bank would take and err for the layers that are open, as they will lie in tiles."""

    graph: Graph
    context: Context
    machine: Machine
    nodes: list[Node]
    pass_name: str
    found: dict[str, list[Alternative]] = field(init=False)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    elapsed: Mapping[str, float] = field(default_factory=dict)
    sharing: Sharing | None = None  # as a later pass will do it

    def __post_init__(self) -> None:
        later = next((pass_ for pass_ in self.context.later if isinstance(pass_, ShareDecays)), None)
        self.sharing = None if later is None else Sharing(later, self.graph, self.context)
        for node in self.nodes:
            system = node.op.get("system")
            if system is not None and not (system.discrete or system.asynchronous):
                raise UserError(
                    "the system is continuous, and no bank can be chosen for it",
                    where=f"pass '{self.pass_name}', node '{node.name}'",
                    hint="run discretize before it",
                )
        if any(bank.cost is not None and bank.cost.keep for bank in self.machine.banks):
            self.elapsed = _elapsed(self.graph, self.context)
        # Decays that are shared later are no matter yet, nor where their time constants lie.
        banks = tuple(replace(b, fastest=math.inf, slowest=0.0) if b.decay_only else b for b in self.machine.banks)
        free = replace(self.machine, banks=banks, decay_levels=None)
        strict, loose = self._weighed(self.graph, self.machine), self._weighed(self.graph, free)
        self.found = {}
        for node in self.nodes:
            if node.name in loose:
                late = self.shared_for(node)
                pairs = zip(strict[node.name], loose[node.name], strict=True)
                self.found[node.name] = [other if other.bank in late else one for one, other in pairs]

    def shared_for(self, node: Node) -> set[str]:
        """The banks for which the pipeline will share the node's decays."""
        sharing = self.sharing
        if sharing is None or node.op.name != "ssm" or not sharing.asks(node) or obstacle(node):
            return set()
        return {bank.kind for bank in self.machine.banks if bank.decay_only}

    def share(self, names: set[str]) -> None:
        """Share the decays of these layers as the pipeline will, and weigh the banks that need it anew."""
        sharing = self.sharing
        if sharing is None or not names:
            return
        fitted = {node.name: sharing.share(node) for node in self.nodes if node.name in names}
        weighed = self._weighed(sharing.out, self.machine)
        for node in self.nodes:
            if node.name in names:
                lost = fitted[node.name]
                error = lost.h2 if lost.measured is None else lost.measured
                late = self.shared_for(node)
                pairs = zip(self.found[node.name], weighed[node.name], strict=True)
                self.found[node.name] = [
                    replace(now, error=math.hypot(now.error, error), shared_error=error) if now.bank in late else one
                    for one, now in pairs
                ]

    def _weighed(self, graph: Graph, machine: Machine) -> dict[str, list[Alternative]]:
        later = next((pass_ for pass_ in self.context.later if isinstance(pass_, Tile)), Tile())
        tiles, origin = tiled(graph, machine, later)
        wanted, every = {node.name for node in self.nodes}, dict[str, list[Node]]()
        for node in tiles.nodes(*HELD):
            if origin[node.name] in wanted:
                every.setdefault(origin[node.name], []).append(node)
        found = {}
        for name, parts in every.items():
            rows = [candidates(tiles, part, machine) for part in parts]
            needs = [demand(part) for part in parts]
            self.sizes[name] = {bank.kind: sum(need.size(bank) for need in needs) for bank in machine.banks}
            found[name] = [
                self._alternative(name, bank, tiles, parts, [row[i] for row in rows])
                for i, bank in enumerate(machine.banks)
            ]
        return found

    def _alternative(
        self, name: str, bank: StateBank, tiles: Graph, parts: list[Node], rows: list[BankChoice]
    ) -> Alternative:
        """All parts of a layer in one bank."""
        cost, size = bank.cost, self.sizes[name][bank.kind]
        kept = (
            0.0
            if cost is None
            else cost.keep * size * (self.elapsed[name] * bank.unit if name in self.elapsed else 1.0)
        )
        saved = sum(spared(tiles, part, self.context) for part in parts) if bank.decay_only else 0.0
        energies = [row.joules if row.whole_joules is None else row.whole_joules for row in rows]
        joules = None if None in energies else sum(e for e in energies if e is not None) + kept - saved
        objection = next((row.objection for row in rows if row.objection), "")
        error = max(row.whole_error for row in rows)
        return Alternative(name, bank.kind, joules, error, kept, saved, objection=objection)


def _elapsed(graph: Graph, context: Context) -> dict[str, float]:
    """Time from one event to the next of event-driven layers: the calibration data's on average, else a unit."""
    values: Mapping[str, Array] = {}
    if context.calibration:
        values = interpret(graph, excerpt(graph, context.calibration, ELAPSED), keep=True)
    found = {}
    for node in graph.nodes("ssm"):
        operands = graph.operands(node.name)
        if len(operands) > 1 and operands[1] is not None:
            found[node.name] = float(np.mean(values.get(str(operands[1]), 1.0)))
    return found
