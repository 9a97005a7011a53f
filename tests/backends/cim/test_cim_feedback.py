"""A in arrays: chosen where states feed each other, exact with ideal devices, and as far off as told with real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from backends.cim import BACKEND
from backends.cim.program.decode import cores, decode
from backends.cim.simulate.carried import parts_of
from ssmc.driver import compile_model
from ssmc.ir import Graph, StreamType, Tensor, Value, interpret
from ssmc.passes import Context, PassManager
from ssmc.passes.bank_choice import feedback_error, in_eigenbasis
from ssmc.passes.banks import demand
from ssmc.passes.feedback import fed_back
from ssmc.statespace import StateSpace
from ssmc.target import RunSettings
from tests.frontend.net import Net

from .chips import changed
from .programs import program

FEEDBACK = {"feedback": True}


def defective(states: int = 4, size: float = 0.8, inputs: int = 2) -> StateSpace:
    """A Jordan block in an orthogonal basis: no eigenbasis, and no cascade as it stands."""
    rng = np.random.default_rng(states)
    basis = np.linalg.qr(rng.normal(size=(states, states)))[0]
    a = basis @ (size * np.eye(states) + 0.4 * np.eye(states, k=1)) @ basis.T
    b, c, d = rng.normal(size=(states, inputs)), rng.normal(size=(2, states)), rng.normal(size=(2, inputs))
    return StateSpace(a[None], b[None], c[None], d[None])


def _step(net: Net, system: StateSpace, u: str, x: str) -> tuple[str, str]:
    """The state after an input, and what is read of it."""
    a, b, c, d = (net.const(matrix[0].T) for matrix in (system.A, system.B, system.C, system.D))
    following = net.op("Add", net.op("MatMul", x, a), net.op("MatMul", u, b))
    return following, net.op("Tanh", net.op("Add", net.op("MatMul", following, c), net.op("MatMul", u, d)))


def as_step(system: StateSpace) -> onnx.ModelProto:
    net = Net()
    u, x = net.input(["b", system.inputs]), net.input(["b", system.states])
    following, y = _step(net, system, u, x)
    return net.model([(y, ["b", system.outputs]), (following, ["b", system.states])])


def as_scan(system: StateSpace) -> onnx.ModelProto:
    net, body = Net(), Net()
    u = net.input(["b", "t", system.inputs])
    batch = net.op("Shape", u, start=0, end=1)
    start = net.op("ConstantOfShape", net.op("Concat", batch, net.ints(system.states), axis=0))
    x, now = body.input(None), body.input(None)
    graph = body.subgraph([(name, None) for name in _step(body, system, now, x)])
    moved = net.op("Transpose", u, perm=[1, 0, 2])
    _, y = net.op("Scan", start, moved, outputs=2, body=graph, num_scan_inputs=1)
    return net.model([(net.op("Transpose", y, perm=[1, 0, 2]), ["b", "t", system.outputs])])


def against_onnxruntime(model: onnx.ModelProto, path: Path, arch: Any, batch: int) -> tuple[Any, float]:
    onnx.save(model, path)
    program = compile_model(path, "cim", arch=arch, ideal=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng, names = np.random.default_rng(0), [port.name for port in session.get_inputs()]
    u = rng.normal(size=(batch, 40, 2)).astype(np.float32)
    outputs = [port.name for port in session.get_outputs()]
    if len(names) == 1:
        want = dict(zip(outputs, session.run(None, {names[0]: u}), strict=True))
        got = program.run({names[0]: u}).outputs
    else:  # one step at a time
        x = start = rng.normal(size=(batch, 4)).astype(np.float32)
        steps = []
        for k in range(u.shape[1]):
            y, x = session.run(None, {names[0]: u[:, k], names[1]: x})
            steps.append(y)
        want = {outputs[0]: np.stack(steps, 1), outputs[1]: x}
        got = program.run({names[0]: u, names[1]: start}).outputs
    worst = max(float(np.abs(got[name] - value).max() / np.abs(value).max()) for name, value in want.items())
    return program, worst


@pytest.mark.parametrize("form", [as_scan, as_step], ids=["scan", "step"])
@pytest.mark.parametrize("cores", [{"per_core": 8}, {"per_core": 1, "rows": 3, "cols": 8}], ids=["one core", "spread"])
def test_onnxruntime_agrees(form: Any, cores: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "arch.yaml").write_text(BACKEND.arch_text(changed(crossbar={**FEEDBACK, **cores})))
    program, worst = against_onnxruntime(form(defective()), tmp_path / "m.onnx", str(tmp_path / "arch.yaml"), 3)
    assert worst < 1e-5
    mnemonics = {code.mnemonic for section in program.program.sections for code in section.code}
    assert "mvm" in mnemonics and not mnemonics & {"charge", "dstate"}


def graph_of(system: StateSpace, last: bool = True) -> Graph:
    g = Graph()
    u = g.add("input", [], {"name": "u", "type": StreamType((system.inputs,))}, name="u")
    y = g.add("ssm", [u], {"system": system}, name="y", provenance=["Scan_1"])
    g.add("output", [y], {"name": "y"}, name="out")
    if last:
        g.add("output", [Value("y", 1)], {"name": "last"}, name="end")
    return g


def placed(graph: Graph, arch: Any, ideal: bool, options: str = "") -> tuple[Graph, Context]:
    context = Context(BACKEND.machine(arch, ideal=ideal), ideal=ideal)
    text = BACKEND.pipeline(arch, ideal=ideal).replace("diagonalize", f"diagonalize{options}")
    return PassManager(text).run(graph, context), context


@pytest.mark.parametrize("read_before", [False, True])
@pytest.mark.parametrize("dtype", [float, complex])
def test_blocks_and_forms_do_not_matter(read_before: bool, dtype: type) -> None:
    """Two groups, complex states as halves, states read before their step, a start: as the interpreter has it."""
    rng = np.random.default_rng(1)
    one = defective(3, 0.7)
    a = np.concatenate([one.A, one.A * 0.5]).astype(dtype)
    a = a * np.exp(0.3j) if dtype is complex else a
    b = rng.normal(size=(2, 3, 2)) + (1j * rng.normal(size=(2, 3, 2)) if dtype is complex else 0)
    system = StateSpace(a, b, rng.normal(size=(2, 1, 3)), np.zeros((2, 1, 2)), read_before=read_before)
    graph, arch = graph_of(system, last=dtype is float), changed(crossbar=FEEDBACK)
    tiled, _ = placed(graph, arch, ideal=True)
    assert list(tiled.nodes("tile.feedback")) and not list(tiled.nodes("tile.state"))
    u = {"u": rng.normal(size=(2, 17, 4))}
    want = interpret(graph, u)
    for block in (None, 1, 5):
        got = BACKEND.simulate(BACKEND.lower(tiled, arch, ideal=True), u, RunSettings(block=block)).outputs
        for name, value in want.items():
            assert np.abs(got[name] - value).max() < 1e-12 * np.abs(value).max()


def stacked(read_before: bool) -> Graph:
    """A layer with feedback, a product and another such layer in one loop."""
    rng, system = np.random.default_rng(1), replace(defective(6, 0.7), read_before=read_before)
    g = Graph()
    u = g.add("input", [], {"name": "u", "type": StreamType((2,))}, name="u")
    y = g.add("unary", [g.add("ssm", [u], {"system": system}, name="y")], {"fn": "tanh"})
    z = g.add("linear", [y], {"weight": Tensor(rng.normal(size=(2, 2)))})
    w = g.add("ssm", [z], {"system": system}, name="w")
    g.add("output", [w], {"name": "y"}, name="out")
    g.add("output", [Value("w", 1)], {"name": "last"}, name="end")
    return g


@pytest.mark.parametrize("read_before", [False, True])
def test_only_what_is_carried_goes_step_by_step(read_before: bool) -> None:
    """With the noise of devices the same bits in blocks of any size, and with one register for every step."""
    arch = changed(crossbar=FEEDBACK, devices={"product_bits": 7.0})
    tiled, _ = placed(stacked(read_before), arch, False, "{feedback_error=9}")
    assert len(list(tiled.nodes("tile.feedback"))) == 2
    program = BACKEND.lower(tiled, arch, ideal=False)
    (section,) = cores(program).values()
    (loop,) = (item for item in decode(section) if item.code.mnemonic == "loop")
    found = parts_of(decode(section), program.data)
    assert found is not None and len(found[loop.index]) == 2
    inside = sum(part.last - part.first + 1 for part in found[loop.index])
    assert inside < len(loop.body) / 2
    assert [words for part in found[loop.index] for _, words in part.carried] == [6, 6]
    u = {"u": np.random.default_rng(0).normal(size=(3, 23, 2))}
    results = [BACKEND.simulate(program, u, RunSettings(block=block, taps=True)) for block in (None, 1, 5, 23)]
    for result in results[1:]:
        for name in ("y", "last"):
            np.testing.assert_array_equal(result.outputs[name], results[0].outputs[name])
        for name, array in results[0].taps.items():
            np.testing.assert_array_equal(result.taps[name], array)


KEPT = "binary v[4], v[4], v[0], words=2, fn=add"


@pytest.mark.parametrize(
    ("inner", "outer", "parts"),
    [("copy v[6], v[0], words=2", KEPT, 1), (KEPT, "", None), ("", "copy v[4], v[0], words=2", 0)],
    ids=["a part", "within a guard", "nothing"],
)
def test_what_must_go_step_by_step_is_found(inner: str, outer: str, parts: int | None) -> None:
    text = f"""
    .section core0
    fill v[4], words=2
    loop rT, done
    recv v[0], 2, 0
    every stride=2, offset=0, inner
    {inner}
    inner: {outer}
    emit v[4], 2, 1
    done: halt
    """
    tree = decode(program(text).sections[0])
    found = parts_of(tree, {})
    assert found is None if parts is None else found is not None and len(found[tree[1].index]) == parts


def test_the_choice_and_what_it_is_told_by() -> None:
    graph, chip = graph_of(defective(size=0.5)), changed(crossbar=FEEDBACK, devices={"product_bits": 0.0})
    tiled, context = placed(graph, chip, ideal=False)
    (node,) = tiled.nodes("tile.feedback")
    assert node.op["bank"] == "feedback"
    rows = {choice.bank: choice for choice in context.banks if choice.node == node.name}
    assert set(rows) == {"volatile", "digital", "feedback"} and rows["feedback"].chosen
    assert all("feed each other" in rows[bank].objection for bank in ("volatile", "digital"))
    assert all(choice.joules is not None and choice.joules > 0 for choice in rows.values())
    assert 0 < rows["feedback"].error < 0.1
    assert any("no eigenbasis" in note.text for note in context.notes)
    for options, box, devices, words in (
        ("{feedback=never}", FEEDBACK, {}, ""),
        ("", {"feedback": False}, {}, ""),
        ("", FEEDBACK, {"product_bits": 2.0}, "would let the response err"),
    ):
        other, told = placed(graph, changed(crossbar=box, devices={"product_bits": 0.0, **devices}), False, options)
        assert not list(other.nodes("tile.feedback")) and list(other.nodes("tile.state"))
        assert any(words in note.text for note in told.notes)


def test_an_eigenbasis_comes_first_unless_it_costs_more() -> None:
    rng = np.random.default_rng(3)
    a = 0.5 * rng.normal(size=(3, 3)) / np.sqrt(3)
    system = StateSpace(a[None], rng.normal(size=(1, 3, 2)), rng.normal(size=(1, 2, 3)), np.zeros((1, 2, 2)))
    cheap = changed(
        crossbar=FEEDBACK, devices={"product_bits": 0.0}, energy={"digital_state": 1e3, "state_charge": 1e3}
    )
    for options, dense in (("{feedback=needed}", False), ("", True)):
        tiled, _ = placed(graph_of(system), cheap, False, options)
        assert bool(list(tiled.nodes("tile.feedback"))) == dense
    tiled, _ = placed(graph_of(system), changed(crossbar=FEEDBACK), False)
    assert not list(tiled.nodes("tile.feedback"))


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_the_choice_counts_is_what_is_compiled(dtype: type, seed: int) -> None:
    """Words of states, and weights of B and C on both sides of them, in either basis."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return rng.normal(size=shape) + (1j * rng.normal(size=shape) if dtype is complex else 0)

    a = draw(1, 5, 5)
    a *= 0.5 / np.abs(np.linalg.eigvals(a)).max()
    system = StateSpace(a, draw(1, 5, 2), draw(1, 3, 5), np.zeros((1, 3, 2)))
    dear = {"digital_state": 1e3, "state_charge": 1e3}
    chip = changed(crossbar=FEEDBACK, devices={"product_bits": 0.0}, energy=dear)
    matrix = fed_back(system, system.is_complex)[0]
    alone = in_eigenbasis(np.linalg.eigvals(matrix))
    counted = {False: alone.states * (2 if alone.is_complex else 1), True: len(matrix)}
    for options, dense in (("{feedback=needed}", False), ("", True)):
        tiled, context = placed(graph_of(system, last=False), chip, False, options)
        assert bool(list(tiled.nodes("tile.feedback"))) == dense
        pieces = [p for n in tiled.nodes("tile.matmul") if n.name != "y.through" for p in n.op["pieces"]]
        assert sum((p.k1 - p.k0) * (p.n1 - p.n0) for p in pieces) == counted[dense] * (2 + 3)
        if not dense:
            (node,) = tiled.nodes("tile.state")
            assert demand(node).states * (2 if demand(node).is_complex else 1) == counted[dense]
        assert any("J in an eigenbasis" in note.text for note in context.notes) == dense


def test_the_expected_error_is_near_the_measured_one() -> None:
    """States driven by white noise, products that err by a lumped figure: within a factor of two."""
    arch = changed(crossbar=FEEDBACK, devices={"product_bits": 7.0, "converters": False, "levels": False})
    system = defective(8, 0.7, inputs=8)
    system = StateSpace(system.A, np.eye(8)[None], np.eye(8)[None], np.zeros((1, 8, 8)))
    tiled, _ = placed(graph_of(system), arch, False, "{feedback_error=1}")
    (node,) = tiled.nodes("tile.feedback")
    bank = BACKEND.machine(arch, ideal=False).banks[-1]
    u = {"u": np.random.default_rng(5).normal(size=(8, 300, 8))}
    program = BACKEND.lower(tiled, arch, ideal=False)
    taps = [BACKEND.simulate(program, u, RunSettings(taps=True, noise=noise)).taps["y.x"] for noise in (None, "ideal")]
    measured = float(np.sqrt(np.square(taps[0] - taps[1]).mean() / np.square(taps[1]).mean()))
    assert 0.5 < measured / feedback_error(bank, demand(node)) < 2.0
