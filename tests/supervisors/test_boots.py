"""Boot ids: a reboot is told at once, two machines under one name as rivals, and neither more than once a second."""

from supervisors.boots import REMEMBERED, BootIds


def test_a_reboot_is_told_at_once_and_once() -> None:
    boots = BootIds(60.0)
    boots.changed("n1", "b1", "b2", 100.0)
    assert boots.due(100.0) == [("n1", "")]
    assert boots.due(105.0) == []


def test_a_boot_id_that_comes_back_within_the_window_is_a_rival() -> None:
    boots = BootIds(60.0)
    boots.changed("n1", "b1", "b2", 100.0)
    assert boots.due(100.0) == [("n1", "")]
    boots.changed("n1", "b2", "b1", 130.0)
    assert boots.due(130.0) == [("n1", "b2")]


def test_one_that_comes_back_much_later_is_a_reboot() -> None:
    boots = BootIds(60.0)
    boots.changed("n1", "b1", "b2", 100.0)
    boots.due(100.0)
    boots.changed("n1", "b2", "b1", 200.0)
    assert boots.due(200.0) == [("n1", "")]


def test_however_fast_they_alternate_the_node_hears_once_a_second_and_what_it_missed_is_not_lost() -> None:
    # given two machines that beat ten times a second each, out of step
    boots, told, now, boot_id = BootIds(60.0), [], 100.0, "b1"
    for _ in range(60):
        was, boot_id = boot_id, "b2" if boot_id == "b1" else "b1"
        boots.changed("n1", was, boot_id, now)
        told += boots.due(now, "n1")
        now += 0.05
    # then
    assert len(told) == 3
    assert told[0] == ("n1", "")
    assert {rival for _, rival in told[1:]} <= {"b1", "b2"}


def test_what_could_not_be_told_is_told_later_without_another_heartbeat() -> None:
    boots = BootIds(60.0)
    boots.changed("n1", "b1", "b2", 100.0)
    boots.due(100.0)
    boots.changed("n1", "b2", "b1", 100.1)
    assert boots.due(100.5) == []
    assert boots.due(101.0) == [("n1", "b2")]


def test_endless_new_boot_ids_take_no_endless_room() -> None:
    boots = BootIds(60.0)
    for number in range(10_000):
        boots.changed("n1", f"b{number}", f"b{number + 1}", 100.0 + number / 1000)
    assert len(boots._changes["n1"].heard) == REMEMBERED
    boots.due(200.0)
    boots.due(400.0)
    assert boots._changes == {}
