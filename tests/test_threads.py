"""The process's BLAS is limited inside, and afterwards is as it was."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_info, threadpool_limits

from ssmc.threads import cores, one_blas_thread


def _threads() -> list[int]:
    assert np.linalg.norm(scipy.linalg.qr(np.eye(2))[0]) > 0  # both are loaded
    return [entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"]


def test_one_thread_inside_and_as_before_outside() -> None:
    with threadpool_limits(3, user_api="blas"):
        before = _threads()
        with one_blas_thread():
            assert set(_threads()) == {1}
            with one_blas_thread():
                assert set(_threads()) == {1}
            assert set(_threads()) == {1}
        assert _threads() == before and set(before) != {1}


def test_there_is_a_core() -> None:
    assert cores() >= 1
