"""Programs whose code is right and whose metadata is not: status 2 and the place, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import isa
from tests.cli.conftest import Ssmc
from tests.cli.test_bad_input import refused

Damage = Callable[[dict[str, Any]], None]

EVERYWHERE: list[tuple[Damage, str]] = [
    (lambda told: told["meta"].update(interface=[]), r"\.meta interface(.|\n)*dictionary"),
    (lambda told: told["meta"].update(taps=7), r"\.meta taps(.|\n)*valid list"),
    (
        lambda told: told["meta"]["taps"][0].update(layer=[1]),
        r"\.meta taps(.|\n)*0\.layer: input should be",
    ),
    (lambda told: told["port"]["type"].update(rate="1/0"), r"\.meta interface(.|\n)*rate"),
    (lambda told: told["port"]["type"].update(shape="x"), r"inputs\.0\.type\.shape: input should be a valid list"),
    (lambda told: told["port"].update(axes=7), r"inputs\.0\.axes"),
    (lambda told: told["port"].update(axes="bbt"), r"inputs\.0\.axes"),
    (lambda told: told["port"].update(shape=[1 << 40]), r"inputs\.0\.shape"),
    (lambda told: told["given"]["type"].update(shape=[1 << 31]), r"outputs\.0\.type\.shape"),
    (lambda told: told["given"].update(axes="b"), "output 'logits' is not what the program's interface says"),
]
OF_TARGETS: dict[str, list[tuple[Damage, str]]] = {
    "cim": [
        (lambda told: told["input"].pop("channel"), "binding of the port 'u'(.|\n)*channel: field required"),
        (lambda told: told["input"].update(stride=9), "step [0-9]+ of an input of 12 is read"),
        (lambda told: told["input"].update(stride=0), "stride: input should be greater"),
        (lambda told: told["input"].update(offset="x"), "offset: input should be a valid integer"),
        (lambda told: told["meta"].update(meetings=[3]), r"\.meta meetings(.|\n)*0: "),
    ],
    "epochcore": [
        (lambda told: told["meta"]["taps"][0].update(at=1 << 20), r"taps, entry 0: layer .* after no instruction"),
        (lambda told: told["input"].update(stream=9), "port 'u' has no stream(.|\n)*stream 9, and there are"),
        (lambda told: told["input"].update(optional=7), "binding of the input 'u'(.|\n)*optional: input should be"),
        (lambda told: told["output"].update(stream={}), "binding of the output 'logits'(.|\n)*stream"),
        (lambda told: told["output"].update(constant="none"), "no constant 'none'"),
        (lambda told: told["meta"]["streams"][0].update(register="r9"), "streams, entry 0(.|\n)*'r9' is no register"),
        (
            lambda told: told["meta"]["streams"][0].update(register="n7"),
            "streams, entry 0(.|\n)*no instruction sets 'n7'",
        ),
        (lambda told: told["meta"]["streams"][0].update(part_of=[0, 99]), "entry 0: a stream is a part of something"),
        (lambda told: told["meta"].update(streams=[1]), r"\.meta streams"),
        (lambda told: told["meta"].update(streams=[]), "port 'u' has no stream"),
    ],
}


@pytest.mark.parametrize("target", OF_TARGETS)
def test_metadata(ssmc: Ssmc, folder: Path, target: str) -> None:
    assert ssmc("compile", "scan.onnx", "--target", target, "--ideal", "-o", "p.ssmx").status == 0
    whole = isa.load("p.ssmx")
    for damage, says in (*EVERYWHERE, *OF_TARGETS[target]):
        program = replace(whole, inputs=[replace(p, binding=json.loads(json.dumps(p.binding))) for p in whole.inputs])
        program = replace(
            program, outputs=[replace(p, binding=json.loads(json.dumps(p.binding))) for p in whole.outputs]
        )
        meta: dict[str, Any] = json.loads(json.dumps(dict(whole.meta)))
        port, given = meta["interface"]["inputs"][0], meta["interface"]["outputs"][0]
        bindings: Any = program.inputs[0].binding, program.outputs[0].binding
        damage({"meta": meta, "port": port, "given": given, "input": bindings[0], "output": bindings[1]})
        isa.save(replace(program, meta=meta), "q.ssmx")
        before = set(folder.iterdir())
        refused(ssmc("run", "q.ssmx", "--input", "x.npz", "--output", "y.npz"), folder, before, says)
