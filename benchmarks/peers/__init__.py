"""DBOS and Restate beside us: the workload of `benchmarks/lives.py` on each, in environments of their own."""
