"""Level crossing keeps the signal to within one delta, and data files are read as written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from samples.train.data import package_file, read_ts
from samples.train.events import level_crossings, pad_events

SIGNALS = st.integers(1, 3).flatmap(
    lambda channels: arrays(
        np.float32,
        st.tuples(st.integers(1, 30), st.just(channels)),
        elements=st.floats(-5, 5, width=32, allow_nan=False),
    )
)


@given(SIGNALS, st.floats(0.2, 2.0))
def test_events_rebuild_the_signal_to_within_one_delta(signal: np.ndarray, size: float) -> None:
    """Summing the events of a channel up to any sample gives that sample, less than one delta off."""
    rate = 10.0
    ids, dt = level_crossings(signal, np.full(signal.shape[1], size), rate)
    assert (dt >= 0).all() and (len(dt) == 0 or dt[0] == 0)
    jumps = np.zeros_like(signal, dtype=float)
    if len(ids):
        after = np.cumsum(dt.astype(float))
        first = int(np.flatnonzero((np.abs(signal.astype(float)) >= size).any(axis=1))[0])
        samples = first + np.rint(after * rate).astype(int)
        np.add.at(jumps, (samples, ids // 2), np.where(ids % 2 == 0, size, -size))
    assert np.all(np.abs(np.cumsum(jumps, axis=0) - signal) < size * (1 + 1e-5))


def test_a_ramp_makes_one_event_per_delta() -> None:
    ramp = np.arange(0, 1.05, 0.1, dtype=np.float32)[:, None]
    ids, dt = level_crossings(np.concatenate((ramp, -ramp), axis=1), np.array([0.25, 0.5]), 50.0)
    assert ids.tolist() == [0, 0, 3, 0, 0, 3]
    np.testing.assert_allclose(dt, [0, 0.04, 0, 0.06, 0.04, 0], atol=1e-6)


def test_padding_is_the_null_event_at_no_time() -> None:
    sequence = (np.array([1, 0, 3]), np.array([0.0, 0.5, 0.25], dtype=np.float32))
    batch = pad_events([sequence, (sequence[0][:1], sequence[1][:1])], length=2, null=4)
    assert batch.event.tolist() == [[1, 0], [1, 4]]
    assert batch.dt.tolist() == [[[0.0], [0.5]], [[0.0], [0.0]]]


def test_a_ts_file_is_read_channel_by_channel(tmp_path: Path) -> None:
    path = tmp_path / "tiny.ts"
    path.write_text("@problemName tiny\n@data\n1,2,3:4,5,6:7\n0.5,1:2,-3:2\n", encoding="utf-8")
    split = read_ts(path)
    assert split.labels.tolist() == [1, 0]
    assert split.sequences[0].tolist() == [[1, 4], [2, 5], [3, 6]]
    assert split.sequences[1].tolist() == [[0.5, 2], [1, -3]]


def test_a_package_that_is_missing_or_ships_no_such_file_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"'no_such_package' is not installed.*\[train\]"):
        package_file("no_such_package", "x.ts")
    with pytest.raises(FileNotFoundError, match=r"numpy .* does not ship no/such\.ts"):
        package_file("numpy", "no/such.ts")
