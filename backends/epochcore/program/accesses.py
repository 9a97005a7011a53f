"""Which words of the scratchpad an instruction reads and writes, or each of many that are alike (see `columns`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ssmc.ir.ops.rounded import GRID, count_rows
from ssmc.ir.ops.rounded_sums import TERM

Whole = Any  # number, or one for each of many instructions


class Some(Protocol):
    """An instruction, or many that are alike: numbers may be arrays."""

    @property
    def mnemonic(self) -> str: ...

    @property
    def operands(self) -> Mapping[str, Any]: ...

    def __getitem__(self, name: str, /) -> Any: ...


class Words(NamedTuple):
    """`words` at `start`, once or (`register`) once a step, `pitch` apart."""

    start: Whole
    words: Whole
    pitch: Whole
    register: str | None
    written: bool


@dataclass(frozen=True)
class Held:
    """What the array holds: rows, columns, and two halves of every state where complex; tiles of it in turn."""

    rows: Whole
    cols: Whole
    is_complex: bool
    tiles: Whole = 1

    @staticmethod
    def of(preload: Some | None) -> Held:
        """After a preload; before any, a word."""
        if preload is None:
            return Held(1, 1, False)
        return Held(preload["rows"], preload["cols"], bool(preload["complex"]), preload["tiles"])


Rule = Callable[[Some, Held], list[Words]]


def accesses(ins: Some, held: Held) -> list[Words]:
    """Everything in the scratchpad that `ins` touches."""
    rule = RULES.get(ins.mnemonic)
    return rule(ins, held) if rule else []


def _steps(ins: Some, name: str = "steps") -> str | None:
    register = str(ins[name])
    return None if register == "one" else register


def _at(ins: Some, name: str, words: Whole, register: str | None, pitch: Whole = 0, written: bool = False) -> Words:
    return Words(ins[name], words, pitch + (pitch == 0) * words, register, written)


def _result(ins: Some, words: Whole, pitch: Whole = 0) -> Words:
    return _at(ins, "dst", words, _steps(ins), pitch, True)


def _at_least_one(number: Whole) -> Whole:
    """Of numbers that are not negative."""
    return number + (number == 0)


def _carried(ins: Some, words: Whole) -> list[Words]:
    return [_at(ins, "state", words, None), _at(ins, "state", words, None, written=True)]


def _columns(ins: Some, rows: Whole, cols: Whole) -> list[Words]:
    """A pass of the array with `rows` words in and `cols` out."""
    src, dst = ins["src_pitch"], ins["dst_pitch"]
    found = [_at(ins, "src", rows, _steps(ins), src), _result(ins, cols, dst)]
    return [*found, _at(ins, "dst", cols, _steps(ins), dst)] if ins["accumulate"] else found


def _mac(ins: Some, held: Held) -> list[Words]:
    """All words from those of the first tile to those of the last one."""
    more = held.tiles - 1
    return _columns(ins, held.rows + more * ins["src_next"], held.cols + more * ins["dst_next"])


def _states(ins: Some, held: Held) -> list[Words]:
    pitches = {"src": "src_pitch", "dst": "dst_pitch"}
    if ins.mnemonic == "sel":
        pitches = dict.fromkeys(("src", "dst", "a"), "pitch")
    found = []
    for name, field in pitches.items():
        pitch = ins[field]
        register = None if name == "a" and ins["a_held"] else _steps(ins)
        for half in range(2 if held.is_complex else 1):
            start = ins[name] + half * (pitch // 2)
            found.append(Words(start, held.cols, pitch, register, name == "dst"))
    return found


def _operand(ins: Some, name: str, words: Whole) -> Words:
    """An operand of an elementwise instruction: by its pattern, and held or not."""
    inner = ins["inner"] if "inner" in ins.operands else 1
    kind = str(ins[f"{name}_pattern"]) if f"{name}_pattern" in ins.operands else "each"
    size = {"each": words, "one": 1, "tile": inner, "repeat": -(-words // inner)}[kind]
    return _at(ins, name, size, None if ins[f"{name}_held"] else _steps(ins))


def _elementwise(*names: str) -> Rule:
    def rule(ins: Some, held: Held) -> list[Words]:
        words = ins["words"]
        return [_result(ins, words), *(_operand(ins, name, words) for name in names)]

    return rule


def _same(ins: Some, held: Held) -> list[Words]:
    words = ins["words"]
    return [_result(ins, words), _at(ins, "src", words, _steps(ins))]


def _norm(ins: Some, held: Held) -> list[Words]:
    size = 1 + (2 * ins["words"] // ins["vectors"] if ins["affine"] else 0)
    return [*_same(ins, held), _at(ins, "par", size, None)]


def _reduce(ins: Some, held: Held) -> list[Words]:
    outer, axis, inner = (ins[name] for name in ("outer", "axis", "inner"))
    return [_result(ins, outer * inner), _at(ins, "src", outer * axis * inner, _steps(ins))]


def _copy(ins: Some, held: Held) -> list[Words]:
    words, pitch = ins["words"], ins["src_pitch"]
    source = None if ins["src_held"] else _steps(ins)
    return [_result(ins, words, ins["dst_pitch"]), _at(ins, "src", words, source, pitch)]


def _contract(ins: Some, held: Held) -> list[Words]:
    g, m, k, n = (ins[name] for name in ("groups", "m", "k", "n"))
    sizes = {"a": g * m * k, "b": g * k * n}
    operands = [_at(ins, name, size, None if ins[f"{name}_held"] else _steps(ins)) for name, size in sizes.items()]
    return [_result(ins, g * m * n), *operands]


def _lookup(ins: Some, held: Held) -> list[Words]:
    count = ins["count"]
    return [_result(ins, ins["words"] * count), _at(ins, "src", count, _steps(ins))]


def _scan(ins: Some, held: Held) -> list[Words]:
    words = ins["words"]
    decay = _at(ins, "a", words, None if ins["a_held"] else _steps(ins))
    return [*_same(ins, held), decay, *_carried(ins, words)]


def _carry(ins: Some, held: Held) -> list[Words]:
    words, every = ins["words"], ins["words"] * ins["segments"]
    rows = [_at(ins, name, words, None) for name in ("a", "state")]
    return [*rows, _at(ins, "src", every, None), _at(ins, "dst", every, None, written=True)]


def _spike(ins: Some, held: Held) -> list[Words]:
    words = ins["words"]
    return [*_same(ins, held), _at(ins, "rows", 5 * words, None), *_carried(ins, words)]


def _rounded(ins: Some, held: Held) -> list[Words]:
    words = ins["words"]
    return [*_same(ins, held), _at(ins, "rows", count_rows(ins.__getitem__) * words, None), *_carried(ins, words)]


def _rounded_sums(ins: Some, held: Held) -> list[Words]:
    words = ins["words"]
    rows = len(GRID) * words + (len(TERM) + ins["gated"]) * ins["terms"]
    return [*_same(ins, held), _at(ins, "rows", rows, None), *_carried(ins, words)]


def _decay(ins: Some, held: Held) -> list[Words]:
    words = ins["words"]
    return [_result(ins, words), _at(ins, "src", 1, _steps(ins)), _at(ins, "rate", words, None)]


def _fir(ins: Some, held: Held) -> list[Words]:
    channels, length = ins["channels"], ins["length"]
    stream = [_result(ins, channels), _at(ins, "src", channels, _steps(ins)), _at(ins, "taps", channels * length, None)]
    return [*stream, *_carried(ins, _at_least_one(channels * (length - 1)))]


def _downsample(ins: Some, held: Held) -> list[Words]:
    words = ins["words"]
    result = _at(ins, "dst", words, _steps(ins, "result"), written=True)
    return [result, _at(ins, "src", words, _steps(ins)), *_carried(ins, words)]


def _unfold(ins: Some, held: Held) -> list[Words]:
    channels, span, past = (ins[name] for name in ("channels", "span", "past"))
    result = _at(ins, "dst", channels * (span + past), _steps(ins, "result"), written=True)
    return [result, _at(ins, "src", channels, _steps(ins)), *_carried(ins, _at_least_one(channels * past))]


def _fold(ins: Some, held: Held) -> list[Words]:
    channels = ins["channels"]
    return [_result(ins, channels), _at(ins, "src", channels * ins["span"], _steps(ins, "result"))]


def _row(name: str, written: bool) -> Rule:
    return lambda ins, held: [_at(ins, name, ins["words"], None, written=written)]


RULES: Mapping[str, Rule] = {
    "const": _row("dst", True),
    "fill": _row("dst", True),
    "state.load": _row("src", False),
    "state.store": _row("dst", True),
    "average": lambda i, h: [*_row("dst", True)(i, h), *_row("src", False)(i, h)],
    "load": lambda i, h: [_result(i, i["words"])],
    "store": lambda i, h: [_at(i, "src", i["words"], _steps(i))],
    "mac": _mac,
    "fri": lambda i, h: _columns(i, h.cols, h.cols),
    "tri": lambda i, h: _columns(i, h.cols, h.cols),
    "fri.x": _states,
    "tri.x": _states,
    "sel": _states,
    "unary": _same,
    "softmax": _same,
    "binary": _elementwise("a", "b"),
    "gate": _elementwise("a", "b"),
    "select": _elementwise("c", "a", "b"),
    "norm": _norm,
    "reduce": _reduce,
    "copy": _copy,
    "gather": lambda i, h: [_result(i, i["words"]), _at(i, "src", i["src_pitch"], _steps(i))],
    "contract": _contract,
    "lookup": _lookup,
    "scan": _scan,
    "carry": _carry,
    "spike": _spike,
    "rounded": _rounded,
    "rounded.sums": _rounded_sums,
    "decay": _decay,
    "pool": lambda i, h: [_at(i, "src", i["words"], _steps(i)), *_carried(i, i["words"])],
    "fir": _fir,
    "delay": lambda i, h: [*_same(i, h), *_carried(i, i["words"] * i["lag"])],
    "downsample": _downsample,
    "unfold": _unfold,
    "fold": _fold,
}
