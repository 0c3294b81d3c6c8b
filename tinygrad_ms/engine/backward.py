"""Backward: one walk over the tape, from its end. Each step runs the rules of one node and adds up what they send."""

from typing import Any

from numpy import errstate

from tinygrad_ms.arrays.dtypes import is_float
from tinygrad_ms.arrays.registry import BACKENDS, SEVERAL
from tinygrad_ms.arrays.sums import HALF, may_sum_to, sum_to, wide
from tinygrad_ms.cards import NOWHERE, on_cards, there
from tinygrad_ms.engine.around.gradients import checked_seed, pullbacks, run_hooks
from tinygrad_ms.engine.around.modes import current_state, enable_grad, notify
from tinygrad_ms.engine.around.sentences import shape_error
from tinygrad_ms.engine.call import as_array, blank, fill_tensor
from tinygrad_ms.engine.tape import Constant, Leaf, Node, Output, Place, last_change, nodes_reaching, tape_of
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.locks import lock_for_forks
from tinygrad_ms.sole import sole


def backward(tensor: Tensor, gradient=None, *, retain_graph: bool | None = None, create_graph: bool = False) -> None:
    """Add d(tensor)/d(leaf), weighted with ``gradient``, to the ``.grad`` of every leaf it was computed from.

    gradient: same shape as the tensor; may be left out for one element, where it is 1.
    retain_graph: keep what the ops saved, for another backward. Default: only with ``create_graph``.
    create_graph: record the backward pass, so that the gradients can be differentiated in turn.
    A gradient that overflows is infinite, without a warning of NumPy.
    Raises RuntimeError where the tensor is not on the tape, where the tape was freed, where ``gradient`` is missing for
    more than one element, and where a value that the tape saved was changed in place.
    """
    if tensor.node is None:
        raise RuntimeError(
            "backward: this tensor has no history: no input had requires_grad=True, or it was computed under no_grad()"
        )
    seed = (there(make_seed, tensor) if SEVERAL else make_seed)(tensor, gradient, create_graph, "backward")
    leaves, _ = walk([(tensor.node, seed)], None, create_graph if retain_graph is None else retain_graph, create_graph)
    notify(current_state().hooks, "walked", tensor, gradient, seed, leaves)
    for node, g in leaves:
        (there(accumulate, g) if SEVERAL else accumulate)(node, g, sole(g))


ORDERS: list = [lambda tape, grads: reversed(tape)]  # the last one is used; ``distributed`` adds its own


def make_seed(tensor, gradient, create_graph, op):
    """The cotangent of ``tensor`` as a raw array, or as a Tensor under ``create_graph``; 1 for a single element."""
    one = gradient is None and tensor.size == 1
    seed = Tensor(BACKENDS[type(tensor.data)].xp.ones_like(tensor.data)) if one else checked_seed(tensor, gradient, op)
    return seed if create_graph else seed.data


def walk(seeds, targets=None, retain=False, create_graph=False, through_targets=False, since=0, hooked=True, others=()):
    """Backpropagate ``seeds``, pairs (node, cotangent); return (leaf, gradient) pairs and the gradients of ``targets``.

    The walk visits every node once, from the end of the tape to its start. As soon as a node is done, it drops what
    the node saved and the gradient of its output. With ``targets`` it visits only the nodes between them and the
    seeds. It ends at a target; with ``through_targets`` it goes on, for a target that depends on another. It leaves
    out what was recorded before number ``since``. ``hooked``: the user's hooks run, except those of the nodes in
    ``others``.
    """
    grads: dict[Node, Any] = {}  # the gradients of outputs, as far as they have arrived
    for node, seed in seeds:
        grads[node] = there(grads[node].__add__, seed)(seed) if node in grads else seed
    wanted, leaves, found = set(targets or ()), [], {}
    tape = tape_of(grads, until=() if through_targets else wanted, since=since)
    wanted_by = None if targets is None else nodes_reaching(wanted, tape)
    observers = current_state().hooks
    # 1 / cosh x is 0 where cosh x overflows. That limit is right, so NumPy must not warn.
    with errstate(over="ignore"), enable_grad() if create_graph else NOWHERE:
        order = reversed(tape) if wanted else ORDERS[-1](tape, grads)
        for node in on_cards(order, grads) if SEVERAL else order:
            if (g := grads.pop(node, None)) is not None:
                if node.dtype is not None and g.dtype is not node.dtype:  # half precision is added up in float32
                    g = g.astype(node.dtype)
                if node.hooks and hooked and node not in others:
                    g = run_hooks(node, g)
                if wanted and node in wanted:
                    found[node] = g
                    if not through_targets:
                        continue
                if node.plan is not None:
                    if node.saved is None or last_change[0] > node.seq:  # else nothing was changed since the recording
                        node.check()
                    step(node, g, grads, wanted_by, create_graph, observers)
                elif isinstance(node, Leaf):
                    leaves.append((node, g))
                else:
                    hand_on(node, g, grads, observers)
            if not (retain or node.plan is None or (wanted and node in wanted)):
                node.saved = None
    return leaves, found


def step(node, g, grads, wanted_by, create_graph, observers):
    """Run the rules of one node and add what they send to the gradients of its parents.

    wanted_by: the nodes that need a gradient; rules for others do not run (None: all need one).
    create_graph: the rules get tensors, and what they compute is recorded.
    """
    if observers:
        notify(observers, "before_rule", node, g)
    plan, parents = node.plan, node.parents
    sent: list[tuple] | None = [] if observers else None
    saved = saved_as_tensors(node) if create_graph else node.saved
    if plan.slots is not None:
        g = tuple(map(g.get, plan.slots))
    for i, rule, positions in plan.pullbacks or pullbacks(node, g, saved, wanted_by):
        parent = parents[i]
        if wanted_by is not None and parent not in wanted_by:
            continue
        if len(positions) == 1:  # unrolled: most rules read one value
            d = rule(g, saved[positions[0]])
        else:
            d = rule(g, *[saved[p] for p in positions]) if positions else rule(g)
        if d is not None:
            if sent is not None:
                sent.append((parent, d))
            if d.dtype is not parent.dtype or d.shape != parent.shape:
                d = unbroadcast(d, parent, node)
            if parent in grads:
                d = (wide(grads[parent]) if d.dtype.char in HALF else grads[parent]) + d
            grads[parent] = d
    if observers:
        notify(observers, "after_rule", node, g, sent)


def hand_on(node, g, grads, observers):
    """Send the gradient of an Output to its op, which collects the gradients of its outputs in a dict."""
    (op,), k = node.parents, node.constants["index"]
    if observers:
        notify(observers, "before_rule", node, g)
        notify(observers, "after_rule", node, g, [(op, {k: g})])
    slots = grads.setdefault(op, {})
    slots[k] = slots[k] + g if k in slots else g


def saved_as_tensors(node) -> list:
    """What a node saved, as tensors at their places on the tape. What a rule computes from them is then recorded."""
    plan, saved = node.plan, list(node.saved)
    for position, i in enumerate(plan.inputs):
        place = node.parents[i]
        x = saved[position]
        if isinstance(place, Place) and type(x) in BACKENDS and is_float(x.dtype):  # a constant may have changed, too
            saved[position] = Tensor(x, place if isinstance(place, Node) else None)
            saved[position]._constant = place if isinstance(place, Constant) else None
    for position, k in enumerate(plan.outputs, len(plan.inputs)):
        source = Output(node, k, saved[position]) if plan.primitive.outputs else node
        saved[position] = Tensor(saved[position], source)
    for position in plan.cached:  # not cached values: they are off the tape
        saved[position] = None
    return saved


def unbroadcast(d, parent, node):
    """A gradient summed over the axes that broadcasting added to the argument, in the dtype of the argument.

    Raises RuntimeError for any other shape. Such a rule is wrong, and a reshape would hide that.
    """
    if d.shape != parent.shape:
        k = max(len(d.shape) - len(parent.shape), 0)  # an axis of size one here was summed by the rule
        known = node.shape in (None, d.shape) or may_sum_to(node.shape[:k], d.shape[:k])
        if not (known and (d.shape[k:] == parent.shape or may_sum_to(d.shape, parent.shape))):
            raise shape_error(node, d, parent)
        d = sum_to(d, parent.shape)
    return d if d.dtype == parent.dtype else d.astype(parent.dtype)


def accumulate(leaf, g, given=False):
    """Add a finished gradient to the ``.grad`` of the tensor of a leaf, which owns its memory (none if frozen).

    given: no other code holds the array ``g``. So it becomes the gradient without a copy.
    """
    tensor = leaf.tensor() if leaf.tensor is not None else None
    if tensor is None or tensor.node is None:  # the tensor is gone, or was frozen since
        return
    with ADDING:
        if (old := tensor.grad) is not None and old.shape != g.shape:
            name = tensor.name or "a leaf"
            raise ValueError(f"backward: {name} has .grad of shape {old.shape}, its gradient {g.shape}")
        if isinstance(g, Tensor):
            with enable_grad():  # also inside no_grad(): create_graph asked for it
                tensor.grad = g.clone() if old is None else old + g
        else:
            array = as_array(old.data + g if old is not None else g if given else g.copy(), leaf.backend)
            fill_tensor(made := blank(Tensor), array)
            tensor.grad = made


ADDING = lock_for_forks()  # Two threads may add to one leaf. Without a lock, one of the two sums could be lost.

Tensor.backward = backward  # type: ignore[assignment]
