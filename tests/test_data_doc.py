"""docs/data.md promises an outcome for each bad input; each row names a test that exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
TEXT = (TESTS.parent / "docs" / "data.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("|") and "::test_" in line
]
OUTCOMES = re.compile(r"(used|reject|error|no effect)\b")


@cache
def text_of(file: str) -> str:
    return (TESTS / file).read_text()


def reasons() -> set[str]:
    """Every reason that is raised while shards are read and encoded."""
    root = TESTS.parent / "dress"
    files = [*(root / "data").glob("*.py"), *(root / "chat").glob("*.py")]
    return {
        call.args[0].value
        for file in files
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) == "Reject"
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }


def test_each_row_has_an_outcome_and_a_test() -> None:
    for row, outcome, counted, test in ROWS:
        assert OUTCOMES.match(outcome), row
        assert bool(counted) == ("reject" in outcome or "read_retries" in counted), row
        file, name = test.strip("`").split("::")
        assert re.search(rf"^def {name}\(", text_of(file), re.MULTILINE), row


def test_each_reason_is_in_the_table() -> None:
    counted = {name for row in ROWS for name in re.findall(r"`([^`]+)`", row[2])}
    assert counted - {"data/read_retries"} == reasons()


def test_there_are_many_rows_and_none_twice() -> None:
    assert len(ROWS) > 50 and len({row[0] for row in ROWS}) == len(ROWS)
