"""The vector format of the realistic machine: float32 after every instruction."""

from __future__ import annotations

import numpy as np

from backends.epochcore.simulate.buffers import Access
from backends.epochcore.simulate.machine import Machine
from backends.epochcore.simulate.plan import Action
from backends.epochcore.simulate.planner import Planner
from ssmc.ir.op import Array


def narrow(values: Array) -> Array:
    """Rounded to float32, held in float64."""
    return values.astype(np.float32).astype(np.float64)


def narrowed(action: Action, *results: Access) -> Action:
    """`action`, and then its results rounded to float32."""

    def run(machine: Machine) -> None:
        action(machine)
        for result in results:
            view = machine.rows(result)
            view[...] = view.astype(np.float32)

    return run


def finished(plan: Planner, action: Action, *results: Access) -> Action:
    """`action` as it is in an ideal program, with its results rounded in a realistic one."""
    return action if plan.ideal else narrowed(action, *results)
