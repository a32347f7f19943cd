"""Money: what a rental costs and what is given back, as pure integers of minor units (credit-policy.md)."""
