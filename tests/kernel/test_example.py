"""The example that newcomers copy runs, and ends as its page says."""

from examples.switch_port import main


def test_one_port_is_bound_and_the_other_is_undone() -> None:
    assert main() == {"p1": "bound", "p2": "unbound"}
