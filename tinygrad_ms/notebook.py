"""Shows a Tensor in a notebook. The code that draws is imported at the first use."""

from typing import Any

from tinygrad_ms.engine.tensor import Tensor


def tensor_html(tensor: Tensor) -> str:
    """The facts, the numbers and the graph of a tensor, as Jupyter shows them."""
    from tinygrad_ms.graph import notebook

    return notebook.tensor_html(tensor)


_class: Any = Tensor
_class._repr_html_ = tensor_html
