"""Servers that Amends starts itself when none are configured: Postgres and NATS with JetStream."""
