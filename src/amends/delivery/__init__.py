"""The built-in domain: events and notifications on their way to the bus."""
