"""Calls of our functions from the tape of another framework, with derivatives of every order.

The other framework sees arrays. It asks ``Call`` for the results and ``Pull`` for the gradients. The gradients are a
function of arrays. So ``Pull`` is a ``Call``, too, and its own ``Pull`` gives the second derivatives. A call keeps its
tape for the pull that follows. The tape is only a cache: if it is missing, or belongs to other arrays, the pull
computes it anew.
"""

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.cards import there
from tinygrad_ms.engine.around.modes import enable_grad
from tinygrad_ms.engine.backward import walk
from tinygrad_ms.engine.tensor import Tensor


class Call:
    """A call of ``f``, a function of Tensors or arrays. ``wanted``: the arguments that may be asked for gradients."""

    def __init__(self, f, wanted=()):
        self.f, self.wanted = f, tuple(wanted)
        self.leaves = self.outputs = self.key = None  # the tape

    def again(self, wanted):
        """A new call of the same function, without a tape."""
        return Call(self.f, wanted)

    def run(self, arrays, key=None) -> tuple:
        """The outputs at raw arrays, as raw arrays. ``key`` identifies these arrays; it has one part for each."""
        if not self.wanted:
            return as_tuple(self.f(*arrays))
        leaves = [Tensor._of(x, requires_grad=i in self.wanted) for i, x in enumerate(arrays)]
        with enable_grad():
            outputs = as_tuple(self.f(*leaves))
        self.leaves, self.outputs, self.key = leaves, outputs, key
        return tuple(y.data for y in outputs)


class Pull(Call):
    """Maps arguments of ``call`` and cotangents of its outputs ``given`` to gradients of its arguments ``needed``."""

    def __init__(self, call, needed, given, wanted=()):
        super().__init__(None, wanted)
        self.call, self.needed, self.given = call, tuple(needed), tuple(given)

    def again(self, wanted):
        return Pull(self.call, self.needed, self.given, wanted)

    def run(self, arrays, key=None) -> tuple:
        n = len(arrays) - len(self.given)
        call, asked = self.call, {*self.needed, *(i for i in self.wanted if i < n)}
        if call.leaves is None or call.key != (key and key[:n]) or not asked <= {*call.wanted}:
            call = call.again(sorted(asked))
            call.run(arrays[:n])
        cotangents = [Tensor._of(g, requires_grad=n + k in self.wanted) for k, g in enumerate(arrays[n:])]
        seeds = [(call.outputs[k].node, g if self.wanted else g.data) for k, g in zip(self.given, cotangents)]
        seeds = [(place, g) for place, g in seeds if place is not None]
        targets = [call.leaves[i] for i in self.needed]
        _, found = walk(seeds, [x.node for x in targets], retain=True, create_graph=bool(self.wanted))
        gradients = tuple(found[x.node] if x.node in found else self.zeros(x) for x in targets)
        if not self.wanted:
            return gradients
        self.leaves, self.outputs, self.key = [*call.leaves, *cotangents], gradients, key
        return tuple(g.data for g in gradients)

    def zeros(self, x):
        """The gradient of what no output depends on."""
        array = there(BACKENDS[type(x.data)].xp.zeros_like, x)(x.data)
        return Tensor(array) if self.wanted else array


def as_tuple(result) -> tuple:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)
