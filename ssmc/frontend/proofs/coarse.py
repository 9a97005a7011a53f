"""Files whose tables are stored in so few digits that they belong to no one system: told as that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Lift
from ssmc.frontend.model import Proof
from ssmc.frontend.source.listing import Listing
from ssmc.frontend.source.precision import ROUNDING

PART = 1 / 8  # of a format's rounding: systems that are off by less are not so for their tables (ours)


def require_one_system(proofs: Sequence[Proof], lifts: Sequence[Lift], file: Listing, path: Path) -> None:
    """Raise UserError where a proof failed, and a system is off by what tables of few digits are rounded by.

    Powers of a decay, A, A^2, A^4 ..., as parallel scans have, are powers of nothing when each is rounded for itself.
    """
    formats = [name for name in ROUNDING if name in file.formats.values()]
    coarse = max(formats, key=ROUNDING.__getitem__, default=None)
    bad = [proof for proof in proofs if not proof.passed]
    off = max((lift.proof_error for lift in lifts), default=0.0)
    if not bad or coarse is None or off < PART * ROUNDING[coarse]:
        return
    worst = max(bad, key=lambda proof: proof.error)
    raise UserError(
        f"the tables in the file belong to no one system: with the nearest, output '{worst.output}' is off by "
        f"{worst.error:.1e}",
        where=str(path),
        why=f"they are stored in {coarse}, each rounded for itself by up to {ROUNDING[coarse]:.0e}, as the powers of a "
        f"decay in a parallel scan are; what they make of one step and of another differs by {off:.1e}; compared with "
        f"{worst.against} at batch {worst.batch}, length {worst.length}; allowed is {worst.tolerance:.0e} of the "
        "largest value",
        hint="export the model with these tables in float32, or as a recurrence, which has one of them only",
    )
