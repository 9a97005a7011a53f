"""ssmc: a compiler from trained state-space models to accelerator programs.

    model = ssmc.load("model.onnx")
    program = ssmc.compile(model, "cim")
    result = program.run({"features": array})

What needs numpy or onnx is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssmc.diagnostics import Misfit, UserError
    from ssmc.driver import Executable, compile_model, default_pipeline, load
    from ssmc.driver import compile_model as compile
    from ssmc.ir import Graph, Tensor, interpret
    from ssmc.passes import Context, Pass, PassManager, register
    from ssmc.target import backends
    from ssmc.verification import verify

_LAZY = {
    "Context": "ssmc.passes",
    "Executable": "ssmc.driver",
    "Graph": "ssmc.ir",
    "Misfit": "ssmc.diagnostics",
    "Pass": "ssmc.passes",
    "PassManager": "ssmc.passes",
    "Tensor": "ssmc.ir",
    "UserError": "ssmc.diagnostics",
    "backends": "ssmc.target",
    "compile": "ssmc.driver",
    "compile_model": "ssmc.driver",
    "default_pipeline": "ssmc.driver",
    "interpret": "ssmc.ir",
    "load": "ssmc.driver",
    "register": "ssmc.passes",
    "verify": "ssmc.verification",
}

__all__ = [
    "Context",
    "Executable",
    "Graph",
    "Misfit",
    "Pass",
    "PassManager",
    "Tensor",
    "UserError",
    "backends",
    "compile",
    "compile_model",
    "default_pipeline",
    "interpret",
    "load",
    "register",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("ssmc")
    if name not in _LAZY:
        raise AttributeError(f"module 'ssmc' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), "compile_model" if name == "compile" else name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
