"""fold-constants and fold-norms: what goes, and what must stay."""

from __future__ import annotations

import numpy as np
import pytest

from ssmc.ir import Graph, StreamType, Tensor, Value
from ssmc.passes import Context, PassManager

from .graphs import Model, system


def run(m: Model, pipeline: str) -> Graph:
    if not any(True for _ in m.graph.nodes("output")):
        m.output(m.x, "y")
    return PassManager(pipeline).run(m.graph, Context())


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes() if node.op.name not in ("input", "output", "constant")]


def model(h: int = 4, seed: int = 0) -> Model:
    m = Model(seed)
    m.graph = Graph("fold")
    m.h = h
    m.x = m.input("u", StreamType((h,)))
    return m


def scaled(m: Model, fn: str = "mul") -> Value:
    return m.add("binary", m.x, m.constant(m.rng.uniform(0.5, 2, m.h)), fn=fn)


def test_constants_are_computed_and_neutral_ops_vanish() -> None:
    m = model()
    zero, one = m.constant(np.zeros(4)), m.add("unary", m.constant(np.zeros(4)), fn="exp")
    m.x = m.add("binary", m.add("binary", m.x, zero, fn="add"), one, fn="div")
    m.x = m.add("unary", m.add("reverse", m.add("reverse", m.x)), fn="identity")
    m.x = m.add("slice", m.add("concat", m.x, axis=-1), axis=-1, start=0, stop=4)
    m.x = m.add("unary", m.x, fn="tanh")
    result = run(m, "fold-constants")
    assert ops(result) == ["unary"]
    tanh = next(result.nodes("unary"))
    gone = {"binary_4", "binary_5", "reverse_6", "reverse_7", "unary_8", "concat_9", "slice_10"}
    assert gone <= set(tanh.provenance)


def test_chains_of_shapes_become_one() -> None:
    m = model(6)
    m.x = m.add("reshape", m.add("reshape", m.add("reshape", m.x, shape=(2, 3)), shape=(3, 2)), shape=(1, 2, 3))
    m.x = m.add("transpose", m.add("transpose", m.x, permutation=(2, 0, 1)), permutation=(1, 0, 2))
    result = run(m, "fold-constants")
    assert ops(result) == ["reshape", "transpose"]
    assert next(result.nodes("transpose")).op["permutation"] == (0, 2, 1)


def test_what_is_not_neutral_stays() -> None:
    m = model()
    wide = m.add("binary", m.x, m.constant(np.zeros((2, 4))), fn="add")  # it broadcasts
    m.x = m.add("binary", m.constant(np.zeros(4)), wide, fn="sub")  # it negates
    assert ops(run(m, "fold-constants")) == ["binary", "binary"]


def test_a_batch_norm_goes_into_the_matrix_before_or_after() -> None:
    for first in (True, False):
        m = model()
        if first:
            m.x = m.add("linear", m.x, weight=m.weight(4, 4))
        for fn in ("sub", "div", "mul", "add"):
            m.x = scaled(m, fn)
        if not first:
            m.x = m.add("linear", m.x, weight=m.weight(4, 4), bias=m.vector(4))
        result = run(m, "fold-norms")
        assert ops(result) == ["linear"]
        assert len(next(result.nodes("linear")).provenance) == 9, "five nodes and four constants"


def test_a_batch_norm_after_a_system_leaves_its_shift() -> None:
    m = model()
    m.x = m.ssm(system(m.rng, 4, 3, 1, 1))
    for fn in ("sub", "div", "add"):
        m.x = scaled(m, fn)
    assert ops(run(m, "fold-norms")) == ["ssm", "binary"]


def test_a_scale_before_a_system_goes_into_it_and_a_shift_stays() -> None:
    m = model()
    m.x = scaled(m, "mul")
    m.x = scaled(m, "add")
    m.x = m.ssm(system(m.rng, 1, 3, 4, 2))
    assert ops(run(m, "fold-norms")) == ["binary", "ssm"]


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("after", ["linear", "ssm"])
def test_a_norms_scale_goes_into_what_follows(shift: bool, after: str) -> None:
    m = model()
    m.x = m.add("norm", m.x, kind="layer", epsilon=1e-5, scale=m.vector(4), shift=m.vector(4) if shift else None)
    m.x = m.add("linear", m.x, weight=m.weight(4, 3)) if after == "linear" else m.ssm(system(m.rng, 4, 2, 1, 1))
    result = run(m, "fold-norms")
    norm = next(result.nodes("norm"))
    assert ops(result) == ["norm", after]
    assert norm.op["scale"] is None
    assert (norm.op["shift"] is not None) == (shift and after == "ssm")


def test_matrices_merge_where_they_do_not_grow() -> None:
    for inner, merges in ((5, True), (1, False)):
        m = model(4)
        m.x = m.add("linear", m.x, weight=m.weight(4, inner), bias=m.vector(inner))
        m.x = m.add("linear", m.x, weight=m.weight(inner, 4), bias=m.vector(4))
        assert ops(run(m, "fold-norms")) == (["linear"] if merges else ["linear", "linear"])


def test_matrices_around_one_system_go_into_b_and_c() -> None:
    m = model(2)
    m.x = m.add("linear", m.x, weight=m.weight(2, 6))
    m.x = m.ssm(system(m.rng, 1, 3, 6, 6))
    m.x = m.add("linear", m.x, weight=m.weight(6, 2), bias=m.vector(2))
    result = run(m, "fold-norms")
    assert ops(result) == ["ssm", "binary"]
    folded = next(result.nodes("ssm")).op["system"]
    assert (folded.inputs, folded.outputs) == (2, 2)


def test_a_complex_matrix_stays_apart_from_a_real_output() -> None:
    m = model(4)
    m.x = m.ssm(system(m.rng, 1, 3, 4, 4))
    m.x = m.add("imag", m.add("linear", m.x, weight=m.weight(4, 1, complex_=True)))
    assert ops(run(m, "fold-norms")) == ["ssm", "linear", "imag"]


def test_growing_or_grouped_systems_keep_their_matrices() -> None:
    m = model(6)
    m.x = m.add("linear", m.x, weight=m.weight(6, 1))
    m.x = m.ssm(system(m.rng, 1, 8, 1, 1))
    assert ops(run(m, "fold-norms")) == ["linear", "ssm"]
    m = model(4)
    m.x = m.add("linear", m.x, weight=m.weight(4, 4))
    m.x = m.ssm(system(m.rng, 4, 8, 1, 1))
    assert ops(run(m, "fold-norms")) == ["linear", "ssm"]


def test_a_value_with_two_users_stays() -> None:
    m = model()
    m.x = m.add("linear", m.x, weight=m.weight(4, 4))
    m.output(m.x, "middle")
    m.x = scaled(m)
    m.output(m.x, "y")
    assert ops(run(m, "fold-norms")) == ["linear", "binary"]


def test_rounded_weights_stay_on_their_grid() -> None:
    m = model()
    m.x = m.add("linear", m.x, weight=m.weight(4, 4))
    m.output(m.x, "y")
    rounded = PassManager("quantize{weights=4}").run(m.graph, Context())
    out = next(rounded.nodes("output"))
    factor = rounded.add("constant", [], {"value": Tensor(np.full(4, 3.0))})
    rounded.connect(out.name, 0, rounded.add("binary", [rounded.operand(out.name, 0), factor], {"fn": "mul"}))
    assert ops(PassManager("fold-norms").run(rounded, Context())) == ["linear", "binary"]


def test_an_embedding_takes_over_what_follows() -> None:
    m = Model(1, index=True)
    m.x = m.add("binary", m.x, m.constant(np.full(m.h, 2.0)), fn="mul")
    m.x = m.add("linear", m.x, weight=m.weight(m.h, m.h), bias=m.vector(m.h))
    assert ops(run(m, "fold-norms")) == ["embed"]
