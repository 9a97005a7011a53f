"""One linear state-space system, as an immutable value.

Discrete time, as in S4 (arXiv 2111.00396, section 2) and S5 (arXiv 2208.04933, eq. 2)::

    x_k = Abar x_{k-1} + Bbar u_k        y_k = C x_k + D u_k

`G` groups stand side by side, each with its own slice of inputs and outputs. S4D is `G = H` groups of one
input and one output; S5 is one group, many in, many out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Real: TypeAlias = NDArray[np.float64]
Array: TypeAlias = NDArray[Any]  # float64 or complex128


class StateSpaceError(ValueError):
    """A system, or a request on one, that has no meaning; the message names the array."""


def _array(name: str, value: Any) -> Array:
    """A read-only float64 or complex128 copy, or an error that names the array."""
    raw = np.asarray(value)
    if raw.dtype.kind not in "biufc":
        raise StateSpaceError(f"{name}: expected numbers, got dtype {raw.dtype}")
    array = np.array(raw, dtype=np.complex128 if raw.dtype.kind == "c" else np.float64, order="C")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise StateSpaceError(f"{name}: not finite at index {where}")
    array.setflags(write=False)
    return array


def _expect(name: str, array: Array, shape: tuple[int, ...], meaning: str) -> None:
    if array.shape != shape:
        raise StateSpaceError(f"{name}: expected shape {meaning} = {shape}, got {array.shape}")


@dataclass(frozen=True, eq=False)
class StateSpace:
    """G groups; group g has N states, I inputs and O outputs.

    The output is `C x` as it stands, its real part when `real_output`, or `2 Re(C x)` when `halved` (only one
    state of each conjugate pair is kept); then `+ D u`. Arrays are read-only copies, float64 or complex128.

    Raises StateSpaceError when shapes disagree or a value is not finite.
    """

    A: Array  # (G, N) diagonal, or (G, N, N) dense
    B: Array  # (G, N, I)
    C: Array  # (G, O, N)
    D: Array  # (G, O, I)
    delta: Array | None = None  # None: A is Abar, B is Bbar. Else the step; (1, 1), (G, 1) or (G, N)
    halved: bool = False  # y = 2 Re(C x) + D u
    real_output: bool = True  # y = Re(C x) + D u, else y = C x + D u
    read_before: bool = False  # y_k reads x_{k-1}: the system reads before it updates
    x0: Array | None = None  # (G, N) learned initial state; None is zero
    asynchronous: bool = False  # x <- exp(A delta dt_k) x + B u_k; B does not depend on dt_k

    def __post_init__(self) -> None:
        for name in ("A", "B", "C", "D"):
            object.__setattr__(self, name, _array(name, getattr(self, name)))
        if self.A.ndim not in (2, 3):
            raise StateSpaceError(f"A: expected shape (G, N) or (G, N, N), got {self.A.shape}")
        groups, states = self.A.shape[:2]
        if self.A.ndim == 3:
            _expect("A", self.A, (groups, states, states), "(G, N, N)")
        if self.B.ndim != 3:
            raise StateSpaceError(f"B: expected shape (G, N, I), got {self.B.shape}")
        if self.C.ndim != 3:
            raise StateSpaceError(f"C: expected shape (G, O, N), got {self.C.shape}")
        wide, high = self.B.shape[2], self.C.shape[1]
        _expect("B", self.B, (groups, states, wide), "(G, N, I)")
        _expect("C", self.C, (groups, high, states), "(G, O, N)")
        _expect("D", self.D, (groups, high, wide), "(G, O, I)")
        if min(groups, wide, high) < 1:
            raise StateSpaceError(f"A, B, C: need a group, an input and an output, got G={groups} I={wide} O={high}")
        if self.halved and not self.real_output:
            raise StateSpaceError("halved: a conjugate-halved system has a real output; set real_output")
        if self.real_output and np.iscomplexobj(self.D):
            raise StateSpaceError("D: complex, but the output is real")
        if self.x0 is not None:
            object.__setattr__(self, "x0", _array("x0", self.x0))
            _expect("x0", self.x0, (groups, states), "(G, N)")
        self._check_delta(groups, states)

    def _check_delta(self, groups: int, states: int) -> None:
        if self.delta is None:
            if self.asynchronous:
                raise StateSpaceError("delta: an asynchronous system needs its step (1 if there is none)")
            return
        delta = _array("delta", self.delta)
        if np.iscomplexobj(delta) or (delta <= 0).any():
            raise StateSpaceError("delta: a step is real and positive")
        delta = delta.reshape((1,) * (2 - delta.ndim) + delta.shape)
        if delta.ndim != 2 or delta.shape[0] not in (1, groups) or delta.shape[1] not in (1, states):
            raise StateSpaceError(f"delta: expected (1, 1), (G, 1) or (G, N) = {(groups, states)}, got {delta.shape}")
        object.__setattr__(self, "delta", delta)

    @property
    def groups(self) -> int:
        return int(self.A.shape[0])

    @property
    def states(self) -> int:
        """States per group, as stored (a halved complex state counts once)."""
        return int(self.A.shape[1])

    @property
    def inputs(self) -> int:
        """Inputs of all groups together, G * I."""
        return self.groups * int(self.B.shape[2])

    @property
    def outputs(self) -> int:
        """Outputs of all groups together, G * O."""
        return self.groups * int(self.C.shape[1])

    @property
    def diagonal(self) -> bool:
        return self.A.ndim == 2

    @property
    def discrete(self) -> bool:
        """A is Abar and B is Bbar; false for a continuous and for an asynchronous system."""
        return self.delta is None

    @property
    def is_complex(self) -> bool:
        """Whether the states are complex."""
        states = (self.A, self.B) if self.x0 is None else (self.A, self.B, self.x0)
        return any(np.iscomplexobj(array) for array in states)

    @property
    def gain(self) -> float:
        """The factor before `C x` in the output: 2 for a halved system, else 1."""
        return 2.0 if self.halved else 1.0


def rates(system: StateSpace) -> Array:
    """`delta A`, the continuous-time matrix in units of one step, shape of A.

    A step per state of a dense system scales the rows, as in `dx/dt = diag(delta) (A x + B u)`.
    """
    if system.delta is None:
        raise StateSpaceError("delta: a discrete system has no continuous-time rates")
    return system.A * (system.delta if system.diagonal else system.delta[:, :, None])


def dense_matrix(system: StateSpace) -> Array:
    """A as matrices (G, N, N), whichever way it is stored."""
    return system.A[:, :, None] * np.eye(system.states) if system.diagonal else system.A


def require_discrete(system: StateSpace, what: str) -> None:
    """Raise StateSpaceError unless A is Abar."""
    if system.asynchronous:
        raise StateSpaceError(f"{what}: the system is asynchronous; fix its step with at_step(system, dt)")
    if not system.discrete:
        raise StateSpaceError(f"{what}: the system is continuous; call discretize first")
