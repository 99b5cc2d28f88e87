"""Parts of requests that come in kinds, of which there are more than are known here."""

from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag

from gateway.requests.base import Schema

OTHER = Tag("other")


class Other(Schema):
    """A part of a kind that is skipped: it is for servers that have what it needs."""

    type: Annotated[str, Field(max_length=64)]


def _known(parts: list[Any]) -> list[Any]:
    return [part for part in parts if not isinstance(part, Other)]


Known = AfterValidator(_known)
"""Leave out of a list what is skipped."""


def by_type(*known: str, default: str = "") -> Discriminator:
    """Tell the kinds of a union apart by their `type`; what has none is the default, and the rest are other."""

    def kind(value: Any) -> str | None:
        named = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        if named is None and default:
            return default
        return named if named in known else "other" if isinstance(value, dict | Schema) else None

    return Discriminator(kind)
