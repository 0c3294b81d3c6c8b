"""What a Tensor shows in a notebook. Drawing is loaded when it is first asked for."""

from typing import Any

from tinygrad_ms.engine.tensor import Tensor


def tensor_html(tensor: Tensor) -> str:
    """The facts, the numbers and the graph of a tensor, as Jupyter shows them."""
    from tinygrad_ms.graph import notebook

    return notebook.tensor_html(tensor)


_class: Any = Tensor
_class._repr_html_ = tensor_html
