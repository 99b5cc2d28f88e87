"""Whose sessions they are: the word that keeps apart what one client and another left behind."""

import hashlib
import hmac

from shared.errors import InvalidFieldError

MAX_CHARACTERS = 64
OWNER_CHARACTERS = 16
OWNER = b"\0owner"


def namespace_of(key: str, salt: str) -> str:
    """Return the namespace of a client's key and a request's salt; all that have neither share the empty one.

    Keyed hashes, of the key alone and of both: every gateway that knows the key gives the same ones, and they tell
    neither of the two.
    """
    if not (key or salt):
        return ""
    owner, own = (hmac.new(key.encode(), word, hashlib.sha256).hexdigest() for word in (OWNER, salt.encode()))
    return f"{owner[:OWNER_CHARACTERS]}.{own}"[:MAX_CHARACTERS]


def owner_of(namespace: str) -> str:
    """Return what all namespaces of one key have in common: the whole where it has no such part."""
    return namespace.partition(".")[0]


def check_namespace(namespace: str) -> str:
    """Return the namespace. Raises InvalidFieldError if it is too long."""
    if len(namespace) > MAX_CHARACTERS:
        raise InvalidFieldError("namespace", f"{len(namespace)} characters, at most {MAX_CHARACTERS}")
    return namespace
