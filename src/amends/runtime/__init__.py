"""The actor runtime: mailboxes, turns, steps, timers, recovery and supervision. It knows no renting and no driver."""
