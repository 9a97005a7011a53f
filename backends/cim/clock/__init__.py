"""How long events take and what they cost: operations of each core, reloads, waiting, latency."""
