"""The user's arrays: reading and writing them, and fitting them to a model's interface."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from ssmc.diagnostics import UserError, near
from ssmc.interface import Interface, Port
from ssmc.ir.layout import from_graph, to_graph
from ssmc.ir.op import Array

MOST_TOLD = 20  # names that are none of the model's; ours
MOST_NUMBERS = 1 << 28  # of a data file: 2 GiB as float64; ours


def read(path: str | Path) -> dict[str, Array]:
    """The arrays of an .npz file by name. Raises UserError where it is not one, or says that it holds too much."""
    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            raise UserError("one array without a name", where=str(path), hint="save it as .npz, under its input's name")
        with stored:
            _check_sizes(stored.zip, str(path))
            return {name: stored[name] for name in stored.files}
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError("there is no such file", where=str(path)) from None
    except IsADirectoryError:
        raise UserError("this is a folder, not an .npz file", where=str(path)) from None
    except PermissionError:
        raise UserError("no permission to read this file", where=str(path)) from None
    except MemoryError as error:
        raise UserError("an array is too large for the memory", where=str(path), why=str(error)) from None
    except Exception as error:  # zipfile, what unpacks and numpy have a dozen ways to tell of damage
        raise UserError(
            "not a readable .npz file",
            where=str(path),
            why=_damage(error),
            hint="make one with numpy.savez(path, name=array, ...), the names being those of the model's inputs",
        ) from None


def _check_sizes(archive: zipfile.ZipFile, where: str) -> None:
    """Raise UserError where two arrays have one name, or all have more than `MOST_NUMBERS`, by what their heads say:
    a few megabytes may unpack to any size, and would be unpacked before they are held against the model."""
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    twice = next((name for name in names if names.count(name) > 1), "") if len(set(names)) < len(names) else ""
    if twice:
        raise UserError(f"it holds two arrays of the name '{twice}'", where=where, hint="leave one of them out")
    total = sum(_declared_size(archive, member) for member in archive.namelist())
    if total > MOST_NUMBERS:
        raise UserError(
            f"it holds {total} numbers (at most {MOST_NUMBERS})",
            where=where,
            hint="give fewer or shorter sequences at once",
        )


def _declared_size(archive: zipfile.ZipFile, member: str) -> int:
    """How many numbers the head of a member says that it holds; what is no array holds its bytes."""
    size = archive.getinfo(member).file_size
    with archive.open(member) as file:
        if file.read(len(npy.MAGIC_PREFIX)) != npy.MAGIC_PREFIX:
            return size
        version = tuple(file.read(2))
        heads = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        return prod(heads[version](file)[0]) if version in heads else size


def _damage(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # numpy takes what it does not know for a pickle, and tells how to load one: bad advice for a stranger's file
    return "it holds Python objects, or is no .npz file at all" if "pickle" in str(error) else str(error)


def describe(port: Port) -> str:
    """A port as messages tell it, as in `features: float32 (batch, time, 12)`."""
    shape = ", ".join(map(str, port.expected()))
    return f"{port.name}: {port.dtype} ({shape}{',' if len(port.axes) == 1 else ''})"


def fit(arrays: Mapping[str, Any], interface: Interface, *, where: str = "") -> dict[str, Array]:
    """The user's arrays in the graph's layout, by input name; state inputs may be left out.

    Raises UserError that lists every mistake: names that the model does not have, inputs left out, shapes, element
    types and values that do not fit, batches or lengths that differ between inputs.
    """
    ports = {port.name: port for port in interface.inputs}
    asked = "; ".join(describe(port) for port in interface.inputs)
    mistakes = []
    unknown = sorted(set(arrays) - set(ports))
    for name in unknown[:MOST_TOLD]:
        guess = near(name, set(ports) - set(arrays))
        mistakes.append(f"the model has no input '{name}'" + (f" ({guess})" if guess else ""))
    if len(unknown) > MOST_TOLD:
        mistakes.append(f"nor {len(unknown) - MOST_TOLD} more")
    for port in interface.inputs:
        if port.role != "state" and port.name not in arrays:
            mistakes.append(f"the input '{port.name}' is missing")
    fitted: dict[str, Array] = {}
    for name, port in ports.items():
        if name in arrays:
            array = np.asarray(arrays[name])
            mistake = _mistake(array, port)
            try:
                if not mistake:
                    fitted[name] = to_graph(_numbers(array, port), port.axes, port.type)
            except ValueError as error:  # of a program that was written by hand
                mistake = f"is not what the program's interface says: {error}"
            if mistake:
                mistakes.append(f"'{name}' {mistake}")
    fitted = _repeated(fitted, interface)
    mistakes += _disagreements(fitted, interface)
    if mistakes:
        what = "the input does not fit the model: " + "; ".join(mistakes)
        raise UserError(what, where=where, hint=f"the model takes {asked}")
    return _for_every_sample(fitted, interface)


def _repeated(fitted: dict[str, Array], interface: Interface) -> dict[str, Array]:
    """Inputs of which the file takes one for all samples, as the place in a ring, may be given for one sample."""
    batch = max((fitted[p.name].shape[0] for p in interface.inputs if p.name in fitted and "b" in p.axes), default=1)
    single = [p.name for p in interface.inputs if p.name in fitted and p.is_shared and len(fitted[p.name]) == 1]
    return fitted | {name: np.broadcast_to(fitted[name], (batch, *fitted[name].shape[1:])) for name in single}


def _for_every_sample(fitted: dict[str, Array], interface: Interface) -> dict[str, Array]:
    """Inputs that have no axis for the batch, as weights that are given with the data, are those of every sample."""
    ports = [port for port in interface.inputs if port.name in fitted]
    batch = next((fitted[port.name].shape[0] for port in ports if "b" in port.axes), 1)
    shared = {p.name: fitted[p.name] for p in ports if p.axes and "b" not in p.axes} if batch > 1 else {}
    return fitted | {name: np.broadcast_to(array, (batch, *array.shape[1:])) for name, array in shared.items()}


def unfit(outputs: Mapping[str, Array], interface: Interface) -> dict[str, Array]:
    """Outputs of the graph in the user's own axes and element types, in the model's order.

    Raises UserError where an output is not what the interface says, as in programs that were written by hand.
    """
    given = (port for port in interface.outputs if port.name in outputs)
    return {port.name: _unfitted(outputs[port.name], port) for port in given}


def _unfitted(array: Array, port: Port) -> Array:
    try:
        return from_graph(array, port.axes).astype(_element_type(port), copy=False)
    except ValueError:
        raise UserError(
            f"the output '{port.name}' is not what the program's interface says",
            why=f"it is {' x '.join(map(str, array.shape))}, and its axes are '{port.axes}'",
            hint="let .output and .meta interface agree, or compile the model again",
        ) from None


def _element_type(port: Port) -> str:
    """numpy's element type for a port; what numpy does not know, or the file does not say, is float32.

    bfloat16 is none of numpy's, whatever packages add it: arrays of it are float32, as the reference's are.
    """
    known = port.dtype in np.sctypeDict and port.dtype not in ("?", "bfloat16")
    return port.dtype if known and np.dtype(port.dtype).kind in "fiubc" else "float32"


def _mistake(array: Array, port: Port) -> str:
    """Why `array` cannot be this input, or nothing."""
    if array.dtype.kind not in "fiub":
        return f"holds {array.dtype}, not numbers"
    if port.type.element == "index" and array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        return "holds numbers with a fraction, but the input is an index"
    wanted = port.expected()
    shape = "x".join(map(str, array.shape)) or "no axes"
    told = f"({', '.join(map(str, wanted))})"
    if array.ndim != len(wanted):
        return f"has {array.ndim} axes ({shape}), the model takes {len(wanted)}: {told}"
    if any(isinstance(want, int) and want != size for want, size in zip(wanted, array.shape, strict=True)):
        return f"has the shape {shape}, the model takes {told}"
    if 0 in array.shape:
        return f"is empty ({shape})"
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        return f"is {array[place]} at {place}, not a number that a model can take"
    if port.role == "dt" and array.min() < 0:
        place = tuple(int(i) for i in np.argwhere(array < 0)[0])
        return f"is {array[place]} at {place}, and time passes: elapsed times are zero or positive"
    element = np.dtype(_element_type(port))
    if element.kind == "f" and array.dtype != element:
        largest, end = max(float(array.max()), -float(array.min())), float(np.finfo(element).max)
        if largest > end:
            return f"holds {largest:.3g}, and {element} ends at {end:.3g}"
    return ""


def _numbers(array: Array, port: Port) -> Array:
    """Element types as the graph has them: float64, or int64 for an index; in the digits that the file takes."""
    if port.type.element == "index":
        return array.astype(np.int64)
    return (array.astype(np.float16) if _element_type(port) == "float16" else array).astype(np.float64)


def _disagreements(fitted: Mapping[str, Array], interface: Interface) -> list[str]:
    """Inputs of one run have one batch and, where they are streams, one length."""
    found = []
    for letter, axis, what in (("b", 0, "sequences"), ("t", 1, "steps")):
        sizes = {
            port.name: fitted[port.name].shape[axis]
            for port in interface.inputs
            if port.name in fitted and letter in port.axes
        }
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{size} in '{name}'" for name, size in sizes.items())
            found.append(f"the inputs differ in how many {what} they hold: {told}")
    return found
