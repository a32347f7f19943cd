"""A node that is ready, for decisions one by one."""

import pytest

from tests.actors.test_node import Life, ready


@pytest.fixture
def life() -> Life:
    return ready()
