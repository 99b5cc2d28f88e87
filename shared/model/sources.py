"""Which modules decide the bits of a target's tokens, and how a change to them is noticed."""

import ast
import hashlib
from pathlib import Path

NUMERICS = 4
"""The version of our arithmetic. Raise it by hand, and only if the same request may give other bits than before."""

COMPUTING = ("devices/cpu", "sampling", "engine/verifier.py")
"""The folders and modules next to this one that compute, on any device."""

_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def sources_digest(*names: str) -> str:
    """Return a digest of the code in these folders and modules, without comments and docstrings."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    found = (path for name in names for path in (*here.glob(name), *here.glob(f"{name}/**/*.py")))
    for path in sorted(path for path in found if path.is_file()):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, _DOCUMENTED) and ast.get_docstring(node):
                del node.body[0]
        digest.update(f"{path.relative_to(here)} {ast.dump(tree)}".encode())
    return digest.hexdigest()[:16]
