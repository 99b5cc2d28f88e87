"""The table in docs/api.md is what the code and its tests say.

This writes it anew:

PYTHONPATH=.:tests/support:tests/promises python tests/gateway/web/test_api_table.py
"""

from collections.abc import Iterator
from pathlib import Path

from test_surface import CASES, NAMES, SCHEMAS

from gateway.requests.no_op_fields import NoOpFields, NoOpResponsesFields
from gateway.requests.sampling_fields import Speculative

TESTS = Path(__file__).parent.parent.parent
PAGE = TESTS.parent / "docs" / "api.md"
BEGIN, END = "<!-- made by tests/gateway/web/test_api_table.py -->\n", "<!-- to here -->\n"
OF_SPECULATIVE = {
    "enabled": "test_proposer",
    "forced": "test_forced_tokens_change_nothing",
    "k": "test_proposer",
    "proposer": "test_proposer",
    "memory": "test_without_memory",
    "metrics": "test_metrics",
    "rounds": "test_rounds",
}
REFUSED = "its no-op alone, else a 400 | | `test_no_ops_are_taken`"


def rows(field: str) -> Iterator[str]:
    """Yield the rows of a field; a field that no test shows is an error."""
    having = [path for path, schema in SCHEMAS.items() if field in schema.model_fields]
    no_op = NoOpFields.model_fields | NoOpResponsesFields.model_fields
    refused = [path for path in having if field in no_op and SCHEMAS[path].model_fields[field].annotation is object]
    works = [path for path in having if path not in refused]
    missing = [NAMES[path] for path in works if not any(case[:2] == (path, field) for case in CASES)]
    if missing:
        raise AssertionError(f"no case in tests/promises/test_surface.py shows {field} in {missing}")
    if works:
        shown = f"yes | yes | `test_on_equals_off[{NAMES[works[0]]} {field}]`"
        yield f"| `{field}` | {', '.join(map(NAMES.__getitem__, works))} | {shown} |"
    if refused:
        yield f"| `{field}` | {', '.join(map(NAMES.__getitem__, refused))} | {REFUSED} |"


def table() -> str:
    """Return the table of every field of every request."""
    fields = {field for schema in SCHEMAS.values() for field in schema.model_fields}
    lines = [row for field in fields for row in rows(field)]
    shown = ((field, OF_SPECULATIVE[field]) for field in Speculative.model_fields)
    lines += [
        f"| `speculative.{field}` | {', '.join(NAMES.values())} | yes | yes | `{test}` |" for field, test in shown
    ]
    lines.sort(key=lambda row: (REFUSED in row, row))
    head = ["| field | where | works | with speculation on | test that shows it |", "| --- | --- | --- | --- | --- |"]
    return "\n".join(head + lines) + "\n"


def page(old: str) -> str:
    """Return the page with the table of today."""
    before, _, rest = old.partition(BEGIN)
    return f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}"


def test_the_table_is_of_today() -> None:
    """Claim: docs/api.md has every field, and a test for each, which is there."""
    tests = "".join(path.read_text("utf-8") for path in TESTS.rglob("test_*.py"))
    assert all(f"def {test}(" in tests for test in OF_SPECULATIVE.values())
    text = PAGE.read_text("utf-8")
    assert text == page(text), "run this file: its docstring says how"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
