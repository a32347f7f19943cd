"""Stripe: credits on their way out (`mirror`), what is there (`ledger`), whose webhooks are its own (`signatures`).

Import `mirror`, `ledger` and `api` only where a key is configured: with them comes Stripe's library, a quarter of a
second and 30 MB. `signatures` needs the standard library alone.
"""
