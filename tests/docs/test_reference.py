"""docs/reference: its generated parts are the code's, its examples can be sent, and what the code cites is there."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest

from actors.node.messages import UpdateNode
from adapters.nats.agent_messages import Heartbeat, TaskResult
from adapters.nats.service import reply_schema
from adapters.nats.service import schemas as service_schemas
from adapters.postgres.reading import ENTITIES
from amends.runtime.requests import Endpoint, decode
from supervisors.api.replies import data_schema
from supervisors.matrix import ROWS
from tests.adapters.postgres.database import Database
from tests.house.test_house import project_files
from tools import asyncapi_schemas as schemas
from tools import reference
from tools.asyncapi import endpoints
from tools.reference_examples import COMMANDS, FILTERS, NOTES, QUESTIONS, example
from tools.reference_examples import ROWS as EXAMPLE_ROWS
from tools.views import views

ROOT = reference.FOLDER.parents[1]
PAGES = sorted(reference.FOLDER.glob("*.md"))
CITES = re.compile(
    r"(?<![\w./*-])`?(?:[\w-]+/)*([a-z]+(?:[-_][a-z]+)*\.md)\b`?"  # a page,
    r"(?:,? (?:sections? |rules? )?(\d+(?:(?:, | and )\d+)*))?"  # by its numbers,
    r"(?:, ([A-Za-z_]+)(?=\)))?"  # or, in brackets, by a name in it
)
INVENTED = {"port_stuck.md"}  # a test's own case
SUBJECTS = [pytest.param(endpoint, id=endpoint.subject) for endpoint in endpoints()]


def sections(page: Path) -> set[str]:
    """What can be cited of a page: headings in lower case, the numbers that they and lists begin with, its rows."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    numbers = re.findall(r"^(?:#+ )?(\d+)\. ", text, re.MULTILINE)
    names = [re.sub(r"^\d+\. ", "", heading).split(":")[0].lower() for heading in headings]
    return {*numbers, *names, *re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)}


def citations() -> Iterator[tuple[str, str, list[str]]]:
    """(where, page, what of it) for each page that code speaks of."""
    for path in project_files():
        if path.suffix not in (".py", ".sh", ".sql") and path.name != "run":
            continue
        if path == Path(__file__):
            continue
        text = re.sub(r"\n\s*(?:#|--)? *", " ", path.read_text(encoding="utf-8"))
        for page, numbers, name in CITES.findall(text):
            wanted = re.findall(r"\d+", numbers)
            yield str(path.relative_to(ROOT)), page, [*wanted, name.lower()] if name else wanted


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_generated_parts_are_what_the_code_says(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == reference.page(page), "run: ./run pages"


def test_every_part_stands_on_one_page_and_every_marker_is_closed() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    found = Counter(name for text in texts for _, name, _ in reference.BLOCK.findall(text))
    assert found == dict.fromkeys(reference.PARTS, 1)
    assert sum(text.count("<!-- generated: ") for text in texts) == len(reference.PARTS) + 1  # the index shows one
    assert sum(text.count("\n<!-- /generated -->\n") for text in texts) == len(reference.PARTS)


def test_no_page_is_longer_than_a_reader_likes() -> None:
    assert [page.name for page in PAGES if len(page.read_text(encoding="utf-8").splitlines()) > 500] == []


def test_a_page_whose_part_nobody_makes_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: weather -->\n<!-- /generated -->\n")
    with pytest.raises(KeyError, match="weather"):
        reference.page(page)


@pytest.mark.parametrize("endpoint", SUBJECTS)
def test_every_subject_has_an_example_that_can_be_sent(endpoint: Endpoint) -> None:
    asked, answered = example(endpoint.subject)
    decode(endpoint, msgspec.json.encode(asked))
    assert answered
    section = f"### {endpoint.subject}\n"
    (text,) = (t for page in PAGES if section in (t := page.read_text(encoding="utf-8")))
    shown = re.findall(r"```json\n(.*?)```", text.partition(section)[2].partition("\n### ")[0], re.DOTALL)
    assert [json.loads(block) for block in shown] == [asked, answered]


@pytest.mark.parametrize("endpoint", SUBJECTS)
def test_every_subject_announces_a_reply_of_its_own(endpoint: Endpoint) -> None:
    columns = {entity: dict.fromkeys(names, "any") for entity, names in views().items()}
    data = data_schema(endpoint, columns)
    assert data["properties"], "name what it answers in supervisors/replies.py"
    announced = json.loads(service_schemas(endpoint, data)["reply_schema"])
    jsonschema.Draft202012Validator.check_schema(announced)
    assert announced["properties"]["data"] == data
    # and the example shows nothing that is not announced
    _, answered = example(endpoint.subject)
    assert set(answered) <= set(data["properties"])


def test_there_is_no_example_or_note_of_what_is_not_asked() -> None:
    subjects = {endpoint.subject for endpoint in endpoints()}
    assert {*COMMANDS, *QUESTIONS, *NOTES} <= subjects
    assert set(EXAMPLE_ROWS) == set(FILTERS) == set(ENTITIES)


@pytest.mark.parametrize("entity", sorted(EXAMPLE_ROWS))
def test_the_example_row_of_an_entity_has_the_columns_of_its_view(entity: str) -> None:
    columns = views()[entity]
    assert list(EXAMPLE_ROWS[entity]) == columns, "change ROWS in tools/reference_examples.py"
    assert FILTERS[entity] in columns


def test_an_entity_in_a_reply_has_columns_of_its_view_only() -> None:
    for subject, (_, answered) in COMMANDS.items():
        for entity, row in answered.items():
            if isinstance(row, dict):
                assert set(row) <= set(views()[entity]), subject


def test_a_field_of_an_object_that_may_be_left_out_is_required_with_it_only() -> None:
    kind = msgspec.inspect.type_info(UpdateNode)
    assert isinstance(kind, msgspec.inspect.StructType)
    rows = dict(row.split(" | ")[:2] for row in reference.fields(kind))
    assert (rows["`reason`"], rows["`ssh`"], rows["`ssh.host`"], rows["`ssh.user`"]) == (
        "yes",
        "no",
        "with `ssh`",
        "no",
    )


def test_a_field_of_a_kind_without_words_is_not_passed_over() -> None:
    class Odd(msgspec.Struct):
        field: list[float]

    kind = msgspec.inspect.type_info(Odd)
    assert isinstance(kind, msgspec.inspect.StructType)
    with pytest.raises(TypeError, match="no words"):
        list(reference.fields(kind))


@pytest.mark.slow
async def test_the_views_of_a_migrated_database_have_the_columns_that_the_pages_name(database: Database) -> None:
    found: dict[str, list[str]] = {}
    for row in await database.read.rows("view_columns"):
        found.setdefault(row["view"], []).append(row["name"])
    assert found == views()


def test_the_matrix_page_says_of_each_row_whether_it_is_built() -> None:
    text = (reference.FOLDER / "matrix.md").read_text(encoding="utf-8")
    said = dict(re.findall(r"^### (R\d\d) .*?^\| status \| \*\*(\w+)\*\* \|$", text, re.MULTILINE | re.DOTALL))
    assert said == {row.id: row.status for row in ROWS}
    assert text.count("All fourteen are built.") == 1
    assert {row.status for row in ROWS} == {"built"}


def test_every_page_and_section_that_the_code_cites_is_there() -> None:
    pages = {path.name: path for path in project_files() if path.suffix == ".md"}
    found = [one for one in citations() if one[1] not in INVENTED]
    assert len([one for one in found if one[2]]) > 15
    missing = [f"{where}: {page}" for where, page, _ in found if page not in pages]
    missing += [
        f"{where}: {page} {part}" for where, page, parts in found if page in pages for part in parts
        if part not in sections(pages[page])
    ]  # fmt: skip
    assert missing == []


def test_the_api_has_its_ten_sections() -> None:
    text = (reference.FOLDER / "api.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\d+)\. ", text, re.MULTILINE) == [str(number) for number in range(1, 11)]


def shown(section: int) -> list[Any]:
    """The JSON that a section of api.md shows, in order."""
    text = (reference.FOLDER / "api.md").read_text(encoding="utf-8")
    own = text.partition(f"\n## {section}. ")[2].partition("\n## ")[0]
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", own, re.DOTALL)]


def test_what_the_api_shows_of_replies_and_messages_fits_the_schemas() -> None:
    for reply in shown(3):
        jsonschema.validate(reply, reply_schema({"type": "object"}))
    assert [reply["ok"] for reply in shown(3)] == [True, False]
    for message, schema in zip(
        shown(5), (schemas.event("allocation", {"type": "object"}), schemas.NOTIFICATION), strict=True
    ):
        jsonschema.validate(message, schema)
        assert set(message) <= set(schema["properties"])
    beat, reconcile, mount, inventory, busy = shown(6)
    jsonschema.validate(reconcile, schemas.RECONCILE_TASK)
    jsonschema.validate(mount, schemas.MOUNT_TASK)
    for body, kind in ((beat, Heartbeat), (inventory, TaskResult), (busy, TaskResult)):
        assert set(body) <= set(msgspec.structs.asdict(msgspec.convert(body, kind)))


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("(api.md 3)", [("api.md", "3", "")]),
        ("`api.md` sections 3 and 4. Every", [("api.md", "3 and 4", "")]),
        ("(matrix.md, rules 6 and 8; traces.md)", [("matrix.md", "6 and 8", ""), ("traces.md", "", "")]),
        ("(`tables.md`, audit_log)", [("tables.md", "", "audit_log")]),
        ("(credit-policy.md, Clock); intervals", [("credit-policy.md", "", "Clock")]),
        ("the table of `matrix.md`, both profiles", [("matrix.md", "", "")]),
        ("hashlib.md5(x) and f'{kind}.md'", []),
    ],
)
def test_a_citation_is_found_in_its_forms(text: str, cited: list[tuple[str, str, str]]) -> None:
    assert CITES.findall(text) == cited
