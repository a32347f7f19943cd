"""Benchmarks: `./run bench [--json FILE]`. They report; they assert nothing about time."""
