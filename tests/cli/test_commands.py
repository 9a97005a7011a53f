"""What every command does, and the shapes that other programs rely on."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import samples
from ssmc.cli.main import COMMANDS
from tests.cli.conftest import Ssmc

TARGETS = ("cim", "epochcore")


def keys(value: dict[str, Any], *names: str) -> None:
    assert list(value) == list(names)


def test_help_is_quick_and_imports_little() -> None:
    script = "import sys; from ssmc.cli.main import run; run(['--help']); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for name in COMMANDS:
        assert f"  {name} " in out
    for heavy in ("numpy", "onnx", "rich", "lark", "networkx", "pydantic", "scipy"):
        assert f"'{heavy}'" not in out.splitlines()[-1]
    command = [sys.executable, "-m", "ssmc", "--help"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert busy < 0.3  # of the processor's time, so that other work does not count; benchmarks measure the clock


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(ssmc: Ssmc, name: str) -> None:
    outcome = ssmc(name, "--help")
    assert outcome.status == 0 and outcome.out.startswith(f"Usage: ssmc {name}")
    assert ssmc().status == 0 and ssmc("--version").out.startswith("ssmc ")


@pytest.mark.parametrize("target", TARGETS)
def test_the_whole_road(ssmc: Ssmc, folder: Path, target: str) -> None:
    made = ssmc("compile", "scan.onnx", "--target", target, "--ideal", "-o", "p.ssmx", "--emit", "asm,ir,report")
    assert made.status == 0, made.err
    assert made.out.startswith("p.ssmx: ")
    report = json.loads((folder / "p.report.json").read_text())
    assert report["target"] == target and report["ideal"] is True and report["passes"]
    assert (folder / "p.ir").read_text().startswith("graph @")
    done = ssmc("run", "p.ssmx", "--input", "x.npz", "--output", "y.npz", "--stats", "s.json", "--trace", "t.json")
    assert done.status == 0, done.err
    with np.load("y.npz") as stored:
        outputs = dict(stored)
    assert list(outputs) == ["logits"]
    assert outputs["logits"].shape == (5, 3) and outputs["logits"].dtype == np.float32
    stats = json.loads((folder / "s.json").read_text())
    keys(
        stats,
        *(
            "target",
            "arch",
            "cycles",
            "seconds",
            "energy_joules",
            "instructions",
            "macs",
            "batch",
            "steps",
            "layers",
            "notes",
        ),
    )
    assert (stats["target"], stats["batch"], stats["steps"]) == (target, 5, 12)
    assert stats["cycles"] > 0 and stats["seconds"] > 0 and stats["energy_joules"] > 0 and stats["macs"] > 0
    for layer in stats["layers"]:
        keys(layer, "name", "onnx_nodes", "op", "cycles", "seconds", "energy_joules", "utilization")
    named = {node for layer in stats["layers"] for node in layer["onnx_nodes"]}
    assert {"MatMul_in", "Gemm_out"} <= named
    energy = sum(layer["energy_joules"] or 0 for layer in stats["layers"])
    assert energy <= stats["energy_joules"] * (1 + 1e-9)
    trace = json.loads((folder / "t.json").read_text())
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert slices and all({"name", "ts", "dur", "pid", "tid"} <= set(event) for event in slices)
    rows = {(event["pid"], event["tid"]) for event in trace["traceEvents"] if event["name"] == "thread_name"}
    assert {(event["pid"], event["tid"]) for event in slices} <= rows  # numbered rows, each with a name
    assert all(type(number) is int for row in rows for number in row)
    again = json.loads(ssmc("run", "p.ssmx", "--input", "x.npz", "--json").out)
    assert again == stats
    told = ssmc("run", "p.ssmx", "--input", "x.npz", "--layers").out
    assert "logits: float32 (5, 3)" in told and all(layer["name"] in told for layer in stats["layers"])


@pytest.mark.parametrize("target", TARGETS)
def test_text_and_program_are_the_same(ssmc: Ssmc, folder: Path, target: str) -> None:
    assert ssmc("compile", "scan.onnx", "--target", target, "-o", "p.ssmx", "--emit", "asm").status == 0
    assert ssmc("disasm", "p.ssmx").out == (folder / "p.asm").read_text()
    assert ssmc("asm", "p.asm", "-o", "q.ssmx", "--data", "p.ssmx").status == 0
    assert (folder / "p.ssmx").read_bytes() == (folder / "q.ssmx").read_bytes()
    assert ssmc("compile", "scan.onnx", "--target", target, "-o", "r.ssmx").status == 0
    assert (folder / "p.ssmx").read_bytes() == (folder / "r.ssmx").read_bytes()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", ["scan.onnx", "step.onnx"])
def test_verify(ssmc: Ssmc, folder: Path, target: str, model: str) -> None:
    outcome = ssmc("verify", model, "--target", target, "--input", "long.npz", "--ideal", "--json")
    assert outcome.status == 0, outcome.err + outcome.out
    told = json.loads(outcome.out)
    keys(told, "passed", "tolerance", "outputs", "layers", "note")
    assert told["passed"] is True and 1e-5 <= told["tolerance"] <= 1e-4
    assert set(told["outputs"]) == ({"logits"} if model == "scan.onnx" else {"y", "x_next"})
    for error in told["outputs"].values():
        keys(error, "max_relative_error", "max_abs_error", "worst_index")
        assert error["max_relative_error"] <= told["tolerance"]
    assert told["layers"]
    for layer in told["layers"]:
        assert {"name", "op", "onnx_nodes", "max_relative_error", "max_abs_error", "worst_index"} == set(layer)
        assert layer["max_relative_error"] < 1e-6
    strict = ssmc("verify", model, "--target", target, "--input", "x.npz", "--tolerance", "1e-15", "--json")
    assert strict.status == 1 and json.loads(strict.out)["passed"] is False
    people = ssmc("verify", model, "--target", target, "--input", "x.npz", "--ideal")
    assert people.status == 0 and "passed (tolerance" in people.out


@pytest.mark.parametrize("target", TARGETS)
def test_one_step_models_stream(ssmc: Ssmc, folder: Path, target: str) -> None:
    assert ssmc("compile", "step.onnx", "--target", target, "--ideal", "-o", "p.ssmx").status == 0
    assert ssmc("run", "p.ssmx", "--input", "x.npz", "--output", "y.npz").status == 0
    with np.load("y.npz") as stored:
        whole = dict(stored)
    assert {name: array.shape for name, array in whole.items()} == {"y": (5, 12, 6), "x_next": (5, 4)}
    with np.load("x.npz") as stored:
        u = stored["u"]
    np.savez("first.npz", u=u[:, :4])
    assert ssmc("run", "p.ssmx", "--input", "first.npz", "--output", "a.npz").status == 0
    np.savez("rest.npz", u=u[:, 4:], x=np.load("a.npz")["x_next"])
    assert ssmc("run", "p.ssmx", "--input", "rest.npz", "--output", "b.npz").status == 0
    joined = np.concatenate([np.load("a.npz")["y"], np.load("b.npz")["y"]], axis=1)
    np.testing.assert_allclose(joined, whole["y"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_step_by_step_gives_the_same(ssmc: Ssmc, folder: Path, target: str) -> None:
    assert ssmc("compile", "scan.onnx", "--target", target, "-o", "p.ssmx").status == 0
    found = []
    for block in ((), ("--block", "1"), ("--block", "7")):
        assert ssmc("run", "p.ssmx", "--input", "x.npz", "--output", "y.npz", "--seed", "3", *block).status == 0
        found.append(np.load("y.npz")["logits"])
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def test_inspect(ssmc: Ssmc, folder: Path) -> None:
    told = json.loads(ssmc("inspect", "scan.onnx", "--json").out)
    assert len(told["systems"]) == 1 and told["unsupported"] == []
    system = told["systems"][0]
    assert {"kind", "groups", "states", "inputs", "outputs", "complex", "time_constants", "onnx_nodes"} <= set(system)
    assert system["complex"] is False and "body/Mul" in system["onnx_nodes"]
    assert system["groups"] * system["states"] == 4
    constants = np.sort(np.ravel(system["time_constants"]))
    expected = np.sort(-1 / np.log(0.9 * np.linspace(0.7, 1.0, 4)))  # in steps
    np.testing.assert_allclose(constants, expected, rtol=1e-4)
    assert np.all(np.ravel(system["frequencies"]) == 0.0) and system["kernel"] is None
    assert {proof["against"] for proof in told["proofs"]} == {"the file in float64", "onnxruntime"}
    people = ssmc("inspect", "scan.onnx")
    assert people.status == 0 and "state-space systems: 1" in people.out and "everything compiles" in people.out
    assert "time constants in steps" in people.out and "from the file in float64" in people.out


def test_rounding_is_left_out_where_it_is_asked_for(ssmc: Ssmc, folder: Path) -> None:
    """A state rounded at every step: as the file says, or left out, with what that changes told."""
    constants = {"a": 0.5, "s": 1 / 64}
    weights = [numpy_helper.from_array(np.full(2, value, np.float32), name) for name, value in constants.items()]
    steps = [("Mul", "xa", "p"), ("Add", "pu", "q"), ("Div", "qs", "d"), ("Round", "d", "r"), ("Mul", "rs", "n")]
    nodes = [helper.make_node(kind, list(operands), [result]) for kind, operands, result in steps]
    nodes.append(helper.make_node("Tanh", ["n"], ["y"], name="out"))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 2]) for name in "uxyn"]
    graph = helper.make_graph(nodes, "g", ports[:2], ports[2:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "rounded.onnx")
    people = ssmc("inspect", "rounded.onnx").out
    assert "rounded real" in people and "the sum is rounded at every step to 0.0156 times any code" in people
    (system,) = json.loads(ssmc("inspect", "rounded.onnx", "--json").out)["systems"]
    assert [(grid["place"], grid["scales"]) for grid in system["grids"]] == [("sum", [1 / 64, 1 / 64])]
    told = json.loads(ssmc("inspect", "rounded.onnx", "--drop-rounding", "--json").out)
    assert not told["unsupported"] and len(told["systems"]) == 1
    made = ssmc("compile", "rounded.onnx", "--drop-rounding", "--target", "cim", "--ideal", "-o", "r.ssmx").out
    assert all("rounding by 1 node is left out" in text for text in (*told["notes"][:1], made))


def test_a_sum_that_never_fades_is_told(ssmc: Ssmc, folder: Path) -> None:
    weight = numpy_helper.from_array(np.asarray(1, np.int64), "axis")
    nodes = [helper.make_node("CumSum", ["x", "axis"], ["s"]), helper.make_node("Tanh", ["s"], ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 16, 2]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "sum.onnx")
    assert "forever" in ssmc("inspect", "sum.onnx").out
    (system,) = json.loads(ssmc("inspect", "sum.onnx", "--json").out)["systems"]
    assert system["time_constants"] == [[None], [None]]


@pytest.mark.parametrize("noise", [0.0, 1e-2])
def test_inspect_tells_what_became_of_a_kernel(ssmc: Ssmc, folder: Path, noise: float) -> None:
    """A decaying kernel becomes a system with its residual; one with noise in its taps stays a filter."""
    rng, steps = np.random.default_rng(3), 48
    poles, weights = np.array([[0.5, 0.9], [0.7, 0.95]]), rng.standard_normal((2, 2))
    taps = (weights[..., None] * poles[..., None] ** np.arange(steps)).sum(axis=1)
    taps += noise * rng.standard_normal(taps.shape)
    weight = numpy_helper.from_array(np.float32(taps[:, None, ::-1]), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="taps", group=2, pads=[steps - 1, 0])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, steps]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "conv.onnx")
    (system,) = json.loads(ssmc("inspect", "conv.onnx", "--json").out)["systems"]
    told, people = system["kernel"], ssmc("inspect", "conv.onnx").out
    assert system["onnx_nodes"] == ["taps"] and (told["kernels"], told["taps"]) == (2, steps)
    if noise:
        assert system["kind"] == "fir" and told["residual"] == told["l1"] == 0.0 and "stay FIR filters" in people
        (loose,) = json.loads(ssmc("inspect", "conv.onnx", "--lift-tolerance", "0.1", "--json").out)["systems"]
        assert loose["states"] == 2 and 1e-3 < loose["kernel"]["residual"] < 0.1
        return
    assert system["states"] == 2 and 0.0 < told["residual"] < 1e-6
    np.testing.assert_allclose(np.sort(system["time_constants"]), -1 / np.log(poles), rtol=1e-3)
    assert np.abs(taps).max() * told["residual"] <= told["l1"] <= steps * np.abs(taps).max() * told["residual"]
    assert "identified from the taps" in people and "max|u| for every u" in people


def test_inspect_tells_what_would_not_compile(ssmc: Ssmc, folder: Path) -> None:
    told = json.loads(ssmc("inspect", "unsupported.onnx", "--json").out)
    assert told["systems"] == [] and "Hardmax_over_time" in json.dumps(told["unsupported"])
    people = ssmc("inspect", "unsupported.onnx")
    assert people.status == 0 and "would not compile" in people.out and "Hardmax_over_time" in people.out


def test_inspect_tells_that_there_is_no_system(ssmc: Ssmc, folder: Path) -> None:
    people = ssmc("inspect", "no_ssm.onnx")
    assert people.status == 0 and "would not compile" in people.out and "no state-space system" in people.out


def test_states_can_be_named(ssmc: Ssmc, folder: Path) -> None:
    arguments = ("compile", "step.onnx", "--target", "epochcore", "-o", "p.ssmx", "--state", "x=x_next")
    assert ssmc(*arguments).status == 0


def test_print_ir_after(ssmc: Ssmc, folder: Path) -> None:
    arguments = ("compile", "scan.onnx", "--target", "cim", "-o", "p.ssmx", "--print-ir-after")
    one = ssmc(*arguments, "tile")
    assert one.status == 0 and one.err.count("// after tile") == 1 and "%" in one.err
    every = ssmc(*arguments, "all")
    assert every.err.count("// after ") > 3


def test_passes_option(ssmc: Ssmc, folder: Path) -> None:
    arguments = ("compile", "scan.onnx", "--target", "cim", "-o", "p.ssmx", "--json", "--passes")
    told = json.loads(ssmc(*arguments, "share-decays{levels=1},default").out)
    assert told["passes"][0]["name"] == "share-decays"
    assert any("share-decays{levels=1}" in loss["pass_text"] for loss in told["losses"])


def test_explain_tells_banks_and_losses(ssmc: Ssmc, folder: Path) -> None:
    arguments = ("compile", "scan.onnx", "--target", "cim", "-o", "p.ssmx")
    told = ssmc(*arguments, "--explain")
    assert told.status == 0, told.err
    for word in ("state banks", "volatile", "digital", "chosen", "losses by layer"):
        assert word in told.out
    assert "warning" not in told.out
    report = json.loads(ssmc(*arguments, "--json").out)
    chosen = [choice for choice in report["banks"] if choice["chosen"]]
    assert chosen and all(choice["joules"] > 0 and not choice["objection"] for choice in chosen)


def test_explain_shows_what_is_chosen_by_cost_alone(ssmc: Ssmc, folder: Path) -> None:
    """On epochcore a layer's form decides what its states cost, and where they are: banks are no choice."""
    arguments = ("compile", "scan.onnx", "--target", "epochcore", "-o", "p.ssmx")
    told = ssmc(*arguments, "--explain").out
    assert "bank" not in told and "cycles" in told[told.index("forms of") :]
    chosen = [choice for choice in json.loads(ssmc(*arguments, "--json").out)["banks"] if choice["chosen"]]
    assert chosen  # as those who make passes want to know


def test_explain_tells_what_is_coupled_and_why_not(ssmc: Ssmc, folder: Path) -> None:
    told = ssmc("compile", "scan.onnx", "--target", "cim", "-o", "p.ssmx", "--explain")
    assert told.status == 0 and "states and arrays" in told.out
    sample = samples.load("realdecay-vowels")
    np.savez(folder / "some.npz", **{name: array[:20] for name, array in sample.calibration.items()})
    arguments = ("compile", str(sample.model_path), "--target", "cim", "-o", "v.ssmx", "--json")
    for extra, chosen, objection in (
        (("--calibrate", "some.npz"), [True] * 4, ""),
        ((), [False] * 4, "--calibrate"),
        (("--calibrate", "some.npz", "--passes", "tile,map-weights,couple{sides=in},calibrate,schedule"), None, ""),
    ):
        found = json.loads(ssmc(*arguments, *extra).out)["couplings"]
        assert all(objection in choice["objection"] for choice in found)
        assert [choice["chosen"] for choice in found] == chosen or chosen is None
    assert {choice["side"] for choice in found if choice["chosen"]} == {"in"}
    assert all(choice["joules"] > 0 and choice["coupled"] > 0 for choice in found if choice["chosen"])


def test_explain_tells_the_units_of_fixed_point_states(ssmc: Ssmc, folder: Path) -> None:
    arguments = ("compile", "scan.onnx", "--target", "epochcore", "-o", "p.ssmx")
    told = ssmc(*arguments, "--explain")
    assert told.status == 0 and "fixed-point states" in told.out and "random inputs" in told.out
    data = (*arguments, "--calibrate", "x.npz", "--json")
    report = json.loads(ssmc(*data).out)["units"]
    assert report and all(choice["source"] == "calibration data" for choice in report)
    assert json.loads(ssmc(*data, "--passes", "default,choose-units{by=off}").out)["units"] == []
    assert json.loads(ssmc(*data, "--ideal").out)["units"] == []


def test_explain_of_states_that_grow(ssmc: Ssmc, folder: Path) -> None:
    """Products fed back would err without bound there."""
    told = ssmc("compile", "unstable.onnx", "--target", "cim", "-o", "p.ssmx", "--explain")
    assert told.status == 0, told.err
    assert "can only decay" in told.out and "no bound" in told.out


def test_a_latency_that_is_long_against_the_states_is_told(ssmc: Ssmc, folder: Path) -> None:
    text = samples.arch_path("cim-large").read_text().replace("clock_hertz: 1.0e+8", "clock_hertz: 1.0e+3")
    (folder / "slow.yaml").write_text(text)
    told = ssmc("compile", "scan.onnx", "--target", "cim", "--arch", "slow.yaml", "-o", "p.ssmx")
    assert told.status == 0 and "warning: an event takes" in told.out


def test_listings(ssmc: Ssmc, folder: Path) -> None:
    passes = json.loads(ssmc("passes", "--json").out)
    names = [entry["name"] for entry in passes]
    expected = "fold-constants fold-norms discretize diagonalize halve-conjugates share-decays quantize tile"
    assert set(expected.split()) <= set(names) and all(entry["doc"] for entry in passes)
    text = ssmc("passes").out
    assert all(name in text for name in names)
    assert "levels" in ssmc("passes", "share-decays").out
    targets = json.loads(ssmc("targets", "--json").out)
    assert [target["name"] for target in targets] == ["cim", "epochcore"]
    for target in targets:
        assert target["default_arch"] in target["architectures"] and target["noise_presets"] is not None
        shown = ssmc("targets", target["name"]).out
        (folder / "own.yaml").write_text(shown)
        assert ssmc("targets", target["name"], "--arch", "own.yaml").out == shown
        keys = json.loads(ssmc("targets", target["name"], "--keys", "--json").out)
        told = ssmc("targets", target["name"], "--keys").out
        assert keys and all(key["path"] in told and key["meaning"] for key in keys)
        manual = ssmc("isa", target["name"])
        assert manual.status == 0 and manual.out.startswith("# ")
        table = json.loads(ssmc("isa", target["name"], "--json").out)
        assert all(f"`{spec['mnemonic']}`" in manual.out for spec in table["instructions"])
    assert ssmc("targets").status == 0 and ssmc("isa").status == 0


def test_output_into_a_closed_pipe(folder: Path) -> None:
    command = f"{sys.executable} -m ssmc.cli.main isa cim | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"})
    assert done.stderr == "" and done.stdout.startswith("# ")


def test_a_heatmap_needs_elements_and_matplotlib(ssmc: Ssmc, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for target in TARGETS:
        assert ssmc("compile", "scan.onnx", "--target", target, "-o", f"{target}.ssmx").status == 0
    given = ("--input", "x.npz", "--heatmap", "h.png")
    if importlib.util.find_spec("matplotlib"):
        assert ssmc("run", "epochcore.ssmx", *given).status == 0
        assert (folder / "h.png").read_bytes().startswith(b"\x89PNG")
        done = ssmc("run", "cim.ssmx", *given)
        assert done.status == 2 and "no array of processing elements" in done.err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = ssmc("run", "epochcore.ssmx", *given)
    assert done.status == 2 and "pip install 'ssmc[plots]'" in done.err


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """The pipe closes at once; nobody has said no."""
    command = [sys.executable, "-m", "ssmc", "isa", "epochcore"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=60) == 0 and process.stderr.read() == b""
