"""Sampled signals turned into events by level crossing (send-on-delta)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class EventBatch:
    """Event sequences padded at their end to one length.

    ``event`` ``(batch, events)``: ``2 c`` for a rise of channel ``c``, ``2 c + 1`` for a fall, ``2 C`` for
    padding. ``dt`` ``(batch, events, 1)``: seconds since the event before (0 for the first, for simultaneous
    events and for padding).
    """

    event: npt.NDArray[np.int64]
    dt: npt.NDArray[np.float32]


def level_crossings(
    signal: npt.NDArray[np.float32], delta: npt.NDArray[np.float64], rate_hz: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Send-on-delta sampling (Miskowicz, Sensors 2006) of ``signal`` ``(samples, channels)``.

    A channel keeps the last level that it sent, starting at 0. When the signal leaves the band of
    ``+-delta[c]`` around it, the channel sends one event per whole ``delta`` and moves its level along.
    Returns event ids and seconds since the event before.
    """
    level = np.zeros(signal.shape[1])
    ids: list[int] = []
    times: list[float] = []
    for step, values in enumerate(signal):
        moves = np.trunc((values - level) / delta).astype(int)
        level += moves * delta
        for channel in np.flatnonzero(moves):
            count = abs(int(moves[channel]))
            ids += [2 * int(channel) + int(moves[channel] < 0)] * count
            times += [step / rate_hz] * count
    dt = np.diff(np.array(times), prepend=times[:1])
    return np.array(ids, dtype=np.int64), dt.astype(np.float32)


def pad_events(
    sequences: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]], length: int, null: int
) -> EventBatch:
    """Sequences cut or padded at their end to ``length``; padding is event ``null`` with ``dt = 0``."""
    event = np.full((len(sequences), length), null, dtype=np.int64)
    dt = np.zeros((len(sequences), length, 1), dtype=np.float32)
    for row, (ids, gaps) in enumerate(sequences):
        count = min(len(ids), length)
        event[row, :count] = ids[:count]
        dt[row, :count, 0] = gaps[:count]
    return EventBatch(event, dt)
