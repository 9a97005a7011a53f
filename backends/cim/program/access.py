"""Which registers each instruction reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from backends.cim.program.decode import Item
from isa.cim_fields import LINES
from ssmc.ir.op import Array

Ranges = list[tuple[int, int]]  # first word, words
Access = Callable[[Item, Mapping[str, Array]], tuple[Ranges, Ranges]]  # what is read, what is written


def on_lines(address: int) -> bool:
    """Whether an operand names analog lines, not registers."""
    return address >= LINES


def _vector(reads: Mapping[str, str], written: str) -> Access:
    """Operands by the name of their size; `written` is the size of `dst` ("" for none)."""

    def access(item: Item, data: Mapping[str, Array]) -> tuple[Ranges, Ranges]:
        found = [(item.integer(name), item.integer(size)) for name, size in reads.items()]
        return found, [(item.integer("dst"), item.integer(written))] if written else []

    return access


def _timed(*reads: str) -> Access:
    def access(item: Item, data: Mapping[str, Array]) -> tuple[Ranges, Ranges]:
        found = [(item.integer(name), item.integer("words")) for name in reads]
        return found + ([(item.integer("dt"), 1)] if item.timed else []), [(item.integer("dst"), item.integer("words"))]

    return access


def _tick(item: Item, data: Mapping[str, Array]) -> tuple[Ranges, Ranges]:
    return ([(item.integer("dt"), 1)] if item.timed else []), []


def _binary(item: Item, data: Mapping[str, Array]) -> tuple[Ranges, Ranges]:
    words = item.integer("words")
    reads = [(item.integer(name), item.integer(f"{name}_words") or words) for name in "ab"]
    return reads, [(item.integer("dst"), words)]


def vector_ranges(item: Item) -> tuple[Ranges, Ranges]:
    """The vectors that a product drives its rows with, and those that it writes (or adds to)."""
    rows, cols = item.integer("rows"), item.integer("cols")
    source, target = item.integer("src_step") or rows, item.integer("dst_step") or cols
    reads = [(item.integer("src") + i * source, rows) for i in range(item.integer("vectors"))]
    writes = [(item.integer("dst") + i * target, cols) for i in range(item.integer("vectors"))]
    return reads, writes


def overlap(these: Ranges, those: Ranges) -> bool:
    """Whether any range has a word of another."""
    return any(a < b + n and b < a + m for a, m in these for b, n in those)


def _mvm(item: Item, data: Mapping[str, Array]) -> tuple[Ranges, Ranges]:
    reads, writes = vector_ranges(item)
    return reads + (writes if item.flag("accumulate") else []), writes


def _gather(item: Item, data: Mapping[str, Array]) -> tuple[Ranges, Ranges]:
    return [(item.integer("src"), item.integer("span"))], [(item.integer("dst"), data[item.text("index")].size)]


def _embed(item: Item, data: Mapping[str, Array]) -> tuple[Ranges, Ranges]:
    count, table = item.integer("count"), data[item.text("table")]
    return [(item.integer("src"), count)], [(item.integer("dst"), count * table[0].size)]


def _load(item: Item, data: Mapping[str, Array]) -> tuple[Ranges, Ranges]:
    return [], [(item.integer("dst"), data[item.text("data")].size)]


def _rows(item: Item, data: Mapping[str, Array]) -> tuple[Ranges, Ranges]:
    words = item.integer("features") * item.integer("vectors")
    return [(item.integer("src"), words)], [(item.integer("dst"), words)]


def _reduce(item: Item, data: Mapping[str, Array]) -> tuple[Ranges, Ranges]:
    outer, words, inner = (item.integer(name) for name in ("outer", "words", "inner"))
    return [(item.integer("src"), outer * words * inner)], [(item.integer("dst"), outer * inner)]


def _contract(item: Item, data: Mapping[str, Array]) -> tuple[Ranges, Ranges]:
    groups, rows, inner, cols = (item.integer(name) for name in ("groups", "rows", "inner", "cols"))
    reads = [(item.integer("a"), groups * rows * inner), (item.integer("b"), groups * inner * cols)]
    return reads, [(item.integer("dst"), groups * rows * cols)]


def _line(item: Item, data: Mapping[str, Array]) -> tuple[Ranges, Ranges]:
    words = item.integer("words") * item.integer("steps")
    return (
        ([], [(item.integer("dst"), words)]) if item.code.mnemonic == "tail" else ([(item.integer("src"), words)], [])
    )


def _none(item: Item, data: Mapping[str, Array]) -> tuple[Ranges, Ranges]:
    return [], []


_READ, _WRITE, _MOVE = _vector({"src": "words"}, ""), _vector({}, "words"), _vector({"src": "words"}, "words")

ACCESS: dict[str, Access] = {
    **dict.fromkeys(("halt", "loop", "every", "program"), _none),
    **dict.fromkeys(("send", "emit", "keep", "preset", "pool", "window"), _READ),
    **dict.fromkeys(("recv", "collect", "fetch", "fill", "read", "pooled", "windowed"), _WRITE),
    **dict.fromkeys(("copy", "unary", "rot", "fir", "delay", "spike", "rounded", "rounded.sums"), _MOVE),
    **dict.fromkeys(("prime", "tail"), _line),
    **dict.fromkeys(("charge", "dstate"), _timed("src")),
    **dict.fromkeys(("norm", "softmax"), _rows),
    "sel": _timed("a", "src"),
    "tick": _tick,
    "load": _load,
    "gather": _gather,
    "embed": _embed,
    "mvm": _mvm,
    "binary": _binary,
    "gate": _vector({"a": "words", "b": "words"}, "words"),
    "select": _vector({"condition": "words", "a": "words", "b": "words"}, "words"),
    "reduce": _reduce,
    "contract": _contract,
}
