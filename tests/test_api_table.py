"""The table in docs/api.md is what the code and its tests say: `python tests/test_api_table.py` writes it anew."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pydantic import BaseModel
from test_surface import CASES, CHAT, COMPLETIONS

from gateway.no_op_fields import NoOpFields
from gateway.schemas import ChatRequest, CompletionRequest

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
BEGIN, END = "<!-- made by tests/test_api_table.py -->\n", "<!-- to here -->\n"
SCHEMAS: dict[str, type[BaseModel]] = {CHAT: ChatRequest, COMPLETIONS: CompletionRequest}
NO_OPS = set(NoOpFields.model_fields)
NAMES = {CHAT: "chat", COMPLETIONS: "completions"}
REFUSED = "its no-op alone, else a 400 | | `test_no_ops_are_taken`"


def row(field: str) -> str:
    """Return the row of a field; a field that no test shows is an error."""
    having = [path for path, schema in SCHEMAS.items() if field in schema.model_fields]
    where = ", ".join(NAMES[path] for path in having)
    if field in NO_OPS:
        return f"| `{field}` | {where} | {REFUSED} |"
    shown = {path for path, case, _ in CASES if case == field}
    missing = [NAMES[path] for path in having if path not in shown]
    if missing:
        raise AssertionError(f"no case in tests/test_surface.py shows {field} in {missing}")
    return f"| `{field}` | {where} | yes | yes | `test_on_equals_off[{NAMES[having[0]]} {field}]` |"


def table() -> str:
    """Return the table of every field of every request."""
    fields = {field: None for schema in SCHEMAS.values() for field in schema.model_fields}
    taken = sorted(fields, key=lambda field: (field in NO_OPS, field))
    lines = ["| field | where | works | with speculation on | test that shows it |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*lines, *map(row, taken)]) + "\n"


def page(old: str) -> str:
    """Return the page with the table of today."""
    before, _, rest = old.partition(BEGIN)
    return f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}"


def test_the_table_is_of_today() -> None:
    """Claim: docs/api.md has every field, and a test for each."""
    text = PAGE.read_text("utf-8")
    assert text == page(text), "python tests/test_api_table.py"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
