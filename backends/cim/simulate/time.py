"""Lines and accumulators: what carries words from step to step besides the states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.cim.program.decode import Item
from backends.cim.simulate.core import Channel, Core, Trap
from ssmc.ir.op import Array


def _past(core: Core, code: Item, steps: int) -> Array:
    """(batch, steps, words) of a line, oldest first; zeros in the beginning."""
    line = code.integer("line")
    if line not in core.lines:
        core.lines[line] = np.zeros((core.batch, steps, code.integer("words")))
    held: Array = _kept(core, code, np.ndarray)
    if held.shape[1:] != (steps, code.integer("words")):
        raise Trap(f"line {line} holds {held.shape[1]} steps of {held.shape[2]} words, and other sizes are asked of it")
    return held


def _kept(core: Core, code: Item, kind: type[Any]) -> Any:
    """What a line holds. Raises Trap where that is of another kind."""
    held = core.lines[code.integer("line")]
    if not isinstance(held, kind):
        raise Trap(f"line {code.integer('line')} holds something else", hint="give every line one use")
    return held


def _fir(core: Core, code: Item) -> None:
    kernel = core.data[code.text("kernel")]  # (words, taps)
    taps, steps = kernel.shape[1], core.count
    padded = np.concatenate(
        [_past(core, code, taps - 1), core.full(core.read(code.integer("src"), code.integer("words")))],
        axis=1,
    )
    y = padded[:, taps - 1 :] * kernel[:, 0]
    for j in range(1, taps):
        y += padded[:, taps - 1 - j : taps - 1 - j + steps] * kernel[:, j]
    core.lines[code.integer("line")] = padded[:, padded.shape[1] - (taps - 1) :].copy()
    core.write(code.integer("dst"), y)


def _delay(core: Core, code: Item) -> None:
    steps = code.integer("steps")
    padded = np.concatenate(
        [_past(core, code, steps), core.full(core.read(code.integer("src"), code.integer("words")))],
        axis=1,
    )
    core.lines[code.integer("line")] = padded[:, padded.shape[1] - steps :].copy()
    core.write(code.integer("dst"), padded[:, : core.count])


def _prime(core: Core, code: Item) -> None:
    words, steps = code.integer("words"), code.integer("steps")
    x = np.broadcast_to(core.read(code.integer("src"), words * steps), (core.batch, 1, words * steps))
    core.lines[code.integer("line")] = x.reshape(core.batch, words, steps).transpose(0, 2, 1).copy()


def _tail(core: Core, code: Item) -> None:
    held = _past(core, code, code.integer("steps"))
    core.write(code.integer("dst"), held.transpose(0, 2, 1).reshape(core.batch, 1, -1))


@dataclass
class _Fold:
    """An accumulator over time and how many steps it has seen."""

    kind: str
    value: Array | None = None  # (batch, words)
    steps: int = 0

    def add(self, x: Array) -> None:
        """Fold in (batch, steps, words), one step after another."""
        if not x.shape[1]:
            return
        if self.kind == "last" or (self.kind == "first" and self.value is None):
            self.value = x[:, -1 if self.kind == "last" else 0].copy()
        elif self.kind == "max":
            top = x.max(1)
            self.value = top if self.value is None else np.maximum(self.value, top)
        elif self.kind in ("sum", "mean"):
            carried = np.zeros_like(x[:, :1]) if self.value is None else self.value[:, None]
            # accumulate adds in the order of time, whatever the block
            self.value = np.add.accumulate(np.concatenate([carried, x], 1), axis=1)[:, -1].copy()
        self.steps += x.shape[1]

    def result(self) -> Array:
        if self.value is None:
            raise Trap(
                "there is nothing to pool",
                "the sequence has no step here",
                "give a sequence of one step at least (and of one whole window)",
            )
        return self.value / self.steps if self.kind == "mean" else self.value


def _pool(core: Core, code: Item) -> None:
    core.lines.setdefault(code.integer("line"), _Fold(code.text("kind")))
    fold: _Fold = _kept(core, code, _Fold)
    fold.add(core.full(core.read(code.integer("src"), code.integer("words"))))


def _pooled(core: Core, code: Item) -> None:
    if code.integer("line") not in core.lines:
        raise Trap("there is nothing to pool", "the sequence has no step", "give a sequence of one step at least")
    core.write(code.integer("dst"), _kept(core, code, _Fold).result()[:, None].copy())


@dataclass
class _Window:
    """The window that is filling, and the full ones that nobody has taken yet."""

    fold: _Fold
    full: Channel


def _window(core: Core, code: Item) -> None:
    kind, size = code.text("kind"), code.integer("steps")
    core.lines.setdefault(code.integer("line"), _Window(_Fold(kind), Channel()))
    line: _Window = _kept(core, code, _Window)
    x = core.full(core.read(code.integer("src"), code.integer("words")))
    at = 0
    while at < x.shape[1]:
        some = min(size - line.fold.steps, x.shape[1] - at)
        line.fold.add(x[:, at : at + some])
        at += some
        if line.fold.steps == size:
            line.full.put(line.fold.result()[:, None])
            line.fold = _Fold(kind)


def _windowed(core: Core, code: Item) -> None:
    there = code.integer("line") in core.lines
    line: _Window | None = _kept(core, code, _Window) if there else None
    if line is None or line.full.steps < core.count:
        raise Trap("a window is read before it is full", hint="read it in a loop 'every' so many steps")
    core.write(code.integer("dst"), line.full.take(core.count))


UNITS: dict[str, Callable[[Core, Item], None]] = {
    "fir": _fir,
    "delay": _delay,
    "prime": _prime,
    "tail": _tail,
    "pool": _pool,
    "pooled": _pooled,
    "window": _window,
    "windowed": _windowed,
}
