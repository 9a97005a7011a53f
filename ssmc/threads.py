"""How many threads work: those of BLAS, which matrices of these sizes do not pay for, and the cores there are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Inside, a matrix product runs on the thread that asks for it; the limit is the process's.

    Threads of OpenBLAS wait for work by spinning, and numpy and scipy have a set each: on a machine that does anything
    else many small products take ten times as long as on one thread. Results no longer depend on the number of cores.
    """
    import numpy  # noqa: F401 - loads its BLAS
    import scipy.linalg  # noqa: F401 - loads scipy's, a second one
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
