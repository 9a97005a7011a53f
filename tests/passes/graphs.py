"""Random small graphs at the ssm level, built layer by layer, and machines to tile them for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from ssmc.ir import Graph, SequenceType, StreamType, Tensor, Value
from ssmc.passes import Machine, StateBank
from ssmc.statespace import StateSpace

VOLATILE = StateBank("volatile", decay_only=True)
DIGITAL = StateBank("digital", computed_decay=True)
FUSED = StateBank("pe", computed_decay=True, fused=True, native_complex=True)

MACHINES = {
    "crossbar": Machine("crossbar", 8, 8, None, 1, (VOLATILE, DIGITAL)),
    "digital": Machine("digital", 5, 12, 4096, 2, (DIGITAL,)),
    "systolic": Machine("systolic", 4, 4, None, 1, (FUSED,)),
}


def system(
    rng: np.random.Generator,
    groups: int,
    states: int,
    wide: int,
    high: int,
    *,
    complex_: bool = True,
    halved: bool = True,
    dense: bool = False,
    **kinds: object,
) -> StateSpace:
    """A stable discrete system."""

    def draw(*shape: int) -> np.ndarray:
        real = rng.standard_normal(shape)
        return real + 1j * rng.standard_normal(shape) if complex_ else real

    size = rng.uniform(0.3, 0.95, (groups, states))
    a = size * np.exp(1j * rng.uniform(-3, 3, size.shape)) if complex_ else size * rng.choice([-1, 1], size.shape)
    if dense:
        a = rng.standard_normal((groups, states, states))
        a *= 0.9 / np.abs(np.linalg.eigvals(a)).max(axis=1)[:, None, None]
    d = rng.standard_normal((groups, high, wide)) * (rng.random() < 0.7)
    if complex_ and kinds.get("real_output") is False:
        d = d + 0.5j * d
    whole = StateSpace(a, draw(groups, states, wide), draw(groups, high, states), d, **kinds)  # type: ignore[arg-type]
    return replace(whole, halved=halved and complex_ and whole.real_output)


class Model:
    """A graph under construction around one stream `x` of width `h`."""

    def __init__(self, seed: int, index: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph("random", {"form": "sequence"})
        self.h = int(self.rng.integers(1, 6))
        self.serial = 0
        if index:
            token = self.input("token", StreamType((), "index"))
            table = Tensor(self.rng.standard_normal((5, self.h)))
            self.x = self.graph.add("embed", [token], {"table": table}, provenance=["Gather_0"])
        else:
            self.x = self.input("u", StreamType((self.h,)))
        self.elapsed: Value | None = None

    def input(self, name: str, kind: StreamType | SequenceType, role: str = "data") -> Value:
        return self.graph.add("input", [], {"name": name, "type": kind, "role": role}, name=name)

    def output(self, value: Value, name: str, role: str = "data") -> None:
        self.graph.add("output", [value], {"name": name, "role": role}, name=f"out_{name}")

    def add(self, op: str, *operands: Value | None, **attrs: object) -> Value:
        self.serial += 1
        return self.graph.add(op, operands, attrs, provenance=[f"{op}_{self.serial}"])

    def dt(self) -> Value:
        """The elapsed time at the stream's rate: after an event pooling, that of all the events that became one."""
        if self.elapsed is None:
            self.elapsed = self.input("dt", StreamType(()), "dt")
        return self.elapsed if self.rate == 1 else self.add("downsample", self.elapsed, stride=2, kind="sum")

    @property
    def rate(self):
        return self.graph.type(self.x).rate

    def graph_type(self) -> StreamType:
        return StreamType((self.h,))

    def width(self) -> int:
        return int(self.rng.integers(1, 6))

    def weight(self, rows: int, cols: int, complex_: bool = False) -> Tensor:
        w = self.rng.standard_normal((rows, cols)) / rows**0.5
        return Tensor(w + 1j * self.rng.standard_normal(w.shape) if complex_ else w)

    def vector(self, size: int) -> Tensor:
        return Tensor(self.rng.standard_normal(size))

    def constant(self, array: np.ndarray) -> Value:
        return self.add("constant", value=Tensor(array))

    def ssm(self, value: StateSpace, dt: Value | None = None, x0: Value | None = None, reverse: bool = False) -> Value:
        operands = [self.x, dt, x0]
        while operands[-1] is None:
            operands.pop()
        return self.add("ssm", *operands, system=value, reverse=reverse)


def s4d(m: Model) -> None:
    """Grouped single-input systems, halved."""
    m.x = m.ssm(system(m.rng, m.h, int(m.rng.integers(1, 5)), 1, 1, read_before=bool(m.rng.integers(2))))


def s4d_real(m: Model) -> None:
    m.x = m.ssm(system(m.rng, m.h, 3, 1, 1, complex_=False), reverse=bool(m.rng.integers(2)))


def s5(m: Model) -> None:
    """One system, many in, many out, halved."""
    wide = m.width()
    m.x = m.ssm(system(m.rng, 1, 4, m.h, wide))
    m.h = wide


def s5_whole(m: Model) -> None:
    """All complex states are kept and the plain real part is read, by the system or by an op."""
    wide, inside = m.width(), bool(m.rng.integers(2))
    value = system(m.rng, 1, 3, m.h, wide, halved=False, real_output=inside)
    m.x = m.ssm(paired(value) if m.rng.integers(2) else value)
    if not inside:
        m.x = m.add("real", m.x)
    m.h = wide


def paired(value: StateSpace) -> StateSpace:
    """The same states and their conjugates."""
    return replace(
        value,
        A=np.concatenate([value.A, value.A.conj()], 1),
        B=np.concatenate([value.B, value.B.conj()], 1),
        C=np.concatenate([value.C, value.C.conj() * 1.5], 2),
    )


def dense(m: Model) -> None:
    m.x = m.ssm(system(m.rng, 1, 4, m.h, m.h, complex_=False, dense=True), reverse=bool(m.rng.integers(2)))


def dense_groups(m: Model) -> None:
    m.x = m.ssm(system(m.rng, m.h, 3, 1, 1, complex_=bool(m.rng.integers(2)), halved=False, dense=True))


def shift_register(m: Model) -> None:
    """The last inputs, oldest first, as a step model keeps them: A is nilpotent, and has no eigenbasis."""
    taps = 3
    a = np.zeros((m.h, taps, taps))
    a[:, range(taps - 1), range(1, taps)] = 1
    b = np.zeros((m.h, taps, 1))
    b[:, -1] = 1
    before = bool(m.rng.integers(2))
    value = StateSpace(a, b, m.rng.standard_normal((m.h, 1, taps)), np.zeros((m.h, 1, 1)), read_before=before)
    tag = m.serial
    start = m.input(f"x0{tag}", SequenceType((m.h * taps,)), "state")
    m.x = m.ssm(value, None, start)
    m.output(Value(m.x.node, 1), f"last{tag}", "state")


def defective(m: Model) -> None:
    """A Jordan block, a pair of complex ones, or a well-behaved A beside one, in some basis."""
    kind, groups = int(m.rng.integers(3)), 1 + int(m.rng.integers(2)) * (m.h > 1) * (m.h % 2 == 0)
    block = np.array([[0.5, 1.0], [0.0, 0.5]])
    turn = 0.8 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    jordan = np.block([[block, np.zeros((2, 2))], [np.zeros((2, 2)), 0.3 * np.eye(2)]])
    if kind:
        jordan = np.block([[turn, np.eye(2)], [np.zeros((2, 2)), turn]])
    basis = np.linalg.qr(m.rng.standard_normal((4, 4)))[0]
    value = system(m.rng, groups, 4, m.h // groups, 2, complex_=False, dense=True)
    a = value.A.copy()
    a[0] = basis @ jordan @ basis.T
    start = m.input(f"x0{m.serial}", SequenceType((groups * 4,)), "state") if kind == 2 else None
    m.x = m.ssm(replace(value, A=a), None, start, reverse=kind == 1)
    m.h = 2 * groups
    m.output(Value(m.x.node, 1), f"fired{m.serial}", "state")


def asynchronous(m: Model) -> None:
    wide = m.width()
    value = system(m.rng, 1, 3, m.h, wide, complex_=bool(m.rng.integers(2)))
    rate = -m.rng.uniform(0.1, 1.0, value.A.shape) + (
        2j * m.rng.standard_normal(value.A.shape) if value.is_complex else 0
    )
    step = m.rng.uniform(0.5, 2, value.A.shape)
    m.x = m.ssm(replace(value, A=rate, delta=step, asynchronous=True), m.dt(), reverse=bool(m.rng.integers(2)))
    m.h = wide


def learned_start(m: Model) -> None:
    value = system(m.rng, m.h, 2, 1, 1)
    m.x = m.ssm(replace(value, x0=m.rng.standard_normal(value.A.shape) + 1j))


def stateful(m: Model) -> None:
    """The user gives the first states and gets the last ones, complex ones as two inputs and outputs."""
    is_complex, is_dense = bool(m.rng.integers(2)), bool(m.rng.integers(2))
    groups = m.h if m.rng.integers(2) else 1
    wide = m.h // groups
    value = system(m.rng, groups, 3, wide, wide, complex_=is_complex, dense=is_dense)
    kind, tag = SequenceType((groups * 3,)), f"{m.serial}"
    parts = [m.input(f"x{part}{tag}", kind, "state") for part in ("re", "im")[: 1 + is_complex]]
    m.x = m.ssm(value, None, m.add("complex", *parts) if is_complex else parts[0])
    last = Value(m.x.node, 1)
    if is_complex:
        m.output(m.add("real", last), f"lre{tag}", "state")
        m.output(m.add("imag", last), f"lim{tag}", "state")
    else:
        m.output(last, f"l{tag}", "state")


def bidirectional(m: Model) -> None:
    forward = m.ssm(system(m.rng, m.h, 2, 1, 1))
    backward = m.ssm(system(m.rng, m.h, 2, 1, 1, read_before=True), reverse=True)
    m.x = m.add("binary", forward, backward, fn="add")


def selective(m: Model) -> None:
    """A recurrence whose decay is computed, over two feature axes."""
    delta = m.add("unary", m.add("linear", m.x, weight=m.weight(m.h, m.h), bias=m.vector(m.h)), fn="sigmoid")
    columns = m.add("reshape", delta, shape=(m.h, 1))
    decay = m.add("unary", m.add("binary", columns, m.constant(-m.rng.uniform(0.1, 1, (m.h, 2))), fn="mul"), fn="exp")
    drive = m.add("linear", m.x, weight=m.weight(m.h, 2 * m.h), bias=None)
    states = m.add("recurrence", decay, m.add("reshape", drive, shape=(m.h, 2)), read_before=bool(m.rng.integers(2)))
    m.x = m.add("contract", states, m.constant(m.rng.standard_normal(2)), equation="hn,n->h")


def complex_recurrence(m: Model) -> None:
    turn = m.constant(0.8 * np.exp(1j * m.rng.standard_normal(m.h)))
    drive = m.add("complex", m.x, m.add("unary", m.x, fn="sin"))
    size = m.add("unary", m.add("linear", m.x, weight=m.weight(m.h, m.h)), fn="sigmoid")
    decay = [turn, size, m.add("binary", turn, size, fn="mul")][int(m.rng.integers(3))]
    states = m.add("recurrence", decay, drive, reverse=bool(m.rng.integers(2)))
    mixed = m.add("linear", states, weight=m.weight(m.h, m.h, bool(m.rng.integers(2))))
    power = m.add("real", m.add("unary", mixed, fn="abs"))
    m.x = m.add("binary", m.add("imag", states), power, fn="add")


def ema(m: Model) -> None:
    """A recurrence with a constant decay."""
    m.x = m.add("recurrence", m.constant(m.rng.uniform(0.1, 0.9, m.h)), m.x)


def linear(m: Model) -> None:
    wide = m.width()
    m.x = m.add("linear", m.x, weight=m.weight(m.h, wide), bias=m.vector(wide) if m.rng.integers(2) else None)
    m.h = wide


def batch_norm(m: Model) -> None:
    for fn in ("sub", "div", "mul", "add"):
        array = m.rng.uniform(0.5, 2, m.h) if m.rng.integers(2) else np.asarray(m.rng.uniform(0.5, 2))
        m.x = m.add("binary", m.x, m.constant(array), fn=fn)


def layer_norm(m: Model) -> None:
    kind = "layer" if m.h > 1 and m.rng.integers(2) else "rms"
    m.x = m.add(
        "norm", m.x, kind=kind, epsilon=1e-3, scale=m.vector(m.h), shift=m.vector(m.h) if m.rng.integers(2) else None
    )


def scaled_norm(m: Model) -> None:
    m.x = m.add("norm", m.x, kind="rms", epsilon=1e-3, scale=m.vector(m.h))


def activation(m: Model) -> None:
    m.x = m.add("unary", m.x, fn=str(m.rng.choice(["gelu", "tanh", "silu", "identity"])))


def glu(m: Model) -> None:
    both = m.add("linear", m.x, weight=m.weight(m.h, 2 * m.h), bias=m.vector(2 * m.h))
    left = m.add("slice", both, axis=-1, start=0, stop=m.h)
    right = m.add("slice", both, axis=-1, start=m.h, stop=2 * m.h)
    m.x = m.add("binary", m.x, m.add("gate", left, right), fn="add")


def downsample(m: Model) -> None:
    if m.elapsed is None and m.rate == 1:
        m.x = m.add("downsample", m.x, stride=2, kind="mean")


def constant_arithmetic(m: Model) -> None:
    scale = m.add("unary", m.constant(m.rng.standard_normal(m.h)), fn="exp")
    shift = m.add("spread", m.add("reshape", m.constant(np.ones((m.h, 1))), shape=(m.h,)), m.x)
    m.x = m.add("binary", m.add("binary", m.x, scale, fn="mul"), shift, fn="add")


LAYERS: tuple[Callable[[Model], None], ...] = (
    s4d,
    s4d_real,
    s5,
    s5_whole,
    dense,
    dense_groups,
    shift_register,
    defective,
    asynchronous,
    learned_start,
    stateful,
    bidirectional,
    selective,
    complex_recurrence,
    ema,
    linear,
    batch_norm,
    layer_norm,
    scaled_norm,
    activation,
    glu,
    downsample,
    constant_arithmetic,
)


def build(seed: int, layers: list[Callable[[Model], None]], *, index: bool = False, head: str = "mean") -> Graph:
    """A model of these layers with a pooled head; `head` "none" leaves the stream only."""
    m = Model(seed, index)
    for layer in layers:
        layer(m)
    m.output(m.x, "y")
    if head != "none":
        pooled = m.add("pool", m.x, kind=head)
        m.output(m.add("linear", pooled, weight=m.weight(m.h, 3), bias=m.vector(3)), "logits")
    return m.graph


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    layers = draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=4))
    index, head = draw(st.booleans()), draw(st.sampled_from(["mean", "last", "max", "none"]))
    return build(draw(st.integers(0, 2**16)), layers, index=index, head=head)
