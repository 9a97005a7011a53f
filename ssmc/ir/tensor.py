"""Constant arrays as attributes: read-only, compared by content, optionally with the integers behind them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Quantization:
    """How a tensor was rounded: value = scale * integer, a `scale` for each index of `axis` (per column).

    Of a complex tensor both parts are integers times the scale.
    """

    bits: int
    scale: tuple[float, ...]
    axis: int = -1


class Tensor:
    """An immutable array; float64 or complex128 for numbers, int64 for indices.

    `quantization`, where given, says that every value is exactly `scale * integer`.
    """

    __slots__ = ("__dict__", "array", "quantization")

    def __init__(self, array: Any, quantization: Quantization | None = None) -> None:
        value = np.asarray(array)
        if value.dtype.kind == "f":
            value = value.astype(np.float64)
        elif value.dtype.kind == "c":
            value = value.astype(np.complex128)
        elif value.dtype.kind in "iu":
            value = value.astype(np.int64)
        value = np.array(value, order="C")
        value.setflags(write=False)
        self.array: NDArray[Any] = value
        self.quantization = quantization

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def is_complex(self) -> bool:
        return self.array.dtype.kind == "c"

    @cached_property
    def digest(self) -> str:
        """Content hash: names the tensor in the text form."""
        head = f"{self.array.dtype.str}{self.shape}{self.quantization}".encode()
        return hashlib.sha256(head + self.array.tobytes()).hexdigest()[:16]

    def integers(self) -> NDArray[Any]:
        """The integers behind a quantised tensor (int64; complex128 of whole parts where it is complex).

        Raises ValueError where there are none.
        """
        if self.quantization is None:
            raise ValueError("the tensor is not quantised")
        scale = np.asarray(self.quantization.scale)
        shape = [1] * self.array.ndim
        shape[self.quantization.axis] = scale.size
        whole = np.rint(self.array / np.where(scale == 0, 1, scale).reshape(shape))
        return whole if self.is_complex else whole.astype(np.int64)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tensor) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Tensor({self.array.dtype}, {self.shape}, #{self.digest})"
