"""Small valid programs for small arrays, with numbers that stay exact in float64: sums of few powers of two."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from backends.epochcore.arch import Arch, arch_text, load_arch
from backends.epochcore.program.parameters import pack_decay, pack_element
from backends.epochcore.program.tokens import synchronised
from isa import Loc, Port, Program, SectionBuilder
from isa.epochcore import EPOCHCORE

WEIGHTS = (-1.0, 0.0, 0.5, 1.0, 2.0)
BASE = 1000  # words for what all samples share
DECAYS = (-0.5, 0.0, 0.25, 0.5, 1.0)


@st.composite
def archs(draw: st.DrawFn) -> Arch:
    """Arrays of 2 x 2 to 5 x 5 elements with every parameter that the clock knows."""
    small = st.integers(1, 6)
    base = load_arch("epochcore-small")
    array = base.array.model_copy(
        update={
            "rows": draw(st.integers(2, 5)),
            "cols": draw(st.integers(2, 5)),
            "complex": draw(st.sampled_from(["native", "ganged"])),
            "states_per_element": draw(st.integers(1, 3)),
            "column_words": draw(st.integers(1, 3)),
            "mac_depth": draw(st.integers(1, 4)),
            "port_words_in": draw(small),
            "port_words_out": draw(small),
            "shadow": draw(st.booleans()),
        }
    )
    vector = base.vector.model_copy(update={"width": draw(small), "latency_cycles": draw(st.integers(0, 3))})
    speed = 1e3 * draw(st.integers(1, 9))
    dram = base.dram.model_copy(update={"bytes_per_second": speed, "latency_cycles": draw(st.integers(0, 5))})
    memory = base.memory.model_copy(
        update={
            "scratchpad_words": 1 << 14,
            "parameter_words": 4096,
            "banks": draw(st.sampled_from([0, 6, 8])),
            "bank_ports": 1,
        }
    )
    parts = {"array": array, "vector": vector, "dram": dram, "memory": memory, "clock_hz": 1e3}
    return base.model_copy(update=parts)


@dataclass
class Writer:
    """A program while it is written: a chunk's streams, one after the other in the scratchpad."""

    draw: st.DrawFn
    arch: Arch
    limit: int
    builder: SectionBuilder
    data: dict[str, np.ndarray] = field(default_factory=dict)
    tables: dict[str, np.ndarray] = field(default_factory=dict)
    streams: list[tuple[int, int]] = field(default_factory=list)  # address, words
    top: int = 0
    params: int = 0
    backward: bool = False
    together: int = 1
    overlay: bool = False  # parameters of a pass lie where those of others have been
    span: int = 1  # of windows: chunks have multiples of it
    rows: list[tuple[int, int, bool]] = field(default_factory=list)  # stored behind the loop, some as averages
    finals: list[tuple[int, int]] = field(default_factory=list)  # streams that are stored, and not read
    constants: list[tuple[str, int, int]] = field(default_factory=list)  # rows for all samples: name, address, words
    low: int = 1  # where the next of them goes
    rates: int = 0

    def room(self, words: int, *, row: bool = False) -> int:
        at = self.top
        self.top += words * (1 if row else self.limit)
        return at

    def stream(self, words: int) -> tuple[int, int]:
        self.streams.append((self.room(words), words))
        return self.streams[-1]

    def operand(self, most: int) -> tuple[int, int] | None:
        fitting = [s for s in self.streams if s[1] <= most]
        return self.draw(st.sampled_from(fitting)) if fitting else None

    def constant(self, values: np.ndarray) -> int:
        """Into the parameter memory, before everything else or (`overlay`) before its use; its address."""
        name, at = f"p{len(self.data)}", self.params
        self.data[name] = np.asarray(values, np.float64)
        self.params += values.size
        if self.overlay:
            self.builder.emit("fetch", dst=at, src=name)
        return at

    def numbers(self, choices: tuple[float, ...], *shape: int, is_complex: bool = False) -> np.ndarray:
        count = int(np.prod(shape)) * (1 + is_complex)
        values = np.array(self.draw(st.lists(st.sampled_from(choices), min_size=count, max_size=count)))
        if is_complex:
            return (values[: count // 2] + 1j * values[count // 2 :]).reshape(shape)
        return values.reshape(shape)

    def flags(self) -> dict[str, bool]:
        return {"reverse": self.backward, "before": self.draw(st.booleans())}

    def any(self, words: int | None = None) -> tuple[int, int]:
        return self.draw(st.sampled_from([s for s in self.streams if words in (None, s[1])]))

    def final(self, words: int) -> int:
        self.finals.append((self.room(words), words))
        return self.finals[-1][0]

    def table(self, values: np.ndarray) -> str:
        """A constant that stays in DRAM."""
        name = f"t{len(self.tables)}"
        self.tables[name] = values
        return name

    def shared(self, values: np.ndarray) -> int:
        """A row for all samples; its address."""
        at = self.low
        self.low += values.size
        assert self.low <= BASE
        self.constants.append((self.table(np.asarray(values, np.float64).ravel()), at, values.size))
        return at

    def narrow(self) -> int:
        """The first word of every step."""
        (src, words), dst = self.streams[0], self.room(1)
        fields = {"dst_pitch": 1, "src_pitch": words, "words": 1, "steps": "n0", "src_held": False}
        self.builder.emit("copy", dst=dst, src=src, **fields)
        return dst

    def rate(self, stride: int, offset: int, *, windows: bool) -> str | None:
        """A register for a lower rate; None where there is none left."""
        if self.rates == 7:
            return None
        self.rates += 1
        register = f"n{self.rates}"
        self.builder.emit("rate", dst=register, src="n0", stride=stride, offset=offset, windows=windows)
        return register

    # -- stages ----------------------------------------------------------------------------------------------

    def product(self) -> None:
        in_place = self.draw(st.booleans())
        found = self.operand(99 if in_place else self.arch.array.rows)
        if found is None:
            return
        (src, rows), cols = found, self.draw(st.integers(1, self.arch.array.cols))
        biased = self.draw(st.booleans())
        weights = self.constant(self.numbers(WEIGHTS, rows, cols))
        bias = self.constant(self.numbers(WEIGHTS, cols)) if biased else 0
        onto = [s for s in self.streams if s[1] == cols and s[0] != src]
        dst = self.draw(st.sampled_from(onto)) if onto and self.draw(st.booleans()) else None
        target = dst or self.stream(cols)
        mode = "mac.os" if in_place else "mac"
        cut = {} if in_place else self.segments(min(self.arch.array.rows // rows, self.arch.array.cols // cols))
        fields = {"src": weights, "scale": 0, "bias": bias, "rows": rows, "cols": cols, "mode": mode}
        self.builder.emit("preload", **fields, biased=biased, scaled=False, **cut)
        fields = {"dst": target[0], "dst_pitch": cols, "src": src, "src_pitch": rows}
        self.builder.emit("mac", **fields, steps="n0", accumulate=dst is not None)

    def products(self) -> None:
        """Several tiles in turn, of words beside each other or apart, or of the same."""
        mode, (src, words), array = self.draw(st.sampled_from(["mac", "mac.os"])), self.any(), self.arch.array
        number, rows = self.draw(st.integers(2, 4)), self.draw(st.integers(1, min(words, array.rows)))
        cols, src_next = (
            self.draw(st.integers(1, array.cols)),
            self.draw(st.integers(0, (words - rows) // (number - 1))),
        )
        biased, wide = self.draw(st.booleans()), number * cols
        onto = [s for s in self.streams if s[1] >= wide and s[0] != src]
        old = self.draw(st.sampled_from(onto)) if onto and self.draw(st.booleans()) else None
        # sums of many words that are read again would depend on their order
        dst, pitch = old or (self.stream(wide) if wide < 5 else (self.final(wide), wide))
        dst_next = self.draw(st.integers(cols, cols + (pitch - wide) // (number - 1)))
        weights = self.constant(self.numbers(WEIGHTS, number, rows, cols))
        bias = self.constant(self.numbers(WEIGHTS, number, cols)) if biased else 0
        fields = {"src": weights, "scale": 0, "bias": bias, "rows": rows, "cols": cols, "mode": mode, "tiles": number}
        self.builder.emit("preload", **fields, biased=biased, scaled=False)
        fields = {"dst": dst, "dst_pitch": pitch, "src": src, "src_pitch": words}
        steps = {"src_next": src_next, "dst_next": dst_next}
        self.builder.emit("mac", **fields, **steps, steps="n0", accumulate=old is not None)

    def states(self) -> None:
        """`fri` or `tri`: channels are columns."""
        is_complex = self.draw(st.booleans())
        most, cols = self.arch.cells(is_complex)
        mode = self.draw(st.sampled_from(["fri", "tri"]))
        if (most, cols) > (0, 0) and self.arch.array.states_per_element > 1 and self.draw(st.booleans()):
            # several channels a column: fewer states of each
            lanes = self.draw(st.integers(1, self.arch.array.states_per_element))
            most, cols = most // self.arch.array.states_per_element, cols * lanes
            most *= self.arch.array.states_per_element // lanes
        groups = self.groups(is_complex)
        most, cols = most // groups, cols * groups
        found = self.operand(cols) if mode == "fri" else self.streams[0] if self.streams[0][1] <= cols else None
        if found is None or not most:
            return
        (src, wide), rows = found, self.draw(st.integers(1, most))
        if not self.arch.holds(mode, is_complex, rows, wide * self.together, groups):
            return
        decay = self.numbers(DECAYS, wide, rows, is_complex=is_complex)
        b, c = (self.numbers(WEIGHTS, wide, rows, is_complex=is_complex) for _ in range(2))
        packed = self.constant(pack_element(decay, b, c, self.numbers(WEIGHTS, wide), None))
        onto = [s for s in self.streams if s[1] == wide and s[0] != src]
        old = self.draw(st.sampled_from(onto)) if onto and self.draw(st.booleans()) else None
        dst, _ = old or self.stream(wide)
        fields = {"dst": dst, "dst_pitch": wide, "src": src, "src_pitch": wide, "accumulate": old is not None}
        self.run(mode, packed, (rows, wide, groups), is_complex, {**fields, **self.flags()})

    def groups(self, is_complex: bool) -> int:
        """Groups of rows that channels have to themselves."""
        most = min(self.arch.array.column_words, self.arch.places(is_complex)[0])
        return self.draw(st.integers(1, max(1, most)))

    def driven(self) -> None:
        is_complex = self.draw(st.booleans())
        parts, mode = 1 + is_complex, self.draw(st.sampled_from(["fri.x", "tri.x", "sel"]))
        src, words = self.streams[0]
        cols, groups = words // parts, self.groups(is_complex)
        if words % parts or not cols or not self.arch.holds(mode, is_complex, 1, cols * self.together, groups):
            return
        dst, _ = self.stream(words)
        fields: dict[str, Any] = {"dst": dst, "src": src, **self.flags()}
        if mode == "sel":
            held = self.draw(st.booleans())
            row = self.room(words, row=True)
            self.builder.emit("fill", dst=row, words=words, value=0.5)
            fields |= {"a": row if held else src, "a_held": held, "pitch": words}
            packed = 0
        else:
            packed = self.constant(pack_decay(self.numbers(DECAYS, cols, is_complex=is_complex), None))
            fields |= {"dst_pitch": words, "src_pitch": words}
        self.run(mode, packed, (1, cols, groups), is_complex, fields)

    def segments(self, most: int) -> dict[str, int]:
        """How often parameters are there: once, or for stretches of time that cover a chunk."""
        number = self.draw(st.integers(1, max(1, min(most, 3))))
        least = -(-self.limit // number)
        return {} if number == 1 else {"segments": number, "span": self.draw(st.integers(least, self.limit))}

    def run(
        self, mode: str, packed: int, lay: tuple[int, int, int], is_complex: bool, fields: Mapping[str, Any]
    ) -> None:
        """A pass of states, in so many rows, columns and groups of rows."""
        rows, cols, groups = lay
        held = (n for n in (3, 2, 1) if self.arch.holds(mode, is_complex, rows, cols * n * self.together, groups))
        most = next(held, 0)
        assert most
        cut = self.segments(most) if mode in ("fri", "fri.x") else {}
        own = rows * cols * (1 + is_complex)
        words = own * cut.get("segments", 1)
        state = self.room(words, row=True)
        shape = {"rows": rows, "cols": cols, "groups": groups, "mode": mode, "complex": is_complex}
        self.carried.append((state, words))
        self.builder.emit("preload", src=packed, scale=0, bias=0, **shape, **cut)
        source = self.begun(state, own, is_complex, cut) if cut and self.draw(st.booleans()) else state
        self.builder.emit("state.load", src=source, words=words)
        self.builder.emit(mode, **fields, steps="n0")
        if not cut or self.draw(st.booleans()):
            self.builder.emit("state.store", dst=state, words=words)
        else:
            last, wide = self.room(own, row=True), self.streams[-1][1]
            self.builder.emit("state.store", dst=last, words=own, last=True)
            at = {"a": self.streams[-1][0], "b": last, "dst": self.stream(wide)[0], "b_pattern": "one"}
            self.builder.emit("binary", **at, fn="add", words=wide, steps="n0", b_held=True)

    def begun(self, state: int, own: int, is_complex: bool, cut: Mapping[str, int]) -> int:
        """States with which segments begin, made of those that they left."""
        decay, first, dst = (self.room(n, row=True) for n in (own, own, own * cut["segments"]))
        for at, value in ((decay, 0.5), (first, 1.0)):
            self.builder.emit("fill", dst=at, words=own, value=value)
        where = {"dst": dst, "a": decay, "src": state, "state": first}
        self.builder.emit("carry", **where, words=own, **cut, steps="n0", complex=is_complex)
        return dst

    carried: list[tuple[int, int]] = field(default_factory=list)

    def elementwise(self) -> None:
        src, words = self.draw(st.sampled_from(self.streams))
        kind = self.draw(st.sampled_from(["unary", "binary", "copy", "gate", "shared"]))
        same = [s for s in self.streams if s[1] == words]
        other, _ = self.draw(st.sampled_from(same))
        dst, _ = self.stream(words)
        if kind == "unary":
            fn = self.draw(st.sampled_from(["relu", "neg", "abs", "identity"]))
            self.builder.emit("unary", dst=dst, src=src, fn=fn, words=words, steps="n0")
        elif kind == "shared":
            at = {"a": src, "b": 0, "dst": dst, "b_pattern": "one", "b_held": True}
            self.builder.emit("binary", **at, fn="add", words=words, steps="n0")
        elif kind == "copy":
            fields = {"dst": dst, "dst_pitch": words, "src": src, "src_pitch": words}
            self.builder.emit("copy", **fields, words=words, steps="n0", src_held=False)
        else:
            fn = self.draw(st.sampled_from(["add", "sub", "max", "min"])) if kind == "binary" else "heaviside"
            self.builder.emit(kind, dst=dst, a=src, b=other, fn=fn, words=words, steps="n0")


@st.composite
def programs(draw: st.DrawFn, arch: Arch, among: Sequence[Callable[[Writer], None]] = ()) -> Program:
    """One or two loops over chunks with a few stages each, one of them `among` these; tokens as the compiler gives
    them."""
    from tests.backends.epochcore.vector_stages import STAGES

    words, span = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    w = Writer(draw, arch, span * draw(st.integers(1, 9 // span)), SectionBuilder(EPOCHCORE, "main"), span=span)
    w.together, w.top, w.overlay = draw(st.integers(1, 3)), BASE, draw(st.booleans())
    outputs: list[tuple[int, str]] = []
    bodies = []
    for _ in range(draw(st.integers(1, 2))):
        backward = w.backward = draw(st.booleans())
        w.streams, w.finals, w.rows, w.carried = [], [], [], []
        w.builder = SectionBuilder(EPOCHCORE, "main")
        first, _ = w.stream(words)
        w.builder.emit("load", dst=first, src=0, words=words, steps="n0", mirror=draw(st.booleans()))
        for number in range(draw(st.integers(1, 4))):
            if among and not number:
                draw(st.sampled_from(among))(w)
            in_lanes = draw(st.booleans())
            w.params = draw(st.integers(0, 6)) if w.overlay else w.params
            stages = [(lambda stage=stage: stage(w)) for stage in STAGES] if in_lanes else []
            in_array = [w.product, w.products, w.states, w.driven]
            draw(st.sampled_from([*stages, w.elementwise] if in_lanes else in_array))()
        for at, wide in (w.streams[-1], *w.finals):
            outputs.append((wide, "n0"))
            w.builder.emit("store", dst=len(outputs), src=at, words=wide, steps="n0")
        body, w.builder = w.builder.build().code, SectionBuilder(EPOCHCORE, "main")
        for at, wide, mean in w.rows:
            outputs.append((wide, "one"))
            if mean:
                w.builder.emit("average", dst=at, src=at, words=wide, count="n0")
            w.builder.emit("store", dst=len(outputs), src=at, words=wide, steps="one")
        bodies.append((backward, w.carried, body, w.builder.build().code))
    main = SectionBuilder(EPOCHCORE, "main")
    address = 0
    for name, array in () if w.overlay else w.data.items():
        main.emit("fetch", dst=address, src=name)
        address += array.size
    w.tables["shared"] = np.array([draw(st.sampled_from(WEIGHTS))])
    for name, at, size in [("shared", 0, 1), *w.constants]:
        main.emit("const", dst=at, src=name, words=size)
    main.emit("samples", end="done", together=w.together, base=BASE, window=w.top - BASE)
    for number, (backward, carried, code, behind) in enumerate(bodies):
        for state, size in carried:
            main.emit("fill", dst=state, words=size, value=draw(st.sampled_from([0.0, 1.0])))
        main.loc = 0
        main.emit("chunks", limit=w.limit, end=f"end{number}", backward=backward, multiple=w.span)
        for ins in code:
            main.emit(ins.mnemonic, **ins.operands)
        main.label(f"end{number}")
        main.loc = None
        for ins in behind:
            main.emit(ins.mnemonic, **ins.operands)
    main.label("done")
    main.emit("halt")
    section, _ = synchronised(main.build(), {name: array.size for name, array in w.data.items()})
    return assembled(arch, replace(section), {**w.data, **w.tables}, words, outputs)


def assembled(
    arch: Arch, section: Any, data: Mapping[str, Any], words: int, outputs: Sequence[int | tuple[int, str]]
) -> Program:
    """A program with one input stream and some outputs: streams, or rows ("one")."""
    kinds = [("input", words, "n0")]
    kinds += [("output", *(out if isinstance(out, tuple) else (out, "n0"))) for out in outputs]
    return Program(
        target="epochcore",
        isa_version=EPOCHCORE.version,
        arch=arch_text(arch),
        sections=(section,),
        data=data,
        locs=(Loc("layer", "tile.ssm", ("/node",)),),
        inputs=(Port("x", (words,), "stream", "float64", {"stream": 0, "optional": False}),),
        outputs=tuple(
            Port(f"y{n}", (wide,), "stream" if register == "n0" else "sequence", "float64", {"stream": n})
            for n, (_, wide, register) in enumerate(kinds)
            if n
        ),
        meta={"numbers": "ideal", "streams": [{"kind": k, "words": n, "register": r} for k, n, r in kinds]},
    )
