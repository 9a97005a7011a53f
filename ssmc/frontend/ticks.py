"""The number of the step that a Loop's body is in, and what is picked by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmc.frontend.flow import Flow, Known, Tick, Tracked, Unsupported
from ssmc.frontend.kernels import axes_of, reshape_target
from ssmc.frontend.listing import Call

if TYPE_CHECKING:
    from ssmc.frontend.translator import Translator


def apply_tick(translator: Translator, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """A node with the step number among its operands. Raises Unsupported where it is used as a number."""
    if call.kind in ("Gather", "Slice") and isinstance(items[0], Flow):
        return [_picked(translator, call, items)]
    ticks = [item for item in items if isinstance(item, Tick)]
    others = [item for item in items if not isinstance(item, Tick)]
    tick = ticks[0]
    if call.kind in ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Concat") and len(ticks) == 1:
        if call.kind == "Concat" and others:
            raise Unsupported("it builds an index of several numbers from the step number")
        return [Tick(tick.scale, tick.offset, _moved(call, tick.shape, items))]
    if call.kind in ("Add", "Sub", "Mul") and len(ticks) == 1 and isinstance(others[0], Known):
        array = np.asarray(others[0].array)
        if array.size == 1 and float(array.reshape(-1)[0]).is_integer():
            number, shape = int(array.reshape(-1)[0]), tuple(np.broadcast_shapes(array.shape, tick.shape))
            match call.kind:
                case "Add":
                    return [Tick(tick.scale, tick.offset + number, shape)]
                case "Mul":
                    return [Tick(tick.scale * number, tick.offset * number, shape)]
                case _ if items[0] is tick:
                    return [Tick(tick.scale, tick.offset - number, shape)]
                case _:
                    return [Tick(-tick.scale, number - tick.offset, shape)]
    raise Unsupported("it computes with the number of the step")


def _moved(call: Call, shape: tuple[int, ...], items: Sequence[Any]) -> tuple[int, ...]:
    dummy = np.empty(shape)
    arrays = [item.array if isinstance(item, Known) else item for item in items]
    if call.kind == "Unsqueeze":
        return tuple(np.expand_dims(dummy, tuple(axes_of(arrays, call.attrs, 1, ()) or ())).shape)
    if call.kind == "Squeeze":
        return ()
    if call.kind == "Reshape":
        return reshape_target(shape, [int(d) for d in arrays[1]])
    return shape


def _picked(translator: Translator, call: Call, items: Sequence[Any]) -> Tracked:
    """The present step of a whole sequence."""
    flow: Flow = items[0]
    if call.kind == "Gather":
        tick, axis = items[1], int(call.attrs.get("axis", 0)) % len(flow.shape)
        kept = len(tick.shape)
    else:
        tick, end = items[1], items[2]
        known = [item.array if isinstance(item, Known) else None for item in items]
        axes = [0] if len(items) < 4 or known[3] is None else [int(a) for a in np.atleast_1d(known[3])]
        one = isinstance(tick, Tick) and isinstance(end, Tick) and end == Tick(tick.scale, tick.offset + 1, end.shape)
        if len(axes) != 1 or not one:
            raise Unsupported("it takes more than the present step")
        axis, kept = axes[0] % len(flow.shape), 1
    if not isinstance(tick, Tick) or flow.axes[axis] != "t":
        raise Unsupported("it picks by the step number from an axis that is not time")
    length = flow.shape[axis]
    if (tick.scale, tick.offset) == (1, 0):
        value = flow.value
    elif (tick.scale, tick.offset) == (-1, length - 1):
        value = translator.builder.reverse(flow.value)
    else:
        raise Unsupported(f"it takes step {tick.scale} k + {tick.offset}, not the present one")
    shape = (*flow.shape[:axis], *(1,) * kept, *flow.shape[axis + 1 :])
    labels = flow.axes[:axis] + "f" * kept + flow.axes[axis + 1 :]
    features = tuple(d for d, a in zip(shape, labels, strict=True) if a == "f")
    reshaped = translator.builder.reshape(value, features)
    return Flow(reshaped, labels, shape)  # type: ignore[arg-type]
