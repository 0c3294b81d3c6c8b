"""What is to be drawn: the outputs, their gradients if these are wanted, and the names of the leaves."""

from tinygrad_ms.engine.around.modes import Visit
from tinygrad_ms.engine.backward import make_seed, walk
from tinygrad_ms.engine.tape import Constant, Leaf, tape_of
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.graph.values import is_freed, watching


def named_outputs(outputs) -> dict[str, Tensor]:
    if isinstance(outputs, Tensor):
        named = {outputs.name or "": outputs}
    elif isinstance(outputs, dict):
        named = {str(name): tensor for name, tensor in outputs.items()}
    else:
        named = {getattr(t, "name", None) or f"output {i}": t for i, t in enumerate(outputs)}
    if not named:
        raise ValueError("graph: there are no outputs to draw")
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"graph: the output {name!r} is {type(tensor).__name__}; expected a Tensor".replace(" ''", "")
            )
        if tensor.node is None:
            raise ValueError(
                f"graph: the output {name!r} of shape {tensor.shape} is not on the tape: nothing it was computed from"
                " had requires_grad=True, or it was computed under no_grad()".replace(" ''", "")
            )
    return named


def tensors(value) -> list[Tensor]:
    value = [value] if isinstance(value, Tensor) else list(value.values()) if isinstance(value, dict) else list(value)
    for tensor in value:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"graph: expected a Tensor, not {type(tensor).__name__}")
    return value


class LeafNames:
    """The names of leaves: as ``params`` calls them, else as they call themselves."""

    def __init__(self, params):
        pairs: list[tuple] = []
        if hasattr(params, "named_parameters"):
            pairs = list(params.named_parameters())
        elif isinstance(params, dict):
            pairs = list(params.items())
        elif params is not None:
            raise TypeError(f"graph: params is {type(params).__name__}; expected a module or a dict {{name: Tensor}}")
        self.given = {tensor.node: str(name) for name, tensor in pairs if tensor.node is not None}
        self.constants = {tensor.as_constant(): str(name) for name, tensor in pairs if tensor.node is None}

    def of(self, node) -> str:
        if isinstance(node, Constant):
            return self.constants.get(node) or node.name or ""
        return self.given.get(node) or (node.name if isinstance(node, Leaf) else None) or ""

    def is_parameter(self, leaf) -> bool:
        tensor = leaf.tensor() if leaf.tensor is not None else None
        return leaf in self.given or (tensor is not None and type(tensor) is not Tensor)


class RuleWatcher:
    """Watches a backward pass that records itself: which rule recorded which nodes."""

    def __init__(self):
        self.scopes = {}  # number of a recorded node -> names of its scopes
        self.rule = self.last = None
        self.sizes = {}  # name of the scope of a rule -> how many ops it recorded

    def before_rule(self, node, gradient):
        self.rule = Visit(f"rule of {node.op}")

    def after_rule(self, node, gradient, gradients):
        self.rule = None  # what follows sums gradients up

    def after_op(self, primitive, arrays, outputs, node):
        if node is not None:
            self.scopes[node.seq] = (self.rule,) if self.rule else ()
            self.sizes[id(self.rule)] = self.sizes.get(id(self.rule), 0) + 1

    def scope_of(self, node) -> tuple | None:
        """The scopes of a node of the backward pass, None for a node of the forward pass. A rule of one op has none."""
        names = self.scopes.get(node.seq)
        return names and tuple(name for name in names if self.sizes[id(name)] > 1)


def gradient_outputs(roots, wrt, names, gradient, watcher) -> dict[str, Tensor]:
    """The outputs and their gradients, recorded under the eyes of ``watcher``."""
    tape = tape_of([tensor.node for tensor in roots.values()])
    if is_freed(tape):
        raise RuntimeError(
            "graph: the tape was freed by an earlier backward, so its gradient cannot be recorded;"
            " draw before backward, or pass retain_graph=True to it"
        )
    leaves = [node for node in tape if isinstance(node, Leaf)]
    targets = leaves if wrt is None else [t.node for t in tensors(wrt)]
    seeds = [(t.node, make_seed(t, gradient, True, "graph")) for t in roots.values()]
    with watching(watcher):
        _, found = walk(seeds, targets, retain=True, create_graph=True, through_targets=True, hooked=False)
    gradients = {f"gradient of {names.of(node) or 'leaf'}": g for node, g in found.items() if g.node is not None}
    if not gradients:
        raise ValueError("graph: the gradients do not depend on anything: the outputs are linear in their inputs")
    return {**roots, **gradients}
