"""When each node runs: straight code and loops over time, taking turns.

Stage 0 is straight code, 1 the first loop over time, 2 straight code after it, 3 the second loop, and so on. Loops
1, 5, 9 ... walk the chunks from the beginning of the sequence, loops 3, 7, 11 ... from its end. A value per
sequence is made in straight code, a stream in a loop; a stream that another loop needs goes through DRAM.

A node runs in the first loop in which it can. Where the loop that reads its result is a later one it may be there, too:
a matrix that drives states which read their stream from its end. It is so where fewer words go through DRAM then, or
always, or never, as it is asked for (`loops` compares).

States of a loop are all kept from chunk to chunk. Where they would take most of the scratchpad, as those of many layers
of large heads do, later ones may be in a further loop: the stream between two layers is far smaller. A value per
sequence that is only given, or put in order, then comes right before its first user, so that initial states take no
room while other loops run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from backends.epochcore.lower.rates import Rates, count_steps
from ssmc.ir import ConstantType, Graph, Node, SequenceType, StreamType, Value

RECURRENT = ("tile.state", "tile.ssm", "tile.recurrence", "spike", "rounded", "rounded_sums", "fir")
FORWARD = ("delay", "downsample")
# The same words in another shape or order.
MOVES = ("reshape", "transpose")
# What a step makes of the same step alone: may be in any loop.
ARITHMETIC = ("tile.matmul", "unary", "binary", "gate", "select", "norm", "softmax")
POINTWISE = (*ARITHMETIC, *MOVES, "slice", "take", "broadcast", "concat")
# Which nodes are in the loop of their readers: those that save words, none, all that can.
WORDS, OWN, READERS = "words", "operands", "readers"
# As WORDS, and what has states in other loops than the products that it reads or that read it.
SYSTEMS = "systems"


@dataclass(frozen=True)
class Flow:
    """`stage` of every node that is not constant; `rates` of every stream value; `most` words of states in a loop."""

    order: tuple[str, ...]
    stage: dict[str, int]
    rates: dict[Value, Rates]
    most: int | None = None


def is_loop(stage: int) -> bool:
    """Whether a stage is a loop over time; the others are between loops."""
    return stage % 2 == 1


def is_backward(stage: int) -> bool:
    """Whether a stage is a loop from the last step to the first."""
    return stage % 4 == 3


def plan_flow(graph: Graph, choice: str = WORDS, most: int | None = None) -> Flow:
    """Stages and rates of a tile graph, in topological order; of states a loop has `most` words, or those of a node.

    Raises UserError where steps of streams do not meet (see `count_steps`)."""
    stage: dict[str, int] = {}
    held: dict[int, int] = {}
    behind_of: dict[str, frozenset[str]] = {}
    order = tuple(graph.order())
    for name in order:
        node = graph.node(name)
        operands = [value for value in graph.operands(name) if value is not None]
        if not all(isinstance(kind, ConstantType) for kind in node.types):
            stage[name] = _with_room(node, _stage(graph, node, operands, stage), held, most)
            if choice == SYSTEMS and is_loop(stage[name]):
                stage[name] = _apart(graph, node, stage, behind_of)
    for name in reversed(order if choice != OWN else ()):
        later = _reader(graph, name, stage)
        if later is not None and (choice in (READERS, SYSTEMS) or _saves(graph, name, stage, later)):
            stage[name] = later
    for name in reversed(order if most is not None else ()):
        if name in stage and graph.op(name).name in MOVES and not is_loop(stage[name]):
            stage[name] = max(stage[name], before_users(graph, name, stage))
    return Flow(order, stage, count_steps(graph, order), most)


def before_users(graph: Graph, name: str, stage: Mapping[str, int]) -> int:
    """The last straight stage in which a value per sequence can be made: that of its first user, or before its loop."""
    return min((s - is_loop(s) for s in (stage[user] for user, _ in graph.users(Value(name)))), default=0)


def carried_words(graph: Graph) -> Iterator[tuple[str, int]]:
    """The nodes that keep states from chunk to chunk in a loop, with the words of these."""
    return ((node.name, _carried(node)) for node in graph.nodes(*RECURRENT))


def _apart(graph: Graph, node: Node, stage: Mapping[str, int], met: dict[str, frozenset[str]]) -> int:
    """The loop for a node that can be in that of `stage`: this one, or the next that goes its way, where this one has
    made what it reads by work of the other kind. By node, `met` are the kinds of work behind it in its loop."""
    found = stage[node.name]
    own = frozenset({"states"} if node.op.name in RECURRENT else {"products"} if node.op.name == "tile.matmul" else ())
    before = [met[s.node] for s, mirror in _sources(graph, node.name) if stage[s.node] == found and not mirror]
    kinds = frozenset[str]().union(*before)
    if own and kinds - own:
        met[node.name] = own
        return found + (4 if node.op.name in (*RECURRENT, *FORWARD) else 2)
    met[node.name] = kinds | own
    return found


def _with_room(node: Node, stage: int, held: dict[int, int], most: int | None) -> int:
    """The loop for a node that can be in that of `stage`: this one, or a later one that goes the same way; in each of
    them so many words are `held`."""
    words = _carried(node) if most is not None and node.op.name in RECURRENT and is_loop(stage) else 0
    if most is None or not words:
        return stage
    while held.get(stage) and held[stage] + words > most:
        stage += 4
    held[stage] = held.get(stage, 0) + words
    return stage


def _carried(node: Node) -> int:
    """Words that a node keeps from step to step."""
    kinds: Any = node.types[1:]
    return sum(prod(kind.shape) for kind in kinds)


def _reader(graph: Graph, name: str, stage: Mapping[str, int]) -> int | None:
    """The one loop that reads the result of a node, if it is a later one and the node could be there."""
    node, made = graph.node(name), stage.get(name, 0)
    if node.op.name not in POINTWISE or not is_loop(made) or not isinstance(node.types[0], StreamType):
        return None
    readers = {stage[user] for user, _ in graph.users(Value(name))}
    later = readers.pop() if len(readers) == 1 else made
    # a matrix that reads states stays with them: they have forms together
    beside = any(s.node in stage and stage[s.node] == made and _is_state(graph, s) for s, _ in _sources(graph, name))
    return later if later > made and is_loop(later) and not beside else None


def _saves(graph: Graph, name: str, stage: Mapping[str, int], later: int) -> bool:
    """Whether fewer words go through DRAM if a node is in the loop that reads it than if its result goes there."""
    moved = -2 * _words(graph, Value(name))
    for source, mirror in dict.fromkeys(_sources(graph, name)):
        made, now = stage[source.node], stage[name]
        readers = {(stage[user], way) for user, way in _readers(graph, source) if user != name}
        loaded = made != now or mirror  # as it is, where nobody else reads it there
        stored = loaded or graph.op(source.node).name == "input" or any(s != made or way for s, way in readers)
        more = (not stored) + ((later, mirror) not in readers) - (loaded and (now, mirror) not in readers)
        moved += more * _words(graph, source)
    return moved < 0


def _words(graph: Graph, value: Value) -> int:
    kind: Any = graph.type(value)
    return prod(kind.shape)


def _is_state(graph: Graph, value: Value) -> bool:
    return graph.op(value.node).name == "tile.state"


def _sources(graph: Graph, name: str) -> Iterator[tuple[Value, bool]]:
    """The streams that a node reads, behind `reverse` nodes, and whether from their end."""
    for value in graph.operands(name):
        if value is not None and isinstance(graph.type(value), StreamType):
            yield behind(graph, value)


def _readers(graph: Graph, source: Value, mirror: bool = False) -> Iterator[tuple[str, bool]]:
    """Who reads a stream, through `reverse` nodes too, and whether from its end."""
    for user, _ in graph.users(source):
        if graph.op(user).name == "reverse":
            yield from _readers(graph, Value(user), not mirror)
        else:
            yield user, mirror


def behind(graph: Graph, value: Value) -> tuple[Value, bool]:
    """The stream behind `reverse` nodes, and whether it is read from its end."""
    mirror = False
    while graph.op(value.node).name == "reverse":
        value, mirror = graph.operand(value.node, 0), not mirror
    return value, mirror


def _stage(graph: Graph, node: Node, operands: list[Value], stage: dict[str, int]) -> int:
    """The first stage in which `node` can run.

    A reversed stream has the stage of its operand: it is that stream, read from DRAM in the other direction.
    """
    streams, others = [-1], [-1]
    for value in operands:
        kind = graph.type(value)
        if isinstance(kind, StreamType):
            streams.append(_ready(graph, value, stage))
        elif isinstance(kind, SequenceType):
            others.append(_sequence_stage(value, stage))
    if isinstance(node.types[0], SequenceType):
        # straight code after everything that it reads; pooling works inside the loop of its operand
        if node.op.name == "pool":
            return _loop(max(streams), max(others), "any")
        return max(0, *others, *(s + 1 for s in streams))
    if node.op.name in ("input", "reverse"):
        return max(streams)
    way = "forward" if node.op.name in FORWARD else "any"
    if node.op.name in RECURRENT:
        way = "backward" if node.op["reverse"] else "forward"
    return _loop(max(streams), max(others), way)


def _ready(graph: Graph, value: Value, stage: dict[str, int]) -> int:
    """The loop in which a stream operand can be read: that of its node, a later one where it is reversed."""
    made = stage[value.node]
    return made + 2 if graph.op(value.node).name == "reverse" and made > 0 else made


def _sequence_stage(value: Value, stage: dict[str, int]) -> int:
    """The straight stage in which a sequence value is there: after the loop, for what a loop leaves behind."""
    made = stage[value.node]
    return made + 1 if is_loop(made) else made


def _loop(stream: int, sequence: int, way: str) -> int:
    found = max(1, stream, sequence + 1)
    if way != "any" and is_backward(found) != (way == "backward"):
        found += 2
    return found
