"""Backward: one walk over the tape from its end, with one step: run the rules of a node, add up what they send."""

import os
from threading import RLock
from typing import Any

from numpy import errstate

from tinygrad_ms.arrays.dtypes import is_float
from tinygrad_ms.arrays.registry import BACKENDS, SEVERAL
from tinygrad_ms.arrays.sums import HALF, may_sum_to, sum_to, wide
from tinygrad_ms.cards import NOWHERE, on_cards, there
from tinygrad_ms.engine.around.gradients import checked_seed, pullbacks, run_hooks
from tinygrad_ms.engine.around.modes import current_state, enable_grad, notify
from tinygrad_ms.engine.around.sentences import shape_error
from tinygrad_ms.engine.call import as_array
from tinygrad_ms.engine.tape import Constant, Leaf, Node, Output, Place, last_change, nodes_reaching, tape_of
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.sole import sole


def backward(tensor: Tensor, gradient=None, *, retain_graph: bool | None = None, create_graph: bool = False) -> None:
    """Add d(tensor)/d(leaf), weighted with ``gradient``, to the ``.grad`` of every leaf it was computed from.

    gradient: same shape as the tensor; may be left out for one element, where it is 1.
    retain_graph: keep what the ops saved, for another backward. Default: only with ``create_graph``.
    create_graph: record the backward pass, so that the gradients can be differentiated in turn.
    Raises RuntimeError off the tape, on a freed tape, for a non-scalar without ``gradient``, and where a value the
    tape had saved was changed in place.
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


ORDERS: list = [reversed]  # the last one orders the walks of ``backward``; ``distributed`` hears of finished gradients


def make_seed(tensor, gradient, create_graph, op):
    """The cotangent of ``tensor`` as a raw array, or as a Tensor under ``create_graph``; 1 for a single element."""
    one = gradient is None and tensor.size == 1
    seed = Tensor(BACKENDS[type(tensor.data)].xp.ones_like(tensor.data)) if one else checked_seed(tensor, gradient, op)
    return seed if create_graph else seed.data


def walk(seeds, targets=None, retain=False, create_graph=False, through_targets=False, since=0, hooked=True, others=()):
    """Backpropagate ``seeds``, pairs (node, cotangent); return (leaf, gradient) pairs and the gradients of ``targets``.

    Every node is visited once, from the end of the tape to its start; what it saved and the gradient of its output
    are dropped as soon as they are used. With ``targets``, only the nodes between them and the seeds are walked:
    the walk ends at a target, or goes on ``through_targets`` where one depends on another. What was recorded before
    number ``since`` is left out. ``hooked``: run the hooks of the user, but those of the nodes in ``others``.
    """
    grads: dict[Node, Any] = {}  # of the outputs of nodes, as far as they have come in
    for node, seed in seeds:
        grads[node] = there(grads[node].__add__, seed)(seed) if node in grads else seed
    wanted, leaves, found = set(targets or ()), [], {}
    tape = tape_of(grads, until=() if through_targets else wanted, since=since)
    wanted_by = None if targets is None else nodes_reaching(wanted, tape)
    observers = current_state().hooks
    # 1 / cosh x is 0 where cosh x overflows: no warning of what ends in a limit
    with errstate(over="ignore"), enable_grad() if create_graph else NOWHERE:
        order = reversed(tape) if wanted else ORDERS[-1](tape)
        for node in on_cards(order, grads) if SEVERAL else order:
            if (g := grads.pop(node, None)) is not None:
                if node.dtype is not None and g.dtype is not node.dtype:  # half precision, added up in float32
                    g = g.astype(node.dtype)
                if node.hooks and hooked and node not in others:
                    g = run_hooks(node, g)
                if wanted and node in wanted:
                    found[node] = g
                    if not through_targets:
                        continue
                if node.plan is not None:
                    if node.saved is None or last_change[0] > node.seq:  # else nothing was changed since
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

    wanted_by: the nodes that are worth a rule (None: all). create_graph: the rules get tensors and record themselves.
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
    """An Output gives its gradient to the op it comes from, which collects the gradients of its outputs in a dict."""
    (op,), k = node.parents, node.constants["index"]
    if observers:
        notify(observers, "before_rule", node, g)
        notify(observers, "after_rule", node, g, [(op, {k: g})])
    slots = grads.setdefault(op, {})
    slots[k] = slots[k] + g if k in slots else g


def saved_as_tensors(node) -> list:
    """What a node saved, as tensors at their places on the tape: the rules that read them then record themselves."""
    plan, saved = node.plan, list(node.saved)
    for position, i in enumerate(plan.inputs):
        place = node.parents[i]
        x = saved[position]
        if isinstance(place, Place) and type(x) in BACKENDS and is_float(x.dtype):  # constants may be changed, too
            saved[position] = Tensor(x, place if isinstance(place, Node) else None)
            saved[position]._constant = place if isinstance(place, Constant) else None
    for position, k in enumerate(plan.outputs, len(plan.inputs)):
        source = Output(node, k, saved[position]) if plan.primitive.outputs else node
        saved[position] = Tensor(saved[position], source)
    for position in plan.cached:  # shortcuts of the forward, which create_graph could not see
        saved[position] = None
    return saved


def unbroadcast(d, parent, node):
    """A gradient summed over the axes that broadcasting added to the argument, in the dtype of the argument.

    Raises RuntimeError for any other shape: the rule is wrong, and a reshape would hide it.
    """
    if d.shape != parent.shape:
        k = max(len(d.shape) - len(parent.shape), 0)  # axes that were added; of size one: summed by the rule
        known = node.shape in (None, d.shape) or may_sum_to(node.shape[:k], d.shape[:k])
        if not (known and may_sum_to(d.shape, parent.shape)):
            raise shape_error(node, d, parent)
        d = sum_to(d, parent.shape)
    return d if d.dtype == parent.dtype else d.astype(parent.dtype)


def accumulate(leaf, g, given=False):
    """Add a finished gradient to the ``.grad`` of the tensor of a leaf, which owns its memory (none if frozen).

    given: nobody else knows the array ``g``, so that it needs no copy.
    """
    tensor = leaf.tensor() if leaf.tensor is not None else None
    if tensor is None or tensor.node is None:  # gone, or frozen since
        return
    with ADDING:
        if (old := tensor.grad) is not None and old.shape != g.shape:
            name = tensor.name or "a leaf"
            raise ValueError(f"backward: {name} has .grad of shape {old.shape}, its gradient {g.shape}")
        if isinstance(g, Tensor):
            with enable_grad():  # also inside no_grad(): create_graph asked for it
                tensor.grad = g.clone() if old is None else old + g
        else:
            tensor.grad = Tensor(as_array(old.data + g if old is not None else g if given else g.copy(), leaf.backend))


ADDING = RLock()  # two threads may add to one leaf: each would read, add and write
if hasattr(os, "register_at_fork"):  # a child must not wait for a thread that it does not have
    os.register_at_fork(before=ADDING.acquire, after_in_parent=ADDING.release, after_in_child=ADDING.release)

Tensor.backward = backward  # type: ignore[assignment]
