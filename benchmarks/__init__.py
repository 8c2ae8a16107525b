"""Benchmarks: `python -m benchmarks.NAME --json FILE`. Not in the wheel."""
