"""Bugs planted on purpose: each a plausible defect in one place, and the check that must name it (reliability.md)."""
