"""The translated graph made simpler: norms, activations and registers recognised, maps fused."""
