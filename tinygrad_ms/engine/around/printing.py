"""The tape as text."""

from tinygrad_ms.engine.tape import Constant, Leaf, Node


class Tape(list):
    """The nodes of a result in recording order; ``print`` shows them as a Wengert list."""

    def __str__(self):
        number = {node: f"v{i}" for i, node in enumerate(self)}

        def show(value):
            if isinstance(value, Node):
                return number.get(value, "?")
            if isinstance(value, Constant):
                return value.name or f"{value.dtype}{list(value.shape)}"
            return repr(value)

        lines = []
        for node in self:
            arguments = [show(parent) for parent in node.parents]
            arguments += [f"{key}={value!r}" for key, value in node.constants.items() if len(repr(value)) < 40]
            what = (
                f"leaf {node.name or ''}".rstrip() if isinstance(node, Leaf) else f"{node.op}({', '.join(arguments)})"
            )
            shape = "" if node.shape is None else f"  # {node.dtype} {list(node.shape)}"
            scope = f"  in {'/'.join(node.scope)}" if node.scope else ""
            lines.append(f"{number[node]} = {what}{shape}{scope}")
        return "\n".join(lines)
