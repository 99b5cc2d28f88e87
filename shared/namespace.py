"""Whose sessions they are: the word that keeps apart what one client and another left behind."""

import hashlib
import hmac

from shared.errors import InvalidFieldError

MAX_CHARACTERS = 64


def namespace_of(key: str, salt: str) -> str:
    """Return the namespace of a client's key and a request's salt; all that have neither share the empty one.

    A keyed hash: every gateway that knows the key gives the same one, and it tells neither of the two.
    """
    return hmac.new(key.encode(), salt.encode(), hashlib.sha256).hexdigest() if key or salt else ""


def check_namespace(namespace: str) -> str:
    """Return the namespace. Raises InvalidFieldError if it is too long."""
    if len(namespace) > MAX_CHARACTERS:
        raise InvalidFieldError("namespace", f"{len(namespace)} characters, at most {MAX_CHARACTERS}")
    return namespace
