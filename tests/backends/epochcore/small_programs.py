"""Small valid programs for small arrays, with numbers that stay exact in float64: sums of few powers of two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from backends.epochcore.arch import Arch, arch_text, load_arch
from backends.epochcore.parameters import pack_decay, pack_element
from backends.epochcore.tokens import synchronised
from isa import Loc, Port, Program, SectionBuilder
from isa.epochcore import EPOCHCORE

WEIGHTS = (-1.0, 0.0, 0.5, 1.0, 2.0)
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
    speed = float(draw(st.integers(1, 9)))
    dram = base.dram.model_copy(update={"bytes_per_second": speed, "latency_cycles": draw(st.integers(0, 5))})
    memory = base.memory.model_copy(update={"scratchpad_words": 1 << 14, "parameter_words": 4096})
    parts = {"array": array, "vector": vector, "dram": dram, "memory": memory, "clock_hz": 1.0}
    return base.model_copy(update=parts)


@dataclass
class Writer:
    """A program while it is written: a chunk's streams, one after the other in the scratchpad."""

    draw: st.DrawFn
    arch: Arch
    limit: int
    builder: SectionBuilder
    data: dict[str, np.ndarray] = field(default_factory=dict)
    streams: list[tuple[int, int]] = field(default_factory=list)  # address, words
    top: int = 0
    params: int = 0
    backward: bool = False
    together: int = 1

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
        """Into the parameter memory before everything else; its address."""
        name, at = f"p{len(self.data)}", self.params
        self.data[name] = np.asarray(values, np.float64)
        self.params += values.size
        return at

    def numbers(self, choices: tuple[float, ...], *shape: int, is_complex: bool = False) -> np.ndarray:
        count = int(np.prod(shape)) * (1 + is_complex)
        values = np.array(self.draw(st.lists(st.sampled_from(choices), min_size=count, max_size=count)))
        if is_complex:
            return (values[: count // 2] + 1j * values[count // 2 :]).reshape(shape)
        return values.reshape(shape)

    def flags(self) -> dict[str, bool]:
        return {"reverse": self.backward, "before": self.draw(st.booleans())}

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
def programs(draw: st.DrawFn, arch: Arch) -> Program:
    """One or two loops over chunks with a few stages each; tokens as the compiler gives them."""
    words = draw(st.integers(1, 4))
    w = Writer(draw, arch, draw(st.integers(1, 9)), SectionBuilder(EPOCHCORE, "main"))
    w.together, base = draw(st.integers(1, 3)), w.room(1, row=True) + 1
    outputs: list[int] = []
    bodies = []
    for _ in range(draw(st.integers(1, 2))):
        backward = w.backward = draw(st.booleans())
        w.streams, w.carried, w.builder = [], [], SectionBuilder(EPOCHCORE, "main")
        first, _ = w.stream(words)
        w.builder.emit("load", dst=first, src=0, words=words, steps="n0", mirror=draw(st.booleans()))
        for _ in range(draw(st.integers(1, 4))):
            draw(st.sampled_from([w.product, w.states, w.driven, w.elementwise]))()
        at, wide = w.streams[-1]
        outputs.append(wide)
        w.builder.emit("store", dst=len(outputs), src=at, words=wide, steps="n0")
        bodies.append((backward, w.carried, w.builder.build().code))
    main = SectionBuilder(EPOCHCORE, "main")
    address = 0
    for name, array in w.data.items():
        main.emit("fetch", dst=address, src=name)
        address += array.size
    w.data["shared"] = np.array([draw(st.sampled_from(WEIGHTS))])
    main.emit("const", dst=0, src="shared", words=1)
    main.emit("samples", end="done", together=w.together, base=base, window=w.top - base)
    for number, (backward, carried, code) in enumerate(bodies):
        for state, size in carried:
            main.emit("fill", dst=state, words=size, value=draw(st.sampled_from([0.0, 1.0])))
        main.loc = 0
        main.emit("chunks", limit=w.limit, end=f"end{number}", backward=backward)
        for ins in code:
            main.emit(ins.mnemonic, **ins.operands)
        main.label(f"end{number}")
        main.loc = None
    main.label("done")
    main.emit("halt")
    section, _ = synchronised(main.build(), {name: array.size for name, array in w.data.items()})
    return assembled(arch, replace(section), w.data, words, outputs)


def assembled(arch: Arch, section: Any, data: Mapping[str, Any], words: int, outputs: list[int]) -> Program:
    """A program with one input stream and some output streams."""
    kinds = [("input", words), *(("output", wide) for wide in outputs)]
    return Program(
        target="epochcore",
        isa_version=EPOCHCORE.version,
        arch=arch_text(arch),
        sections=(section,),
        data=data,
        locs=(Loc("layer", "tile.ssm", ("/node",)),),
        inputs=(Port("x", (words,), "stream", "float64", {"stream": 0, "optional": False}),),
        outputs=tuple(Port(f"y{n}", (wide,), "stream", "float64", {"stream": n}) for n, wide in enumerate(outputs, 1)),
        meta={"numbers": "ideal", "streams": [{"kind": k, "words": n, "register": "n0"} for k, n in kinds]},
    )
