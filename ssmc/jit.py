"""Compiled loops (numba): the machine code is kept beside the source, or with the user, where that can be.

Importing this module loads the compiler, which takes half a second: import what uses it where it is used. No function
is reassociated or contracted, so that a number comes out the same wherever in an array it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba.extending import intrinsic

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


def _high_product(typing: Any, a: Any, b: Any) -> Any:
    def multiplied(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        whole = builder.mul(*(builder.zext(one, wide) for one in arguments))
        return builder.trunc(builder.lshr(whole, ir.Constant(wide, 64)), ir.IntType(64))

    return numba.uint64(numba.uint64, numba.uint64), multiplied


# The upper 64 bits of the product of two uint64, for use within compiled functions.
high_product = cast(Callable[[Any, Any], Any], intrinsic(_high_product))
