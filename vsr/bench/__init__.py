"""Benchmark speed and quality, as users can run it."""
