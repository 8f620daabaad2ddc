"""Benchmarks that a user can run: speed, and quality."""
