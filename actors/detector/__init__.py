"""The detector's word on many nodes at once."""
