"""How ops along time are computed: LinearAttention, CausalConvWithState, maxima of windows, turns by the position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssmc.frontend.source.operands import Attrs, conv_padding, text, window_count
from ssmc.ir.functions import UNARY


class LeftToReference(Exception):
    """A form of an op that the functions here do not cover: `onnx.reference` runs it."""


def _linear_attention(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    """S_k = exp(g_k) S_{k-1} + k_k v_k^T and o_k = scale q_k^T S_k; with the delta rule, k_k (v_k - S^T k_k) beta_k."""
    query, key, value, past, decay, beta = (*x, None, None, None)[:6]
    heads, readers = attrs["kv_num_heads"], attrs["q_num_heads"]
    rule = text(attrs.get("update_rule", b"gated_delta"))
    batch, steps = query.shape[:2]
    q = query.reshape(batch, steps, heads, readers // heads, -1)
    k, v = key.reshape(batch, steps, heads, -1), value.reshape(batch, steps, heads, -1)
    scale = attrs.get("scale", 0.0) or q.shape[-1] ** -0.5
    state = np.zeros((batch, heads, k.shape[-1], v.shape[-1])) if past is None else np.array(past)
    outputs = []
    for t in range(steps):
        if "gated" in rule:
            state = state * np.exp(decay[:, t].reshape(batch, heads, -1))[..., None]
        update = v[:, t]
        if "delta" in rule:
            update = (update - np.einsum("bhkv,bhk->bhv", state, k[:, t])) * beta[:, t][..., None]
        state = state + k[:, t][..., None] * update[..., None, :]
        outputs.append(np.einsum("bhrk,bhkv->bhrv", q[:, t], state).reshape(batch, -1))
    return (scale * np.stack(outputs, axis=1), state)[:results]


def _causal_conv(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    signal, weight, bias, past = (*x, None, None)[:4]
    taps = weight.shape[2]
    past = np.zeros((*signal.shape[:2], taps - 1)) if past is None else past
    whole = np.concatenate([past, signal], axis=2)
    y = sum(whole[:, :, j : j + signal.shape[2]] * weight[:, 0, j][:, None] for j in range(taps))
    y = y if bias is None else y + bias[:, None]
    if text(attrs.get("activation", b"none")) in ("silu", "swish"):
        y = UNARY["silu"](y)
    return (y, whole[:, :, whole.shape[2] - taps + 1 :])[:results]


def _stft(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    """Spectra of the frames of a real signal, (batch, steps) or (batch, steps, 1); parts in the last axis."""
    signal, step, window, given = (*x, None, None)[:4]
    if signal.ndim == 3 and signal.shape[2] == 2:
        raise LeftToReference("a complex signal")
    signal, step = signal.reshape(signal.shape[:2]), int(np.reshape(step, -1)[0])
    size = len(window) if given is None else int(np.reshape(given, -1)[0])
    frames = np.lib.stride_tricks.sliding_window_view(signal, size, axis=1)[:, ::step]
    frames = frames if window is None else frames * window
    spectra = (np.fft.rfft if attrs.get("onesided", 1) else np.fft.fft)(frames)
    return (np.stack([spectra.real, spectra.imag], axis=-1),)


def _max_pool(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    """Over the last axis; what is outside of the array does not count."""
    if x[0].ndim != 3 or results > 1:
        raise LeftToReference("only one spatial dimension, and no indices")
    reach, spacing, stride = attrs["kernel_shape"][0], attrs.get("dilations", [1])[0], attrs.get("strides", [1])[0]
    padding = conv_padding(attrs, x[0].shape[2], reach)
    count, (left, right) = window_count(attrs, x[0].shape[2], reach, padding)
    u = np.pad(x[0], ((0, 0), (0, 0), (left, right)), constant_values=-np.inf)
    taps = [u[..., k * spacing :][..., : (count - 1) * stride + 1 : stride] for k in range(reach)]
    return (np.max(taps, axis=0),)


def _average_pool(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    if x[0].ndim != 3 or attrs.get("ceil_mode", 0):
        raise LeftToReference("only one spatial dimension, and no broken windows")
    (reach,), spacing = attrs["kernel_shape"], int(attrs.get("dilations", [1])[0])
    padding = conv_padding(attrs, x[0].shape[2], reach)
    stride, width = int(attrs.get("strides", [1])[0]), ((0, 0), (0, 0), padding)
    counted = np.ones(x[0].shape[2:])
    u, ones = np.pad(x[0], width), np.pad(counted, padding, constant_values=attrs.get("count_include_pad", 0))
    last = u.shape[2] - (reach - 1) * spacing
    sums, counts = (sum(a[..., k * spacing :][..., :last:stride] for k in range(reach)) for a in (u, ones))
    return (np.asarray(sums / counts),)


def _transposed_conv(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    plain = all(s == 1 for s in attrs.get("strides", [1])) and not any(attrs.get("output_padding", [0]))
    if x[0].ndim != 3 or not plain or "output_shape" in attrs or "auto_pad" in attrs:
        raise LeftToReference("only one spatial dimension, step by step")
    (batch, channels, length), taps, spacing = x[0].shape, x[1].shape[2], int(attrs.get("dilations", [1])[0])
    groups, (left, right) = int(attrs.get("group", 1)), attrs.get("pads", [0, 0])
    u = x[0].reshape(batch, groups, -1, length)
    weight = x[1].reshape(groups, channels // groups, -1, taps)
    y = np.zeros((batch, groups, weight.shape[2], length + (taps - 1) * spacing))
    for k in range(taps):
        y[..., k * spacing : k * spacing + length] += np.einsum("bgil,gio->bgol", u, weight[..., k])
    y = y.reshape(batch, -1, y.shape[3])[..., left : y.shape[3] - right]
    return (y if len(x) < 3 or x[2] is None else y + x[2].reshape(-1, 1),)


def _rotary(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    """Pairs of features turned; com.microsoft has the positions before the tables."""
    rest: list[Any]
    signal, *rest = (*x, None)
    places = rest.pop(0 if np.asarray(rest[0]).dtype.kind in "iu" else 2)
    u = signal if signal.ndim == 4 else signal.reshape(*signal.shape[:2], attrs.get("num_heads", 0) or 1, -1)
    length, at = (u.shape[2], 1) if signal.ndim == 4 else (u.shape[1], 2)
    if places is not None:
        index = np.asarray(places).astype(np.int64)
        index = index if index.size > 1 else index.reshape(()) + np.arange(length)[None]
        rest = [table[index] for table in rest[:2]]
    cos, sin = (np.expand_dims(table, at) for table in rest[:2])
    size = attrs.get("rotary_embedding_dim", 0) or u.shape[3]
    spread = (
        (slice(0, size, 2), slice(1, size, 2))
        if attrs.get("interleaved")
        else (
            slice(0, size // 2),
            slice(size // 2, size),
        )
    )
    y, (first, second) = np.array(u), spread
    y[..., first] = cos * u[..., first] - sin * u[..., second]
    y[..., second] = sin * u[..., first] + cos * u[..., second]
    return (y.reshape(signal.shape),)


def _sequence_insert(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    """Into an empty sequence too, where the op's reference divides by zero."""
    members = list(x[0])
    place = len(members) if len(x) < 3 or x[2] is None else int(np.reshape(x[2], -1)[0])
    if not -len(members) <= place <= len(members):
        raise ValueError(f"a sequence of {len(members)} has no place {place}")
    members.insert(place, x[1])
    return (members,)


def _rnn(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    """RNN of affine activations; what is not given is 0, as in onnxruntime (the reference fails then)."""
    signal, wide, states, bias, ends, first = (*x, None, None, None)[:6]
    if {text(name).lower() for name in attrs.get("activations", [b"Tanh"])} != {"affine"} or "clip" in attrs:
        raise LeftToReference("its activation is not affine")
    if ends is not None:
        raise LeftToReference("some of its sequences may end before the others")
    batch_first, direction = bool(attrs.get("layout", 0)), text(attrs.get("direction", b"forward"))
    u = np.swapaxes(signal, 0, 1) if batch_first else signal
    h0 = None if first is None else np.swapaxes(first, 0, 1) if batch_first else first
    every, last = [], []
    for d in range(len(states)):
        back = direction == "reverse" or d == 1
        gain, shift = ((list(attrs.get(f"activation_{n}") or []) + [0.0] * (d + 1))[d] for n in ("alpha", "beta"))
        drive = u @ wide[d].T + (0.0 if bias is None else bias[d].reshape(2, -1).sum(axis=0))
        h = np.zeros_like(drive[0]) if h0 is None else h0[d]
        steps = np.empty_like(drive)
        for t in reversed(range(len(u))) if back else range(len(u)):
            h = steps[t] = gain * (drive[t] + h @ states[d].T) + shift
        every.append(steps)
        last.append(h)
    y, ended = np.stack(every, axis=1), np.stack(last)
    return ((y.transpose(2, 0, 1, 3), np.swapaxes(ended, 0, 1)) if batch_first else (y, ended))[:results]


TIME_KERNELS: dict[str, Callable[[Sequence[Any], Attrs, int], Sequence[Any]]] = {
    "SequenceInsert": _sequence_insert,
    "LinearAttention": _linear_attention,
    "CausalConvWithState": _causal_conv,
    "STFT": _stft,
    "ConvTranspose": _transposed_conv,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "RotaryEmbedding": _rotary,
    "RNN": _rnn,
}
