"""Stages of small programs in the vector unit: every instruction that it has. What is not exact in float64, or of
another rate, ends in a stream that nothing but a store reads: what is not continuous never sees it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from tests.backends.epochcore.small_programs import DECAYS, WEIGHTS, Writer

FUNCTIONS = ("tanh", "sigmoid", "gelu", "softplus", "silu", "exp", "sin")


def rows_of(w: Writer, words: int, count: int, choices: tuple[float, ...] = WEIGHTS) -> int:
    return w.shared(w.numbers(choices, count, words))


def state(w: Writer, words: int) -> int:
    at = w.room(words, row=True)
    w.carried.append((at, words))
    return at


def function(w: Writer) -> None:
    (src, words), fn = w.any(), w.draw(st.sampled_from(FUNCTIONS))
    if w.draw(st.booleans()):
        w.builder.emit("unary", dst=w.final(words), src=src, fn=fn, words=words, steps="n0")
        return
    other, _ = w.any(words)
    w.builder.emit("gate", dst=w.final(words), a=src, b=other, fn=fn, words=words, steps="n0")


def quotient(w: Writer) -> None:
    (src, words), fn = w.any(), w.draw(st.sampled_from(["div", "pow"]))
    held = rows_of(w, 1, 1, (2.0, 3.0))
    at = {"dst": w.final(words), "a": src, "b": held, "b_pattern": "one", "b_held": True}
    w.builder.emit("binary", **at, fn=fn, words=words, steps="n0")


def patterns(w: Writer) -> None:
    """Operands that are tiled or repeated, held or not."""
    (src, words), inner = w.any(), w.draw(st.integers(1, 3))
    (other, wide), held = w.any(), w.draw(st.booleans())
    kind = w.draw(st.sampled_from(["tile", "repeat"]))
    result = words * inner
    if kind == "tile":
        fields = {"a_pattern": "tile", "inner": words}
    else:
        fields = {"a_pattern": "repeat", "inner": inner}
    dst, _ = w.stream(result)
    at = {"dst": dst, "a": src, "b": rows_of(w, result, 1) if held or wide != result else other}
    held = held or wide != result
    w.builder.emit("binary", **at, **fields, fn="sub", words=result, steps="n0", b_held=held)


def select(w: Writer) -> None:
    src, words = w.any()
    (a, _), (b, _), held = w.any(words), w.any(words), w.draw(st.booleans())
    b = rows_of(w, words, 1) if held else b
    w.builder.emit("select", dst=w.stream(words)[0], c=src, a=a, b=b, words=words, steps="n0", b_held=held)


def norm(w: Writer) -> None:
    src, words = w.any()
    vectors = w.draw(st.sampled_from([n for n in range(1, words + 1) if words % n == 0]))
    size, affine = words // vectors, w.draw(st.booleans())
    groups = w.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
    par = w.shared(np.concatenate([[0.5], w.numbers(WEIGHTS, 2 * size)]))
    fields = {"words": words, "vectors": vectors, "groups": groups, "affine": affine}
    kind = w.draw(st.sampled_from(["layer", "rms"]))
    w.builder.emit("norm", dst=w.final(words), src=src, par=par, kind=kind, **fields, steps="n0")


def softmax(w: Writer) -> None:
    src, words = w.any()
    vectors = w.draw(st.sampled_from([n for n in range(1, words + 1) if words % n == 0]))
    fields = {"words": words, "vectors": vectors, "log": w.draw(st.booleans())}
    dst = src if len(w.streams) > 1 and src == w.streams[-1][0] and w.draw(st.booleans()) else w.final(words)
    if dst == src:  # in place
        w.streams.pop()
        w.finals.append((dst, words))
    w.builder.emit("softmax", dst=dst, src=src, **fields, steps="n0")


def reduce(w: Writer) -> None:
    src, words = w.any()
    outer = w.draw(st.sampled_from([n for n in range(1, words + 1) if words % n == 0]))
    axis = w.draw(st.sampled_from([n for n in range(1, words // outer + 1) if words // outer % n == 0]))
    inner, fn = words // outer // axis, w.draw(st.sampled_from(["sum", "mean", "max", "min", "prod"]))
    dst = w.final(outer * inner) if fn == "mean" else w.stream(outer * inner)[0]
    w.builder.emit("reduce", dst=dst, src=src, fn=fn, outer=outer, axis=axis, inner=inner, steps="n0")


def gather(w: Writer) -> None:
    (src, words), count = w.any(), w.draw(st.integers(1, 5))
    index = w.draw(st.lists(st.integers(0, words - 1), min_size=count, max_size=count))
    name = w.table(np.array(index))
    w.builder.emit("gather", dst=w.stream(count)[0], src=src, index=name, src_pitch=words, words=count, steps="n0")


def spread(w: Writer) -> None:
    """One row to every step, with a pitch of its own."""
    words, gap = w.draw(st.integers(1, 3)), w.draw(st.integers(0, 2))
    dst, wide = w.stream(words + gap)
    fields = {"dst_pitch": wide, "src_pitch": words, "words": words, "steps": "n0"}
    if gap:
        w.builder.emit(
            "copy",
            dst=dst,
            src=rows_of(w, wide, 1),
            dst_pitch=wide,
            src_pitch=wide,
            words=wide,
            steps="n0",
            src_held=True,
        )
    w.builder.emit("copy", dst=dst, src=rows_of(w, words, 1), **fields, src_held=True)


def contract(w: Writer) -> None:
    (a, words), held = w.any(), w.draw(st.booleans())
    groups = w.draw(st.sampled_from([n for n in range(1, words + 1) if words % n == 0]))
    k = w.draw(st.sampled_from([n for n in range(1, words // groups + 1) if words // groups % n == 0]))
    m, n = words // groups // k, w.draw(st.integers(1, 2))
    fitting = [s for s in w.streams if s[1] == groups * k * n]
    held = held or not fitting
    b = rows_of(w, groups * k * n, 1) if held else w.draw(st.sampled_from(fitting))[0]
    at = {"dst": w.stream(groups * m * n)[0], "a": a, "b": b}
    w.builder.emit("contract", **at, groups=groups, m=m, k=k, n=n, steps="n0", a_held=False, b_held=held)


def lookup(w: Writer) -> None:
    (src, count), words = w.any(), w.draw(st.integers(1, 3))
    numbers, _ = w.stream(count)
    w.builder.emit("unary", dst=numbers, src=src, fn="heaviside", words=count, steps="n0")
    table = w.table(w.numbers(WEIGHTS, 2, words))
    dst, _ = w.stream(words * count)
    w.builder.emit("lookup", dst=dst, src=numbers, table=table, words=words, count=count, steps="n0")


def scan(w: Writer) -> None:
    src, words = w.any()
    is_complex, held = words % 2 == 0 and w.draw(st.booleans()), w.draw(st.booleans())
    a = rows_of(w, words, 1, DECAYS) if held else w.any(words)[0]
    at = {"dst": w.stream(words)[0], "a": a, "src": src, "state": state(w, words)}
    w.builder.emit("scan", **at, words=words, steps="n0", a_held=held, complex=is_complex, **w.flags())


def decay(w: Writer) -> None:
    words, is_complex = w.draw(st.integers(1, 3)), w.draw(st.booleans())
    words *= 1 + is_complex
    at = {"dst": w.final(words), "src": w.narrow(), "rate": rows_of(w, words, 1)}
    w.builder.emit("decay", **at, words=words, steps="n0", complex=is_complex)


def pool(w: Writer) -> None:
    src, words = w.any()
    row, fn = state(w, words), w.draw(st.sampled_from(["sum", "max", "last", "first"]))
    w.builder.emit("pool", state=row, src=src, fn=fn, words=words, steps="n0")
    w.rows.append((row, words, w.draw(st.booleans())))


def fir(w: Writer) -> None:
    (src, words), length = w.any(), w.draw(st.integers(1, 4))
    taps, row = rows_of(w, words * length, 1), state(w, max(1, words * (length - 1)))
    fields = {"channels": words, "length": length, "reverse": w.backward}
    w.builder.emit("fir", dst=w.stream(words)[0], src=src, state=row, taps=taps, **fields, steps="n0")


def delay(w: Writer) -> None:
    (src, words), lag = w.any(), w.draw(st.integers(1, 4))
    if w.backward:
        return
    row = state(w, words * lag)
    w.builder.emit("delay", dst=w.stream(words)[0], src=src, state=row, words=words, lag=lag, steps="n0")


def downsample(w: Writer) -> None:
    (src, words), kind = w.any(), w.draw(st.sampled_from(["take", "mean", "sum", "max"]))
    if w.backward:
        return
    stride = w.draw(st.integers(1, 3))
    offset = w.draw(st.integers(0, stride - 1)) if kind == "take" else 0
    register = w.rate(stride, offset, windows=kind != "take")
    if register is None:
        return
    dst, row, total = w.room(words), state(w, words), state(w, words)
    fields = {"kind": kind, "stride": stride, "offset": offset, "steps": "n0", "result": register}
    w.builder.emit("downsample", dst=dst, src=src, state=row, words=words, **fields)
    low = w.room(words)
    w.builder.emit("unary", dst=low, src=dst, fn="neg", words=words, steps=register)
    w.builder.emit("pool", state=total, src=low, fn="sum", words=words, steps=register)
    w.rows.append((total, words, False))


def windows(w: Writer) -> None:
    (src, words), past = w.any(), w.draw(st.integers(0, 4))
    register = w.rate(w.span, 0, windows=False)
    if register is None:
        return
    row, wide = state(w, max(1, words * past)), words * (w.span + past)
    dst, total = w.room(wide), state(w, wide)
    fields = {"channels": words, "span": w.span, "steps": "n0", "result": register}
    w.builder.emit("unfold", dst=dst, src=src, state=row, **fields, past=past, reverse=w.backward)
    w.builder.emit("pool", state=total, src=dst, fn="sum", words=wide, steps=register)
    own = w.room(words * w.span)
    index = [c * (w.span + past) + i + (0 if w.backward else past) for c in range(words) for i in range(w.span)]
    at = {"dst": own, "src": dst, "index": w.table(np.array(index)), "src_pitch": wide}
    w.builder.emit("gather", **at, words=words * w.span, steps=register)
    w.builder.emit("fold", dst=w.stream(words)[0], src=own, **fields)
    w.rows.append((total, wide, False))


def spike(w: Writer) -> None:
    src, words = w.any()
    kinds = {name: w.draw(st.booleans()) for name in ("or_equal", "immediate")}
    at = {"dst": w.stream(words)[0], "src": src, "state": state(w, words), "rows": rows_of(w, words, 5, DECAYS)}
    w.builder.emit("spike", **at, words=words, steps="n0", **kinds, **w.flags())


def rounded(w: Writer) -> None:
    src, words = w.any()
    is_complex = words % 2 == 0 and w.draw(st.booleans())
    names = ["state", "product", "sum", *(["cross", "turned"] if is_complex else [])]
    places = {f"round_{name}": w.draw(st.booleans()) for name in names}
    rows = [w.numbers(DECAYS, 1, words)]
    for _ in range(sum(places.values())):
        grid = [(0.25, 0.5, 1.0), (0.0, 0.5), (0.0, 1.0), (-4.0, -1.0), (3.0, 4.0)]
        rows += [w.numbers(choices, 1, words) for choices in grid]
    at = {"dst": w.stream(words)[0], "src": src, "state": state(w, words), "rows": w.shared(np.concatenate(rows))}
    rounding = w.draw(st.sampled_from(["nearest", "floor", "ceil"]))
    more = {"rounding": rounding, "reached": w.draw(st.booleans()), "complex": is_complex}
    w.builder.emit("rounded", **at, words=words, steps="n0", **places, **more, **w.flags())


def rounded_sums(w: Writer) -> None:
    (src, words), rounding = w.any(), w.draw(st.sampled_from(["nearest", "floor", "ceil"]))
    grid = [(0.0, 0.25, 0.5), (0.0, 0.5), (0.0, 1.0), (-4.0, -1.0), (3.0, 4.0)]
    rows = [w.numbers(choices, words) for choices in grid]
    of = sorted(w.draw(st.lists(st.integers(0, words - 1), min_size=1, max_size=2 * words)))
    sources = [float(w.draw(st.integers(0, words + f - 1))) for f in of]
    gates = [np.array([float(w.draw(st.integers(-1, words + f - 1))) for f in of])] if w.draw(st.booleans()) else []
    terms = [np.array(of, float), np.array(sources), w.numbers(DECAYS, len(of)), *gates]
    at = {"dst": w.stream(words)[0], "src": src, "state": state(w, words)}
    flags = {"rounding": rounding, "reached": w.draw(st.booleans()), **w.flags()}
    held = {"rows": w.shared(np.concatenate([*rows, *terms])), "terms": len(of), "gated": bool(gates)}
    w.builder.emit("rounded.sums", **at, **held, words=words, steps="n0", **flags)


STAGES: tuple[Callable[[Writer], None], ...] = (
    *(function, quotient, patterns, select, norm, softmax, reduce, gather, spread, contract, lookup),
    *(scan, decay, pool, fir, delay, downsample, windows, spike, rounded, rounded_sums),
)
