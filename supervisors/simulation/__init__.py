"""Whole runtimes in a simulated world: virtual time, seeded chance, crashes at any point."""
