"""The allocation: one rental of one node by one account."""
