"""The schema of a model's interface in a program's metadata (see `ssmc.interface`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from ssmc.metadata import Told

MOST = (1 << 31) - 1  # of a size (ours): products of two are machine integers
Size = Annotated[int, Field(strict=True, ge=0, le=MOST)]


class StoredType(Told):
    """A type; `rate` is a fraction, of streams."""

    kind: Literal["stream", "sequence", "constant"]
    shape: list[Size]
    element: Literal["real", "complex", "index", "bool"]
    rate: Annotated[str, Field(pattern=r"^[0-9]{1,9}(/[1-9][0-9]{0,8})?$")] = "1"


class StoredPort(Told):
    """An input or output; each axis is a letter, batch and time once at most."""

    name: str
    axes: Annotated[str, Field(pattern=r"^[1f]*(b[1f]*t?|t[1f]*b?)?[1f]*$")]
    shape: list[Size | str | None]
    dtype: str
    role: str
    type: StoredType


class StoredInterface(Told):
    """All of them, and which state comes from which output."""

    form: Literal["sequence", "step"]
    states: dict[str, str]
    inputs: list[StoredPort]
    outputs: list[StoredPort]


SCHEMA = TypeAdapter(StoredInterface)
