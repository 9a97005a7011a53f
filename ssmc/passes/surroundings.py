"""What stands around a bank: B and C in arrays, which every bank of a layer needs, in the basis that it counts in.

States obey x <- A x + B u with white u of unit variance; X = E x x^T is their covariance. A product y = W z of an array
errs, anew at every step, by the variance that `read_noise` has,

    v_j = (product s_j)^2 E max_i (y_i / s_i)^2 + (weight s_j)^2 sum_n E z_n^2 + drive^2 E max_n z_n^2 sum_n W_jn^2,

s_j what full conductance stands for, arrays that share columns adding up. Errors of B u reach the output through the
states, those of C x directly: with e = E (dx_n)^2 the relative error is the root of

    (sum_jn C_jn^2 e_n + sum_j v_j) / tr(C X C^T).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag

from ssmc.ir import Graph, Node, Piece, Tensor, Value
from ssmc.ir.op import Array
from ssmc.passes.banks import Demand
from ssmc.passes.grid import full_scale
from ssmc.passes.machine import ArrayErrors, ProductCost
from ssmc.passes.read_noise import largest_square
from ssmc.statespace import StateSpace

Covariance = Callable[[Array], Array]  # of the states' real words (an index): (words, words)


@dataclass(frozen=True)
class Matrix:
    """A matrix (inputs, outputs) in arrays; `scale` (outputs,) of each piece is what full conductance stands for."""

    weight: Tensor
    pieces: tuple[Piece, ...]
    scale: tuple[Array, ...]


@dataclass(frozen=True)
class Sides:
    """B and C of a layer, where they are products in arrays; None where they are not."""

    b: Matrix | None
    c: Matrix | None


def sides_of(graph: Graph, node: Node) -> Sides:
    """The products that drive the states of `node` and those that read them."""
    drive = graph.operands(node.name)[1 if node.op.name == "tile.recurrence" else 0]
    made = None if drive is None else graph.node(drive.node)
    readers = [graph.node(user) for user, _ in graph.users(Value(node.name))]
    c = next((reader for reader in readers if reader.op.name == "tile.matmul"), None)
    return Sides(_matrix(made), _matrix(c))


def sides_of_system(system: StateSpace, rows: int, cols: int) -> Sides:
    """B and C of a system as it stands, of halves re|im where complex, cut to arrays of so many weights."""
    drive = np.asarray(block_diag(*system.B)).T
    read = np.asarray(block_diag(*(system.C * system.gain))).T
    if system.is_complex:
        drive, read = np.hstack([drive.real, drive.imag]), np.vstack([read.real, -read.imag])
    return Sides(_whole(drive, rows, cols), _whole(read, rows, cols))


def _matrix(node: Node | None) -> Matrix | None:
    if node is None or node.op.name != "tile.matmul":
        return None
    weight: Tensor = node.op["weight"]
    return Matrix(weight, node.op["pieces"], tuple(full_scale(weight, piece) for piece in node.op["pieces"]))


def in_basis(sides: Sides, matrix: Array, rows: int, cols: int) -> tuple[Sides, Array]:
    """The sides of states that feed each other by `matrix`, in its eigenbasis (one of each conjugate pair, halves
    re|im), cut anew to arrays of so many weights; and the poles. Raises LinAlgError where it has none."""
    poles, basis = np.linalg.eig(matrix)
    inverse = np.linalg.inv(basis)
    is_complex = bool((np.abs(poles.imag) > 0).any())
    kept = np.flatnonzero(poles.imag >= 0)
    twice = np.where(poles[kept].imag > 0, 2.0, 1.0)
    b = c = None
    if sides.b is not None:
        drive = sides.b.weight.array @ inverse[kept].T
        b = _whole(np.hstack([drive.real, drive.imag]) if is_complex else drive.real, rows, cols)
    if sides.c is not None:
        read = twice[:, None] * (basis[:, kept].T @ sides.c.weight.array)
        c = _whole(np.vstack([read.real, -read.imag]) if is_complex else read.real, rows, cols)
    return Sides(b, c), poles[kept] if is_complex else poles[kept].real


def _whole(weight: Array, rows: int, cols: int) -> Matrix:
    high, wide = weight.shape
    pieces = tuple(
        Piece(k, min(k + rows, high), n, min(n + cols, wide))
        for k in range(0, high, rows)
        for n in range(0, wide, cols)
    )
    held = Tensor(weight)
    return Matrix(held, pieces, tuple(full_scale(held, piece) for piece in pieces))


def energy_of(sides: Sides, cost: ProductCost | None) -> float | None:
    """Joules of a step of both products; None where the target does not say."""
    if cost is None:
        return None
    pieces = [piece for matrix in (sides.b, sides.c) if matrix is not None for piece in matrix.pieces]
    shapes = [(p.k1 - p.k0, p.n1 - p.n0) for p in pieces]
    return float(sum(rows * cost.row + cols * cost.col + rows * cols * cost.pair for rows, cols in shapes))


def error_of(sides: Sides, want: Demand, errors: ArrayErrors | None) -> float:
    """Rms, relative, that the products around the states make of the response; infinite where states do not fade."""
    if errors is None or sides.c is None or want.poles is None:
        return 0.0
    if (np.abs(want.poles) >= 1).any():
        return math.inf
    words = sides.c.weight.shape[0]
    drive = np.zeros(words)
    if sides.b is not None:
        ones = np.eye(sides.b.weight.shape[0])
        drive = product_variance(sides.b, lambda at: ones[np.ix_(at, at)], errors)
    moved, covariance = _moved(want, drive), _covariance(want, sides.b)
    read = product_variance(sides.c, covariance, errors)
    signal = _power(sides.c, covariance)
    lost = read.sum()
    for rows, columns in ((slice(p.k0, p.k1), slice(p.n0, p.n1)) for p in sides.c.pieces):
        lost += (np.square(sides.c.weight.part(rows, columns)) * moved[rows, None]).sum()
    return math.sqrt(float(lost) / signal) if signal > 0 else 0.0


def product_variance(matrix: Matrix, covariance: Covariance, errors: ArrayErrors) -> Array:
    """(outputs,) variance by which the product errs, of inputs of this covariance."""
    total = np.zeros(matrix.weight.shape[1])
    for piece, scale in zip(matrix.pieces, matrix.scale, strict=True):
        own = covariance(np.arange(piece.k0, piece.k1))
        weight, power = matrix.weight.part(slice(piece.k0, piece.k1), slice(piece.n0, piece.n1)), np.diag(own)
        outputs = np.maximum(((own.T @ weight) * weight).sum(0), 0.0)
        top = float(largest_square(outputs / scale**2))
        total[piece.n0 : piece.n1] += scale**2 * (errors.product**2 * top + errors.weight**2 * float(power.sum()))
        total[piece.n0 : piece.n1] += errors.drive**2 * float(largest_square(power)) * np.square(weight).sum(0)
    return total


def _power(matrix: Matrix, covariance: Covariance) -> float:
    """The outputs' mean squares, all added up."""
    rows: dict[tuple[int, int], list[int]] = defaultdict(list)
    for piece in matrix.pieces:
        rows[piece.n0, piece.n1] += range(piece.k0, piece.k1)
    total = 0.0
    for (start, stop), found in rows.items():
        at = np.array(sorted(set(found)))
        weight = matrix.weight.part(slice(at[0], at[-1] + 1), slice(start, stop))[at - at[0]]
        total += float(((covariance(at).T @ weight) * weight).sum())
    return total


def _moved(want: Demand, drive: Array) -> Array:
    """(words,) what errors of the drive with these variances make of the states."""
    if want.matrix is not None:
        from scipy.linalg import solve_discrete_lyapunov

        return np.asarray(np.diag(solve_discrete_lyapunov(want.matrix, np.diag(drive))))
    assert want.poles is not None
    fades = 1.0 - np.abs(want.poles) ** 2
    if not want.is_complex:
        return np.asarray(drive / fades)
    half = len(fades)  # a state that turns spreads the errors of its halves evenly
    return np.tile((drive[:half] + drive[half:]) / 2 / fades, 2)


def _covariance(want: Demand, b: Matrix | None) -> Covariance:
    """That of the states, block by block; where B is no product, one input drives them all alike."""
    if want.matrix is not None:
        from scipy.linalg import solve_discrete_lyapunov

        driven = np.eye(len(want.matrix)) if b is None else b.weight.array.T @ b.weight.array
        whole = solve_discrete_lyapunov(want.matrix, driven)
        return lambda at: np.asarray(whole[np.ix_(at, at)])
    assert want.poles is not None
    poles, half = want.poles, len(want.poles)
    rows: Array = np.ones((half, 1)) if b is None else b.weight.array.T
    drive = rows[:half] + 1j * rows[half:] if want.is_complex and b is not None else rows

    def found(at: Array) -> Array:
        state, turned = (at % half, at >= half) if want.is_complex else (at, np.zeros(len(at), bool))
        a, v = poles[state], drive[state]
        outer = (v @ v.conj().T) / (1 - np.outer(a, a.conj()))
        plain = (v @ v.T) / (1 - np.outer(a, a))
        if not want.is_complex:
            return np.asarray(plain.real)
        # Re z Re w, Im z Im w and Im z Re w, of E z w* and E z w
        re_im = turned[:, None] != turned[None, :]
        same = np.where(turned[:, None] & turned[None, :], outer - plain, outer + plain).real
        cross = np.where(turned[:, None], plain + outer, plain - outer).imag
        return np.asarray(np.where(re_im, cross, same) / 2)

    return found
