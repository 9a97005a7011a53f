"""Is it the file's fault? What breaks the compiler is asked of others before it is called a mistake of ours."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Refusal

BROKEN = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
LOG = logging.getLogger("ssmc.frontend")


def failure(node: str, error: Exception) -> str:
    """The reason of a refusal where a rule broke on a node, as none does on a node that is what its op says."""
    LOG.debug("failed on '%s'", node, exc_info=error)
    return f"the frontend failed on it, a defect of ssmc: {type(error).__name__}: {error} (--debug shows where)"


def blame_refusals(path: str | Path, refusals: Iterable[Refusal]) -> None:
    """Raise UserError where rules broke on nodes of a file that onnx's checker or onnxruntime refuses too."""
    broken = (r.cause for r in refusals if r.cause is not None and not isinstance(r.cause, ValueError))
    cause = next(broken, None)  # values that do not fit each other are told as they are
    if cause is not None and (reason := _fault(path)) is not None:
        raise _invalid(path, reason) from cause


@contextmanager
def blaming_the_file(path: str | Path) -> Iterator[None]:
    """Turn what goes wrong inside into a UserError where onnx's checker or onnxruntime refuses the file too.

    Values that do not fit what the file itself says are found where they are used, in any of many places; what both of
    the others accept is a mistake of ours, and is raised as it is.
    """
    try:
        yield
    except UserError:
        raise
    except (RecursionError, MemoryError) as error:
        raise UserError("the model is too large, or nested too deeply", where=str(path), why=str(error)) from error
    except BROKEN as error:
        reason = _fault(path)
        if reason is None:
            raise
        raise _invalid(path, reason) from error


def _invalid(path: str | Path, reason: str) -> UserError:
    return UserError(
        "the file is no valid model", where=str(path), why=reason, hint="export it again, and check it there"
    )


def _fault(path: str | Path) -> str | None:
    """What the checker or the runtime finds wrong with a file, in a few lines; None where nothing."""
    import onnx
    import onnxruntime

    def session() -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def check() -> None:
        onnx.checker.check_model(str(path), full_check=True)

    for test in (check, session):
        try:
            test()
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return " ".join(lines)[:400] or type(error).__name__
    return None
