"""Convolutions over steps and features at once, as over spectrograms: rows or columns are the steps.

Each tap along time is a matrix over everything else, so that the whole is a convolution along time alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssmc.frontend.graph.flow import Flow, Unsupported
from ssmc.frontend.rules.matrix import LARGEST_IMAGE, dense_groups
from ssmc.frontend.source.operands import Attrs, along_axis, conv_padding
from ssmc.ir.op import Array

LARGEST = 1 << 22  # weights of all taps together (ours)


def along_time(flow: Flow, weight: Array, attrs: Mapping[str, Any]) -> tuple[Array, Attrs, tuple[int, ...]]:
    """The taps along time of a convolution (outputs, inputs, taps), all features in one row; its attributes along time
    alone; and the features (channels, places) of a step of its result.

    `flow` is (batch, channels, places with one axis of time). Raises Unsupported where that is too large.
    """
    axis, channels = flow.axes.index("t"), flow.shape[1]
    others = [i for i in range(2, weight.ndim) if i != axis]
    size = channels * prod(flow.shape[i] for i in others)
    if size > LARGEST_IMAGE:
        raise Unsupported(f"a convolution over {size} features of a step (at most {LARGEST_IMAGE})")
    pairs = [_met(flow.shape[i], weight.shape[i], along_axis(attrs, i - 2, weight.ndim - 2)) for i in others]
    places = (len(weight), *(n for n, _ in pairs))
    weights = prod(places) * size * weight.shape[axis]
    if weights > LARGEST:
        raise Unsupported(f"a convolution of {weights} weights (at most {LARGEST})")
    ahead = np.moveaxis(weight, axis, -1)
    taps = np.zeros((len(weight), prod(places[1:]), channels, size // channels, weight.shape[axis]))
    for at in np.ndindex(*(weight.shape[i] for i in others)):
        met = [pair[k] for (_, pair), k in zip(pairs, at, strict=True)]
        there = np.ravel_multi_index(np.meshgrid(*(o for o, _ in met), indexing="ij"), places[1:]).ravel()
        here = np.meshgrid(*(i for _, i in met), indexing="ij")
        come = np.ravel_multi_index(here, [flow.shape[i] for i in others]).ravel()
        for k in range(weight.shape[axis]):
            matrix = dense_groups(ahead[(slice(None), slice(None), *at, k)], int(attrs.get("group", 1)))
            taps[:, there, :, come, k] += matrix
    own = along_axis(attrs, axis - 2, weight.ndim - 2)
    return taps.reshape(prod(places), size, -1), own, places


def _met(size: int, taps: int, attrs: Attrs) -> tuple[int, list[tuple[NDArray[np.intp], NDArray[np.intp]]]]:
    """How many places a convolution gives along one axis; for each tap which of them meet which place with it."""
    (stride,), (spacing,) = attrs["strides"], attrs["dilations"]
    left, right = conv_padding(attrs, size, taps)
    count = (size + left + right - (taps - 1) * spacing - 1) // stride + 1
    found = []
    for k in range(taps):
        place = np.arange(count) * stride + k * spacing - left
        inside = np.flatnonzero((place >= 0) & (place < size))
        found.append((inside, place[inside]))
    return count, found
