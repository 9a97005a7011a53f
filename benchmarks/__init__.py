"""What the tool must reach, measured: `python -m benchmarks.run` writes docs/benchmarks.md."""
