"""A recorded list that runs, and the recordings that belong together."""

from typing import Any

from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.random import generator
from tinygrad_ms.replay.recorder import equal
from tinygrad_ms.replay.refusal import Diverged, refusal
from tinygrad_ms.tree import unflatten


class Program:
    """The function made of a list. Called with the arguments that are arrays or tensors, it gives the results."""

    def __init__(self, recorder, inputs: int, texts, structure):
        self.outside, self.structure = recorder.outside, structure
        self.all_generators = recorder.generators
        self.generators = recorder.generators if recorder.answers else []  # to put back where it diverges
        self.source = recorder.listing.source(inputs, len(self.outside), texts)
        names: dict[str, Any] = dict(recorder.listing.names)
        exec(self.source, names)  # lines that ``Listing`` wrote
        self.function = names["replay"]
        self.names = names
        self.runs = 0

    def __call__(self, inputs):
        arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
        arrays += [x.data if isinstance(x, Tensor) else x for x in self.outside]
        results = self.careful(arrays) if self.generators else self.function(*arrays)
        self.runs += 1
        return unflatten(self.structure, results) if self.structure is not None else None

    def careful(self, arrays):
        """Run the list; where it takes another path, the random generators are as before."""
        before = [(g, g.bit_generator.state) for g in map(generator, self.generators)]
        try:
            return self.function(*arrays)
        except Diverged:
            for g, state in before:
                g.bit_generator.state = state
            raise


class Family:
    """The recordings of one signature under the same guards: one list for each pattern of gradients that are there."""

    def __init__(self, key, guards, recorder):
        self.key, self.guards, self.answers = key, guards, recorder.answers
        self.outside, self.leaves = recorder.outside, list(recorder.start)
        self.places = [(x, raw(x), x.node if isinstance(x, Tensor) else None) for x in recorder.outside]
        self.names = recorder.listing.names  # keeps alive what the key knows by id
        self.programs: dict[tuple, Program] = {}

    def moved(self) -> bool:
        """Whether a tensor from outside has another array or another place on the tape than it had."""
        for x, array, node in self.places:
            if x is not array and (x.data is not array or x.node is not node or (node is not None and is_hooked(node))):
                return True
        return False

    def changed(self) -> str:
        """What is not as it was when this was recorded; "" where all is."""
        return self.guards.changed() or ("a tensor from outside has another array, or hooks" if self.moved() else "")

    def pattern(self) -> tuple:
        return tuple([leaf.grad is None for leaf in self.leaves])

    def program(self) -> Program | None:
        return self.programs.get(self.pattern())

    def confirm(self, key, recorder, inputs, texts, structure) -> None:
        """A second run under the same guards has made ``key``: keep its list, or refuse."""
        if key != self.key:
            raise refusal(
                f"two calls did not do the same, and nothing that is guarded has changed: {difference(self.key, key)}",
                "the whole step has run",
            )
        pattern = tuple([recorder.start[leaf] is None for leaf in self.leaves])
        self.programs[pattern] = Program(recorder, inputs, texts, structure)

    def describe(self) -> str:
        lists = len(self.programs)
        runs = sum(program.runs for program in self.programs.values())
        lines = len(self.key[0][0])
        state = f"{lists} lists, replayed {runs} times" if lists else "not confirmed by a second call yet"
        return f"{lines} lines, {len(self.outside)} tensors from outside, {len(self.guards.entries)} guards: {state}"


def is_hooked(node) -> bool:
    """Whether a node has hooks that a replay does not call."""
    return not all(hasattr(hook, "replayed") for hook in node.hooks or ())


def difference(first, second) -> str:
    """Where two lists differ, for people."""
    for (a, _), (b, _) in zip(first[0][0], second[0][0]):
        if a != b:
            return f"{a.strip()} became {b.strip()}"
    if len(first[0][0]) != len(second[0][0]):
        return f"{len(first[0][0])} lines became {len(second[0][0])}"
    for a, b in zip(first[0][1], second[0][1]):
        if a != b:
            return f"{a[0]} is another number or object: made in the step, or read from something that is not guarded"
    if first[1] != second[1]:
        return "an op got another tensor or array: made in the step, or read from something that is not guarded"
    return "the results are others"


class Snapshot:
    """Copies of what a step reads from outside: writes that no event told are found by comparing."""

    def __init__(self, inputs, families):
        outside = {id(x): x for family in families for x in family.outside}
        self.copies = [(x, raw(x).copy()) for x in (*inputs, *outside.values())]

    def take_again(self) -> None:
        """After a live call that may write."""
        self.copies = [(x, copy if equal(raw(x), copy) else raw(x).copy()) for x, copy in self.copies]

    def compare(self) -> None:
        """Refuse what has changed."""
        for x, copy in self.copies:
            if not equal(raw(x), copy):
                name = getattr(x, "name", None) or f"an array of shape {raw(x).shape}"
                raise refusal(f"{name} was changed by a write that no op made; use an optimizer")
