"""The `[timing]` table of `matrix.md`, both profiles. Milliseconds, counts, percents; ranges are (first, cap)."""

from typing import Literal

from amends.values.limits import LimitValue

Profile = Literal["production", "acceptance"]

# key → (production, acceptance)
TIMING: dict[str, tuple[LimitValue, LimitValue]] = {
    "heartbeat_interval_ms": (5000, 200),
    "suspect_after_ms": (15000, 600),
    "offline_after_ms": (45000, 1500),
    "min_failed_probes": (2, 1),
    "probe_timeout_ms": (3000, 300),
    "mass_offline_percent": (50, 50),
    "mass_offline_min_nodes": (3, 3),
    "verdicts_per_s": (10, 100),
    "last_seen_checkpoint_ms": (10000, 200),
    "flap_limit": (4, 4),
    "flap_window_ms": (1800000, 10000),
    "setup_fail_limit": (3, 3),
    "reprobe_ms": (600000, 60000),
    "world_every_ms": (3600000, 3600000),
    "world_grace_ms": (120000, 2000),
    "outbox_poll_ms": (500, 50),
    "outbox_lag_alarm_ms": (10000, 500),
    "outbox_backoff_ms": ((500, 30000), (50, 500)),
    "ssh_step_timeout_ms": (60000, 2000),
    "ssh_step_tries": (1, 1),
    "activation_tries": (5, 3),
    "activation_backoff_ms": ((200, 5000), (20, 100)),
    "cleanup_tries": (8, 3),
    "cleanup_backoff_ms": ((5000, 600000), (50, 200)),
    "notification_tries": (6, 3),
    "notification_backoff_ms": ((1000, 60000), (50, 200)),
    "provider_timeout_ms": (30000, 1000),
    "grant_tries": (4, 2),
    "revoke_tries": (6, 3),
    "provider_backoff_ms": ((1000, 30000), (50, 200)),
    "mount_timeout_ms": (120000, 1000),
    "unmount_tries": (6, 3),
    "unmount_backoff_ms": ((10000, 120000), (100, 300)),
    "quota_interval_ms": (60000, 300),
    "drain_timeout_ms": (20000, 3000),
    "allocation_deadline_ms": (60000, 3000),
}


def timing(profile: Profile, overrides: dict[str, LimitValue]) -> dict[str, LimitValue]:
    """All keys of a profile, with the configuration's own values in place."""
    column = 0 if profile == "production" else 1
    return {key: overrides.get(key, values[column]) for key, values in TIMING.items()}
