"""What a program says about itself besides its code, read against a schema: whoever wrote the file may have erred."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ssmc.diagnostics import UserError


class Told(BaseModel):
    """A mapping of a program's metadata: values of just these types; what else stands there is for others."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


Schema = TypeVar("Schema")


def checked(value: Any, schema: TypeAdapter[Schema], *, where: str) -> Schema:
    """`value` as `schema` has it. Raises UserError that names the place in it; `where` is its own."""
    try:
        return schema.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        what = first["msg"][0].lower() + first["msg"][1:]
        raise UserError(
            "this is not what a program says there",
            where=where,
            why=f"{place}: {what}" if place else what,
            hint="keep what the compiler wrote, or compile the model again",
        ) from None


def checked_meta(meta: Mapping[str, Any], key: str, schema: TypeAdapter[Schema]) -> Schema:
    """The program's `.meta key`. Raises UserError."""
    return checked(meta[key], schema, where=f".meta {key}")
