"""Postgres: the journal, the lease, migrations and the read side. Knows rows and statements, no renting rule."""
