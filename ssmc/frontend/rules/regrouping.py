"""What becomes of batch, time and features where a tensor is written in another shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ssmc.frontend.graph.flow import REGROUPED, Merged, TimeMixing, Unsupported
from ssmc.frontend.graph.joint import TOGETHER
from ssmc.frontend.reasons import Kind, Reason

ALONE = {"m": "bt", "n": "tb"}  # where one of the two has size one
Run = tuple[slice, slice]


def regrouped(axes: str, shape: Sequence[int], target: Sequence[int]) -> tuple[str, list[Merged]]:
    """The axes after a reshape; batch and time must come through whole, or as REGROUPED says. A batch that is merged
    with features is one axis, whose parts come beside.

    Raises TimeMixing where batch or time are merged with others or split into more, Unsupported where the shapes have
    not as many entries.
    """
    found, merged = ["f"] * len(target), list[Merged]()
    for here, there in _runs(axes, shape, target):
        if len(axes[here]) == 1 and axes[here] in ALONE and 1 in target[there] and len(target[there]) == 2:
            found[there] = ALONE[axes[here]]
            continue
        if shape[here] == target[there]:
            found[there] = axes[here]
            continue
        kept = [(a, d) for a, d in zip(axes[here], shape[here], strict=True) if d != 1 or a != "f"]
        together = "".join(a for a, _ in kept)
        if not together.strip("f"):
            continue
        places = [k for k in range(len(target))[there] if target[k] != 1]
        letters = REGROUPED.get((together, len(places)))
        if letters is None and len(places) == 1 < len(target) and not merged and _is_joint(together):
            letters = TOGETHER
            merged.append((together, tuple(d for _, d in kept)))
        if letters is None:
            raise TimeMixing(_mixed(together, dict(kept), [target[k] for k in places]))
        for place, label in zip(places, letters, strict=True):
            found[place] = label
    return "".join(found), merged


def _runs(axes: str, shape: Sequence[int], target: Sequence[int]) -> Iterator[Run]:
    """The shortest runs of axes that have as many entries before as after; features of size one that come or go are in
    none."""
    i = j = 0
    while i < len(shape) or j < len(target):
        left, right = i, j
        if i < len(shape) and tuple(target[j : j + 2]) == {"m": (1, shape[i]), "n": (shape[i], 1)}.get(axes[i]):
            i, j = i + 1, j + 2
        elif i < len(shape) and j < len(target) and shape[i] == target[j]:
            i, j = i + 1, j + 1
        elif i < len(shape) and shape[i] == 1 and axes[i] == "f":
            i += 1
            continue
        elif j < len(target) and target[j] == 1:
            j += 1
            continue
        else:
            i, j = _alike(shape, target, i, j)
        yield slice(left, i), slice(right, j)


def _alike(shape: Sequence[int], target: Sequence[int], i: int, j: int) -> tuple[int, int]:
    """Where the products of the sizes from `i` and from `j` on are first the same."""
    have, want, left, right = 1, 1, i, j
    while i == left or j == right or have != want:
        if i < len(shape) and (have < want or i == left):
            have, i = have * shape[i], i + 1
        elif j < len(target):
            want, j = want * target[j], j + 1
        else:
            raise Unsupported(Reason(f"shape {shape} cannot become {target}", Kind.INDIVISIBLE))
    return i, j


def _mixed(together: str, sizes: dict[str, int], target: Sequence[int]) -> str:
    if together[0] == "t" and target and target[0] > sizes["t"]:
        return "it makes further steps of features (up-sampling), or one axis of a whole sequence"
    return f"it merges or splits the {'time' if 't' in together else 'batch'} axis"


def _is_joint(letters: str) -> bool:
    """Batch and features, perhaps with time, each once but for the features."""
    return set("bf") <= set(letters) <= set("btf") and max(letters.count("b"), letters.count("t")) == 1
