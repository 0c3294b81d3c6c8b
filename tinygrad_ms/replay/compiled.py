"""``tg.compile``: decides what a call runs, and when the step is recorded again."""

import warnings
from collections import deque
from functools import update_wrapper
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any

import numpy

from tinygrad_ms.arrays.devices import default_device
from tinygrad_ms.arrays.registry import BACKENDS, SEVERAL
from tinygrad_ms.cards import NOWHERE, on_card
from tinygrad_ms.engine.around.modes import current_state, hooks
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.nn.module import Module
from tinygrad_ms.ops.fused import is_on
from tinygrad_ms.optim.optimizer import Optimizer
from tinygrad_ms.optim.schedules import Schedule
from tinygrad_ms.replay.agreement import run_both
from tinygrad_ms.replay.guards import SIMPLE, Guards
from tinygrad_ms.replay.picture import picture
from tinygrad_ms.replay.program import MISSED, Family, Program, decisions_of, key_of
from tinygrad_ms.replay.recorder import Recorder
from tinygrad_ms.replay.refusal import Diverged, refusal
from tinygrad_ms.tree import flatten, unflatten

MOST = 64  # the most recordings that are kept
MANY = 16  # after so many recordings of one signature, a warning says that replays are rare
FIXED = (Module, Optimizer, Schedule)  # such an argument is static; another object is another signature


def compile(step=None, *, check: bool = False) -> Any:
    """``step``, recorded when it is called and then run as a list: the same results, without modules and tape.

        step = tg.compile(train_step)       # or the decorator @tg.compile
        loss = step(x, y)                   # arrays are inputs, numbers and strings are static
        print(step.tape)                    # the list that runs
        step.explain()                      # what was recorded, how often it ran, why it was recorded anew

    step: a function of tensors, arrays, numbers and strings, in nested lists, tuples and dicts: a training step
    (forward, ``loss.backward()``, clipping, the step of an optimizer or a schedule) or any other. Arrays come in as
    tensors. The first two calls of a signature run ``step`` as it is: one is recorded, the second one must make the
    same list. From the third on the list runs. Signature: shapes, dtypes, devices, numbers, strings, modes, and which
    gradients are there.
    Recorded are the calls of the array library: what nobody needs is dropped, what is made of constants is made once,
    and the rest writes into buffers that share memory. What changes from call to call is read anew: arguments, learning
    rates, counts of steps, random masks, parameters, buffers of modules.
    Parameters, ``.grad``, optimizers and random generators stay the user's, and are after a call what they are after
    ``step`` itself, bit for bit, but for the rounding of loops. Ctrl-C leaves a whole step, or none.
    A decision of the library that depends on values (are all labels in range?) is taken again: where it comes out
    otherwise, the step runs as it is, and is recorded in that form, too. A forward or a rule that reads numbers, as an
    adaptive msign does, runs as a whole.
    Loops: with the extra "fast", runs of elementwise calls on large arrays of a CPU are one compiled loop each, and
    compiled kernels are called as they are. Arithmetic, roots, comparisons round as before; exp and tanh are within 4
    ulp, other functions within 1, in float32; sums are taken in float64. Loops give no floating-point warnings.
    Small matrices are multiplied by ``dot`` where it makes the same bits as ``matmul``; NumPy's warnings then name it.
    Numbers, strings and None that the step reads from closure cells, globals, and attributes of its modules and objects
    are guarded: where one has changed, the step is recorded anew. What lies deeper is fixed, and so are effects on
    Python objects (``losses.append``, ``print``): they happen while a call records, never in a replay.
    check: run both, compare all results, parameters, gradients and states bit by bit, and leave those of ``step``;
        where there are loops, within 1,024 ulp of the largest number of an array.
    Raises RuntimeError, with the line, for what cannot be recorded: ``.item()``, ``if loss > 1``, ``.data``, hooks on
    gradients, observers, options of optimizers that the step sets.

    >>> w = tg.nn.Parameter([1.0, 2.0])
    >>> sgd = tg.optim.SGD([w], lr=0.1)
    >>> @tg.compile
    ... def step(x):
    ...     loss = ((w * x) ** 2).sum()
    ...     sgd.zero_grad()
    ...     loss.backward()
    ...     sgd.step()
    ...     return loss
    >>> [round(step(np.ones(2, "float32")).item(), 3) for _ in range(4)]
    [5.0, 3.2, 2.048, 1.311]
    """
    if step is None:
        return lambda function: Compiled(function, check)
    return Compiled(step, check)


class Compiled:
    """A function that is recorded and replayed. ``eager`` is the function itself."""

    __name__: str

    def __init__(self, step, check=False):
        if isinstance(step, type) or not callable(step):
            raise TypeError(f"compile: step is {type(step).__name__}; expected a function")
        if any(kind(step) for kind in (isgeneratorfunction, iscoroutinefunction, isasyncgenfunction)):
            raise TypeError("compile: step is a generator or a coroutine; expected a function that returns its result")
        self.eager, self.check = step, check
        self.families: dict[tuple, list[Family]] = {}
        self.reasons: deque[str] = deque(maxlen=20)  # the reasons of the last recordings
        self.kept: list[Any] = []  # arguments whose ids are in signatures
        self.last: Program | None = None
        self.short: Any = None  # the shortcut to the list that ran last
        self.whole: set[str] = set()  # forwards and rules that are not recorded call by call
        self.__name__ = type(step).__name__
        update_wrapper(self, step, updated=())

    def __call__(self, *args, **kwargs):
        if SEVERAL and (card := on_card(next(iter(arrays_in((args, kwargs))), None))) is not NOWHERE:
            with card:  # one card: where the first array lies
                return self.long_way(args, kwargs)
        if (short := self.short) is not None and not kwargs:
            try:
                if (results := short(args)) is not MISSED:
                    return results
            except Exception as error:  # everything is as it was
                self.give_up(self.last, error)
        return self.long_way(args, kwargs)

    def long_way(self, args, kwargs):
        """A call without the shortcut."""
        inputs: list[Any] = []
        state = current_state()
        signature = (
            self.sign((args, kwargs), inputs), state.recording, state.inference, state.forward_mode, default_device(),
            is_on(),
        )  # fmt: skip
        if state.hooks:
            raise refusal("hooks, detect_nan, profile and their like watch each op; call step.eager inside them")
        for x in inputs:
            if isinstance(x, Tensor) and x.node is not None:
                raise refusal("an argument requires a gradient, which a replay would not record; pass x.detach()")
        for family in self.families.get(signature, ()):
            if not family.changed() and (program := family.program()) is not None and program.ready():
                self.last = program
                try:
                    if self.check:
                        return run_both(self, program, args, kwargs, inputs)
                    if not kwargs and len(inputs) == len(args) and all(a is b for a, b in zip(args, inputs)):
                        program.short = program.short or program.shortcut(family.guards, family.places, args)
                        self.short = program.short
                    return program(inputs)
                except Diverged as error:  # everything is as it was
                    self.give_up(program, error)
        return self.record(signature, inputs, args, kwargs)

    def give_up(self, program, error) -> None:
        """A list has stopped. If a forward or a rule decided differently, it runs as a whole from now on."""
        self.short = None
        self.reasons.append(f"a replay stopped: {str(error) or 'a decision or a shape came out otherwise'}")
        if (name := str(error)) and name in program.names["decides"]:
            self.whole.add(name)
            for families in self.families.values():
                families[:] = [f for f in families if program not in f.programs.values()]

    def sign(self, value, inputs):
        """The signature of an argument. Its arrays and tensors go into ``inputs``."""
        kind = type(value)
        if isinstance(value, Tensor) or kind in BACKENDS:
            array = value.data if isinstance(value, Tensor) else value
            inputs.append(value)
            return kind, type(array), array.shape, array.strides, array.dtype, BACKENDS[type(array)].index_of(array)
        if kind in SIMPLE:
            return kind, repr(value) if kind is float else value
        if isinstance(value, (list, tuple)):
            return (kind, *[self.sign(item, inputs) for item in value])
        if isinstance(value, dict):
            return (kind, *[(key, self.sign(item, inputs)) for key, item in value.items()])
        if isinstance(value, numpy.generic):
            return kind, repr(value)
        if isinstance(value, FIXED):
            if not any(value is known for known in self.kept):
                self.kept.append(value)
            return kind, id(value)
        raise TypeError(
            f"compile: an argument is {kind.__name__}; expected tensors, arrays, numbers, strings, modules, optimizers"
        )

    def run_eager(self, args, kwargs, inputs):
        """Run the step itself, with tensors as arguments."""
        given = iter([stand_in(x) for x in inputs])
        args, kwargs = replaced((args, kwargs), given)
        return self.eager(*args, **kwargs)

    # --- recording ----------------------------------------------------------------------------------------------------

    def record(self, signature, inputs, args, kwargs):
        """Run the step itself, and keep the list. Raises RuntimeError if it is not the list of the call before."""
        families = self.families.setdefault(signature, [])
        self.note_reason(signature, families)
        guards = Guards([self.eager, *self.kept])
        stand_ins = [stand_in(x) for x in inputs]
        same = [family for family in families if not family.changed()]
        optimizers = [x for x in guards.seen.values() if isinstance(x, Optimizer)]
        recorder = Recorder(stand_ins, tracked(guards, optimizers), optimizers)
        recorder.trace.name, recorder.trace.never = self.__name__, self.whole
        base_errors = numpy.geterr()
        with recorder, hooks(recorder):
            new_args, new_kwargs = replaced((args, kwargs), iter(stand_ins))
            result = self.eager(*new_args, **new_kwargs)
            leaves, structure = flatten(result)
            results = recorder.finish(leaves)
            leaves = recorder.given_back(leaves)
        key = key_of(recorder.trace, results, structure)
        decisions = decisions_of(recorder.trace)
        for family in same:
            if family.decisions == decisions:
                family.confirm(key, recorder, results, structure, base_errors)
                break
        else:
            if sum(map(len, self.families.values())) >= MOST:
                self.families.pop(next(iter(self.families)))
                families = self.families.setdefault(signature, [])
            families.append(Family(key, guards, recorder))
        recorder.forget()
        return unflatten(structure, leaves)

    def note_reason(self, signature, families):
        if families:
            changed = [family.changed() for family in families]
            if all(changed):
                self.reasons.append(f"changed: {changed[-1]}")
        else:
            self.reasons.append("a new signature" if len(self.families) > 1 else "the first call")
        if len(families) == MANY:
            warnings.warn(
                f"compile: {self.__name__} was recorded {MANY} times for one signature, and replays are rare:"
                f" {self.reasons[-1]}",
                RuntimeWarning,
                stacklevel=4,
            )

    # --- what there is to see -----------------------------------------------------------------------------------------

    @property
    def tape(self) -> str:
        """The list that ran last, as Python over raw arrays."""
        return self.last.source if self.last is not None else "nothing was replayed yet"

    def as_graph(self, **options):
        """The list that ran last as a Graph, for ``tg.graph.build``."""
        if self.last is None:
            raise ValueError("graph: the compiled step has not been replayed yet; call it three times")
        return picture(self.last, self.last.tensors, **options)

    def explain(self) -> str:
        """Print and return what was recorded, how often it was replayed, and why it was recorded again."""
        lines = [f"{self.__name__}: {sum(map(len, self.families.values()))} recordings"]
        for families in self.families.values():
            for family in families:
                lines.append(f"  {family.describe()}")
        lines += [f"  recorded: {reason}" for reason in self.reasons]
        text = "\n".join(lines)
        print(text)
        return text


def tracked(guards, optimizers) -> list[Tensor]:
    """The tensors that a step may use, if they can be found before it runs."""
    found = [x for x in guards.seen.values() if isinstance(x, Tensor)]
    found += [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    return list({id(x): x for x in found}.values())


def arrays_in(value) -> list:
    """The tensors and raw arrays of the arguments of a call."""
    return [leaf for leaf in flatten(value)[0] if isinstance(leaf, Tensor) or type(leaf) in BACKENDS]


def stand_in(x) -> Tensor:
    """A new tensor that shows the memory of an argument. Its array is a new object, so its id identifies it."""
    array = x.data if isinstance(x, Tensor) else x
    result = Tensor(array[...] if array.ndim else array.reshape(()))
    if isinstance(x, Tensor):
        result.count_with(x.version_counter())
    return result


def replaced(value, given):
    """The arguments with stand-ins instead of tensors and arrays, in the order of ``sign``."""
    if isinstance(value, Tensor) or type(value) in BACKENDS:
        return next(given)
    if isinstance(value, (list, tuple)):
        items = [replaced(item, given) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {key: replaced(item, given) for key, item in value.items()}
    return value
