"""The payment: what Stripe's events say of it becomes entries of an account's ledger, each once."""
