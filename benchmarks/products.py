"""512 x 512 products on 128 x 128 arrays, as the crossbar simulator runs them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from backends.cim import BACKEND
from backends.cim.arch import Architecture
from isa import Program, assemble
from ssmc.driver import INSTRUCTION_SETS
from ssmc.ir.op import Array
from ssmc.target import RunSettings

SIZE, ARRAY = 512, 128


def chip(**devices: Any) -> Architecture:
    """One core of 128 x 128 weights an array, 8-bit converters, and these non-idealities alone."""
    raw = BACKEND.load_arch(None).model_dump()
    raw["mesh"]["cores"] = 1
    raw["crossbar"] |= {"rows": ARRAY, "cols": ARRAY, "devices_per_weight": 1, "per_core": 16}
    raw["devices"] = devices
    return Architecture(**raw)


def program(weights: Any, arch: Architecture) -> Program:
    """A program whose every step is the product of its input with `weights` (512, 512)."""
    scale = np.abs(weights).max(0)
    data, setup, body = {}, [], []
    for n in range(SIZE // ARRAY):
        data[f"s{n}"] = scale[n * ARRAY : (n + 1) * ARRAY]
        for k in range(SIZE // ARRAY):
            number = n * (SIZE // ARRAY) + k
            data[f"w{k}_{n}"] = weights[k * ARRAY : (k + 1) * ARRAY, n * ARRAY : (n + 1) * ARRAY]
            setup.append(f"    program array={number}, row=0, col=0, @w{k}_{n}, @s{n}")
            body.append(
                f"    mvm v[{SIZE + n * ARRAY}], v[{k * ARRAY}], array={number}, row=0, rows={ARRAY}, col=0, "
                f"cols={ARRAY}{', accumulate' if k else ''}"
            )
    lines = [
        ".isa cim 3.0",
        ".arch",
        *(f"| {line}" for line in BACKEND.arch_text(arch).splitlines()),
        f'.input u stream [{SIZE}] float64 binding={{"channel": 0}}',
        f'.output y stream [{SIZE}] float64 binding={{"channel": 1}}',
        *(f".data @{name} {array.dtype} {list(array.shape)}" for name, array in data.items()),
        ".section core0",
        "    loop rT, done",
        f"    recv v[0], words={SIZE}, channel=0",
        *body,
        f"    emit v[{SIZE}], words={SIZE}, channel=1",
        "done:",
        "    halt",
        ".section core0.setup",
        *setup,
        "    halt",
    ]
    return assemble("\n".join(lines), "products", INSTRUCTION_SETS, data)


def rate(count: int = 4096, repeats: int = 25, **devices: Any) -> float:
    """Products a second of one thread's processor time, a batch of `count` at once.

    Programming the arrays is not counted: a run of a few products is subtracted. The best of some runs of each, since
    others may share the processor's caches.
    """
    rng = np.random.default_rng(0)
    code = program(rng.normal(size=(SIZE, SIZE)), chip(**devices))
    u = rng.normal(size=(8, count // 8, SIZE))
    few = u[:, :1].copy()
    long, short = (min(_seconds(code, given) for _ in range(repeats)) for given in (u, few))
    return (count - len(few)) / (long - short)


def _seconds(code: Program, u: Array) -> float:
    start = time.process_time()
    BACKEND.simulate(code, {"u": u}, RunSettings())
    return time.process_time() - start
