"""Supervisors watch: the detector, the pool of nodes, the matrix, settings, and `boot`, the composition root."""
