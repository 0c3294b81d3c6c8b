"""A walk back as lines: the rules that ran, in their order, and the sums that the walk made of what they sent."""

from tinygrad_ms.arrays.sums import HALF, wide
from tinygrad_ms.engine.around.rules import no_gradient
from tinygrad_ms.engine.backward import accumulate, unbroadcast
from tinygrad_ms.engine.tape import Constant, Node
from tinygrad_ms.replay.bare import bare
from tinygrad_ms.replay.refusal import refusal


def write_walk(recorder, tensor, seed: str, rules, leaves) -> None:
    """Write what ``backward`` of ``tensor`` did. rules: (node, what it sent) in the order in which they ran."""
    Walk(recorder).write(tensor.node, seed, rules, leaves)


class Walk:
    """The sums of gradients by node, as the names of their variables."""

    def __init__(self, recorder):
        self.recorder, self.listing = recorder, recorder.listing
        self.grads: dict = {}
        self.widened: dict = {}  # the nodes whose gradients are sums in a wider dtype

    def write(self, root, seed, rules, leaves):
        self.listing.do('with errstate(over="ignore"):')
        self.listing.do("    pass")
        self.grads[root] = seed
        averaged = {leaf: hook_of(leaf) for leaf, _ in leaves if leaf.hooks}
        last = {parent: node for node, sent in rules for parent, _ in sent if parent in averaged}
        for node, sent in rules:
            if node.hooks:
                raise refusal("a hook on a gradient cannot be recorded")
            g = self.pop(node)
            if node.plan is None:  # one of several outputs
                (op,), k = node.parents, node.constants["index"]
                slots = self.grads.setdefault(op, {})
                slots[k] = self.define(f"{slots[k]} + {g}") if k in slots else g
            else:
                self.rule(node, g, sent)
            for leaf in [parent for parent, _ in sent if last.get(parent) is node]:
                del last[leaf]
                g = self.pop(leaf)
                self.widened.pop(leaf, None)
                self.grads[leaf] = self.define(f"{self.listing.function(averaged[leaf][0], 'arrive')}({g})")
        for finish in {id(finish): finish for _, finish in averaged.values()}.values():
            self.listing.do(f"{self.listing.function(finish, 'finish')}()")
        for leaf, _ in leaves:
            self.listing.do(
                f"{self.listing.function(accumulate, 'accumulate')}({self.listing.name(leaf, 'leaf', None)},"
                f" {self.pop(leaf)})"
            )
        if self.grads:
            raise refusal("this walk back cannot be recorded")

    def pop(self, node):
        g = self.grads.pop(node)
        if node not in self.widened:
            return g
        return self.define(f"{self.listing.function(rounded, 'rounded')}({g}, {place(self.listing, node, 'node')})")

    def define(self, expression) -> str:
        return self.listing.add("    " + expression, self.listing.new())

    def rule(self, node, g, sent):
        """The rules of one node, and where their results go."""
        plan, saved = node.plan, self.recorder.saved.get(node)
        if saved is None:
            raise refusal("backward reaches ops from outside the step; give the step detached tensors")
        if plan.slots is not None:
            g = f"({''.join(f'{g.get(k)}, ' for k in plan.slots)})"
        elif isinstance(g, dict):
            g = "{" + ", ".join(f"{k}: {text}" for k, text in g.items()) + "}"
        if plan.joint is None:
            made = [
                (i, self.call(rule, node, [g, *(saved[p] for p in positions)]))
                for i, rule, positions in plan.pullbacks
                if rule is not no_gradient
            ]
        else:
            texts = plan.pick(plan.joint, saved)
            texts = [f"({', '.join(t)},)" if isinstance(t, tuple) else t for t in texts]
            # backward without targets: needed as planned
            found = self.call(plan.joint.function, node, [repr(plan.needed), g, *texts])
            parents = [parent for parent, _ in sent]
            made = [
                (i, f"{found}[{i}]") for i, wanted in enumerate(plan.needed) if wanted and node.parents[i] in parents
            ]
        if [node.parents[i] for i, _ in made] != [parent for parent, _ in sent]:
            raise refusal(f"a rule of {node.op} sent nothing to some of its arguments, which cannot be recorded")
        for (_, d), (parent, array) in zip(made, sent):
            self.send(node, parent, self.listing.folded(d, array), array)

    def call(self, rule, node, texts) -> str:
        return self.define(f"{self.listing.function(bare(rule), 'd_' + node.op)}({', '.join(texts)})")

    def send(self, node, parent, d, array):
        if array.dtype is not parent.dtype or array.shape != parent.shape:
            places = [place(self.listing, p, key) for p, key in ((parent, "parent"), (node, "node"))]
            d = self.define(f"{self.listing.function(unbroadcast, 'unbroadcast')}({d}, {', '.join(places)})")
        if parent in self.grads:
            total = self.grads[parent]
            if array.dtype.char in HALF:  # added up in float32, as in backward.step
                total, self.widened[parent] = f"{self.listing.function(wide, 'wide')}({total})", True
            d = self.define(f"{total} + {d}")
        self.grads[parent] = d


def hook_of(leaf):
    """What a replay calls in the place of the hook of a leaf, with its gradient, and when the walk has ended."""
    if len(leaf.hooks) > 1 or not hasattr(leaf.hooks[0], "replayed"):
        raise refusal("a hook on a gradient cannot be recorded")
    return leaf.hooks[0].replayed()


def rounded(g, like):
    """A sum in the dtype of a node."""
    return g.astype(like.dtype)


def place(listing, node: Node, stem) -> str:
    """Shape and dtype of a node, without what it holds."""
    return listing.name(Constant(node.shape, node.dtype, node.backend), stem, (node.shape, str(node.dtype)))
