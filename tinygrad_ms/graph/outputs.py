"""The arguments of ``build``: the outputs, their gradients in the view "higher", and the names of the leaves."""

from collections.abc import Iterable

import numpy

from tinygrad_ms.cards import there
from tinygrad_ms.engine.backward import make_seed, walk
from tinygrad_ms.engine.tape import Constant, Leaf, tape_of
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.graph.values import is_freed, recording, watching
from tinygrad_ms.options import as_int
from tinygrad_ms.scopes import Visit


def named_outputs(outputs) -> dict[str, Tensor]:
    if isinstance(outputs, Tensor):
        named = {outputs.name or "": outputs}
    elif isinstance(outputs, dict):
        named = {str(name): tensor for name, tensor in outputs.items()}
    elif isinstance(outputs, Iterable) and not isinstance(outputs, str):
        named = {}
        for i, t in enumerate(outputs):
            name = getattr(t, "name", None) or f"output {i}"
            named[name if name not in named else f"output {i}"] = t
    else:
        raise TypeError(f"graph: outputs is {type(outputs).__name__}; expected a Tensor, or a list or dict of Tensors")
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
    refuse_twice("outputs", {name: tensor.node for name, tensor in named.items()})
    return named


def refuse_twice(option, named) -> None:
    """Raise ValueError if two names mean one tensor. Its gradient would count twice, or one name would be lost."""
    first: dict = {}
    for name, node in named.items():
        if first.setdefault(node, name) != name:
            raise ValueError(f"graph: {option} {first[node]!r} and {name!r} are one Tensor; give it one name")


def tensors(value, option, caller="graph") -> list[Tensor]:
    """The Tensors of an option as a list. The option is a Tensor, or a list or dict of at least one."""
    if isinstance(value, str) or not isinstance(value, (Tensor, Iterable)):
        raise TypeError(
            f"{caller}: {option}= is {type(value).__name__}; expected a Tensor, or a list or dict of Tensors"
        )
    value = [value] if isinstance(value, Tensor) else list(value.values()) if isinstance(value, dict) else list(value)
    if not value:
        raise ValueError(f"{caller}: {option}= is empty; name a Tensor, or leave it out")
    for tensor in value:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{caller}: {option}= has {type(tensor).__name__} in it; expected Tensors")
    return value


def check_options(depth, fold, max_nodes, collapse, expand, values, profile, title, font_size) -> None:
    """Raise TypeError or ValueError for options of ``build`` with a wrong type or value."""
    if depth is not None:
        as_int(depth, "graph: depth", 0)
    if max_nodes is not None:
        as_int(max_nodes, "graph: max_nodes", 1)
    if not isinstance(fold, (bool, numpy.bool_)):
        as_int(fold, "graph: fold, when it is not True or False,", 2)
    for option, names in (("collapse", collapse), ("expand", expand)):
        if not (isinstance(names, (str, list, tuple, set)) and all(isinstance(name, str) for name in names)):
            raise TypeError(f"graph: {option}={names!r}; expected the name of a scope, a pattern, or a list of them")
    if not isinstance(values, (bool, recording)):
        raise TypeError(f"graph: values={values!r}; expected True, False or a tg.graph.recording()")
    if profile is not None and not hasattr(profile, "seconds_of"):
        raise TypeError(f"graph: profile is {type(profile).__name__}; expected a tg.profile() of the pass")
    if not isinstance(title, str):
        raise TypeError(f"graph: title is {title!r}; expected text")
    if isinstance(font_size, bool) or not isinstance(font_size, (int, float)) or not 4 <= font_size <= 200:
        raise ValueError(f"graph: font_size={font_size!r}; expected points, a number from 4 to 200")


class LeafNames:
    """The names of leaves: the names in ``params``, else the tensors' own names."""

    def __init__(self, params):
        pairs: list[tuple] = []
        if hasattr(params, "named_parameters"):
            pairs = list(params.named_parameters())
        elif isinstance(params, dict):
            pairs = list(params.items())
        elif params is not None:
            raise TypeError(f"graph: params is {type(params).__name__}; expected a module or a dict {{name: Tensor}}")
        for name, tensor in pairs:
            if not isinstance(tensor, Tensor):
                raise TypeError(f"graph: params {name!r} is {type(tensor).__name__}; expected a Tensor")
        refuse_twice("params", {name: tensor.node or tensor.as_constant() for name, tensor in pairs})
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
    """Watches a backward pass that is recorded. It notes which rule recorded which nodes."""

    def __init__(self):
        self.scopes = {}  # number of a recorded node -> names of its scopes
        self.rule = self.last = None
        self.sizes = {}  # name of the scope of a rule -> how many ops it recorded
        self.arriving = set()  # the Constants that stand on the tape for gradients off the tape

    def before_rule(self, node, gradient):
        if isinstance(gradient, Tensor) and gradient.node is None:
            self.arriving.add(gradient.as_constant())
        self.rule = Visit(f"rule of {node.op}")

    def after_rule(self, node, gradient, gradients):
        self.rule = None  # the ops that follow add gradients

    def after_op(self, primitive, arrays, outputs, node):
        if node is not None:
            self.scopes[node.seq] = (self.rule,) if self.rule else ()
            self.sizes[id(self.rule)] = self.sizes.get(id(self.rule), 0) + 1

    def scope_of(self, node) -> tuple | None:
        """The scopes of a node of the backward pass; () for a rule that recorded one op. None for the forward pass."""
        names = self.scopes.get(node.seq)
        return names and tuple(name for name in names if self.sizes[id(name)] > 1)


def gradient_outputs(roots, wrt, names, gradient, watcher) -> dict[str, Tensor]:
    """The outputs and their gradients. The gradients are recorded while ``watcher`` watches."""
    tape = tape_of([tensor.node for tensor in roots.values()])
    if is_freed(tape):
        raise RuntimeError(
            "graph: the tape was freed by an earlier backward, so its gradient cannot be recorded;"
            " draw before backward, or pass retain_graph=True to it"
        )
    leaves = [node for node in tape if isinstance(node, Leaf)]
    targets = leaves if wrt is None else [t.node for t in tensors(wrt, "wrt")]
    if not set(targets) <= set(tape):
        raise ValueError("graph: wrt= names a tensor that the outputs were not computed from")
    seeds = [(t.node, there(make_seed, t)(t, gradient, True, "graph")) for t in roots.values()]
    with watching(watcher):
        _, found = walk(seeds, targets, retain=True, create_graph=True, through_targets=True, hooked=False)
    gradients = {f"gradient of {names.of(node) or 'leaf'}": g for node, g in found.items() if g.node is not None}
    if not gradients:
        raise ValueError("graph: the gradients do not depend on anything: the outputs are linear in their inputs")
    return {**roots, **gradients}
