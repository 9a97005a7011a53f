"""A network of the published size for spoken digits (6 layers, 96 features, 128 states) on event sequences.

`python -m benchmarks.events SEQUENCES EVENTS` prints seconds and GB.
"""

from __future__ import annotations

import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from backends.cim import BACKEND
from backends.cim.arch import Architecture
from isa import Program, assemble
from ssmc.driver import INSTRUCTION_SETS
from ssmc.target import RunSettings

LAYERS, H, P, TOKENS, CLASSES = 6, 96, 128, 700, 20
EVERYTHING = {
    "programming": "rram-wan",
    "drift": "pcm",
    "drift_compensation": True,
    "read_noise": "pcm",
    "product_bits": 4.6,
    "stuck_low": 0.001,
    "stuck_high": 0.001,
    "dac_offset": 0.2,
    "adc_offset": 0.2,
    "wire_ohms": 0.5,
    "decay_sigma": 0.05,
    "cycle_sigma": 0.02,
    "write_saturation": 1.0,
}


def chip(devices: dict[str, Any]) -> Architecture:
    """The large chip with these non-idealities."""
    raw = BACKEND.load_arch(None).model_dump()
    raw["crossbar"]["adc_range"] = "norm"
    raw["devices"] = devices
    return Architecture(**raw)


class _Arrays:
    """Matrices in arrays of one core, and the instructions that program and read them."""

    def __init__(self, arch: Architecture, data: dict[str, Any]) -> None:
        self.arch, self.data = arch, data
        self.setup: list[str] = []
        self.next = 0

    def product(self, name: str, weights: Any, src: int, dst: int) -> list[str]:
        rows, cols, body = self.arch.crossbar.rows, self.arch.weight_cols, []
        scale = np.abs(weights).max(0)
        for n in range(0, weights.shape[1], cols):
            for k in range(0, weights.shape[0], rows):
                part = weights[k : k + rows, n : n + cols]
                label = f"{name}_{k}_{n}"
                self.data[label], self.data[f"{label}s"] = part, scale[n : n + cols]
                self.setup.append(f"    program array={self.next}, row=0, col=0, @{label}, @{label}s")
                body.append(
                    f"    mvm v[{dst + n}], v[{src + k}], array={self.next}, row=0, rows={part.shape[0]}, col=0, "
                    f"cols={part.shape[1]}{', accumulate' if k else ''}"
                )
                self.next += 1
        return body


def program(devices: dict[str, Any], layers: int = LAYERS) -> Program:
    """u -> SSM -> norm -> y sigmoid(W gelu(y)) -> + u, six times, a core a layer; then the mean and a dense layer."""
    rng = np.random.default_rng(0)
    arch = chip(devices)
    data: dict[str, Any] = {"table": rng.normal(size=(TOKENS, H))}
    text: list[str] = []
    for layer in range(layers):
        text += _layer(_Arrays(arch, data), rng, layer, layer == layers - 1)
    lines = [
        ".isa cim 3.0",
        ".arch",
        *(f"| {line}" for line in BACKEND.arch_text(arch).splitlines()),
        '.input token stream [1] float64 binding={"channel": 0}',
        '.input dt stream [1] float64 binding={"channel": 1}',
        f'.output logits sequence [{CLASSES}] float64 binding={{"channel": 2}}',
        *(f".data @{name} {array.dtype} {list(array.shape)}" for name, array in data.items()),
        *text,
    ]
    return assemble("\n".join(lines), "events", INSTRUCTION_SETS, data)


def _layer(arrays: _Arrays, rng: np.random.Generator, layer: int, last: bool) -> list[str]:
    """The sections of one core."""
    u, x, y, g, t, dt = 0, H, H + P, 2 * H + P, 3 * H + P, 4 * H + P
    tau = np.exp(rng.uniform(np.log(1.3), np.log(105.0), size=P))  # ms, as published for SHD
    arrays.data[f"r{layer}"] = -1.0 / tau
    b, c, w = (rng.normal(size=shape) / np.sqrt(shape[0]) for shape in ((H, P), (P, H), (H, H)))
    if layer:
        receive = [
            f"    recv v[{u}], words={H}, channel={10 + layer}",
            f"    recv v[{dt}], words=1, channel={20 + layer}",
        ]
    else:
        receive = [
            f"    recv v[{t}], words=1, channel=0",
            f"    embed v[{u}], v[{t}], count=1, @table",
            f"    recv v[{dt}], words=1, channel=1",
        ]
    send = (
        [f"    pool v[{g}], words={H}, line=0, mean"]
        if last
        else [
            f"    send v[{g}], words={H}, channel={11 + layer}, core={layer + 1}",
            f"    send v[{dt}], words=1, channel={21 + layer}, core={layer + 1}",
        ]
    )
    head = (
        [
            f"    pooled v[{u}], words={H}, line=0",
            *arrays.product("head", rng.normal(size=(H, CLASSES)), u, y),
            f"    emit v[{y}], words={CLASSES}, channel=2",
        ]
        if last
        else []
    )
    return [
        f".section core{layer}",
        "    loop rT, done",
        *receive,
        *arrays.product(f"b{layer}", b, u, x),
        f"    charge v[{x}], v[{x}], words={P}, node=0, @r{layer}, window=200.0, dt=v[{dt}], timed",
        *arrays.product(f"c{layer}", c, x, y),
        f"    norm v[{y}], v[{y}], features={H}, layer, epsilon=1e-5",
        f"    unary v[{t}], v[{y}], words={H}, gelu",
        *arrays.product(f"w{layer}", w, t, g),
        f"    gate v[{g}], v[{y}], v[{g}], words={H}, sigmoid",
        f"    binary v[{g}], v[{g}], v[{u}], words={H}, add",
        *send,
        "done:",
        *head,
        "    halt",
        f".section core{layer}.setup",
        *arrays.setup,
        "    halt",
    ]


def measure(sequences: int = 1000, events: int = 1000) -> tuple[float, float]:
    """Seconds of processor time with all non-idealities, programming included, and the largest memory in GB."""
    rng = np.random.default_rng(1)
    token = rng.integers(0, TOKENS, size=(sequences, events, 1)).astype(float)
    dt = rng.exponential(size=(sequences, events, 1))
    code = program(EVERYTHING)
    start = time.process_time()
    BACKEND.simulate(code, {"token": token, "dt": dt}, RunSettings())
    return time.process_time() - start, _peak_gigabytes()


def _peak_gigabytes() -> float:
    """Of this program alone; ru_maxrss starts with what the process that started it held (Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
    assert found is not None
    return 1024 * int(found[1]) / 1e9


if __name__ == "__main__":
    print(*measure(*map(int, sys.argv[1:])))
