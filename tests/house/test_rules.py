"""Each rule complains about a bad example and lets a good one pass: one that cannot fail is a defect."""

from collections.abc import Callable, Iterator

import pytest

from tests.house import rules

Rule = Callable[[str], Iterator[str]]


def pattern(name: str) -> Rule:
    return lambda text: rules.matches(getattr(rules, name), text)


LONG = "def f():\n" + "    x = 1\n" * rules.FUNCTION_LINES

ADDS = """-- expand: x
CREATE TABLE t (a text NOT NULL CHECK (a > ''));
CREATE UNIQUE INDEX i ON t (a);
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON t EXECUTE FUNCTION amends_guard();
"""
COLUMN = "-- expand: x\nALTER TABLE nodes ADD COLUMN c "

CASES: list[tuple[str, Rule, str, str]] = [
    ("migration", rules.undeclared, "-- What it is.\nSELECT 1;", "-- contract: what it is\nSELECT 1;"),
    ("drop", rules.narrowing, "-- expand: x\nDROP TABLE t;", "-- contract: x\nDROP TABLE t;"),
    ("drop column", rules.narrowing, "-- expand: x\nALTER TABLE nodes DROP COLUMN a;", ADDS),
    ("rename", rules.narrowing, "-- expand: x\nALTER TABLE nodes RENAME COLUMN a TO b;", f"{COLUMN}text;"),
    ("type", rules.narrowing, "-- expand: x\nALTER TABLE nodes ALTER COLUMN a TYPE bigint;", f"{COLUMN}text;"),
    ("not null", rules.narrowing, f"{COLUMN}text NOT NULL;", f"{COLUMN}text NOT NULL DEFAULT '';"),
    ("unique", rules.narrowing, f"{COLUMN}text UNIQUE;", "-- expand: drop nothing\nCREATE INDEX i ON nodes (a);"),
    ("index", rules.narrowing, "-- expand: x\nCREATE UNIQUE INDEX i ON nodes (a);", ADDS),
    ("constraint", rules.narrowing, "-- expand: x\nALTER TABLE nodes ADD CHECK (a > 0);", ADDS),
    ("two at once", rules.narrowing, f"{COLUMN}text, DROP COLUMN a;", f"{COLUMN}text, ADD COLUMN d text;"),
    ("rewritten", rules.narrowing, "-- expand: x\nUPDATE nodes SET body = '{}';", ADDS),
    ("hidden", rules.narrowing, "-- expand: x\nDO $$ BEGIN DROP TABLE t; END $$;", ADDS),
    (
        "function",
        rules.narrowing,
        "-- expand: x\nCREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1;",
        "-- expand: x\nCREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DROP TABLE x; END $$;",
    ),
    ("left over", pattern("LEFT_OVER"), "x = 1  # TO" + "DO later", "to_do = todo_list()"),
    ("left over fix", pattern("LEFT_OVER"), "# FIX" + "ME", "# prefix me"),
    ("wait_for", pattern("WAIT_FOR"), "await asyncio.wait_for" + "(x, 1)", "async with asyncio.timeout(1):"),
    (
        "wait_for import",
        pattern("WAIT_FOR"),
        "from asyncio import sleep, wait_" + "for",
        "from asyncio import sleep",
    ),
    (
        "host key",
        pattern("UNCHECKED_HOST"),
        "connect(h, known_hosts=" + "None)",
        "connect(h, known_hosts=pinned)",
    ),
    ("address", pattern("WEB_ADDRESS"), "x @ ht" + "tps://example.org/x", "aiohttp==3.14.0"),
    ("index", pattern("WEB_ADDRESS"), "--index-" + "url somewhere", "--require-hashes"),
    ("machine", pattern("MACHINE_PATH"), "open('/ro" + "ot/x')", "a/root/x and ./work/x and root_path/x"),
    ("file length", lambda text: rules.too_long(text, 3), "a\nb\nc\nd", "a\nb\nc"),
    ("function length", rules.long_functions, LONG, LONG.removesuffix("    x = 1\n")),
    ("async function", rules.long_functions, "async " + LONG, "async def f(): ..."),
    (
        "silent pass",
        rules.silent_excepts,
        "try:\n    f()\nexcept E:\n    pass",
        "try:\n    f()\nexcept E:\n    g()",
    ),
    ("silent dots", rules.silent_excepts, "try:\n    f()\nexcept E:\n    ...", "class E(Exception): ..."),
    ("docstring", rules.no_docstring, "import os", '"""What it is."""'),
    (
        "boot",
        pattern_boot := (lambda text: rules.imports_of(text, "supervisors.boot")),
        "import supervisors.boot",
        "",
    ),
    ("boot from", pattern_boot, "from supervisors import boot", "from supervisors import tree"),
    ("boot inside", pattern_boot, "from supervisors.boot import main", "from supervisors.bootstrap import x"),
]


@pytest.mark.parametrize(("rule", "bad", "good"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_rule_complains_about_the_bad_and_not_about_the_good(rule: Rule, bad: str, good: str) -> None:
    assert len(list(rule(bad))) == 1
    assert list(rule(good)) == []
