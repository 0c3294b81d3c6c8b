"""The two walks over the tape: backward from the end with the VJP rules, forward from the start with the JVP rules."""

from contextlib import nullcontext
from math import prod

from tinygrad_ms.engine.backend import BACKENDS, sum_over
from tinygrad_ms.engine.call import item_node
from tinygrad_ms.engine.tape import Leaf, Node, current_state, enable_grad, notify, tape_of
from tinygrad_ms.engine.tensor import Tensor, asarray

# --- backward ------------------------------------------------------------------------------------------------------


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
    retain = create_graph if retain_graph is None else retain_graph
    seed = make_seed(tensor, gradient, create_graph, "backward")
    leaves, _ = walk([(tensor.node, seed)], retain=retain, create_graph=create_graph)
    for node, g in leaves:
        accumulate(node, g)


def make_seed(tensor, gradient, create_graph, op):
    """The cotangent of ``tensor`` as a raw array, or as a Tensor under ``create_graph``."""
    raw = tensor.data
    if gradient is None:
        if tensor.size != 1:
            raise RuntimeError(
                f"{op}: the tensor has shape {tensor.shape}; only a tensor of one element has an implicit gradient of 1."
                " Pass gradient=, of the same shape, or reduce to a scalar first"
            )
        seed = Tensor(BACKENDS[type(raw)].xp.ones_like(raw))
    else:
        seed = asarray(gradient, device=None if hasattr(gradient, "device") else tensor.device)
        if type(seed.data) is not type(raw):
            raise ValueError(
                f"{op}: gradient is on {seed.device} and the tensor on {tensor.device}; move it with .to()"
            )
        if seed.shape != tensor.shape:
            raise ValueError(f"{op}: gradient has shape {seed.shape} and the tensor {tensor.shape}; they must be equal")
        if seed.dtype != raw.dtype:
            seed = Tensor(seed.data.astype(raw.dtype)) if seed.node is None else seed.astype(raw.dtype)
    return seed if create_graph else seed.data


def walk(seeds, targets=None, retain=False, create_graph=False, through_targets=False, since=0):
    """Backpropagate ``seeds``, pairs (node, cotangent); return (leaf, gradient) pairs and the gradients of ``targets``.

    Every node is visited once, from the end of the tape to its start; what it saved and the gradient of its output
    are dropped as soon as they are used. With ``targets``, only the nodes between them and the seeds are walked:
    the walk ends at a target, or goes on ``through_targets`` where one depends on another.
    """
    grads = {}
    for node, seed in seeds:
        grads[node] = grads[node] + seed if node in grads else seed
    wanted, leaves, found = set(targets or ()), [], {}
    tape = tape_of(grads, until=() if through_targets else wanted, since=since)
    observers = current_state().hooks
    if targets is None and not create_graph and not observers:
        step = plain_step  # chosen once: it knows nothing of the features below
    else:
        step = general_step(None if targets is None else leading_to(wanted, tape), create_graph, observers)
    with enable_grad() if create_graph else nullcontext():
        for node in reversed(tape):
            g = grads.pop(node, None)
            if g is not None:
                if node.hooks:
                    g = run_hooks(node, g)
                if wanted and node in wanted:
                    found[node] = g
                    if not through_targets:
                        continue
                if isinstance(node, Leaf):
                    leaves.append((node, g))
                    continue
                if node.saved is None:
                    raise freed_error(node)
                for counter, version, argument in node.guards:
                    if counter[0] != version:
                        raise in_place_error(node, argument)
                step(node, g, grads)
            if not (retain or (wanted and node in wanted)):
                node.saved = None
                node.guards = ()
    return leaves, found


def plain_step(node, g, grads):
    """Run the rules of one node on raw arrays and add the results to the gradients of its parents."""
    plan, saved, parents = node.plan, node.saved, node.parents
    for i, rule, positions in plan.pullbacks:
        gradient = rule(g, *saved) if positions is None else rule(g, *[saved[p] for p in positions])
        if gradient is None:
            continue
        parent = parents[i]
        if gradient.dtype is not parent.dtype or gradient.shape != parent.shape:
            gradient = fit(gradient, parent, node)
        before = grads.get(parent)
        grads[parent] = gradient if before is None else before + gradient
    if plan.joint:
        add_pairs(joint_pairs(node, g, saved, plan.needed), node, grads)


def add_pairs(pairs, node, grads):
    for parent, gradient in pairs:
        gradient = gradient if fits(gradient, parent) else fit(gradient, parent, node)
        grads[parent] = grads[parent] + gradient if parent in grads else gradient


def joint_pairs(node, g, saved, needed):
    plan = node.plan
    rule = plan.primitive.vjp
    if plan.primitive.outputs not in (None, "*"):
        g = tuple(g.get(k) for k in range(len(plan.primitive.outputs)))
    gradients = rule(needed, g, *plan.pick(rule, saved))
    return [(p, d) for p, d, wanted in zip(node.parents, gradients, needed) if wanted and d is not None]


def general_step(alive, create_graph, observers):
    """A step with any of: pruning to the nodes in ``alive``, recording itself, observers around every rule."""

    def step(node, g, grads):
        if observers:
            notify(observers, "before_rule", node, g)
        plan = node.plan
        saved = rewrap(node) if create_graph else node.saved
        needed = plan.needed
        if alive is not None:
            needed = tuple(wanted and parent in alive for wanted, parent in zip(needed, node.parents))
        if plan.joint:
            pairs = joint_pairs(node, g, saved, needed)
        else:
            pairs = [(node.parents[i], rule(g, *plan.pick(rule, saved))) for i, rule, _ in plan.pullbacks if needed[i]]
            pairs = [(parent, gradient) for parent, gradient in pairs if gradient is not None]
        if observers:
            notify(observers, "after_rule", node, g, pairs)
        add_pairs(pairs, node, grads)

    return step


def rewrap(node) -> list:
    """What a node saved, as tensors at their places on the tape: the rules that read them then record themselves."""
    plan, saved = node.plan, list(node.saved)
    for position, i in enumerate(plan.inputs):
        if isinstance(node.parents[i], Node):
            saved[position] = Tensor(saved[position], node.parents[i])
    for position, k in enumerate(plan.outputs, len(plan.inputs)):
        source = item_node(node, k, saved[position]) if plan.primitive.outputs else node
        saved[position] = Tensor(saved[position], source)
    for counter, _, argument in node.guards:  # raw arguments have none, so guards and saved values do not run in step
        outputs_begin = len(plan.inputs)
        i = plan.inputs.index(argument) if argument >= 0 else outputs_begin + plan.outputs.index(-1 - argument)
        if isinstance(saved[i], Tensor):
            saved[i]._version = counter
    return saved


def leading_to(targets, tape) -> set:
    """The nodes of ``tape`` from which a gradient can reach ``targets``."""
    alive = set(targets)
    for node in tape:
        if any(isinstance(parent, Node) and parent in alive for parent in node.parents):
            alive.add(node)
    return alive


def fits(gradient, parent) -> bool:
    return gradient.shape == parent.shape and gradient.dtype == parent.dtype


def fit(gradient, parent, node):
    """Sum a gradient over the axes that were broadcast in the forward, and match the dtype of the parent."""
    shape = parent.shape
    if gradient.shape != shape:
        extra = gradient.ndim - len(shape)
        axes = (*range(extra), *(i + extra for i, n in enumerate(shape) if n == 1 and gradient.shape[i + extra] != 1))
        if axes:
            gradient = sum_over(gradient, axes)
        if gradient.size != prod(shape):
            raise RuntimeError(
                f"the rule of {node.op} returned a gradient of shape {gradient.shape} for an argument of shape {shape}"
            )
        gradient = gradient.reshape(shape)
    return gradient if gradient.dtype == parent.dtype else gradient.astype(parent.dtype)


def run_hooks(node, g):
    for hook in node.hooks:
        given = g if isinstance(g, Tensor) else Tensor(as_array(g, node))
        answer = hook(given)
        if answer is not None:
            if not isinstance(answer, Tensor) or answer.shape != node.shape:
                raise ValueError(
                    f"a hook on {node.op} must return None or a Tensor of shape {node.shape}, not {answer!r}"
                )
            g = answer if isinstance(g, Tensor) else answer.data
    return g


def accumulate(leaf, g):
    """Add a finished gradient to the ``.grad`` of the tensor of a leaf, which owns its memory."""
    tensor = leaf.tensor() if leaf.tensor is not None else None
    if tensor is None:
        return
    if isinstance(g, Tensor):
        tensor.grad = g if tensor.grad is None else tensor.grad + g
    elif tensor.grad is None:
        tensor.grad = Tensor(as_array(g, leaf).copy())
    else:
        tensor.grad = Tensor(as_array(tensor.grad.data + g, leaf))


def as_array(g, node):
    """NumPy's scalars, which its reductions return, as 0-d arrays."""
    return g if type(g) in BACKENDS else node.backend.xp.asarray(g)


def freed_error(node):
    return RuntimeError(
        f"backward: the tape was freed by an earlier backward (at {node.op}, recorded at {node.line});"
        " pass retain_graph=True to the first one to walk it twice"
    )


def in_place_error(node, argument):
    primitive = node.plan.primitive
    what = f"argument {primitive.argument_name(argument)}" if argument >= 0 else "the result"
    return RuntimeError(
        f"backward: {what} of {node.op} (recorded at {node.line}) was changed in place after it had been saved for the"
        " gradient; change a copy (.clone()) or change it after backward"
    )


# --- forward -------------------------------------------------------------------------------------------------------


def push_forward(nodes, tangents: dict, create_graph=False, since=0) -> list:
    """Carry ``tangents`` (by node) along the tape to ``nodes``; None for a node that does not depend on them."""
    tangents = dict(tangents)
    with enable_grad() if create_graph else nullcontext():
        for node in tape_of(nodes, until=tangents, since=since):
            if node in tangents or isinstance(node, Leaf):
                continue
            incoming = [tangents.get(parent) if isinstance(parent, Node) else None for parent in node.parents]
            if all(t is None for t in incoming):
                continue
            if node.saved is None:
                raise freed_error(node)
            for counter, version, argument in node.guards:
                if counter[0] != version:
                    raise in_place_error(node, argument)
            if node.plan.primitive.jvp is None:
                raise RuntimeError(f"jvp: {node.op} has no JVP rule; give its primitive jvp=")
            if not node.plan.forward_mode:
                raise RuntimeError(f"jvp: {node.op} (recorded at {node.line}) was not recorded for forward mode")
            saved = rewrap(node) if create_graph else node.saved
            t = node.plan.primitive.jvp(node.plan, incoming, saved, node.constants)
            if t is not None:
                if node.shape is not None:
                    t = t if fits(t, node) else spread(t, node)
                    t = t if isinstance(t, Tensor) else as_array(t, node)
                tangents[node] = t
    return [tangents.get(node) for node in nodes]


def spread(t, node):
    """Broadcast a tangent to the shape of the output: an argument may be smaller than the result."""
    if t.shape != node.shape:
        t = t + node.backend.xp.zeros(node.shape, dtype=node.dtype)
    return t if t.dtype == node.dtype else t.astype(node.dtype)


Tensor.backward = backward
