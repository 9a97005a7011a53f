"""How far loops over chunks are written out; what would take more stays a loop (our figures)."""

from __future__ import annotations

MOST_CHUNKS = 256  # chunks, or trips of a loop
MOST_CALLS = 20_000  # calls of all trips, or of a listing in which chunks are looked for
