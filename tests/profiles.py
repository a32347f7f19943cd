"""How many examples hypothesis makes: `tests` the same few each time; `--hypothesis-profile=proof` very many more.

Those of `proof` come from `--hypothesis-seed`, so one command repeats them. Who says `max_examples` has his own number.
"""

from hypothesis import HealthCheck, Phase, settings

FEW, MANY = 100, 800
STEPS_FEW, STEPS_MANY = 20, 50
MACHINES_FEW, MACHINES_MANY = 10, 200  # of a state machine
_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)  # both cores may be busy with other work

settings.register_profile(
    "tests", max_examples=FEW, stateful_step_count=STEPS_FEW, deadline=None, derandomize=True, database=None,
    suppress_health_check=_SLOW,
)  # fmt: skip
settings.register_profile(
    "proof", max_examples=MANY, stateful_step_count=STEPS_MANY, deadline=None, database=None, print_blob=True,
    suppress_health_check=_SLOW, phases=(Phase.explicit, Phase.generate, Phase.shrink),
)  # fmt: skip
settings.load_profile("tests")


def machines() -> int:
    """How many lives of a state machine the profile asks for."""
    return MACHINES_MANY if settings().max_examples == MANY else MACHINES_FEW


def share(of: int) -> int:
    """That part of the profile's examples."""
    return settings().max_examples // of
