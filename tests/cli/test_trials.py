"""`ssmc run --trials`: Monte Carlo over devices, and what a run is strict about."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ssmc.interface import Interface, Port
from ssmc.ir import StreamType
from ssmc.trials import run_trials

from .conftest import Ssmc


def compiled(ssmc: Ssmc, *options: str) -> None:
    made = ssmc("compile", "scan.onnx", "--target", "cim", "-o", "p.ssmx", *options)
    assert made.status == 0, made.err


def test_trials_are_the_same_for_any_number_of_workers(ssmc: Ssmc, folder: Path) -> None:
    compiled(ssmc)
    np.savez(folder / "labels.npz", labels=np.array([0, 1, 2, 0, 1]))
    run = ("run", "p.ssmx", "--input", "x.npz", "--noise", "pcm", "--seed", "3", "--trials", "3", "--json")
    told = [json.loads(ssmc(*run, "--labels", "labels.npz", "--workers", str(n)).out)["trials"] for n in (1, 2)]
    assert told[0] == told[1]
    error, accuracy = told[0]["errors"]["logits"], told[0]["accuracy"]
    assert 0 < error["mean"] <= error["worst"] and error["spread"] > 0
    assert 0 <= accuracy["worst"] <= accuracy["mean"] <= 1 and 0 <= told[0]["perfect_accuracy"] <= 1
    assert (told[0]["count"], told[0]["seed"]) == (3, 3)


def test_a_trial_is_a_run_of_its_seed(ssmc: Ssmc, folder: Path) -> None:
    compiled(ssmc)
    base = ("run", "p.ssmx", "--input", "x.npz")

    def outputs(*options: str) -> np.ndarray:
        assert ssmc(*base, *options, "--output", "y.npz").status == 0
        with np.load(folder / "y.npz") as stored:
            return stored["logits"].astype(float)

    perfect = outputs("--noise", "ideal")
    errors = []
    for seed in ("5", "6"):
        noisy = outputs("--noise", "rram-wan", "--seed", seed)
        errors.append(np.sqrt(np.mean((noisy - perfect) ** 2) / np.mean(perfect**2)))
    trials = ("--noise", "rram-wan", "--seed", "5", "--trials", "2", "--stats", "s.json")
    outcome = ssmc(*base, *trials)
    assert outcome.status == 0 and "error of logits" in outcome.out
    told = json.loads((folder / "s.json").read_text())["trials"]["errors"]["logits"]
    assert np.allclose(
        [told["mean"], told["spread"], told["worst"]], [np.mean(errors), np.std(errors, ddof=1), max(errors)]
    )


def test_settings_of_the_noise(ssmc: Ssmc, folder: Path) -> None:
    compiled(ssmc)
    run = ("run", "p.ssmx", "--input", "x.npz", "--trials", "1", "--json", "--noise")

    def error(noise: str) -> float:
        outcome = ssmc(*run, noise)
        assert outcome.status == 0, outcome.err
        return float(json.loads(outcome.out)["trials"]["errors"]["logits"]["mean"])

    assert error("ideal") == 0
    assert error("pcm{programming_scale=0,read_scale=0,drift=none,converters=no}") < 1e-6
    assert error("pcm{programming_scale=2}") > error("pcm") > error("pcm{programming_scale=0.1,read_scale=0}")
    assert error("arch{product_bits=2}") > error("arch")
    for wrong, word in (("pcm{loud=1}", "loud"), ("pcm{read_scale=-1}", "read_scale"), ("pcm{", "no noise preset")):
        outcome = ssmc(*run, wrong)
        assert outcome.status == 2 and word in outcome.err


def test_what_trials_refuse(ssmc: Ssmc, folder: Path) -> None:
    compiled(ssmc)
    run = ("run", "p.ssmx", "--input", "x.npz")
    assert "--trials" in ssmc(*run, "--workers", "2").err
    np.savez(folder / "short.npz", labels=np.array([0, 1]))
    outcome = ssmc(*run, "--trials", "2", "--labels", "short.npz")
    assert outcome.status == 2 and "labels of shape (2,)" in outcome.err
    assert ssmc("compile", "scan.onnx", "--target", "epochcore", "-o", "e.ssmx").status == 0
    outcome = ssmc("run", "e.ssmx", "--input", "x.npz", "--trials", "2")
    assert outcome.status == 2 and "no devices to draw" in outcome.err


def test_the_class_of_a_stream_is_that_of_its_last_step() -> None:
    ports = [Port(name, "btf", ("batch", "time", 2), "float32", "data", StreamType((2,))) for name in ("u", "y")]
    given = np.array([[[9.0, 0.0], [0.0, 1.0]], [[0.0, 9.0], [1.0, 0.0]], [[9.0, 0.0], [1.0, 0.0]]])
    stub: Any = SimpleNamespace(
        backend=SimpleNamespace(name="stub", noise_presets=lambda: ["ideal"]),
        interface=Interface("sequence", (ports[0],), (ports[1],)),
        simulate=lambda inputs, settings: SimpleNamespace(outputs={"y": inputs["u"]}),
    )
    assert run_trials(stub, {"u": given}, 1, labels=np.array([1, 0, 0])).perfect_accuracy == 1.0
