"""The 14 rows are the seed document's, cell by cell; what is not built says so and is refused."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from amends.domain.matrix import Matrix, MatrixRow
from amends.values.canonical import canonical, sha256
from supervisors.matrix import MATRIX, ROWS
from supervisors.rental import RENTAL, STEPS
from supervisors.timing import TIMING

SEED = Path(__file__).with_name("seed_matrix.md")
# The seed's columns and the fields that carry them.
COLUMNS = {
    "Workflow Step": "step",
    "Failure Point": "failure_point",
    "Detection": "detection",
    "Compensation Action": "action",
    "Owner": "owner",
}


def seed_rows() -> list[dict[str, str]]:
    """The seed's table: column → cell, one dictionary a row."""
    lines = [line for line in SEED.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head, rule, *rows = table
    assert set("".join(rule)) == {"-"}
    return [dict(zip(head, row, strict=True)) for row in rows]


CELLS = [
    pytest.param(row, column, cells[column], id=f"{row.id}-{COLUMNS[column]}")
    for row, cells in zip(ROWS, seed_rows(), strict=True)
    for column in COLUMNS
]


def test_the_seed_has_14_rows_of_the_five_known_columns() -> None:
    assert [list(row) for row in seed_rows()] == [list(COLUMNS)] * 14


@pytest.mark.parametrize(("row", "column", "cell"), CELLS)
def test_each_cell_is_the_seeds(row: MatrixRow, column: str, cell: str) -> None:
    assert getattr(row, COLUMNS[column]) == cell


def test_the_ids_are_r01_to_r14_in_order() -> None:
    assert [row.id for row in ROWS] == [f"R{number:02}" for number in range(1, 15)]
    assert MATRIX.rows == ROWS
    assert MATRIX is RENTAL.matrix


def test_a_row_is_found_by_its_id_and_by_a_step_it_covers_if_it_is_built() -> None:
    assert MATRIX.row_for("ssh.key-install") is MATRIX.row("R02")
    assert MATRIX.row_for("agent.mount") is MATRIX.row("R12")
    assert MATRIX.row_for("agent.reconcile") is None
    with pytest.raises(KeyError):
        MATRIX.row("R15")


def test_every_step_with_an_effect_has_exactly_one_row_and_every_budget_is_a_timing_key() -> None:
    for step in STEPS:
        covering = [row.id for row in ROWS if step.name in row.covers]
        assert len(covering) == (1 if step.effect else 0), step.name
    assert [key for row in ROWS for key in row.budget if key not in TIMING] == []


def body(step: int) -> dict[str, Any]:
    """The matrix as dictionaries, their keys forwards (1) or backwards (-1)."""
    rows = [dict(list(msgspec.to_builtins(row).items())[::step]) for row in ROWS]
    return dict([("version", MATRIX.version), ("rows", rows)][::step])


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert list(body(1)["rows"][0]) == list(reversed(body(-1)["rows"][0]))
    assert canonical(body(1)) == canonical(body(-1))
    assert sha256(MATRIX.body()) == MATRIX.sha256


def test_the_hash_can_be_recomputed_from_the_stored_document() -> None:
    stored = json.loads(MATRIX.body())  # the document table keeps jsonb, which knows no order of keys
    assert sha256(canonical(stored)) == MATRIX.sha256


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if value in ("built", "not_built"):
        return "not_built" if value == "built" else "built"
    return f"{value}." if isinstance(value, str) else (*value, "another")


@pytest.mark.parametrize("field", MatrixRow.__struct_fields__)
@pytest.mark.parametrize("place", range(14))
def test_the_hash_changes_with_any_cell(place: int, field: str) -> None:
    row = ROWS[place]
    other = msgspec.structs.replace(row, **{field: changed(getattr(row, field))})
    rows = (*ROWS[:place], other, *ROWS[place + 1 :])
    assert Matrix(MATRIX.version, rows).sha256 != MATRIX.sha256


def test_the_hash_changes_with_the_version_and_the_order_of_rows() -> None:
    assert Matrix(f"{MATRIX.version}.", ROWS).sha256 != MATRIX.sha256
    assert Matrix(MATRIX.version, tuple(reversed(ROWS))).sha256 != MATRIX.sha256


def test_nothing_that_a_row_not_built_needs_is_declared() -> None:
    steps, cases = {step.name for step in STEPS}, {case.kind for case in RENTAL.cases}
    for row in ROWS:
        if row.status == "not_built":
            assert steps.isdisjoint(row.covers), row.id
            assert cases.isdisjoint(row.cases), row.id
