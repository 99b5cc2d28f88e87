"""Which modules decide the bits of a target's tokens, and how a change of them is noticed."""

import ast
import hashlib
from pathlib import Path

NUMERICS = 1
"""The version of our arithmetic. Raise it by hand, and only if the same request may give other bits than before."""

COMPUTING = (
    "attention.py",
    "exactness.py",
    "experts.py",
    "fused.py",
    "half_linear.py",
    "kernel_linear.py",
    "kernels.py",
    "kv_cache.py",
    "linears.py",
    "logits_processors.py",
    "model_runner.py",
    "noise.py",
    "packed_linear.py",
    "rotary_table.py",
    "row_counts.py",
    "row_groups.py",
    "sampler.py",
    "step.py",
    "torch_linear.py",
    "verifier.py",
)
"""The modules beside this one that compute, whatever the device's name."""

_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def sources_digest(*names: str) -> str:
    """Return a digest of what these modules beside this one do: their code without comments and docstrings."""
    digest = hashlib.sha256()
    for name in names:
        tree = ast.parse(Path(__file__).with_name(name).read_text())
        for node in ast.walk(tree):
            if isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ) and ast.get_docstring(node):
                del node.body[0]
        digest.update(f"{name} {ast.dump(tree)}".encode())
    return digest.hexdigest()[:16]
