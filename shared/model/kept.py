"""Results that take seconds to find, kept in Outrider's cache for the next start."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypeVar, cast

import structlog
from pydantic import TypeAdapter, ValidationError

from shared.errors import ModelError

log = structlog.get_logger()

T = TypeVar("T")


def cache(kind: str) -> Path:
    """Return the folder for this kind of result, under OUTRIDER_CACHE or ~/.cache/outrider; it may not exist yet.

    Raises ModelError if there is no home directory.
    """
    place = os.environ.get("OUTRIDER_CACHE") or "~/.cache/outrider"
    try:
        return Path(place).expanduser() / kind
    except RuntimeError as error:
        raise ModelError(f"OUTRIDER_CACHE {place}: {error}") from error


def kept(kind: str, key: str, shape: type[T], find: Callable[[], T | None]) -> T | None:
    """Return the result kept for this key; if there is none, find it, and keep it if the cache is writable.

    Results are kept as JSON of this shape. One of another shape or key is ignored. None is not kept.
    """
    path = cache(kind) / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.json"
    form = TypeAdapter(tuple[str, shape])  # type: ignore[valid-type]  # the type is an argument
    try:
        of_key, before = form.validate_json(path.read_bytes(), strict=True)
    except (OSError, ValidationError):
        of_key = ""
    if of_key == key:
        return cast("T", before)
    found = find()
    if found is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("wb", dir=path.parent, delete=False) as file:
            file.write(form.dump_json((key, found), indent=1))
        Path(file.name).replace(path)
    except OSError as error:
        log.info("a result is not kept", kind=kind, reason=str(error))
    return found
