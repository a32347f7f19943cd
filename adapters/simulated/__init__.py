"""The simulated world: stand-ins for what the other adapters touch, for tests and the demo."""
