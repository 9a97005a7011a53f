"""Forms of one system: all of them mean the same, and the one with the fewest cycles is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import load_arch
from backends.epochcore.clock.timing import measure
from backends.epochcore.lower import scan as lower_scan
from backends.epochcore.lower.window_matrices import MOST_TAPS, TAIL, System, kernel_length
from backends.epochcore.simulate.run import plan_of
from isa import Program
from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Piece, SequenceType, StreamType, Tensor, Value, interpret
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes
from tests.examples import examples

PLAIN, SMALL = load_arch("tpu-like-128"), load_arch("epochcore-small")


@dataclass(frozen=True)
class Shape:
    """A system that is to be computed, and how."""

    channels: int = 3
    states: int = 2
    is_complex: bool = True
    reverse: bool = False
    before: bool = False
    start: bool = False
    stride: int = 1
    seed: int = 0


def graph(s: Shape, asked: dict[str, Any], last: bool = False) -> Graph:
    """input (-> every `stride`th step) -> system -> output"""
    rng, g = np.random.default_rng(s.seed), Graph("one", {"schedule": asked})
    u = g.add("input", [], {"name": "u", "type": StreamType((s.channels,))}, name="u")
    if s.stride > 1:
        u = g.add("downsample", [u], {"kind": "take", "stride": s.stride, "offset": 1})
    shape = (s.channels, s.states)

    def drawn() -> Any:
        return rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if s.is_complex else 0)

    phase = np.exp(1j * rng.uniform(-3, 3, shape)) if s.is_complex else rng.choice([-1.0, 1.0], shape)
    operands = [u]
    if s.start:
        kind = SequenceType((s.channels * s.states * (2 if s.is_complex else 1),))
        operands.append(g.add("input", [], {"name": "x0", "type": kind, "role": "state"}, name="x0"))
    attrs = {
        "decay": Tensor(rng.uniform(0.3, 0.99, shape) * phase),
        "b": Tensor(drawn()),
        "c": Tensor(drawn()),
        "d": Tensor(rng.standard_normal(s.channels)),
        "reverse": s.reverse,
        "read_before": s.before,
        "pieces": (Piece(0, s.channels, 0, s.states),),
    }
    y = g.add("tile.ssm", operands, attrs, name="layer")
    g.add("output", [y], {"name": "y"})
    if last:
        g.add("output", [Value("layer", 1)], {"name": "last"})
    return g


def arrays(s: Shape, batch: int, steps: int) -> dict[str, Any]:
    rng = np.random.default_rng(s.seed + 1)
    found = {"u": rng.standard_normal((batch, steps, s.channels))}
    if s.start:
        found["x0"] = rng.standard_normal((batch, s.channels * s.states * (2 if s.is_complex else 1)))
    return found


def chosen(program: Program, layer: str = "layer") -> dict[str, Any]:
    forms: Any = program.meta["forms"]
    (one,) = (a for a in forms[layer] if a["chosen"])
    return dict(one)


shapes = st.builds(
    Shape,
    channels=st.integers(1, 7),
    states=st.integers(1, 5),
    is_complex=st.booleans(),
    reverse=st.booleans(),
    before=st.booleans(),
    stride=st.sampled_from([1, 1, 2]),
    seed=st.integers(0, 2**16),
)


@settings(max_examples=examples(30), deadline=None)
@given(shapes, st.integers(1, 12), st.integers(1, 50), st.booleans(), st.sampled_from([1, 3, 7, 16]), st.booleans())
def test_windows_of_a_scan_mean_the_same(
    s: Shape, window: int, steps: int, start: bool, block: int, narrow: bool
) -> None:
    """Any length, with the last window cut; arrays smaller and larger than a channel's matrices; many chunks."""
    s = Shape(**{**s.__dict__, "start": start and not s.reverse})
    words = 3000 if narrow else 1 << 20
    arch = with_changes(PLAIN, array__rows=8, array__cols=6, memory__scratchpad_words=words)
    g = graph(s, {"form": "chunked", "window": window, "steps": 64})
    program, x = BACKEND.lower(g, arch, ideal=True), arrays(s, 2, steps)
    expected = interpret(g, x)["y"]
    results = [BACKEND.simulate(program, x, RunSettings(block=n)).outputs["y"] for n in (None, block)]
    assert np.abs(results[0] - expected).max(initial=0.0) <= 1e-11 * max(1.0, np.abs(expected).max(initial=0.0))
    np.testing.assert_array_equal(*results)


@settings(max_examples=examples(30), deadline=None)
@given(shapes, st.integers(0, 40), st.booleans(), st.sampled_from([1, 7]))
def test_a_matrix_vector_product_a_step_means_the_same(s: Shape, steps: int, start: bool, block: int) -> None:
    """Several groups of channels, states given and left, in both directions."""
    s = Shape(**{**s.__dict__, "start": start, "stride": 1})
    arch = with_changes(PLAIN, array__rows=14, array__cols=12)
    g = graph(s, {"form": "mat-vec", "steps": 64}, last=True)
    program, x = BACKEND.lower(g, arch, ideal=True), arrays(s, 2, steps)
    assert chosen(program)["form"] == "one mat-vec a step"
    expected = interpret(g, x)
    for n in (None, block):
        found = BACKEND.simulate(program, x, RunSettings(block=n)).outputs
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-11 * max(1.0, np.abs(value).max(initial=0)))


@settings(max_examples=examples(30), deadline=None)
@given(shapes, st.integers(0, 40), st.booleans(), st.booleans(), st.integers(1, 30), st.sampled_from([1, 7]))
def test_a_scan_of_some_channels_after_the_others_means_the_same(
    s: Shape, steps: int, start: bool, liquid: bool, most: int, block: int
) -> None:
    """States given and left, liquid systems too, in both directions."""
    s = Shape(**{**s.__dict__, "start": start})
    g, words = Graph("parts", {"schedule": {"form": "scan", "steps": 64 + most}}), s.channels * s.states
    for node in (made := graph(s, {}, last=True)).nodes():
        attrs = {**node.op.attrs, "liquid": liquid} if node.op.name == "tile.ssm" else node.op.attrs
        g.add(node.op.name, made.operands(node.name), attrs, name=node.name)
    x = arrays(s, 2, steps)
    x["u"] *= 0.01 if liquid else 1.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lower_scan, "MOST_WORDS", max(most, -(-2 * words // s.channels)))
        patch.setattr(lower_scan, "LEAST_WORDS", 1)
        program = BACKEND.lower(g, PLAIN, ideal=True)
    assert chosen(program)["form"].startswith("scan")
    expected = interpret(g, x)
    for n in (None, block):
        found = BACKEND.simulate(program, x, RunSettings(block=n)).outputs
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-11 * max(1.0, np.abs(value).max(initial=0)))


def test_a_matrix_vector_product_a_step_is_chosen_by_its_cost() -> None:
    """It pays fill and drain at every step: the last choice on a large array, and the first where a scan waits long."""
    s = Shape(channels=2, states=2)
    g = graph(s, {"steps": 200})
    found: Any = BACKEND.lower(g, PLAIN, ideal=True).meta["forms"]["layer"]
    (own,) = (a for a in found if a["form"] == "one mat-vec a step")
    assert own["least"] and own["cycles"] >= 200 * 255 and not own["chosen"]
    slow = with_changes(PLAIN, array__rows=10, array__cols=10, array__modes=["mac"], vector__latency_cycles=8)
    taken = {a["form"]: a["cycles"] for a in BACKEND.lower(g, slow, ideal=True).meta["forms"]["layer"]}  # type: ignore[index]
    alone = graph(s, {"steps": 200, "form": "mat-vec"})
    program = BACKEND.lower(alone, slow, ideal=True)
    assert "one mat-vec a step" in taken and chosen(program)["cycles"] == pytest.approx(
        measure(program, slow, 1, 200)[0].cycles, rel=0.2
    )


@settings(max_examples=examples(30), deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 20),
    st.integers(1, 12),
    st.integers(1, 50),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 5, 16]),
    st.integers(0, 2**16),
)
def test_filters_are_bands_of_their_toeplitz_matrix(
    channels: int, length: int, window: int, steps: int, reverse: bool, start: bool, block: int, seed: int
) -> None:
    """Any length, past inputs given and left, in both directions."""
    rng, g = np.random.default_rng(seed), Graph("filter", {"schedule": {"form": "convolution", "window": window}})
    u = g.add("input", [], {"name": "u", "type": StreamType((channels,))}, name="u")
    operands, x = [u], {"u": rng.standard_normal((2, steps, channels))}
    if start and length > 1:
        kind = SequenceType((channels, length - 1))
        operands.append(g.add("input", [], {"name": "past", "type": kind, "role": "state"}, name="past"))
        x["past"] = rng.standard_normal((2, channels, length - 1))
    kernel = Tensor(rng.standard_normal((channels, length)))
    y = g.add("fir", operands, {"kernel": kernel, "reverse": reverse}, name="layer")
    g.add("output", [y], {"name": "y"})
    if length > 1:
        g.add("output", [Value("layer", 1)], {"name": "left"})
    arch = with_changes(PLAIN, array__rows=8, array__cols=6, memory__scratchpad_words=5000)
    program, expected = BACKEND.lower(g, arch, ideal=True), interpret(g, x)
    results = [BACKEND.simulate(program, x, RunSettings(block=n)).outputs for n in (None, block)]
    for name, value in expected.items():
        assert np.abs(results[0][name] - value).max() <= 1e-12 * max(1.0, np.abs(value).max())
        np.testing.assert_array_equal(results[0][name], results[1][name])


def test_a_kernel_that_ends_is_a_convolution() -> None:
    """Fast decays: what is left out is under the last digit of float32. Slow ones have no such form."""
    s = Shape(channels=4, states=2)
    g = graph(s, {"form": "convolution", "window": 16})
    op = g.op("layer")
    fast = op["decay"].array * 0.7 / np.abs(op["decay"].array)
    quick = Graph("quick", {"schedule": {"form": "convolution", "window": 16}})
    u = quick.add("input", [], {"name": "u", "type": StreamType((4,))}, name="u")
    quick.add("output", [quick.add("tile.ssm", [u], {**op.attrs, "decay": Tensor(fast)}, name="layer")], {"name": "y"})
    x = arrays(s, 2, 100)
    expected = interpret(quick, x)["y"]
    actual = BACKEND.simulate(BACKEND.lower(quick, PLAIN, ideal=True), x, RunSettings()).outputs["y"]
    assert np.abs(actual - expected).max() <= 1e-7 * np.abs(expected).max()
    slow = Tensor(np.full((4, 2), 0.9999 + 0j))
    lasting = Graph("lasting", {"schedule": {"form": "convolution"}})
    u = lasting.add("input", [], {"name": "u", "type": StreamType((4,))}, name="u")
    lasting.add("output", [lasting.add("tile.ssm", [u], {**op.attrs, "decay": slow}, name="layer")], {"name": "y"})
    with pytest.raises(UserError, match="does not end within 4096 steps"):
        BACKEND.lower(lasting, PLAIN, ideal=True)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 0.9999), st.floats(0.01, 1.5), st.floats(0, 2), st.booleans(), st.integers(0, 2**16))
def test_a_kernel_ends_where_its_taps_do(size: float, gain: float, d: float, before: bool, seed: int) -> None:
    """What is left out is small beside the largest tap; of one without an end a state is not small enough by then."""
    rng, shape = np.random.default_rng(seed), (2, 3)
    a = size * np.exp(1j * rng.uniform(-3, 3, shape)) * rng.uniform(0.999, 1, shape)
    b, c = (gain * rng.standard_normal(shape) + 0j for _ in range(2))
    system = System(a, b, c, np.full(2, d), before, False)
    length, taps = kernel_length(system), np.abs(system.kernel(MOST_TAPS))
    largest = taps[:, :64].max(1, keepdims=True)
    if length is None:
        left = np.abs(b * c) * np.abs(a) ** (MOST_TAPS - 2) / (1 - np.abs(a))
        assert (left > TAIL * largest / 3 * (1 - 1e-9)).any()
    else:
        assert (taps[:, length:].sum(1, keepdims=True) <= TAIL * largest).all()


def test_forms_have_names() -> None:
    with pytest.raises(UserError, match="no form is called 'fft'"):
        BACKEND.lower(graph(Shape(), {"form": "fft"}), PLAIN, ideal=True)


def test_a_sequence_of_no_steps() -> None:
    s = Shape()
    program = BACKEND.lower(graph(s, {"form": "chunked", "window": 8}), PLAIN, ideal=True)
    result = BACKEND.simulate(program, arrays(s, 2, 0), RunSettings())
    assert result.outputs["y"].shape == (2, 0, 3)


def test_integers_stay_near() -> None:
    s = Shape(channels=16, states=8)
    g = graph(s, {"form": "chunked", "window": 16})
    x = arrays(s, 2, 100)
    actual = BACKEND.simulate(BACKEND.lower(g, PLAIN, ideal=False), x, RunSettings()).outputs["y"]
    expected = interpret(g, x)["y"]
    assert 0 < np.abs(actual - expected).max() <= 0.02 * np.abs(expected).max()


def test_the_program_does_not_grow_with_the_sequence() -> None:
    """One program for all lengths; its cycles grow with the windows."""
    program = BACKEND.lower(graph(Shape(channels=64), {"form": "chunked", "window": 16}), PLAIN, ideal=True)
    cycles = [measure(program, PLAIN, 1, steps)[0].cycles or 0 for steps in (1000, 100_000, 200_000)]
    assert cycles[0] < cycles[1] and abs(cycles[2] - 2 * cycles[1]) < 0.02 * cycles[2]


def test_states_in_windows_leave_room_for_a_short_sequence_in_one_chunk() -> None:
    """Else a second chunk, of a few windows, would wait for all weights once more."""
    s = Shape(channels=256, states=64)
    arch = with_changes(PLAIN, memory__scratchpad_words=1_250_000)
    program = BACKEND.lower(graph(s, {"form": "chunked", "window": 8, "steps": 512}), arch, ideal=True)
    (limit,) = (ins["limit"] for ins in program.sections[0].code if ins.mnemonic == "chunks")
    assert limit >= 512
    x = arrays(s, 1, 515)
    actual, expected = BACKEND.simulate(program, x, RunSettings()).outputs["y"], interpret(graph(s, {}), x)["y"]
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_the_fastest_form_is_taken() -> None:
    """Long sequences are worth products, short ones are scanned; a state in place beats both."""
    s = Shape(channels=32, states=8)
    names = {}
    for steps in (16, 2048):
        program = BACKEND.lower(graph(s, {"steps": steps}), PLAIN, ideal=True)
        best, forms = chosen(program), program.meta["forms"]
        assert isinstance(forms, dict)
        assert best["cycles"] == min(a["cycles"] for a in forms["layer"] if a["cycles"] is not None)
        names[steps] = best["form"]
    assert names[16] == "scan" and names[2048].startswith("chunked")
    assert chosen(BACKEND.lower(graph(s, {"steps": 2048}), load_arch("epochcore-128"), ideal=True))["form"] == (
        "state in place"
    )


@pytest.mark.parametrize("name", ["tpu-like-128", "tpu-v1-256", "epochcore-128"])
def test_what_is_predicted_is_what_the_layer_takes(name: str) -> None:
    """The prediction is that of the timing model for a program with nothing else in it."""
    arch, s = load_arch(name), Shape(channels=48, states=4)
    for form in ("scan", "chunked", *(["state in place"] if name == "epochcore-128" else [])):
        g = Graph("alone", {"schedule": {"form": form, "window": 8, "steps": 500}})
        u = g.add("input", [], {"name": "u", "type": StreamType((1,))}, name="u")
        wide = g.add("take", [u], {"axis": -1, "index": Tensor(np.zeros(48, np.int64))})
        y = g.add("tile.ssm", [wide], dict(graph(s, {}).op("layer").attrs), name="layer")
        g.add("output", [g.add("pool", [y], {"kind": "mean"})], {"name": "y"})
        program = BACKEND.lower(g, arch, ideal=True)
        assert measure(program, arch, 1, 500)[0].cycles == chosen(program)["cycles"]


def test_what_has_no_windows() -> None:
    """States that are asked for at the end, and states given at the end of a reversed sequence."""
    program = BACKEND.lower(graph(Shape(channels=64), {"steps": 4096}, last=True), PLAIN, ideal=True)
    assert chosen(program)["form"] == "scan"
    with pytest.raises(UserError, match="cannot be computed in the form asked for") as caught:
        BACKEND.lower(graph(Shape(start=True, reverse=True), {"form": "chunked"}), PLAIN, ideal=True)
    assert "starts from states at the end" in str(caught.value)


def test_costs_are_those_of_other_numbers() -> None:
    """Alternatives are timed without their numbers: but for how long the kernel is, these do not matter."""
    asked = {"form": "chunked", "window": 8}
    tables = []
    for seed in (1, 2):
        program = BACKEND.lower(graph(Shape(seed=seed), asked), PLAIN, ideal=True)
        tables.append((chosen(program), measure(program, PLAIN, 1, 1024)[0].cycles))
    assert tables[0] == tables[1]


def test_windows_must_be_whole() -> None:
    """A chunk that cuts windows is a trap of the machine."""
    from dataclasses import replace

    program = BACKEND.lower(graph(Shape(), {"form": "chunked", "window": 8}), PLAIN, ideal=True)
    section = program.sections[0]
    code = tuple(
        replace(ins, operands={**ins.operands, "multiple": 4}) if ins.mnemonic == "chunks" else ins
        for ins in section.code
    )
    with pytest.raises(UserError, match="cut by chunks"):
        plan_of(replace(program, sections=(replace(section, code=code),)))


def test_small_arrays_have_forms_too() -> None:
    s = Shape(channels=40, states=6)
    for form in ("state in place", "chunked", "scan"):
        g = graph(s, {"form": form, "steps": 256})
        program, x = BACKEND.lower(g, SMALL, ideal=True), arrays(s, 1, 33)
        expected = interpret(g, x)["y"]
        actual = BACKEND.simulate(program, x, RunSettings()).outputs["y"]
        assert np.abs(actual - expected).max() <= 1e-11 * np.abs(expected).max(), form


def streamed(states: int, asked: dict[str, Any], *, events: bool, start: bool) -> Graph:
    """States whose decay is computed for every step: from the input, or from the time that elapsed."""
    g = Graph("one", {"schedule": asked})
    u = g.add("input", [], {"name": "u", "type": StreamType((states,))}, name="u")
    x0 = g.add("input", [], {"name": "x0", "type": SequenceType((states,)), "role": "state"}) if start else None
    if events:
        dt = g.add("input", [], {"name": "dt", "type": StreamType(()), "axes": "bt", "role": "dt"}, name="dt")
        attrs = {"decay": Tensor(-np.linspace(0.1, 1, states)), "asynchronous": True}
        pieces = {"pieces": (Piece(0, states, 0, 1),)}
        y = g.add("tile.state", [u, dt, x0], {**attrs, **pieces}, name="layer")
    else:
        y = g.add("tile.recurrence", [g.add("unary", [u], {"fn": "sigmoid"}), u, x0], {}, name="layer")
    g.add("output", [y], {"name": "y"})
    return g


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("start", [False, True])
def test_streamed_decays_are_stepped_where_that_is_fastest(events: bool, start: bool) -> None:
    """Two words a state and step go through the array's ports, which are narrower than the vector unit; that one waits
    for its own results where states are few."""
    arch, names = load_arch("epochcore-128"), {}
    for states in (8, 2048):
        g = streamed(states, {"steps": 512}, events=events, start=start)
        program = BACKEND.lower(g, arch, ideal=True)
        forms: Any = program.meta["forms"]["layer"]  # type: ignore[index]
        assert chosen(program)["cycles"] == min(form["cycles"] for form in forms) and len(forms) == 2
        names[states] = chosen(program)["form"]
        rng = np.random.default_rng(1)
        x = {"u": rng.standard_normal((2, 9, states)), "dt": rng.uniform(0, 1, (2, 9))}
        x = {"u": x["u"], **({"dt": x["dt"]} if events else {})}
        x |= {"x0": rng.standard_normal((2, states))} if start else {}
        for asked in ({"steps": 512}, {"form": "scan"}, {"form": "state in place"}):
            other = streamed(states, asked, events=events, start=start)
            found = BACKEND.simulate(BACKEND.lower(other, arch, ideal=True), x, RunSettings()).outputs
            np.testing.assert_allclose(found["y"], interpret(g, x)["y"], rtol=0, atol=1e-12)
    assert names == {8: "state in place", 2048: "scan"}
