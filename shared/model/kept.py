"""Results that take seconds to find, kept in Outrider's cache for the next start."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import structlog

log = structlog.get_logger()


def cache(kind: str) -> Path:
    """Return the folder of what is kept of this kind, under OUTRIDER_CACHE or ~/.cache/outrider; it need not exist."""
    return Path(os.environ.get("OUTRIDER_CACHE") or "~/.cache/outrider").expanduser() / kind


def kept(kind: str, key: str, find: Callable[[], Any]) -> Any:
    """Return what was found before for this key, or else find it, and keep it where that can be written.

    It is a JSON value; None is nothing, and not kept.
    """
    path = cache(kind) / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.json"
    try:
        return json.loads(path.read_text())["found"]
    except (OSError, ValueError, KeyError):  # not there, or not whole
        found = find()
    if found is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump({"key": key, "found": found}, file, indent=1)
        Path(file.name).replace(path)
    except OSError as error:
        log.info("a result is not kept", kind=kind, reason=str(error))
    return found
