"""Functions of functions: grad, vjp, jvp, jacobian, hessian, hvp, checkpoint. They nest in any order.

Arguments and results may be nested dicts, lists and tuples of tensors, arrays and numbers. Every transform gives its
inputs fresh nodes (``identity``), so that inner and outer derivatives cannot be confused. It records its own derivative
only where somebody outside could ask for it: inside another transform, or if the function reads a tensor that requires
a gradient.
"""

from contextlib import contextmanager, nullcontext, suppress
from functools import wraps

from tinygrad_ms import surroundings
from tinygrad_ms.arrays.dtypes import is_float
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.cards import on_card, there
from tinygrad_ms.engine.around.constructors import asarray, shared_counter
from tinygrad_ms.engine.around.forward import push_forward
from tinygrad_ms.engine.around.modes import current_state, enable_grad, forward_mode, hooks
from tinygrad_ms.engine.around.rules import Joint, Rule
from tinygrad_ms.engine.backward import make_seed, walk
from tinygrad_ms.engine.call import make_op
from tinygrad_ms.engine.primitive import Primitive
from tinygrad_ms.engine.tape import Leaf, Node, tape_of
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.ops.identity import identity
from tinygrad_ms.ops.shapes import concat, reshape, stack
from tinygrad_ms.ops.watch import watched
from tinygrad_ms.options import is_int
from tinygrad_ms.random import recorded, replayed
from tinygrad_ms.scopes import scopes, set_scopes
from tinygrad_ms.stacked import StackedWalk
from tinygrad_ms.tree import flatten, unflatten

# --- one run of a function on fresh inputs -------------------------------------------------------------------------


class _Run:
    """``f`` recorded on aliases of its inputs: the tape every transform works on."""

    def __init__(self, name, f, args, argnums=None, has_aux=False, mode=enable_grad):
        self.name = name
        recording = current_state().recording
        chosen = range(len(args)) if argnums is None else (argnums,) if is_int(argnums) else argnums
        if any(not -len(args) <= i < len(args) for i in chosen):
            raise ValueError(f"{name}: argnums={argnums} but the function is called with {len(args)} arguments")
        chosen = [i % len(args) for i in chosen]
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"{name}: argnums={argnums} names an argument twice")
        wide = any(getattr(leaf, "dtype", None) == "float64" for leaf in flatten(args)[0])
        with mode(), watched(self._depends) as lines:
            self.inputs, self.structure = [], []  # the aliases, and the structure of each chosen argument
            opened = list(args)
            for i in chosen:
                leaves, structure = flatten(args[i])
                aliases = [_open(name, leaf, i, wide) for leaf in leaves]
                self.inputs += aliases
                self.structure.append((structure, len(leaves)))
                opened[i] = unflatten(structure, aliases)
            self.since = min((x.node.seq for x in self.inputs), default=0)
            result = f(*opened)
        self.aux = None
        if has_aux:
            if not (isinstance(result, tuple) and len(result) == 2):
                raise TypeError(f"{name}: with has_aux=True the function must return (result, aux)")
            result, self.aux = result
        leaves, self.result_structure = flatten(result)
        self.outputs = [leaf if isinstance(leaf, Tensor) else asarray(leaf) for leaf in leaves]
        off = [y for y in self.outputs if is_float(y.dtype) and not (y.node and self._depends(y.node))] if lines else []
        if off and name != "checkpoint":  # it gives the derivative that the plain call of f has
            raise RuntimeError(
                f"{name}: a result is off the tape, and a tensor that depends on the inputs became a number or an array"
                f" at {lines[0]} (float, item, numpy, tolist); keep it a tensor, or .detach() it there"
            )
        self.tape = tape_of([y.node for y in self.outputs if y.node is not None], since=self.since)
        self.externals = self._find_externals()
        self.nested = recording and bool(self.externals)  # somebody outside can differentiate through this run

    def _depends(self, node) -> bool:
        """Whether a gradient can flow from ``node`` to an input of this run."""
        own = {x.node for x in self.inputs}
        return not own.isdisjoint(tape_of([node], until=own, since=self.since))

    def _find_externals(self):
        """The nodes from before this run that its tape depends on: outer variables and parameters."""
        own = {x.node for x in self.inputs}
        found = {p: None for x in self.inputs for p in x.node.parents}
        for node in self.tape:
            if isinstance(node, Leaf) and node not in own:
                found[node] = None
            for parent in node.parents:
                if isinstance(parent, Node) and parent.seq < self.since:
                    found[parent] = None
        return list(found)

    def close(self, values):
        """Results for the caller: on the tape if an outer derivative may want them, else without history."""
        return [v if self.nested else v.detach() if isinstance(v, Tensor) else v for v in values]

    def value(self):
        return unflatten(self.result_structure, self.close(self.outputs))

    def closed_aux(self):
        leaves, structure = flatten(self.aux)
        return unflatten(structure, self.close(leaves))

    def pull(self, cotangents, retain=True):
        """Cotangents of the outputs (Tensors or None) -> gradients of the inputs, zeros where there is none.

        They are on the tape if somebody outside can differentiate through this run or through a cotangent.
        """
        outer = current_state().recording and any(isinstance(c, Tensor) and c.node is not None for c in cotangents)
        create_graph = self.nested or outer
        seeds = [
            (y.node, there(make_seed, y)(y, c, create_graph, self.name))
            for y, c in zip(self.outputs, cotangents)
            if c is not None and y.node is not None and y.node.seq >= self.since
        ]
        targets = [x.node for x in self.inputs]
        _, found = walk(seeds, targets, retain=retain or create_graph, create_graph=create_graph, since=self.since)
        return _owned([_as_tensor(found.get(x.node), x) for x in self.inputs], cotangents)

    def push(self, tangents):
        """Tangents of the inputs -> tangents of the outputs."""
        outer = current_state().recording and any(isinstance(t, Tensor) and t.node is not None for t in tangents)
        create_graph = self.nested or outer
        seeds = {x.node: there(make_seed, x)(x, t, create_graph, self.name) for x, t in zip(self.inputs, tangents)}
        nodes = [y.node for y in self.outputs if y.node is not None]
        found = iter(push_forward(nodes, seeds, create_graph, self.since, self.tape))
        return _owned([_as_tensor(next(found) if y.node is not None else None, y) for y in self.outputs], tangents)

    def argument_trees(self, values, argnums):
        """One value per input -> the trees of the chosen arguments (a single one where argnums is an int)."""
        values, trees = iter(values), []
        for structure, count in self.structure:
            trees.append(unflatten(structure, [next(values) for _ in range(count)]))
        return trees[0] if is_int(argnums) else tuple(trees)


def _open(name, value, i, wide):
    """A float tensor of ``value`` with a new node. A Python float becomes float64 where others are (``wide``)."""
    x = value
    if type(value) in BACKENDS:  # arrays stay on their device
        x = Tensor(value)
        x.count_with(shared_counter(value))
    elif not isinstance(value, Tensor):
        x = asarray(value, "float64" if wide and type(value) is float else None)
    if not is_float(x.dtype):
        raise TypeError(f"{name}: argument {i} has dtype {x.dtype}; derivatives need floats: use .astype('float32')")
    if x.node is not None:
        return identity(x)
    opened = Tensor(x.data, Leaf(x.shape, x.dtype, BACKENDS[type(x.data)], name=x.name))
    opened.count_with(x.version_counter())
    return opened


def _as_tensor(value, like):
    if value is None:
        return Tensor(there(BACKENDS[type(like.data)].xp.zeros_like, like)(like.data))
    return value if isinstance(value, Tensor) else asarray(value, device=like.device)


def _owned(results, given) -> list:
    """Results that own their memory. A rule may return its argument, a view of it, or one array for several."""
    seen, owned = {id(raw(x)) for x in given}, []
    for t in results:
        if t is not None and (id(t.data) in seen or t.data.base is not None):
            with enable_grad() if t.node is not None else nullcontext():
                t = t.clone() if t.node is not None else Tensor(there(t.data.copy, t)())
        seen.add(id(raw(t)))
        owned.append(t)
    return owned


def _unit_cotangent(run):
    if len(run.outputs) != 1 or run.outputs[0].size != 1:
        shapes = [y.shape for y in run.outputs]
        raise ValueError(f"{run.name}: the function must return one number; it returned shapes {shapes}. Use jacobian")
    y = run.outputs[0].data
    return [Tensor(there(BACKENDS[type(y)].xp.ones_like, y)(y))]


# --- reverse mode --------------------------------------------------------------------------------------------------


def value_and_grad(f, argnums=0, has_aux=False):
    """``(x, ...) -> (f(x, ...), df/dx)`` for a scalar f; with ``has_aux``, ``((value, aux), gradient)``.

    argnums: which argument, or a tuple of them. The gradient has the structure of the argument.

    >>> value, slope = tg.value_and_grad(lambda x: x**3)(2.0)
    >>> value.item(), slope.item()
    (8.0, 12.0)
    """

    @wraps(f)
    def gradient_of(*args, **kwargs):
        run = _Run("grad", lambda *a: f(*a, **kwargs), args, argnums, has_aux)
        gradients = run.argument_trees(run.close(run.pull(_unit_cotangent(run), retain=False)), argnums)
        value = run.value()
        return ((value, run.closed_aux()) if has_aux else value), gradients

    return gradient_of


def grad(f, argnums=0, has_aux=False):
    """``x -> df/dx`` for a scalar function; composes: ``grad(grad(f))``. With ``has_aux``: ``(gradient, aux)``.

    >>> tg.grad(lambda x: tg.sin(x))(0.0).item()
    1.0
    >>> tg.grad(lambda p: (p["w"] * p["b"]).sum())({"w": np.ones(2), "b": 3.0})
    {'w': Tensor([3., 3.], dtype=float64), 'b': Tensor(2., dtype=float64)}
    """
    both = value_and_grad(f, argnums, has_aux)

    @wraps(f)
    def gradient_of(*args, **kwargs):
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return gradient_of


def vjp(f, *args):
    """``f(*args)`` and the function v -> v^T J (one tree per argument), where J = df/dargs.

    >>> y, pull = tg.vjp(lambda x: x * x, np.array([1.0, 2.0]))
    >>> pull(np.array([1.0, 10.0]))
    (Tensor([ 2., 40.], dtype=float64),)
    """
    run = _Run("vjp", f, args)

    def pull(cotangent):
        leaves, structure = flatten(cotangent)
        if structure != run.result_structure:
            raise ValueError("vjp: the cotangent must have the structure of the result of the function")
        return run.argument_trees(run.pull(leaves), None)

    return run.value(), pull


def gradients(outputs, inputs, grad_outputs=None, *, retain_graph=None, create_graph=False, allow_unused=False):
    """d(sum of outputs)/d(inputs) on the recorded tape, like torch.autograd.grad.

    outputs, inputs: a Tensor or a tree of Tensors, which may be interior ones. grad_outputs: the cotangents; they are
    needed if an output is not a scalar. If the outputs do not depend on an input, this raises RuntimeError, or with
    ``allow_unused`` gives None. ``.grad`` stays as it is.
    """
    ys, _ = flatten(outputs)
    xs, structure = flatten(inputs)
    seeds = flatten(grad_outputs)[0] if grad_outputs is not None else [None] * len(ys)
    for what, tensors in (("outputs", ys), ("inputs", xs)):
        for i, t in enumerate(tensors):
            if not isinstance(t, Tensor) or t.node is None:
                raise RuntimeError(f"gradients: {what}[{i}] is not on the tape (requires_grad is False)")
    if len(seeds) != len(ys):
        raise ValueError(f"gradients: {len(ys)} outputs but {len(seeds)} grad_outputs")
    pairs = [(y.node, there(make_seed, y)(y, seed, create_graph, "gradients")) for y, seed in zip(ys, seeds)]
    targets = [x.node for x in xs]
    retain = create_graph if retain_graph is None else retain_graph
    since = min((node.seq for node in targets), default=0)
    _, found = walk(pairs, targets, retain, create_graph, through_targets=True, since=since)
    results = []
    for i, x in enumerate(xs):
        if x.node not in found and not allow_unused:
            raise RuntimeError(f"gradients: the outputs do not depend on inputs[{i}]; pass allow_unused=True for None")
        results.append(_as_tensor(found[x.node], x) if x.node in found else None)
    return unflatten(structure, _owned(results, seeds))


# --- forward mode --------------------------------------------------------------------------------------------------


def jvp(f, primals, tangents):
    """``f(*primals)`` and its derivative J t along ``tangents``, by the JVP rules on the tape from its start.

    primals and tangents: tuples of trees of the same structure and shapes.

    >>> y, t = tg.jvp(lambda x: x * x, (np.array([1.0, 2.0]),), (np.array([1.0, 10.0]),))
    >>> y.tolist(), t.tolist()
    ([1.0, 4.0], [2.0, 40.0])
    """
    if not (isinstance(primals, (tuple, list)) and isinstance(tangents, (tuple, list))):
        raise TypeError("jvp: primals and tangents must be tuples, with an item for each argument: jvp(f, (x,), (t,))")
    y, push = linearize(f, *primals)
    return y, push(*tangents)


def linearize(f, *primals):
    """``f(*primals)`` and the linear map t -> J t. The map walks the recorded tape; f does not run again."""
    run = _Run("jvp", f, primals, mode=forward_mode)
    expected = [structure for structure, _ in run.structure]

    def push(*tangents):
        flat = [flatten(t) for t in tangents]
        if [structure for _, structure in flat] != expected:
            raise ValueError("jvp: the tangents must have the structure of the primals")
        leaves = [leaf for leaves, _ in flat for leaf in leaves]
        return unflatten(run.result_structure, run.push(leaves))

    return run.value(), push


# --- whole matrices of derivatives ---------------------------------------------------------------------------------

_LAYOUTS = ("tensor", "numerator", "denominator")


def jacobian(f, *args, argnums=0, layout="tensor", mode=None):
    """The Jacobian of a function of one tensor; ``jacobian(f)`` is a function, ``jacobian(f, x)`` its value at x.

    layout: "tensor", shape (*y.shape, *x.shape) with [i..., k...] = dy_i/dx_k (AIDIY, section 1, mixed layout);
    "numerator", shape (y.size, x.size), rows run over y; "denominator", its transpose
    (AIDIY, section 2; Parr and Howard, section 4).
    Matrices are flattened row by row, as AIDIY writes them out.
    mode: "reverse" has a cotangent per element of y; their stack goes through one backward walk, or through several if
    it is large. "forward" makes one forward walk per element of x. None takes the smaller number. f may also return a
    tree of tensors, and argnums may be a tuple; then the result has their structure.

    >>> tg.jacobian(lambda x: x * x, np.array([1.0, 2.0]))
    Tensor([[2., 0.],
            [0., 4.]], dtype=float64)
    """
    if layout not in _LAYOUTS:
        raise ValueError(f"jacobian: layout={layout!r}; expected one of {', '.join(map(repr, _LAYOUTS))}")
    if mode not in (None, "reverse", "forward"):
        raise ValueError(f"jacobian: mode={mode!r}; expected 'reverse', 'forward' or None")

    @wraps(f)
    def jacobian_of(*args, **kwargs):
        run = _Run("jacobian", lambda *a: f(*a, **kwargs), args, argnums, mode=forward_mode)
        rows, columns = sum(y.size for y in run.outputs), sum(x.size for x in run.inputs)
        reverse = rows <= columns if mode is None else mode == "reverse"
        blocks = _by_rows(run) if reverse else _by_columns(run)
        trees = []
        for y, row in zip(run.outputs, blocks):
            shaped = [_lay_out(block, y.shape, x.shape, layout) for x, block in zip(run.inputs, row)]
            trees.append(run.argument_trees(run.close(shaped), argnums))
        return unflatten(run.result_structure, trees)

    return jacobian_of(*args) if args else jacobian_of


def _basis(x):
    """The unit tensors of the shape of x."""
    xp = BACKENDS[type(x.data)].xp
    for k in range(x.size):
        with on_card(x):
            e = xp.zeros(x.size, dtype=x.dtype)
            e[k] = 1
        yield Tensor(e.reshape(x.shape))


def _by_rows(run):
    inside = [y.node if y.node is not None and y.node.seq >= run.since else None for y in run.outputs]
    walk = StackedWalk([node for node in inside if node is not None], [x.node for x in run.inputs], run.since)
    watched_by = walk.hooked or current_state().hooks  # observers of rules expect one cotangent at a time
    return [
        _row_by_row(run, i) if watched_by else _rows_at_once(run, walk, y, node)
        for i, (y, node) in enumerate(zip(run.outputs, inside))
    ]


def _rows_at_once(run, walk, y, node):
    """dy/dx for each input x, as matrices. The rows are computed in stacks of limited size."""
    stacks = []
    for start in range(0, y.size if node is not None else 0, walk.most_rows):
        e = there(BACKENDS[type(y.data)].xp.eye, y)(min(walk.most_rows, y.size - start), y.size, start, dtype=y.dtype)
        seed = Tensor(e.reshape((-1, *y.shape)))
        found = walk.pull(node, seed if run.nested else seed.data, run.nested)
        found = {x: g if isinstance(g, Tensor) else Tensor(g) for x, g in found.items()}
        stacks.append(dict(zip(found, _owned(found.values(), [seed]))))
    blocks = []
    for x in run.inputs:
        parts = [reshape(g[x.node], (g[x.node].shape[0], x.size)) for g in stacks if x.node in g]
        whole = parts[0] if len(parts) == 1 else concat(parts) if parts else _stacked([], (y.size, x.size), x, 0)
        blocks.append(whole)
    return blocks


def _row_by_row(run, i):
    rows = []
    for e in _basis(run.outputs[i]):
        cotangents = [e if j == i else None for j in range(len(run.outputs))]
        rows.append([reshape(g, (x.size,)) for g, x in zip(run.pull(cotangents), run.inputs)])
    return [_stacked([row[j] for row in rows], (0, x.size), x, 0) for j, x in enumerate(run.inputs)]


def _by_columns(run):
    columns = []
    for j, x in enumerate(run.inputs):
        pushed = []
        for e in _basis(x):
            tangents = [
                e if k == j else Tensor(there(BACKENDS[type(z.data)].xp.zeros_like, z)(z.data))
                for k, z in enumerate(run.inputs)
            ]
            pushed.append([reshape(t, (y.size,)) for t, y in zip(run.push(tangents), run.outputs)])
        columns.append([_stacked([p[i] for p in pushed], (y.size, 0), y, 1) for i, y in enumerate(run.outputs)])
    return [[column[i] for column in columns] for i in range(len(run.outputs))]


def _stacked(parts, empty_shape, like, axis):
    if not parts:
        return Tensor(there(BACKENDS[type(like.data)].xp.zeros, like)(empty_shape, dtype=like.dtype))
    return stack(parts, axis=axis)


def _lay_out(matrix, y_shape, x_shape, layout):
    if layout == "tensor":
        return reshape(matrix, (*y_shape, *x_shape))
    return matrix if layout == "numerator" else matrix.T


def hessian(f, *args, argnums=0):
    """Second derivatives of a scalar function, shape (*x.shape, *x.shape): ``jacobian(grad(f))``.

    >>> tg.hessian(lambda x: (x**3).sum(), np.array([1.0, 2.0]))
    Tensor([[ 6.,  0.],
            [ 0., 12.]], dtype=float64)
    """
    derivative = jacobian(grad(f, argnums), argnums=argnums)
    return derivative(*args) if args else derivative


def hvp(f, x, v):
    """The Hessian of a scalar function of one argument times v, forward over reverse: two gradients' worth of work.

    >>> tg.hvp(lambda x: (x**3).sum(), np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    Tensor([ 6., 12.], dtype=float64)
    """
    return jvp(grad(f), (x,), (v,))[1]


# --- checkpoint ----------------------------------------------------------------------------------------------------


def checkpoint(f):
    """``f`` that keeps only its inputs for backward. It runs again when its gradient is wanted.

    It works for every order and in forward mode. Parameters that f closes over get their gradients, too. f must compute
    the same when it runs again. Dropout drops the same elements again, and ``functional_call`` around f is made again.
    Backward raises RuntimeError if a tensor that f read was changed in place since, if f reads other tensors that want
    a gradient than the first time, and if it draws more or fewer random numbers. It cannot see attributes, numbers and
    raw arrays that f reads. These must stay as they are until backward.

    >>> block = tg.checkpoint(lambda x: tg.tanh(tg.exp(x)))
    >>> tg.grad(block)(0.5).item() == tg.grad(lambda x: tg.tanh(tg.exp(x)))(0.5).item()
    True
    """

    @wraps(f)
    def checkpointed(*args, **kwargs):
        if not current_state().recording:
            return f(*args, **kwargs)
        call = _Checkpointed(f, args, kwargs)
        leaves, _ = flatten(args)
        inputs = [leaves[i] for i in call.floats]
        first = call.run_first(inputs)
        if not inputs and not call.closed:
            return first.value()
        outputs = _recomputed(*inputs, *call.stand_ins(), f=call)
        for y, same in zip(outputs, first.outputs):
            y.count_with(same.version_counter())  # y may be a view of an input, or of a tensor that f closes over
        return unflatten(first.result_structure, outputs)

    return checkpointed


class _Checkpointed:
    """One call of a checkpointed function, with all that it needs to run again. It does not refer to its own node."""

    def __init__(self, f, args, kwargs):
        leaves, self.structure = flatten(args)
        self.f, self.kwargs, self.entered, self.scope = f, kwargs, surroundings.current(), scopes()
        self.__name__ = getattr(f, "__name__", type(f).__name__)  # pictures show it
        self.floats = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and is_float(leaf.dtype)]
        # the inputs live no longer than the tape
        self.others = [None if i in self.floats else leaf for i, leaf in enumerate(leaves)]

    def _run(self, tensors, mode):
        def on_floats(*opened):
            values = list(self.others)
            for i, x in zip(self.floats, opened):
                values[i] = x
            return self.f(*unflatten(self.structure, values), **self.kwargs)

        return _Run("checkpoint", on_floats, tensors, mode=mode)

    def run_first(self, inputs):
        reads = _Reads()
        reads.note("what it names", [*self.others, self.kwargs, *_named_by(self.f)])
        with recorded() as self.drawn, hooks(reads):
            run = self._run(inputs, enable_grad)
        self.read, self.closed = list(reads.counters.values()), _closed_over(run)
        self.places = {node: reads.places[node] for node in self.closed if node in reads.places}
        self.values: list | None = [y.data for y in run.outputs]
        return run

    def take_values(self):
        """The results of the first run. They are handed over once, and nothing keeps them."""
        values, self.values = self.values, None
        return values

    def stand_ins(self):
        """The tensors that f closes over, at their places on the tape."""
        return [self.places.pop(node) if node in self.places else _shell(node) for node in self.closed]

    def run_again(self, xs, mode):
        """Run again on ``xs``. Raises RuntimeError where the run cannot be the same."""
        for counter, version, where, shape in self.read:
            if counter[0] != version:
                raise RuntimeError(
                    f"checkpoint: a tensor of shape {shape} was changed in place after {self.__name__} had read it"
                    f" (in {where}), so the function would compute other values when it runs again; change a copy"
                    " (.clone()) or change it after backward"
                )
        with surroundings.again(self.entered), _inside(self.scope), replayed(self.drawn):
            run = self._run(xs[: len(self.floats)], mode)
            run.outputs = [
                Tensor(y.data, y.node) for y in run.outputs
            ]  # not the parameter, which may have another place on the tape by then
        before, now = set(self.closed), set(_closed_over(run))
        if now - before or any(not _is_frozen(node) for node in before - now):
            raise RuntimeError(
                f"checkpoint: {self.__name__} depends on other tensors than when it ran first; parameters that were"
                " replaced, converted, or made inside it cannot get their gradients"
            )
        return run


@contextmanager
def _inside(names):
    """The same scopes again, for profiles and pictures."""
    outer = scopes()
    set_scopes(names)
    try:
        yield
    finally:
        set_scopes(outer)


class _Reads:
    """An observer that notes the outside tensors that a function reads."""

    def __init__(self):
        self.before = Leaf((), None, None).seq  # nodes with larger numbers were recorded inside
        self.counters, self.places = {}, {}

    def called(self, primitive, args, constants):
        self.note(primitive.name, args)
        if constants:
            self.note(primitive.name, constants)

    def read(self, x):
        self.note("its values", x)

    def note(self, where, tree):
        for x in flatten(tree)[0]:
            if isinstance(x, Tensor) and (x.node is None or x.node.seq < self.before):
                counter = x.version_counter()
                self.counters.setdefault(id(counter), (counter, counter[0], where, x.shape))
                if x.node is not None and x.node not in self.places:
                    self.places[x.node] = Tensor(x.data, x.node)


def _named_by(f) -> list:
    """The outside values that the code of ``f`` names. It may read a tensor there without an op, say as an index."""
    code, names = getattr(f, "__code__", None), getattr(f, "__globals__", {})
    found = [names[name] for name in code.co_names if name in names] if code else []
    for cell in getattr(f, "__closure__", None) or ():
        with suppress(ValueError):  # not filled yet
            found.append(cell.cell_contents)
    return [x for x in found if isinstance(x, Tensor)]


def _closed_over(run) -> list[Node]:
    """The nodes from outside that a run depends on beside its inputs."""
    own: set[Node] = {x.node for x in run.inputs}
    found: dict[Node, None] = {}
    for node in run.tape:
        if node in own:
            continue
        if node.seq < run.since or (isinstance(node, Leaf) and node.tensor is not None and node.tensor() is not None):
            found[node] = None
        elif not isinstance(node, Leaf):
            found |= {p: None for p in node.parents if isinstance(p, Node) and p.seq < run.since}
    return list(found)


def _is_frozen(node):
    tensor = node.tensor() if isinstance(node, Leaf) and node.tensor is not None else None
    return tensor is not None and tensor.node is None


def _shell(node):
    """Stands for a tensor that nobody holds. Only its place on the tape matters."""
    xp = node.backend.xp
    return Tensor(xp.broadcast_to(xp.zeros((), dtype=node.dtype), node.shape), node)


def _forward_of_checkpoint(xp, *xs, f):
    values = f.take_values()
    if values is None:  # a picture asks for the values again
        values = [y.data for y in f.run_again([Tensor(x) for x in xs], enable_grad).outputs]
    return tuple(values)


def _pull_through_checkpoint(needed, g, xs, f):
    run = f.run_again(xs, enable_grad)
    nested = any(isinstance(c, Tensor) for c in g.values())
    seeds = [
        (run.outputs[k].node, there(make_seed, run.outputs[k])(run.outputs[k], c, nested, "checkpoint"))
        for k, c in g.items()
    ]
    nodes, since = [x.node for x in run.inputs] + f.closed, run.since
    del run  # the walk frees its values as it goes
    seeds = [(node, seed) for node, seed in seeds if node is not None]
    targets = [node for node, wanted in zip(nodes, needed) if wanted]
    # outer hooks run once, in the walk outside, on the whole gradient
    _, found = walk(seeds, targets, retain=nested, create_graph=nested, since=since, others=f.closed)
    return tuple(found.get(node) for node in nodes)


def _push_through_checkpoint(tangents, xs, f):
    run = f.run_again(xs, forward_mode)
    nested = any(isinstance(t, Tensor) for t in tangents)
    seeds = {n: t for n, t in zip([x.node for x in run.inputs] + f.closed, tangents) if t is not None}
    nodes = [y.node for y in run.outputs if y.node is not None]
    found = iter(push_forward(nodes, seeds, nested, since=run.since))
    return tuple(next(found) if y.node is not None else None for y in run.outputs)


_forward_of_checkpoint.__name__ = "checkpoint"
# All calls share one primitive. Else each would leave a primitive, a plan and an op that refer to each other.
_recomputed = make_op(Primitive(
    _forward_of_checkpoint, formula=r"\bar x = \left(\frac{\partial f}{\partial x}\right)^T \bar y",
    source="recomputation of f", vjp=Rule.of(_pull_through_checkpoint), jvp=Joint(_push_through_checkpoint),
    outputs="*", moves=True,
))  # fmt: skip
