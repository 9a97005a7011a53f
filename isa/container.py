"""The program file, ``NAME.ssmx``: a plain safetensors file.

Tensors: ``code/SECTION`` (uint8, one row an instruction) and ``data/NAME``, a constant; complex constants
are stored as real pairs on a trailing axis of 2. Metadata, each a JSON string: ``format``, ``target``,
``isa_version``, ``arch``, ``sections`` (names, labels, source map as runs), ``isa_table`` (a hash of the
encoding), ``locs``, ``inputs``, ``outputs``, ``complex`` (which constants are), ``meta``, and ``sha256``
over all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isa.binary import decode, encode
from isa.check import check, set_of
from isa.errors import IsaError
from isa.frozen import FrozenMap
from isa.program import Instruction, Json, Loc, Port, Program, Section
from isa.registry import Sets, find_set
from isa.spec import InstructionSet

FORMAT = "ssmx 1"

_TAGS = {
    **{f"int{n}": f"I{n}" for n in (8, 16, 32, 64)},
    **{f"uint{n}": f"U{n}" for n in (8, 16, 32, 64)},
    **{f"float{n}": f"F{n}" for n in (16, 32, 64)},
    "bool": "BOOL",
}
"""numpy's element types by safetensors' names for them."""

_PARTS = {"complex64": "float32", "complex128": "float64"}
_KEYS = (
    "format",
    "target",
    "isa_version",
    "isa_table",
    "arch",
    "sections",
    "locs",
    "inputs",
    "outputs",
    "complex",
    "meta",
)

Tensors = dict[str, NDArray[Any]]


def save(program: Program, path: str | os.PathLike[str], sets: Sets = None) -> None:
    """Write `program` to `path`, whole or not at all; the same program gives the same bytes.

    Raises `IsaError` where the program is not one of its instruction set, OSError where the file cannot be
    written.
    """
    tensors, metadata = _to_tensors(program, sets)
    metadata["sha256"] = _checksum(tensors, metadata)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            for piece in _serialise(tensors, metadata):
                file.write(piece)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike[str], sets: Sets = None) -> Program:
    """The program in the file `path`.

    Raises `IsaError` with one message that names the file and what to do: not there, not a program file,
    truncated, corrupted, for an instruction set or version that is not here, code that is not of its
    instruction set.
    """
    tensors, metadata = _read(path)
    _verify(path, tensors, metadata)
    try:
        isa = find_set(metadata["target"], metadata["isa_version"], sets)
        if metadata["isa_version"] == isa.version and metadata["isa_table"] != isa.fingerprint:
            raise IsaError(
                f"written for another encoding of {isa.name} {isa.version} than this one: compile the model again"
            )
        program = _from_tensors(tensors, metadata, isa)
        check(program, isa)
    except IsaError as error:
        raise IsaError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        # The checksum is right, so whoever wrote the file wrote it so.
        raise IsaError(f"{path}: not a well-formed program ({error!r}): compile the model again") from None
    return program


def load_data(path: str | os.PathLike[str]) -> Tensors:
    """The constants in a program file, or the tensors of any other safetensors file, by name: what assembly
    text is given beside it.

    Raises `IsaError` where the file cannot be read or is corrupted.
    """
    tensors, metadata = _read(path)
    if "format" not in metadata:
        return tensors
    _verify(path, tensors, metadata)
    return _constants(tensors, json.loads(metadata["complex"]))


def _verify(path: str | os.PathLike[str], tensors: Tensors, metadata: dict[str, str]) -> None:
    """Raises `IsaError` where these are not the contents of a whole program file of this release."""
    if metadata.get("format") != FORMAT:
        found = (
            f"its format is '{metadata['format']}'"
            if "format" in metadata
            else "it is a safetensors file of another kind"
        )
        raise IsaError(f"{path}: not a program file of this release ({found}, not '{FORMAT}'): compile the model again")
    if metadata.pop("sha256", None) != _checksum(tensors, metadata) or metadata.keys() != set(_KEYS):
        what = "the file is corrupted (its checksum does not match)"
        raise IsaError(f"{path}: {what}: copy it again or compile the model again")


def _to_tensors(program: Program, sets: Sets) -> tuple[Tensors, dict[str, str]]:
    isa = set_of(program, sets)
    tensors: Tensors = {f"code/{name}": words for name, words in encode(program, sets).items()}
    pairs = {name: array.dtype.name for name, array in program.data.items() if array.dtype.name in _PARTS}
    for name, array in program.data.items():
        part = _PARTS.get(array.dtype.name)
        tensors[f"data/{name}"] = array if part is None else array.reshape(*array.shape, 1).view(part)
    metadata: dict[str, Json] = {
        "sections": [_section_json(section) for section in program.sections],
        "locs": [[loc.layer, loc.op, *loc.onnx_nodes] for loc in program.locs],
        "inputs": [_port_json(port) for port in program.inputs],
        "outputs": [_port_json(port) for port in program.outputs],
        "complex": dict(pairs),
        "meta": dict(program.meta),
    }
    plain = {
        "format": FORMAT,
        "target": program.target,
        "isa_version": program.isa_version,
        "isa_table": isa.fingerprint,
        "arch": program.arch,
    }
    return tensors, {**plain, **{key: json.dumps(value, separators=(",", ":")) for key, value in metadata.items()}}


def _section_json(section: Section) -> Json:
    runs: list[Json] = [[loc, sum(1 for _ in run)] for loc, run in groupby(section.code, key=_loc_of)]
    return {"name": section.name, "labels": dict(section.labels), "locs": runs}


def _loc_of(instruction: Instruction) -> int | None:
    return instruction.loc


def _port_json(port: Port) -> Json:
    return {
        "name": port.name,
        "shape": list(port.shape),
        "kind": port.kind,
        "dtype": port.dtype,
        "binding": port.binding,
    }


def _from_tensors(tensors: Tensors, metadata: Mapping[str, str], isa: InstructionSet) -> Program:
    parts = {key: json.loads(metadata[key]) for key in _KEYS[5:]}
    data = _constants(tensors, parts["complex"])
    sections = []
    for entry in parts["sections"]:
        words = tensors[f"code/{entry['name']}"]
        if sum(count for _, count in entry["locs"]) != len(words) or any(count < 0 for _, count in entry["locs"]):
            raise IsaError(f"section '{entry['name']}': its sources are not those of {len(words)} instructions")
        locs = [loc for loc, count in entry["locs"] for _ in range(count)]
        sections.append(decode(entry["name"], words, isa, labels=entry["labels"], constants=sorted(data), locs=locs))
    return Program(
        target=metadata["target"],
        isa_version=metadata["isa_version"],
        arch=metadata["arch"],
        sections=tuple(sections),
        data=FrozenMap(data),
        locs=tuple(Loc(layer, op, tuple(nodes)) for layer, op, *nodes in parts["locs"]),
        inputs=tuple(Port(**port) for port in parts["inputs"]),
        outputs=tuple(Port(**port) for port in parts["outputs"]),
        meta=parts["meta"],
    )


def _constants(tensors: Tensors, pairs: Mapping[str, str]) -> Tensors:
    data = {name.removeprefix("data/"): array for name, array in tensors.items() if name.startswith("data/")}
    for name, dtype in pairs.items():
        data[name] = data[name].view(dtype)[..., 0]
    return data


def _read(path: str | os.PathLike[str]) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of any safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            known = set(_TAGS.values())
            for name in file.keys():  # noqa: SIM118 - not a mapping
                if file.get_slice(name).get_dtype() not in known:
                    raise IsaError(f"{path}: tensor '{name}' has an element type that a program cannot hold")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        if not os.path.exists(path):
            raise IsaError(f"{path}: there is no such file") from None
        if not os.access(path, os.R_OK):  # safetensors says that there is none
            raise IsaError(f"{path}: no permission to read this file") from None
        if os.path.isdir(path):
            raise IsaError(f"{path}: this is a folder, not a program file") from None
        what = f"not a program file, or a truncated or corrupted one ({error})"
        if not _begins_like_one(path):
            raise IsaError(f"{path}: not a program file, but of another kind: compile a model to get one") from None
        raise IsaError(f"{path}: {what}: copy it again or compile the model again") from None


def _begins_like_one(path: str | os.PathLike[str]) -> bool:
    """Does the file begin as safetensors files do, with the length of a JSON header and that?"""
    with open(path, "rb") as file:
        start = file.read(9)
    return len(start) < 9 or start[8:] == b"{"


def _serialise(tensors: Tensors, metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file: 8 bytes of header length, a JSON header padded to 8 bytes, the
    arrays.

    The safetensors library writes metadata in an order that changes from call to call, hence this. Arrays
    go by falling element size, then name, so that each is aligned, as the library does.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {key: metadata[key] for key in sorted(metadata)}}
    end = 0
    for name in order:
        array = tensors[name]
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _TAGS[array.dtype.name], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for name in order:
        yield np.ascontiguousarray(tensors[name]).data


def _checksum(tensors: Tensors, metadata: Mapping[str, str]) -> str:
    """sha256 over metadata and tensors in name order: names, element types, shapes, bytes."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
