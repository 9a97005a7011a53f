"""What the entries of a region do to its target, told by changing them: read, written, a decay, a term by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.mixing.viewpoints import is_same, with_entry
from ssmc.ir.op import Array

MANY = 8  # entries, of which few are tried before all of them are (ours)
DECAYS = 2  # entries in which a recurrence is not linear, at most: what decays, and the times (ours)
# Of an entry x: where x, e^x and 1/x are 1, 2 and 3 times what they are.
LINES: tuple[Callable[[Array], list[Array]], ...] = (
    lambda x: [2 * x, 3 * x],
    lambda x: [x + np.log(2), x + np.log(3)],
    lambda x: [x / 2, x / 3],
)
FADED = 0.2  # of the first power, below which a table tells a decay badly (ours)


@dataclass(frozen=True)
class Parts:
    """What is the same however axes are read: entries that stand alone, and those in which the rest is not linear."""

    added: tuple[int, ...]
    decay: tuple[int, ...]


@dataclass(frozen=True)
class Roles:
    """Entries by what they do; positions in the region's list."""

    read: tuple[int, ...]
    written: tuple[int, ...]
    decay: tuple[int, ...]
    added: tuple[int, ...]


def is_no_recurrence(region: Region) -> bool:
    """Of a region of many entries: is the target, in more of them than a recurrence has decays, no line in the entry,
    in its exponential or in its reciprocal? Told by few runs, where `parts_of` would change every entry."""
    first = region.samples[0]
    if len(first) <= MANY:
        return False
    whole = region.run(first)
    scale = float(np.abs(whole).max(initial=0.0))
    bent = 0
    for i in range(len(first)):
        bent += not any(_on_a_line(region, first, i, whole, scale, points) for points in LINES)
        if bent > DECAYS:
            return True
    return False


def _on_a_line(
    region: Region, arrays: Sequence[Array], i: int, whole: Array, scale: float, points: Callable[[Array], list[Array]]
) -> bool:
    """Do the answers at one entry as it is and at two points more lie evenly on a line?"""
    one, two = (region.run(with_entry(arrays, i, point)) for point in points(arrays[i]))
    return is_same(two - one, one - whole, 2 * max(scale, float(np.abs(two).max(initial=0.0))))


def parts_of(region: Region) -> Parts | None:
    """None where the target is no recurrence, as more than one entry would be its decay."""
    first = region.samples[0]
    whole = region.run(first)
    scale = max(float(np.abs(whole).max(initial=0.0)), 1e-300)
    added = tuple(i for i in range(len(first)) if _is_added(region, first, i, whole, scale))
    base = [np.zeros_like(a) if i in added else a for i, a in enumerate(first)]
    core = region.run(base)
    if not np.isfinite(core).all() or not np.any(core):
        return None
    decay: list[int] = []
    for i, array in enumerate(base):
        if i not in added and not is_same(region.run(with_entry(base, i, 2 * array)), 2 * core, scale):
            decay.append(i)
        if len(decay) > 1:
            return None
    return Parts(added, tuple(decay))


def _is_added(region: Region, arrays: Sequence[Array], i: int, whole: Array, scale: float) -> bool:
    """Does this entry stand alone in the result, as a term of its own?"""
    alone = region.run([a if j == i else np.zeros_like(a) for j, a in enumerate(arrays)])
    if not np.any(alone):
        return False
    without = region.run(with_entry(arrays, i, np.zeros_like(arrays[i])))
    return is_same(without + alone, whole, scale)


def roles_of(region: Region, axes: str, parts: Parts) -> Roles | None:
    """The roles with the axes of the target read in one way; None where nothing is written."""
    first, second = region.samples[0], region.samples[1]
    base = [np.zeros_like(a) if i in parts.added else a for i, a in enumerate(first)]
    core = region.run(base)
    scale = max(float(np.abs(region.run(first)).max(initial=0.0)), 1e-300)
    found: tuple[list[int], list[int]] = [], []
    for i, array in enumerate(base):
        if i in parts.added or i in parts.decay:
            continue
        flow = region.flows[i]
        step = flow.shape[flow.axes.index("t")] // 2
        moved = array.copy()
        chosen = tuple(slice(step, step + 1) if a == "t" else slice(None) for a in flow.axes)
        moved[chosen] = second[i][chosen]
        change = np.abs(region.run(with_entry(base, i, moved)) - core)
        later = np.delete(change, step, axis=axes.index("t")).max(initial=0.0)
        found[int(later > 1e-12 * scale)].append(i)
    read, written = found
    return Roles(tuple(read), tuple(written), parts.decay, parts.added) if written else None


def geometric(powers: Array) -> Array:
    """The ratio of sequences a^k along the first axis, from the latest power that has not faded much.

    A table rounded to float32 would tell a slow decay badly by its first power.
    """
    faded = np.abs(powers) < FADED
    last = np.where(faded.any(axis=0), faded.argmax(axis=0), len(powers)) - 1
    last = np.maximum(last, 1)
    reached = np.take_along_axis(np.abs(powers), last[None], axis=0)[0]
    return np.asarray(np.sign(powers[1]) * reached ** (1 / last))
