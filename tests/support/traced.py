"""A backend of torch.compile that computes nothing of its own and keeps every graph that it is given, as text."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._dynamo.backends.common import aot_autograd


class Traced:
    """The backend."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.texts: list[str] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor], **_: Any) -> Callable[..., Any]:
        """Compile a graph of Dynamo's."""
        lowered: Callable[..., Any] = aot_autograd(fw_compiler=self._keep)(graph, inputs)
        return lowered

    def _keep(self, graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> Callable[..., Any]:
        constants = {**dict(graph.named_buffers()), **dict(graph.named_parameters())}
        for node in graph.graph.find_nodes(op="get_attr"):
            constants[node.target] = getattr(graph, node.target)
        hashes = [
            f"{name} {hashlib.sha256(value.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()}"
            for name, value in sorted(constants.items())
        ]
        self.texts.append("\n".join([graph.print_readable(print_output=False), *hashes]))
        return graph.forward
