"""Files that were damaged on the way: lifted, proved, or refused."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.diagnostics import UserError
from ssmc.frontend import load_model
from tests.examples import examples
from tests.frontend import disguise, disguise_parallel, disguise_varying
from tests.frontend.mutate import damaged
from tests.frontend.net import save
from tests.frontend.test_disguises import random_system

pytestmark = pytest.mark.invalid_files
SYSTEM = random_system(1, 1, 3, 2, 2, True)
VALID = {
    "scan": disguise.as_scan(SYSTEM),
    "loop": disguise.as_loop(SYSTEM, "last", "flat", counted=True),
    "pieces": disguise.as_loop(SYSTEM, "pair", "sequence"),
    "step": disguise.as_step(SYSTEM),
    "unrolled": disguise.as_unrolled(SYSTEM, 6),
    "doubling": disguise_parallel.as_associative_scan(SYSTEM, 6),
    "tree": disguise_parallel.as_tree_scan(SYSTEM, 6),
    "fft": disguise_parallel.as_fft(random_system(2, 2, 1, 1, 1, True), 8),
    "toeplitz": disguise_parallel.as_toeplitz(random_system(2, 2, 1, 1, 1, False), 8),
    "chunks": disguise_varying.as_chunks(disguise_varying.Heads(1, 2, 2, 2, 7, False, False), 3),
}


@settings(max_examples=examples(60), deadline=None, derandomize=True)
@given(st.sampled_from(sorted(VALID)), st.integers(0, 1 << 32))
def test_damaged_models_are_lifted_or_refused(name: str, seed: int) -> None:
    """Whatever is wrong with a file, it ends in a message, and soon; what still loads was proved."""
    broken = damaged(VALID[name], seed)
    before = time.process_time()
    with tempfile.TemporaryDirectory() as folder, suppress(UserError):
        assert all(proof.passed for proof in load_model(save(broken, Path(folder))).proofs)
    assert time.process_time() - before < 10
