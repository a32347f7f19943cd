"""Figures of `./run bench`, a module per theme: each runs alone and prints one JSON object a line."""
