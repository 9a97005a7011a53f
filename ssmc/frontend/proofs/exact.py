"""What a file says in float64: its own nodes, run by `ssmc` on the user's arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssmc.diagnostics import UserError
from ssmc.frontend.model import Model
from ssmc.frontend.proofs.proof import run_file
from ssmc.frontend.proofs.reference import check_inputs
from ssmc.frontend.source.importer import import_model
from ssmc.frontend.source.listing import list_calls
from ssmc.frontend.source.proto import read_model
from ssmc.frontend.source.statics import fold_statics
from ssmc.ir.op import Array


def exact_reference(model: Model, inputs: Mapping[str, Any]) -> dict[str, Array] | None:
    """Outputs of the unmodified file in float64; None where its nodes do not run at these sizes, as where the file is
    for another batch."""
    listing = list_calls(import_model(read_model(model.path), model.path))
    fold_statics(listing)
    try:
        return run_file(listing, model.inputs, model.states, model.form, check_inputs(model, inputs))
    except (UserError, ValueError, IndexError):
        return None
