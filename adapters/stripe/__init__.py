"""Stripe: credits on their way out (`mirror`), what is there (`ledger`), whose webhooks are its own (`signatures`).

Import `mirror`, `ledger` and `api` only where a key is configured: Stripe's library comes with them, which takes 0.1 s
and 7 MB where aiohttp is loaded, and 0.4 s and 29 MB where it is not. `signatures` needs the standard library alone.
"""
