"""What an instruction reads and writes, as regions of memory: what dependences between engines are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from backends.epochcore.gemm import ceil_div
from isa import Instruction


@dataclass(frozen=True)
class Region:
    """Words `low` to `high` - 1 of a memory space; a stream is one word of the space "stream"."""

    space: str
    low: int
    high: int


@dataclass(frozen=True)
class Touched:
    """The regions of one instruction."""

    reads: tuple[Region, ...]
    writes: tuple[Region, ...]


@dataclass(frozen=True)
class Rows:
    """Words of one operand: `words` of every step, `pitch` apart; one row where `register` is "one"."""

    name: str
    words: int
    pitch: int
    register: str
    reads: bool
    writes: bool


@dataclass
class Walker:
    """What the regions of an instruction depend on besides itself: those before it.

    `sizes` are words of the constants in the parameter memory; `limit` the steps of a chunk where a loop is walked.
    """

    sizes: Mapping[str, int]
    limit: int = 1
    shadow: Instruction | None = None
    active: Instruction | None = None
    parameters: dict[int, int] = field(default_factory=dict)

    def touch(self, ins: Instruction) -> Touched:
        """The regions of `ins`, the next instruction in the program's order."""
        if ins.mnemonic == "preload":
            self.shadow = ins
        elif ins.mnemonic in PASSES and self.shadow is not None:
            self.active, self.shadow = self.shadow, None
        reads, writes = [], []
        for region, is_read, is_write in self._regions(ins):
            if is_read:
                reads.append(region)
            if is_write:
                writes.append(region)
        return Touched(tuple(reads), tuple(writes))

    def _regions(self, ins: Instruction) -> Iterator[tuple[Region, bool, bool]]:
        if ins.mnemonic == "fetch":
            at, size = int(ins["dst"]), self.sizes[str(ins["src"])]
            self.parameters[at] = size
            yield Region("param", at, at + size), False, True
        elif ins.mnemonic == "preload":
            names = {"src": ins["mode"] != "sel", "scale": ins["scaled"], "bias": ins["biased"]}
            for at in (int(ins[name]) for name, used in names.items() if used):
                yield Region("param", at, at + self.parameters.get(at, 1)), True, False
        if ins.mnemonic == "mac" and self.active is not None and self.active["mode"] == "mac.os":
            # the weights stream in during the whole pass
            at = int(self.active["src"])
            yield Region("param", at, at + self.parameters.get(at, 1)), True, False
        if ins.mnemonic in ("load", "store"):
            number = int(ins["src" if ins.mnemonic == "load" else "dst"])
            yield Region("stream", number, number + 1), ins.mnemonic == "load", ins.mnemonic == "store"
        rule = OPERANDS.get(ins.mnemonic)
        for rows in rule(ins, self.active) if rule else ():
            at = int(ins[rows.name])
            steps = 1 if rows.register == "one" else max(self.limit, 1)
            region = Region("spad", at, at + (steps - 1) * rows.pitch + rows.words)
            yield region, rows.reads, rows.writes


def _row(name: str, words: int, *, reads: bool = True, writes: bool = False) -> Rows:
    return Rows(name, words, words, "one", reads, writes)


def _src(ins: Instruction, words: int, name: str = "src", pitch: int | None = None) -> Rows:
    register = "one" if ins.operands.get(f"{name}_held") else str(ins["steps"])
    return Rows(name, words, words if pitch is None else pitch, register, True, False)


def _dst(ins: Instruction, words: int, pitch: int | None = None, steps: str = "steps") -> Rows:
    both = bool(ins.operands.get("accumulate"))
    return Rows("dst", words, words if pitch is None else pitch, str(ins[steps]), both, True)


def _state(words: int) -> Rows:
    return _row("state", words, writes=True)


def _words(ins: Instruction) -> int:
    return int(ins["words"])


def _period(ins: Instruction, name: str) -> int:
    words, inner = _words(ins), int(ins["inner"])
    return {"each": words, "one": 1, "tile": inner, "repeat": ceil_div(words, inner)}[str(ins[f"{name}_pattern"])]


Held = Instruction | None


def _shape(held: Held) -> tuple[int, int, bool]:
    return (1, 1, False) if held is None else (int(held["rows"]), int(held["cols"]), bool(held["complex"]))


def _pass(ins: Instruction, held: Held) -> tuple[Rows, ...]:
    """Matrices, and states with b and c: a word a row (or column) in, a word a column out."""
    rows, cols, _ = _shape(held)
    wide = rows if ins.mnemonic == "mac" else cols
    return _src(ins, wide, pitch=int(ins["src_pitch"])), _dst(ins, cols, int(ins["dst_pitch"]))


def _driven(ins: Instruction, held: Held) -> tuple[Rows, ...]:
    """States with drives of their own; imaginary halves lie half a pitch after real ones."""
    _, cols, is_complex = _shape(held)
    one = "pitch" in ins.operands
    names = ("src", "dst", *(("a",) if one else ()))
    pitch = {name: int(ins["pitch" if one else f"{name}_pitch"]) for name in names}
    words = {name: cols + pitch[name] // 2 if is_complex else cols for name in names}
    more = (_src(ins, words["a"], "a", pitch["a"]),) if one else ()
    return _src(ins, words["src"], pitch=pitch["src"]), *more, _dst(ins, words["dst"], pitch["dst"])


def _state_pass(ins: Instruction, held: Held) -> tuple[Rows, ...]:
    return _pass(ins, held) if "accumulate" in ins.operands else _driven(ins, held)


def _reduce(ins: Instruction, _: Held) -> tuple[Rows, ...]:
    outer, axis, inner = (int(ins[name]) for name in ("outer", "axis", "inner"))
    return _src(ins, outer * axis * inner), _dst(ins, outer * inner)


def _contract(ins: Instruction, _: Held) -> tuple[Rows, ...]:
    g, m, k, n = (int(ins[name]) for name in ("groups", "m", "k", "n"))
    return _src(ins, g * m * k, "a"), _src(ins, g * k * n, "b"), _dst(ins, g * m * n)


def _norm(ins: Instruction, _: Held) -> tuple[Rows, ...]:
    size = _words(ins) // int(ins["vectors"])
    return _src(ins, _words(ins)), _row("par", 1 + 2 * size * bool(ins["affine"])), _dst(ins, _words(ins))


def _fir(ins: Instruction, _: Held) -> tuple[Rows, ...]:
    channels, length = int(ins["channels"]), int(ins["length"])
    carried = max(channels * (length - 1), 1)
    return _src(ins, channels), _row("taps", channels * length), _state(carried), _dst(ins, channels)


def _through(ins: Instruction, _: Held) -> tuple[Rows, ...]:
    return _src(ins, _words(ins)), _dst(ins, _words(ins))


def _two(ins: Instruction, _: Held) -> tuple[Rows, ...]:
    return *(_src(ins, _period(ins, name), name) for name in "ab"), _dst(ins, _words(ins))


def _scan(ins: Instruction, _: Held) -> tuple[Rows, ...]:
    words = _words(ins)
    return _src(ins, words, "a"), _src(ins, words), _state(words), _dst(ins, words)


PASSES = ("mac", "fri", "fri.x", "tri", "tri.x", "sel")
OPERANDS: dict[str, Callable[[Instruction, Held], tuple[Rows, ...]]] = {
    "const": lambda i, _: (_row("dst", _words(i), reads=False, writes=True),),
    "load": lambda i, _: (_dst(i, _words(i)),),
    "store": lambda i, _: (_src(i, _words(i)),),
    "state.load": lambda i, _: (_row("src", _words(i)),),
    "state.store": lambda i, _: (_row("dst", _words(i), reads=False, writes=True),),
    "mac": _pass,
    **dict.fromkeys(PASSES[1:], _state_pass),
    "unary": _through,
    "binary": _two,
    "gate": _two,
    "select": lambda i, _: (*(_src(i, _words(i), name) for name in "cab"), _dst(i, _words(i))),
    "norm": _norm,
    "reduce": _reduce,
    "softmax": _through,
    "copy": lambda i, _: (_src(i, _words(i), pitch=int(i["src_pitch"])), _dst(i, _words(i), int(i["dst_pitch"]))),
    "gather": lambda i, _: (_src(i, int(i["src_pitch"])), _dst(i, _words(i))),
    "contract": _contract,
    "lookup": lambda i, _: (_src(i, int(i["count"])), _dst(i, _words(i) * int(i["count"]))),
    "scan": _scan,
    "spike": lambda i, _: (
        *(_src(i, _words(i)), _row("rows", 5 * _words(i))),
        *(_state(_words(i)), _dst(i, _words(i))),
    ),
    "decay": lambda i, _: (_src(i, 1), _row("rate", _words(i)), _dst(i, _words(i))),
    "pool": lambda i, _: (_src(i, _words(i)), _state(_words(i))),
    "average": lambda i, _: (_row("src", _words(i)), _row("dst", _words(i), reads=False, writes=True)),
    "fir": _fir,
    "delay": lambda i, _: (_src(i, _words(i)), _state(_words(i) * int(i["lag"])), _dst(i, _words(i))),
    "downsample": lambda i, _: (_src(i, _words(i)), _state(_words(i)), _dst(i, _words(i), steps="result")),
    "fill": lambda i, _: (_row("dst", _words(i), reads=False, writes=True),),
}
