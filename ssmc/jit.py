"""Compiled loops (numba): the machine code is kept beside the source, or with the user, where that can be.

Importing this module loads the compiler, which takes half a second: import what uses it where it is used. No function
is reassociated or contracted, so that a number comes out the same wherever in an array it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def _kept(decorator: Callable[..., Any], function: Callable[..., Any], *signature: Any, **options: Any) -> Any:
    try:
        return decorator(*signature, cache=True, **options)(function)
    except RuntimeError:  # no folder can be written to
        return decorator(*signature, **options)(function)


def compiled(function: F) -> F:
    """`function`, compiled when it is first called with each kind of arguments; divisions are IEEE's."""
    return cast(F, _kept(numba.njit, function, nogil=True, error_model="numpy"))


def inlined(function: F) -> F:
    """`function`, for use within compiled ones."""
    return cast(F, numba.njit(inline="always", error_model="numpy")(function))
