"""Compiling, running and saving, on a target that a third party adds."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from inspect import signature
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import isa
import ssmc
from ssmc import frontend, target
from ssmc.diagnostics import UserError
from ssmc.driver import Executable, compile_model, default_pipeline, load, load_model
from tests.driver import models


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> frontend.Model:
    model = load(models.scan_model(tmp_path_factory.mktemp("models") / "scan.onnx"))
    assert isinstance(model, frontend.Model)
    return model


@dataclass(frozen=True)
class ScaleReadout(ssmc.Pass):
    """Multiply every dense layer's weight by a factor: a lossy pass that a user might write."""

    name: ClassVar[str] = "scale-readout"
    lossy: ClassVar[bool] = True
    tolerance: float = float("inf")
    factor: float = 1.0

    def run(self, graph: ssmc.Graph, context: ssmc.Context) -> ssmc.Graph:
        graph = graph.copy()
        for node in graph.nodes("linear"):
            weight = ssmc.Tensor(node.op["weight"].array * self.factor)
            graph.set_op(node.name, node.op.with_attrs(weight=weight))
        return graph


def test_compile_run_save_load(toy: str, scan: frontend.Model, tmp_path: Path) -> None:
    executable = compile_model(scan, toy, ideal=True)
    given = models.sequences()
    result = executable.run(given)
    reference = frontend.reference(scan, given)
    assert list(result.outputs) == ["logits"] and result.outputs["logits"].dtype == np.float32
    np.testing.assert_allclose(result.outputs["logits"], reference["logits"], rtol=1e-4, atol=1e-5)
    executable.save(tmp_path / "p.ssmx")
    loaded = load(tmp_path / "p.ssmx")
    assert isinstance(loaded, Executable) and loaded.program == executable.program and loaded.ideal
    np.testing.assert_array_equal(loaded.run(given).outputs["logits"], result.outputs["logits"])


def test_the_same_input_gives_the_same_bytes(toy: str, scan: frontend.Model, tmp_path: Path) -> None:
    for name in ("a.ssmx", "b.ssmx"):
        compile_model(load(scan.path), toy).save(tmp_path / name)  # type: ignore[arg-type]
    assert (tmp_path / "a.ssmx").read_bytes() == (tmp_path / "b.ssmx").read_bytes()


def test_batch_and_length_come_with_the_input(toy: str, scan: frontend.Model) -> None:
    executable = compile_model(scan, toy, ideal=True)
    for batch, length in ((1, 1), (2, 40)):
        given = models.sequences(batch, length)
        expected = frontend.reference(scan, given)["logits"]
        np.testing.assert_allclose(executable.run(given).outputs["logits"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["cim", "epochcore"])
def test_a_program_does_not_grow_with_the_sequence(target: str, tmp_path: Path) -> None:
    sizes = []
    for length in (64, 16384):
        executable = compile_model(models.scan_model(tmp_path / "fixed.onnx", length=length), target)
        executable.save(tmp_path / "p.ssmx")
        sizes.append((tmp_path / "p.ssmx").stat().st_size)
        with pytest.raises(UserError, match=rf"takes \(batch, {length}, 2\)"):
            executable.run(models.sequences())
    assert abs(sizes[1] - sizes[0]) < 0.01 * sizes[0]


def test_one_step_model(toy: str, tmp_path: Path) -> None:
    executable = compile_model(models.step_model(tmp_path / "step.onnx"), toy, ideal=True)
    assert executable.interface.form == "step" and executable.interface.states == {"x": "x_next"}
    given = models.sequences()
    model = load(tmp_path / "step.onnx")
    assert isinstance(model, frontend.Model)
    whole = executable.run(given).outputs
    assert whole["y"].shape == (5, 12, models.H) and whole["x_next"].shape == (5, models.N)
    for name, array in frontend.reference(model, given).items():
        np.testing.assert_allclose(whole[name], array, rtol=1e-4, atol=1e-5)
    first = executable.run({"u": given["u"][:, :7]}).outputs
    second = executable.run({"u": given["u"][:, 7:], "x": first["x_next"]}).outputs
    np.testing.assert_allclose(second["y"], whole["y"][:, 7:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(second["x_next"], whole["x_next"], rtol=1e-5, atol=1e-6)


def test_a_user_pass_in_a_pipeline(toy: str, scan: frontend.Model) -> None:
    given = models.sequences()
    own = default_pipeline(toy)
    plain = compile_model(scan, toy).run(given).outputs["logits"]
    doubled = compile_model(scan, toy, passes=[ScaleReadout(factor=0.0), *own])
    assert not np.allclose(doubled.run(given).outputs["logits"], plain)
    assert doubled.compilation is not None
    assert doubled.compilation.context.losses[0].outputs["logits"] > 0
    ssmc.register(ScaleReadout)
    as_text = compile_model(scan, toy, passes="scale-readout{factor=0.0}, default")
    assert as_text.program == doubled.program


def test_models_are_loaded_as_the_frontend_loads_them() -> None:
    ours, theirs = (signature(of).parameters for of in (load_model, frontend.load_model))
    assert {name: p.default for name, p in ours.items()} == {name: p.default for name, p in theirs.items()}


def test_default_stands_for_the_targets_pipeline(toy: str, scan: frontend.Model) -> None:
    assert compile_model(scan, toy, passes="default").program == compile_model(scan, toy).program
    with pytest.raises(UserError, match="default-x"):
        compile_model(scan, toy, passes="default-x")


def test_noise_presets_are_checked(toy: str, scan: frontend.Model) -> None:
    executable = compile_model(scan, toy)
    given = models.sequences()
    loud = executable.run(given, noise="loud", seed=1).outputs["logits"]
    np.testing.assert_array_equal(loud, executable.run(given, noise="loud", seed=1).outputs["logits"])
    assert not np.array_equal(loud, executable.run(given, noise="loud", seed=2).outputs["logits"])
    with pytest.raises(UserError, match=r"no noise preset 'lowd'(.|\n)*did you mean 'loud'"):
        executable.run(given, noise="lowd")


def test_a_target_that_is_not_there(scan: frontend.Model) -> None:
    with pytest.raises(UserError, match=r"no target is called 'tpu'(.|\n)*cim, epochcore"):
        compile_model(scan, "tpu")


def test_a_target_that_is_broken_harms_no_other(monkeypatch: pytest.MonkeyPatch, scan: frontend.Model) -> None:
    point = EntryPoint("broken", "no_such_package:TARGET", "ssmc.backends")
    monkeypatch.setattr(target, "entry_points", lambda group: [*entry_points(group=group), point])
    target.backend.cache_clear()
    assert compile_model(scan, "epochcore").program.target == "epochcore"
    with pytest.raises(UserError, match=r"the target cannot be loaded(.|\n)*no_such_package"):
        compile_model(scan, "broken")
    target.backend.cache_clear()


def test_assembly_without_an_interface_says_so(toy: str, scan: frontend.Model) -> None:
    executable = compile_model(scan, toy)
    from dataclasses import replace

    bare = Executable(replace(executable.program, meta={}), executable.backend)
    with pytest.raises(UserError, match=r"does not say what its inputs(.|\n)*no '.input'"):
        bare.run(models.sequences())


def test_nothing_is_left_of_a_program_that_cannot_be_written(toy: str, scan: frontend.Model, tmp_path: Path) -> None:
    executable = compile_model(scan, toy)
    broken = Executable(isa.Program("toy", "1.0", data={"x": np.zeros(3)}, meta={"a": 1}), executable.backend)
    folder = tmp_path / "p.ssmx"
    folder.mkdir()
    with pytest.raises(UserError, match="this is a folder"):
        broken.save(folder)
    assert list(tmp_path.iterdir()) == [folder] and not list(folder.iterdir())


def test_verify(toy: str, scan: frontend.Model) -> None:
    given = models.sequences()
    good = ssmc.verify(scan, toy, given, ideal=True)
    assert good.passed and good.tolerance == 1e-5 and good.outputs["logits"].relative < 1e-5
    assert {layer.op for layer in good.layers} >= {"tile.matmul"} and all(x.error.relative < 1e-9 for x in good.layers)
    bad = ssmc.verify(scan, toy, given, ideal=True, passes=[ScaleReadout(factor=1.5), *default_pipeline(toy)])
    assert not bad.passed and bad.outputs["logits"].relative > 1e-2
    assert max(layer.error.relative for layer in bad.layers) > 1e-2


@pytest.mark.parametrize("batch", [4, 1])
def test_a_file_with_a_batch_of_its_own_is_scheduled_for_it(batch: int, tmp_path: Path) -> None:
    """Where samples together pay: a program for a known batch runs any other, too; a batch of one says nothing."""
    model = load(models.scan_model(tmp_path / "fixed.onnx", batch=batch, length=12))
    assert isinstance(model, frontend.Model)
    own, alone, overridden = (
        compile_model(model, "epochcore", ideal=True, passes=f"default{more}")
        for more in ("", ",schedule{together=1}", ",schedule{batch=2}")
    )
    assert own.compilation is not None
    notes = [note.text for note in own.compilation.notes if note.pass_name == "schedule"]
    assert notes == ([f"the file is for {batch} sequences at a time, and so the program is scheduled"] * (batch > 1))
    elsewhere = compile_model(model, "cim", ideal=True).compilation  # its samples follow each other, always
    assert elsewhere is not None and not [note for note in elsewhere.notes if note.pass_name == "schedule"]
    schedules = [made.program.meta.get("schedules", ()) for made in (own, alone, overridden)]
    batches = [{made["batch"] for made in found if made["choice"] == "samples"} for found in schedules]  # type: ignore
    assert batches == [{batch} if batch > 1 else set(), set(), {2}]
    for size in (1, 3, 4, 9):
        given = models.sequences(size)
        expected = frontend.reference(model, given)["logits"]
        for program in (own, alone, overridden):
            np.testing.assert_allclose(program.run(given).outputs["logits"], expected, rtol=1e-4, atol=1e-5)


def test_the_axes_of_a_step_are_no_sizes_of_time_or_batch(tmp_path: Path) -> None:
    made = compile_model(models.step_model(tmp_path / "step.onnx"), "epochcore").compilation
    assert made is not None and "steps" not in made.graph.attributes["schedule"]
