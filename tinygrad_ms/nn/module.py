"""Module: a tree of parameters with a ``forward``.

Nothing is registered. The tree is read from the attributes.
"""

from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial, reduce
from threading import Condition, get_ident
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy

from tinygrad_ms.arrays.devices import to_device
from tinygrad_ms.arrays.dtypes import as_dtype, is_float
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.cards import there
from tinygrad_ms.dlpack import array_from_dlpack
from tinygrad_ms.engine.around.constructors import tensor
from tinygrad_ms.engine.around.modes import no_grad
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.lines import monospaced
from tinygrad_ms.ops.conversions import is_dtype
from tinygrad_ms.options import is_int
from tinygrad_ms.scopes import Visit, scope, scopes, set_scopes
from tinygrad_ms.spelling import check_arguments
from tinygrad_ms.surroundings import surrounded
from tinygrad_ms.tree import flatten, tree_map

CHANGES = [0]  # counts events that may have changed the tree of a module, and so its names


class Parameter(Tensor):
    """A tensor that a module learns: a copy of ``data`` that requires a gradient.

    dtype, device: as in ``tensor()``. Raises TypeError for integers, which carry no gradient.
    It keeps its hooks while it is frozen.
    """

    __slots__ = ("_leaf",)
    transposed = False  # True for a TransposedParameter, as in x @ W
    _leaf: Any  # the place on the tape of a frozen parameter, for when it thaws

    def __init__(self, data, dtype=None, device=None):
        super().__init__(tensor(data, dtype, device, requires_grad=True).data)
        self.requires_grad = True
        CHANGES[0] += 1

    @property
    def requires_grad(self) -> bool:
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool):
        before, kept = self.node, getattr(self, "_leaf", None)
        Tensor.requires_grad.__set__(self, wanted)  # type: ignore[attr-defined]
        if before is not None and self.node is None:
            self._leaf = before  # with its hooks
        elif before is None and self.node is not None and kept is not None:
            kept.dtype, kept.backend, kept.name = self.node.dtype, self.node.backend, self.name
            self.node, self._leaf = kept, None


class TransposedParameter(Parameter):
    """A weight W (in, out) for ``x @ W``. A weight of ``Linear`` is (out, in).

    Only ``optim.Muon`` asks for it: the size of its step depends on which axis is the output.
    """

    __slots__ = ()
    transposed = True


class Buffer(Tensor):
    """A tensor that belongs to the state of a module but is not learnt: a copy of ``data``."""

    __slots__ = ()

    def __init__(self, data, dtype=None, device=None):
        super().__init__(tensor(data, dtype, device).data)
        CHANGES[0] += 1


class Keys(NamedTuple):
    """The names that ``load_state_dict(strict=False)`` skipped."""

    missing: list[str]
    unexpected: list[str]


class Module:
    """A function with parameters. A subclass sets attributes and defines ``forward``:

        class MLP(nn.Module):
            def __init__(self, width):
                self.hidden = nn.Linear(64, width)
                self.blocks = [Block(width) for _ in range(3)]  # lists, tuples, deques and dicts are searched
                self.scale = nn.Parameter(1.0)

            def forward(self, x): ...

    Its state are the modules, Parameters, Buffers and numpy.random.Generators among its attributes, in the order in
    which they were set, under names such as "blocks.0.weight". What appears twice is visited once, so cycles end. Plain
    Tensors are not state. Raises TypeError for plain Tensors among Parameters in one list, and for sets of modules or
    state, because a set has no order.

    >>> class Scale(tg.nn.Module):
    ...     def __init__(self):
    ...         self.factor = tg.nn.Parameter([2.0])
    ...
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> Scale()([3.0]).tolist(), Scale().state_dict()
    ([6.0], {'factor': array([2.], dtype=float32)})
    """

    training = True
    _name = ""  # as an attribute of its parent: the scope of the ops recorded in its forward
    _named_at = 0  # the number of changes when it got that
    _nested = False  # whether it got that from a parent
    _seen = ""  # the names of its Parameters, line by line, when they were last asked for

    def __new__(cls, *args, **kwargs):
        CHANGES[0] += 1
        check_arguments(cls, kwargs)
        return super().__new__(cls)

    def __setattr__(self, name, value):
        """Refuse to lose a parameter or a buffer. Only another one, or None, may replace it."""
        old = vars(self).get(name)
        if isinstance(old, (Parameter, Buffer)) and not isinstance(value, (Parameter, Buffer, type(None))):
            kind = type(old).__name__
            raise TypeError(
                f"{type(self).__name__}.{name} is a {kind}, and {type(value).__name__} would take it from the model;"
                f" assign {kind}(...), or change the values under no_grad(): {name}.copy_(...)"
            )
        if isinstance(value, (Module, Parameter, Buffer)):
            CHANGES[0] += 1
        super().__setattr__(name, value)

    def forward(self, *args, **kwargs):
        raise NotImplementedError(f"{type(self).__name__} has no forward(self, x)")

    def __call__(self, *args, **kwargs):
        """Run ``forward``. Its ops are one scope with the name of the attribute; a picture shows it as a cluster."""
        if self._named_at != CHANGES[0]:
            self._name_parts_again()
        outer = scopes()
        inside = (*outer, Visit(self._name))
        set_scopes(inside)
        try:
            return self.forward(*args, **kwargs)
        except Exception as error:
            if not getattr(error, "__notes__", None):  # the innermost module adds its name
                error.add_note(f"in {'/'.join(scopes())}: {self._head()}")
            raise
        finally:
            if scopes() is inside:
                set_scopes(outer)
            else:  # a suspended generator has entered or left a scope
                scope(self._name).__exit__()

    # --- the tree -------------------------------------------------------------------------------------------

    def _fields(self):
        """The (name, value) pairs to search: the attributes in the order in which they were set."""
        return list(vars(self).items())

    def _unique(self, kind) -> Iterator[tuple[str, Any]]:
        seen = set()
        for name, part in parts_of(self):
            if isinstance(part, kind) and id(part) not in seen:
                seen.add(id(part))
                yield name, part

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, Parameter), each once, under the first of its names.

        Raises TypeError if a plain Tensor has replaced one since, because it would not be trained.
        """
        found = dict(self._unique(Parameter))
        names = "\n".join(found)
        if names != self._seen:
            self._refuse_replaced(found)
            vars(self)["_seen"] = names
        return iter(found.items())

    def _refuse_replaced(self, found):
        """Raise TypeError if the name of a former Parameter, missing in ``found``, now means a plain Tensor."""
        for name in self._seen.split("\n"):
            if name not in found and type(value := found_at(self, name)) is Tensor:
                raise TypeError(
                    f"{type(self).__name__}: {name} was a Parameter and is a plain Tensor of shape {value.shape}, which"
                    " is not trained; make it a Parameter, or change the values under no_grad(): copy_(...)"
                )

    def parameters(self) -> list[Parameter]:
        """The Parameters of this module and all modules below, each once."""
        return [part for _, part in self.named_parameters()]

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        return self._unique(Buffer)

    def buffers(self) -> list[Buffer]:
        return [part for _, part in self._unique(Buffer)]

    def named_modules(self) -> Iterator[tuple[str, "Module"]]:
        """(dotted name, module): this one under "" and all below, each once."""
        return self._unique(Module)

    def modules(self) -> list["Module"]:
        return [part for _, part in self._unique(Module)]

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """The modules among the attributes, also in lists, tuples and dicts, under each of their names."""
        return (
            (name, part) for name, part in parts_of(self, below=False) if isinstance(part, Module) and part is not self
        )

    def children(self) -> list["Module"]:
        """The same, each once."""
        return list({id(part): part for _, part in self.named_children()}.values())

    def _name_parts_again(self):
        """Name everything below, if it may have changed, and if this module is not part of another one."""
        if not self._nested and self._named_at != CHANGES[0]:
            self._name_parts()

    def _name_parts(self):
        """Give everything below its name in pictures and messages.

        This module is the root and is named by its class. A bare number gets its class: "0: Linear".
        """
        self._name, named = type(self).__name__, {id(self)}
        self._named_at = CHANGES[0]
        for module in self.modules():
            for name, child in module.named_children():
                if id(child) not in named:
                    child._name = f"{name}: {type(child).__name__}" if name.isdigit() else name
                    child._nested, child._named_at = True, CHANGES[0]
                    named.add(id(child))
        for name, part in self._unique((Parameter, Buffer)):
            part.name = name

    # --- modes and gradients --------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> "Module":
        """Set ``training`` here and below: dropout is active only while training."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self) -> "Module":
        return self.train(False)

    def zero_grad(self) -> None:
        """Drop the gradients (``.grad`` becomes None)."""
        for parameter in self.parameters():
            parameter.grad = None

    def requires_grad_(self, wanted: bool = True) -> "Module":
        """Freeze (False) or thaw (True) the parameters."""
        for parameter in self.parameters():
            parameter.requires_grad = wanted
        return self

    # --- placing --------------------------------------------------------------------------------------------

    def to(self, *targets, device: str | None = None, dtype=None) -> "Module":
        """Move parameters, buffers and gradients to a device, convert them to a dtype (see ``astype``), or both.

        In place: ``model.to("cuda", "float16")``. Make the optimizer afterwards.
        """
        conversions = []
        for target in (*targets, device, dtype):
            if target is not None:
                conversions.append(self._to_dtype(target) if is_dtype(target) else partial(to_device, device=target))
        return self._convert(lambda old: reduce(lambda array, convert: convert(array), conversions, old))

    def astype(self, dtype) -> "Module":
        """Convert the floating-point parameters, buffers and gradients to ``dtype``, in place."""
        return self._convert(self._to_dtype(dtype))

    def _to_dtype(self, dtype):
        """A function that converts floating-point arrays to ``dtype`` and leaves others."""
        dtype = as_dtype(dtype)
        if not is_float(dtype):
            raise TypeError(f"astype: {type(self).__name__} can be converted to floating-point dtypes, not to {dtype}")
        return lambda old: there(old.astype, old)(dtype) if is_float(old.dtype) and old.dtype != dtype else old

    def _convert(self, convert):
        parts = [part for _, part in self._unique((Parameter, Buffer))]
        arrays = [
            (convert(part.data), None if part.grad is None else Tensor(convert(part.grad.data))) for part in parts
        ]
        for part, (array, grad) in zip(parts, arrays):  # if one cannot be converted, nothing has changed
            if array is part.data:
                continue
            node, name = part.node, part.name
            Tensor.__init__(part, array, node)  # the Parameter and its hooks stay; a gradient on its way still fits
            part.grad = grad
            part.name = name
            if node is not None:
                node.dtype, node.backend = part.dtype, BACKENDS[type(array)]
        return self

    # --- saving ---------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        """Every Tensor and Generator of the state under each of its names."""
        state: dict[str, Any] = {}
        for name, part in parts_of(self):
            if not isinstance(part, Module):
                if name in state:
                    raise ValueError(
                        f"state_dict: {type(self).__name__} has two parts named {name!r}; rename an attribute"
                        " or a key of a dict"
                    )
                state[name] = part
        self._refuse_replaced(state)
        return state

    def state_dict(self) -> dict[str, Any]:
        """The state by dotted name: NumPy copies of parameters and buffers, dicts for random generators.

        It is a snapshot: further training does not change it. ``tinygrad_ms.save`` writes it. A parameter with two
        names appears under both.
        """
        return {
            name: part.bit_generator.state if isinstance(part, numpy.random.Generator) else numpy.array(part.numpy())
            for name, part in self._state().items()
        }

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> Keys:
        """Overwrite the state, in place, with arrays or Tensors of any device, PyTorch's or JAX's included.

        All is checked before anything is written. The weights of ``Linear``, ``Embedding``, the norms and the recurrent
        cells have PyTorch's layout, (out, in), so nothing is transposed. docs/pytorch.md says which names differ.
        strict: all names must be there and no others. Without it the others are skipped, and returned.
        Raises ValueError with every missing and unexpected name, or every wrong shape or dtype, and TypeError if
        ``state`` is not a dict. A parameter with two names must have one value.
        """
        mine, caller = self._state(), f"load_state_dict of {type(self).__name__}"
        if not isinstance(state, dict):
            raise TypeError(
                f"{caller}: the state is {type(state).__name__}, expected a dict as state_dict() returns it"
            )
        state = {name: from_elsewhere(value, f"{caller}: {name}") for name, value in state.items()}
        keys = Keys([name for name in mine if name not in state], [name for name in state if name not in mine])
        if strict and (keys.missing or keys.unexpected):
            problems = [
                f"{what} {', '.join(map(str, names))}"
                for what, names in zip(("missing:", "unexpected:"), keys)
                if names
            ]
            raise ValueError(f"{caller}: {'; '.join(problems)}. strict=False would load the names in common")
        found = [name for name in mine if name in state]
        wrong = [problem for name in found if (problem := mismatch(mine[name], name, state[name]))]
        wrong = wrong or [
            f"{' and '.join(names)} are one here and differ in the state"
            for names in shared(mine, found)
            if any(differ(state[names[0]], state[name]) for name in names[1:])
        ]
        if wrong:
            raise ValueError(f"{caller}: {'; '.join(wrong)}")
        loaded = [(mine[name], arriving(mine[name], state[name])) for name in found]
        with no_grad():
            for part, value in loaded:
                if isinstance(part, numpy.random.Generator):
                    part.bit_generator.state = value
                else:
                    part.copy_(value)
        return keys

    # --- showing --------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """The text in the brackets of the repr. Subclasses define it."""
        return ""

    def _head(self):
        return f"{type(self).__name__}({self.extra_repr()})"

    def _tree(self, above=()):
        lines = [f"  {self.extra_repr()}"] if self.extra_repr() else []
        children = list(self.named_children())
        for name, child in children:
            inner = f"{type(child).__name__}(...)" if id(child) in above else child._tree((*above, id(self)))
            lines.append(f"  ({name}): " + inner.replace("\n", "\n  "))
        return "\n".join([f"{type(self).__name__}(", *lines, ")"]) if children else self._head()

    def __repr__(self):
        return self._tree()

    def _repr_html_(self) -> str:
        """Jupyter shows a module as its table."""
        return monospaced(self.summary())

    def summary(self, *inputs) -> "Table":
        """A table of the modules: layer, shape of the output, parameters, and how many of them are trainable.

        inputs: the arguments of ``forward`` for one trial run (in evaluation mode, not recorded). They are Tensors or
        arrays, or shapes (tuples of integers), which mean zeros. Without inputs the shapes are left out. The number
        beside a module counts its own parameters, without the modules below. A shared parameter counts once, where it
        comes first.
        """
        shapes = self._trial_run(inputs) if inputs else {}
        modules = dict(self.named_modules())
        own: dict[str, list[Parameter]] = {name: [] for name in modules}
        rows: list[tuple] = []
        path: list[str] = []  # the modules around this one
        for name, part in self.named_parameters():
            own[max((n for n in modules if not n or name.startswith(n + ".")), key=len)].append(part)
        for name, module in modules.items():
            while path and not name.startswith(path[-1] + "."):
                path.pop()
            short = name[len(path[-1]) + 1 :] if path else name
            label = "  " * (len(path) + bool(name)) + f"{short} {type(module).__name__}".lstrip()
            path += [name] if name else []
            rows.append((label, shapes.get(id(module), ""), *counts(own[name])))
        return Table.of(
            ("layer", "output shape", "parameters", "trainable"), rows, ("total", "", *counts(self.parameters()))
        )

    def _trial_run(self, inputs) -> dict[int, str]:
        like = next(iter(self.parameters()), None)
        device, dtype = (like.device, like.dtype) if like is not None else (None, None)

        def example(value):
            if isinstance(value, tuple) and all(map(is_int, value)):
                return tensor(numpy.zeros(value), dtype or "float32", device)
            return value if isinstance(value, Tensor) else tensor(value, device=device)

        shapes, modules = {}, self.modules()
        before = [(module, module.training, vars(module).get("forward")) for module in modules]

        def watch(module, forward):
            def watched(*args, **kwargs):
                result = forward(*args, **kwargs)
                shapes[id(module)] = shape_text(result)
                return result

            return watched

        try:
            for module in modules:
                module.training = False
                vars(module)["forward"] = watch(module, module.forward)
            with no_grad():
                self(*map(example, inputs))
        finally:
            for module, training, forward in before:
                module.training = training
                vars(module).pop("forward", None)
                if forward is not None:
                    vars(module)["forward"] = forward
        return shapes


class Table(str):
    """A table that an interactive session shows with its line breaks."""

    __repr__ = str.__str__

    @classmethod
    def of(cls, head, rows, total):
        cells = [[cell if isinstance(cell, str) else f"{cell:,}" for cell in row] for row in (head, *rows, total)]
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines = [
            "  ".join(
                cell.rjust(w) if i > 1 else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))
            ).rstrip()
            for row in cells
        ]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        return cls("\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]]))


STATE = (Parameter, Buffer, numpy.random.Generator)


def parts_of(value, name="", above=(), below=True) -> Iterator[tuple[str, Any]]:
    """(dotted name, part) of the modules and state in ``value``, depth first, in the order of definition.

    A part with several names comes under each of them. The walk does not enter a part again inside itself, so cycles
    end. below: also enter the modules that it meets.
    """
    if isinstance(value, Module):
        if id(value) in above:
            return
        yield name, value
        if above and not below:
            return
        items = value._fields()
    elif isinstance(value, STATE):
        yield name, value
        return
    elif (items := items_of(value)) is None:
        if isinstance(value, UNORDERED) and any(isinstance(item, (Module, *STATE)) for item in value):
            raise TypeError(
                f"{name} is a {type(value).__name__} with modules or state in it, which has no order: a list?"
            )
        return
    if not isinstance(value, Module):
        items = list(items)
        check_beside(name, [item for _, item in items if isinstance(item, Tensor)])
    if id(value) not in above:
        for key, item in items:
            if type(item) in SIMPLE:
                continue
            yield from parts_of(item, f"{name}.{key}" if name else str(key), (*above, id(value)), below)


SIMPLE = {int, float, bool, str, type(None)}  # the types of most attributes, which have nothing to search
UNORDERED: tuple = (set, frozenset, type({}.keys()), type({}.values()))


def items_of(value):
    """The (key, value) pairs of a list, tuple, deque or dict; None for other values."""
    if isinstance(value, (dict, UserDict, ChainMap, MappingProxyType)):
        return value.items()
    return enumerate(value) if isinstance(value, (list, tuple, deque, UserList)) else None


def found_at(value, name):
    """The value under the dotted name; None if there is none."""
    for key in name.split("."):
        items = value._fields() if isinstance(value, Module) else items_of(value)
        value = {str(k): item for k, item in items or ()}.get(key)
    return value


def check_beside(name, tensors) -> None:
    """Refuse a plain Tensor beside Parameters. It replaced one of them, and would not be trained."""
    plain = [part for part in tensors if not isinstance(part, (Parameter, Buffer))]
    if plain and any(isinstance(part, Parameter) for part in tensors):
        raise TypeError(
            f"{name} has Parameters and a plain Tensor of shape {plain[0].shape}, which is no state and is not trained;"
            " make it a Parameter or a Buffer, or change a Parameter under no_grad() with copy_(...)"
        )


def counts(parameters) -> tuple[int, int]:
    """The number of elements, and how many of them are trainable."""
    return sum(p.size for p in parameters), sum(p.size for p in parameters if p.requires_grad)


def mismatch(part, name, value) -> str | None:
    """Why ``value`` cannot be the new state of ``part``, as half a sentence."""
    if isinstance(part, numpy.random.Generator):
        kind = type(part.bit_generator)
        try:
            kind().state = value
        except (TypeError, ValueError, KeyError):
            return f"{name} must be the state of a random generator, {kind.__name__}, and is {str(value)[:40]}"
        return None
    value = raw(value)
    if type(value) not in BACKENDS and not isinstance(value, numpy.generic):
        return f"{name} is {type(value).__name__}, expected an array or a Tensor of shape {part.shape}"
    if value.shape != part.shape:
        fits = "; its transpose would fit, pass .T" if value.shape == part.shape[::-1] else ""
        return f"{name} has shape {value.shape} in the state and {part.shape} here{fits}"
    if not getattr(getattr(part.data, "flags", None), "writeable", True):
        return f"{name} is a read-only array here: guard_saved made it so until backward, or whoever made the array"
    if value.dtype != part.dtype:
        return f"{name} is {value.dtype} in the state and {part.dtype} here (convert one with .astype)"
    return None


def from_elsewhere(value, what):
    """``value``. An array of another library becomes an array of ours with the same memory."""
    if hasattr(value, "__dlpack__") and not (isinstance(value, (Tensor, numpy.ndarray)) or type(value) in BACKENDS):
        return array_from_dlpack(value.detach() if hasattr(value, "detach") else value, what)
    return value


def arriving(part, value):
    """``value`` on the device of ``part``."""
    if isinstance(part, numpy.random.Generator):
        return value
    array = raw(value)
    return Tensor(to_device(array if type(array) in BACKENDS else numpy.asarray(array), part.device))


def shared(state, names) -> list[list[str]]:
    """The groups of ``names`` that mean the same part of the state."""
    together: dict[int, list[str]] = {}
    for name in names:
        together.setdefault(id(state[name]), []).append(name)
    return [group for group in together.values() if len(group) > 1]


def differ(a, b) -> bool:
    """Whether two values for one part of the state are not the same. NaN equals NaN."""
    if isinstance(a, dict):
        return str(a) != str(b)  # the states of random generators
    a, b = (numpy.asarray(BACKENDS[type(raw(v))].to_host(raw(v)) if type(raw(v)) in BACKENDS else v) for v in (a, b))
    return a.tobytes() != b.tobytes()


def shape_text(result) -> str:
    """The shape of the result of a module; for several tensors, all shapes."""
    if isinstance(result, (tuple, list)):
        return ", ".join(map(shape_text, result))
    return str(tuple(result.shape)) if hasattr(result, "shape") else type(result).__name__


def functional_call(module: Module, parameters: dict[str, Tensor], *args, **kwargs):
    """``module(*args, **kwargs)`` with other Tensors in the place of parameters and buffers, by dotted name.

    This makes it a function of its parameters, for ``grad``, ``jvp``, ``hessian`` and for parameters that are
    themselves computed:

        grad(lambda p: functional_call(model, p, x).sum())({name: p for name, p in model.named_parameters()})

    Names that are left out keep their values. Threads that call one module in this way wait for each other. A plain
    call of the module in another thread would see the exchanged values; give that thread a copy. Raises ValueError for
    an unknown name, a wrong shape, and two values for one parameter with two names.
    """
    state = module._state()
    for name, value in parameters.items():
        if not isinstance(state.get(name), Tensor):
            raise ValueError(f"functional_call: {type(module).__name__} has no parameter {name!r}")
        if not isinstance(value, Tensor) or value.shape != state[name].shape:
            what = value.shape if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"functional_call: {name} is {what}, expected a Tensor of shape {state[name].shape}")
    for names in shared(state, parameters):
        if any(parameters[name] is not parameters[names[0]] for name in names):
            raise ValueError(f"functional_call: {' and '.join(names)} are one parameter; give it one value")
    module._name_parts_again()
    parts = [state[name] for name in parameters]
    places = [value.place() for value in parameters.values()]
    with surrounded(lambda: exchanged(parts, places)):
        result = module(*args, **kwargs)
    given = {id(part): value for part, value in zip(parts, parameters.values())}
    if any(id(leaf) in given for leaf in flatten(result)[0]):  # parameters, which have their own values again
        result = tree_map(lambda leaf: given.get(id(leaf), leaf), result)
    return result


WAITS = 300.0  # seconds that a thread waits for another one that exchanges the same tensor
_exchanging: dict[int, list] = {}  # by id of a Tensor: its thread, and how often it is exchanged there
_changed = Condition()


@contextmanager
def exchanged(parts, places):
    """Inside the block each Tensor in ``parts`` has one of the ``places``.

    One thread at a time does so. Two threads that restore in the wrong order would leave wrong values for good.
    """
    me, mine = get_ident(), {id(part) for part in parts}
    with _changed:
        if not _changed.wait_for(lambda: all(_exchanging.get(part, [me])[0] == me for part in mine), WAITS):
            raise RuntimeError(
                f"functional_call: another thread has exchanged the same parameters for {WAITS:.0f} s; threads that"
                " wait for each other need modules of their own (copy.deepcopy)"
            )
        for part in mine:
            _exchanging.setdefault(part, [me, 0])[1] += 1
    before = [part.place() for part in parts]
    try:
        for part, place in zip(parts, places):
            part.take_place(place)
        yield
    finally:
        for part, place in zip(parts, before):
            part.take_place(place)
        with _changed:
            for part in mine:
                _exchanging[part][1] -= 1
                if not _exchanging[part][1]:
                    del _exchanging[part]
            _changed.notify_all()
