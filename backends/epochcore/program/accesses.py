"""Which words of the scratchpad an instruction reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from isa import Instruction
from ssmc.ir.ops.rounded import GRID, count_rows
from ssmc.ir.ops.rounded_sums import TERM


class Words(NamedTuple):
    """`words` at `start`, once or (`register`) once a step, `pitch` apart."""

    start: int
    words: int
    pitch: int
    register: str | None
    written: bool


@dataclass(frozen=True)
class Held:
    """What the array holds: rows, columns, and two halves of every state where complex; tiles of it in turn."""

    rows: int
    cols: int
    is_complex: bool
    tiles: int = 1

    @staticmethod
    def of(preload: Instruction | None) -> Held:
        """After a preload; before any, a word."""
        if preload is None:
            return Held(1, 1, False)
        return Held(int(preload["rows"]), int(preload["cols"]), bool(preload["complex"]), int(preload["tiles"]))


Rule = Callable[[Instruction, Held], list[Words]]


def accesses(ins: Instruction, held: Held) -> list[Words]:
    """Everything in the scratchpad that `ins` touches."""
    rule = RULES.get(ins.mnemonic)
    return rule(ins, held) if rule else []


def _steps(ins: Instruction, name: str = "steps") -> str | None:
    register = str(ins[name])
    return None if register == "one" else register


def _at(ins: Instruction, name: str, words: int, register: str | None, pitch: int = 0, written: bool = False) -> Words:
    return Words(int(ins[name]), words, pitch or words, register, written)


def _result(ins: Instruction, words: int, pitch: int = 0) -> Words:
    return _at(ins, "dst", words, _steps(ins), pitch, True)


def _carried(ins: Instruction, words: int) -> list[Words]:
    return [_at(ins, "state", words, None), _at(ins, "state", words, None, written=True)]


def _columns(ins: Instruction, rows: int, cols: int) -> list[Words]:
    """A pass of the array with `rows` words in and `cols` out."""
    src, dst = int(ins["src_pitch"]), int(ins["dst_pitch"])
    found = [_at(ins, "src", rows, _steps(ins), src), _result(ins, cols, dst)]
    return [*found, _at(ins, "dst", cols, _steps(ins), dst)] if ins["accumulate"] else found


def _mac(ins: Instruction, held: Held) -> list[Words]:
    """All words from those of the first tile to those of the last one."""
    more = held.tiles - 1
    return _columns(ins, held.rows + more * int(ins["src_next"]), held.cols + more * int(ins["dst_next"]))


def _states(ins: Instruction, held: Held) -> list[Words]:
    pitches = {"src": "src_pitch", "dst": "dst_pitch"}
    if ins.mnemonic == "sel":
        pitches = dict.fromkeys(("src", "dst", "a"), "pitch")
    found = []
    for name, field in pitches.items():
        pitch = int(ins[field])
        register = None if name == "a" and ins["a_held"] else _steps(ins)
        for half in range(2 if held.is_complex else 1):
            start = int(ins[name]) + half * (pitch // 2)
            found.append(Words(start, held.cols, pitch, register, name == "dst"))
    return found


def _operand(ins: Instruction, name: str, words: int) -> Words:
    """An operand of an elementwise instruction: by its pattern, and held or not."""
    inner = int(ins["inner"]) if "inner" in ins.operands else 1
    kind = str(ins[f"{name}_pattern"]) if f"{name}_pattern" in ins.operands else "each"
    size = {"each": words, "one": 1, "tile": inner, "repeat": -(-words // inner)}[kind]
    return _at(ins, name, size, None if ins[f"{name}_held"] else _steps(ins))


def _elementwise(*names: str) -> Rule:
    def rule(ins: Instruction, held: Held) -> list[Words]:
        words = int(ins["words"])
        return [_result(ins, words), *(_operand(ins, name, words) for name in names)]

    return rule


def _same(ins: Instruction, held: Held) -> list[Words]:
    words = int(ins["words"])
    return [_result(ins, words), _at(ins, "src", words, _steps(ins))]


def _norm(ins: Instruction, held: Held) -> list[Words]:
    size = 1 + (2 * int(ins["words"]) // int(ins["vectors"]) if ins["affine"] else 0)
    return [*_same(ins, held), _at(ins, "par", size, None)]


def _reduce(ins: Instruction, held: Held) -> list[Words]:
    outer, axis, inner = (int(ins[name]) for name in ("outer", "axis", "inner"))
    return [_result(ins, outer * inner), _at(ins, "src", outer * axis * inner, _steps(ins))]


def _copy(ins: Instruction, held: Held) -> list[Words]:
    words, pitch = int(ins["words"]), int(ins["src_pitch"])
    source = None if ins["src_held"] else _steps(ins)
    return [_result(ins, words, int(ins["dst_pitch"])), _at(ins, "src", words, source, pitch)]


def _contract(ins: Instruction, held: Held) -> list[Words]:
    g, m, k, n = (int(ins[name]) for name in ("groups", "m", "k", "n"))
    sizes = {"a": g * m * k, "b": g * k * n}
    operands = [_at(ins, name, size, None if ins[f"{name}_held"] else _steps(ins)) for name, size in sizes.items()]
    return [_result(ins, g * m * n), *operands]


def _lookup(ins: Instruction, held: Held) -> list[Words]:
    count = int(ins["count"])
    return [_result(ins, int(ins["words"]) * count), _at(ins, "src", count, _steps(ins))]


def _scan(ins: Instruction, held: Held) -> list[Words]:
    words = int(ins["words"])
    decay = _at(ins, "a", words, None if ins["a_held"] else _steps(ins))
    return [*_same(ins, held), decay, *_carried(ins, words)]


def _carry(ins: Instruction, held: Held) -> list[Words]:
    words, every = int(ins["words"]), int(ins["words"]) * int(ins["segments"])
    rows = [_at(ins, name, words, None) for name in ("a", "state")]
    return [*rows, _at(ins, "src", every, None), _at(ins, "dst", every, None, written=True)]


def _spike(ins: Instruction, held: Held) -> list[Words]:
    words = int(ins["words"])
    return [*_same(ins, held), _at(ins, "rows", 5 * words, None), *_carried(ins, words)]


def _rounded(ins: Instruction, held: Held) -> list[Words]:
    words = int(ins["words"])
    return [*_same(ins, held), _at(ins, "rows", count_rows(ins.__getitem__) * words, None), *_carried(ins, words)]


def _rounded_sums(ins: Instruction, held: Held) -> list[Words]:
    words = int(ins["words"])
    rows = len(GRID) * words + len(TERM) * int(ins["terms"])
    return [*_same(ins, held), _at(ins, "rows", rows, None), *_carried(ins, words)]


def _decay(ins: Instruction, held: Held) -> list[Words]:
    words = int(ins["words"])
    return [_result(ins, words), _at(ins, "src", 1, _steps(ins)), _at(ins, "rate", words, None)]


def _fir(ins: Instruction, held: Held) -> list[Words]:
    channels, length = int(ins["channels"]), int(ins["length"])
    stream = [_result(ins, channels), _at(ins, "src", channels, _steps(ins)), _at(ins, "taps", channels * length, None)]
    return [*stream, *_carried(ins, max(1, channels * (length - 1)))]


def _downsample(ins: Instruction, held: Held) -> list[Words]:
    words = int(ins["words"])
    result = _at(ins, "dst", words, _steps(ins, "result"), written=True)
    return [result, _at(ins, "src", words, _steps(ins)), *_carried(ins, words)]


def _unfold(ins: Instruction, held: Held) -> list[Words]:
    channels, span, past = (int(ins[name]) for name in ("channels", "span", "past"))
    result = _at(ins, "dst", channels * (span + past), _steps(ins, "result"), written=True)
    return [result, _at(ins, "src", channels, _steps(ins)), *_carried(ins, max(1, channels * past))]


def _fold(ins: Instruction, held: Held) -> list[Words]:
    channels = int(ins["channels"])
    return [_result(ins, channels), _at(ins, "src", channels * int(ins["span"]), _steps(ins, "result"))]


def _row(name: str, written: bool) -> Rule:
    return lambda ins, held: [_at(ins, name, int(ins["words"]), None, written=written)]


RULES: Mapping[str, Rule] = {
    "const": _row("dst", True),
    "fill": _row("dst", True),
    "state.load": _row("src", False),
    "state.store": _row("dst", True),
    "average": lambda i, h: [*_row("dst", True)(i, h), *_row("src", False)(i, h)],
    "load": lambda i, h: [_result(i, int(i["words"]))],
    "store": lambda i, h: [_at(i, "src", int(i["words"]), _steps(i))],
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
    "gather": lambda i, h: [_result(i, int(i["words"])), _at(i, "src", int(i["src_pitch"]), _steps(i))],
    "contract": _contract,
    "lookup": _lookup,
    "scan": _scan,
    "carry": _carry,
    "spike": _spike,
    "rounded": _rounded,
    "rounded.sums": _rounded_sums,
    "decay": _decay,
    "pool": lambda i, h: [_at(i, "src", int(i["words"]), _steps(i)), *_carried(i, int(i["words"]))],
    "fir": _fir,
    "delay": lambda i, h: [*_same(i, h), *_carried(i, int(i["words"]) * int(i["lag"]))],
    "downsample": _downsample,
    "unfold": _unfold,
    "fold": _fold,
}
