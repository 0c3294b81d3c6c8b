"""Optimizer: parameter groups, the step over them, saving and restoring.

A method is a subclass of a few lines.
"""

import warnings
from collections.abc import Iterable
from math import inf
from numbers import Integral
from typing import Any

import numpy

from tinygrad_ms.arrays.devices import to_device
from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT, is_float
from tinygrad_ms.arrays.registry import BACKENDS, host
from tinygrad_ms.cards import by_card, on_card, there
from tinygrad_ms.engine.tape import last_change, tick
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.launches import launcher
from tinygrad_ms.ops.live import live
from tinygrad_ms.optim.flat import Flat, Layout
from tinygrad_ms.optim.in_one_go import STEPPED, together
from tinygrad_ms.optim.on_device import stepped
from tinygrad_ms.optim.pieces import aligned
from tinygrad_ms.optim.whole_steps import ELEMENTWISE, RAISE_NOTHING, arithmetic_raises, undone_on_error
from tinygrad_ms.options import is_real
from tinygrad_ms.spelling import check_arguments


def of_lr_alone(scalars):
    """Mark ``scalars`` that change only with the learning rate, not from step to step."""
    scalars.of_lr_alone = True
    return scalars


class Optimizer:
    """Changes parameters, in place, by their gradients.

    params: Tensors, or groups of them. A group is a dict such as ``{"params": [...], "lr": 0.1}``; its options override
    the common ones. Every parameter is a leaf with ``requires_grad``. A step skips parameters whose ``.grad`` is None.
    Raises ValueError or TypeError for other parameters, for one given twice, and for an option out of range.

    A subclass defines ``update`` on raw arrays. ``buffers`` names the arrays that it keeps for each parameter.
    Parameters in half precision, and their buffers, are updated in float32; the parameters are rounded afterwards.

    ``step``, ``add_param_group`` and ``load_state_dict`` check everything first. If they refuse something, nothing has
    changed. If an ``update`` raises, nothing has changed either: where one may raise, ``step`` keeps copies of values
    and state until it is complete. (Ctrl-C in the middle of a step of ``SGD`` or ``Adam`` is not undone.)
    """

    starts_late = False  # whether a saved state may lack buffers, because an option asked for them later

    def __new__(cls, *args, **options):
        check_arguments(cls, options)
        return super().__new__(cls)

    def __init__(self, params: Iterable, **defaults):
        self.defaults = defaults
        self.sure = type(self).update in RAISE_NOTHING  # if not, a step keeps copies until it is complete
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}  # parameter -> its number of steps, and its buffers
        self._scratch: dict[tuple, Any] = {}
        self._numbers: dict[tuple, tuple] = {}  # by group, library and dtype: what ``numbers`` made
        self._first_lrs: list[float] | None = None  # the first rate of each group, if there is a schedule
        self._factor = 1.0  # a schedule sets each rate to this factor times the first one
        self._checked: dict[int, list] = {}  # id of a group -> its values when they were checked
        self._layouts: dict[int, Layout] = {}  # id of a group -> its parameters in flats
        self.updating: Any = None  # the parameter whose array ``update`` gets
        self._fresh = False  # whether the buffers of the update that is being made are new
        name = type(self).__name__
        if isinstance(params, (Tensor, dict)) or not isinstance(params, Iterable):
            raise TypeError(
                f"{name}: params is {type(params).__name__}; expected a list of Tensors, as from"
                " model.parameters(), or a list of groups"
            )
        params = list(params)
        if not params:
            raise ValueError(f"{name}: the list of parameters is empty; there is nothing to optimize")
        for group in params if isinstance(params[0], dict) else [{"params": params}]:
            self.add_param_group(group)
        for group in self.param_groups:
            self._layout(group)

    def buffers(self, options) -> tuple[str, ...]:
        """The names of the arrays kept for each parameter. They have its shape and start as zeros."""
        return ()

    def update(self, xp, p, g, state, options) -> None:
        """Change the raw array ``p`` in place by its gradient ``g``. ``state["step"]`` counts from 1."""
        raise NotImplementedError(f"{type(self).__name__} has no update(self, xp, p, g, state, options)")

    def scalars(self, options, step) -> tuple[float, ...]:
        """The factors of ``update`` that change with the step or with the learning rate; see ``numbers``."""
        raise NotImplementedError(f"{type(self).__name__} has no scalars(self, options, step)")

    def kernel(self, options, numbers) -> tuple[str, tuple]:
        """The compiled kernel of ``update``, and what it takes behind the arrays. ``numbers``: those of ``scalars``."""
        raise NotImplementedError(f"{type(self).__name__} has no kernel(self, options, numbers)")

    def check(self, options) -> None:
        """Raise TypeError or ValueError for options that are no numbers or out of range."""
        self.require_number(options, "lr")
        self.require_number(options, "weight_decay")

    def require_number(self, options, name, below=inf) -> None:
        """Raise TypeError or ValueError unless the option is a number of at least 0 and below ``below``."""
        value = options[name]
        if type(value) is float and 0 <= value < below:  # called at every step, so it is written out
            return
        if not is_real(value):
            raise TypeError(f"{type(self).__name__}: {name} is {value!r}, expected a number")
        expected = "at least 0" + (f" and below {below}" if below < inf else "")
        self.require(0 <= float(value) < below, options, name, expected)

    def require(self, satisfied, options, name, expected) -> None:
        """Raise ValueError that names the option and what is expected of it, unless ``satisfied``."""
        if not satisfied:
            raise ValueError(f"{type(self).__name__}: {name} is {options[name]}, expected {expected}")

    def demand(self, satisfied, options, name, expected) -> None:
        """The former name of ``require``."""
        warnings.warn("Optimizer.demand goes in 0.3; it is Optimizer.require", DeprecationWarning, stacklevel=2)
        self.require(satisfied, options, name, expected)

    # --- groups ---------------------------------------------------------------------------------------------

    def add_param_group(self, group: dict) -> None:
        """Optimize more parameters, with their own options: ``{"params": [...], "lr": 0.1}``.

        If a schedule sets the learning rates, "lr" is the first rate of the group, and the group follows the schedule.
        """
        known = {id(p) for other in self.param_groups for p in other["params"]}
        parts = self.parts(group)
        new = [self._complete(part, known, number) for number, part in enumerate(parts, len(self.param_groups))]
        if self._first_lrs is not None:
            self._first_lrs += [part["lr"] for part in new]
            for part in new:
                part["lr"] *= self._factor
        self.param_groups += new

    def parts(self, group) -> list[dict]:
        """The groups that are made of a group of the user. Here it is the group itself."""
        return [group]

    def _complete(self, group, known, number):
        """Group ``number`` with all options. It is checked, and the ids of its parameters are added to ``known``."""
        name = type(self).__name__
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(f'{name}: a group is a dict such as {{"params": [...], "lr": 0.1}}, not {str(group)[:60]}')
        if unknown := [key for key in group if key not in self.defaults and key != "params"]:
            raise ValueError(f"{name}: unknown option {', '.join(unknown)}; its options are {', '.join(self.defaults)}")
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        if not params:
            raise ValueError(f"{name}: the list of parameters of group {number} is empty")
        group = {"params": params, **self.defaults, **{key: group[key] for key in group if key != "params"}}
        self.check(group)
        for i, p in enumerate(params):
            which = f"{name}: parameter {i} of group {number}"
            if not isinstance(p, Tensor):
                raise TypeError(f"{which} is {type(p).__name__}; expected a Tensor")
            which += f" ({p.name or 'unnamed'}, shape {p.shape})"
            if p.node is not None and not p.is_leaf:
                raise ValueError(
                    f"{which} is the result of {p.node.op} ({p.node.line}); only leaves can be optimized:"
                    " give the Tensor that it was computed from"
                )
            if not p.requires_grad:
                raise ValueError(f"{which} has requires_grad=False; leave it out, or set requires_grad first")
            if id(p) in known:
                raise ValueError(f"{which} is there twice; it would be updated twice in each step")
            known.add(id(p))
        return group

    def set_rates(self, first_lrs: list[float], factor: float) -> None:
        """Give each group its first learning rate times ``factor``. Schedules call this.

        first_lrs: one for each group. The optimizer keeps the list itself, and adds the rate of a new group to it.
        """
        rates = [lr * factor for _, lr in zip(self.param_groups, first_lrs, strict=True)]
        for group, rate in zip(self.param_groups, rates):
            group["lr"] = rate
        self._first_lrs, self._factor = first_lrs, factor

    def zero_grad(self) -> None:
        """Drop the gradients (``.grad`` becomes None)."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    # --- the step -------------------------------------------------------------------------------------------

    @live("writes")
    def step(self) -> None:
        """Update every parameter that has a gradient.

        The step is not recorded, but the tape knows that the values have changed.
        Raises ValueError or TypeError for a gradient whose shape, device or kind is not that of its parameter, and for
        an option that was set by hand and is out of range. It also raises what ``update`` raises. Then nothing has
        changed.
        """
        late: dict[Tensor, dict] = {}  # new entries of the state
        work: list[tuple] = []
        states = self.state
        for group in self.param_groups:
            self._check_again(group)
            names = self.buffers(group)
            layout = self._layouts.get(id(group)) or self._layout(group)
            flats = layout.flats and self.elementwise(group)
            for p in layout.sort(group, names, self, work) if flats else group["params"]:
                if (g := p.grad) is None:
                    continue
                array, fresh = p.data, False
                state: Any = states.get(p)
                kind, shape, dtype = type(array), array.shape, array.dtype
                given: Any = g.data if isinstance(g, Tensor) else None
                if type(given) is not kind or given.dtype is not dtype or given.shape != shape:
                    fit(type(self).__name__, p)
                if kind is numpy.ndarray and not array.flags.writeable:
                    raise read_only(type(self).__name__, p)
                for name in names if state else NOTHING:
                    buffer: Any = state.get(name) if state else None
                    if type(buffer) is not kind or buffer.dtype is not dtype or buffer.shape != shape:
                        state, fresh = self._state_for(p, names, late)
                        break
                work.append((array, given, state, group, p, fresh))
        if late or not self.sure or arithmetic_raises() and any(launcher(item[0]) is None for item in work):
            with undone_on_error([p for item in work for p in getattr(item[4], "parameters", item[4:5])], states):
                states.update(late)
                self._change(work)
        else:
            self._change(work)

    def _change(self, work):
        """Update all parameters, once everything is known to fit."""
        update, now = self.update, tick()
        last_change[0] = now
        if len(work) > 1 and getattr(update, "__func__", None) in STEPPED:
            work = together(self, work, now)
        for array, g, state, group, p, self._fresh in by_card(work):
            self.updating = p
            state["step"] += 1
            if not array.size:
                continue
            backend = BACKENDS[type(array)]
            xp = backend.xp
            if launcher(array) is not None and self.elementwise(group):
                g = stepped(self, array, g, state, group)
            if g is None:
                pass
            elif array.itemsize < 4:
                exact = array.astype(DEFAULT_FLOAT)
                update(xp, exact, g.astype(DEFAULT_FLOAT), state, group)
                array[...] = exact.astype(array.dtype)
            else:
                update(xp, array, g, state, group)
            if type(p) is Flat:
                p.made(state["step"], now)
            else:
                p.version_counter()[0] = now

    def flats(self, group) -> list[Flat]:
        """The small parameters of a group as views of vectors. A vector is updated as a whole; see ``optim.flat``."""
        return self._layout(group).flats

    def elementwise(self, group) -> bool:
        """Whether ``update`` does the same to each element. Then it may get many parameters end to end."""
        return type(self).update in ELEMENTWISE

    def _layout(self, group):
        found = self._layouts.get(id(group))
        if found is None:
            found = self._layouts[id(group)] = Layout()
            if self.elementwise(group):
                found.lay(group, self)
        return found

    def _check_again(self, group):
        """``check``, unless it has accepted these options before."""
        try:
            if [*group.values()] == self._checked.get(id(group)):
                return
        except Exception:  # arrays, which cannot be compared
            pass
        self.check(group)
        self._numbers.clear()
        if all(type(value) in IMMUTABLE for name, value in group.items() if name != "params"):
            self._checked[id(group)] = [*group.values()]

    def _state_for(self, p, names, late):
        """The state of ``p`` with buffers that fit, and whether some are new. A new state goes into ``late``."""
        kept = self.state.get(p) or {"step": 0}
        state, dtype = dict(kept), DEFAULT_FLOAT if p.dtype.itemsize < 4 else p.dtype
        for name in names:
            old = state.get(name)
            if old is None:
                state[name] = self.new_buffer(p.data)
            elif old.shape != p.shape:
                raise ValueError(
                    f"{type(self).__name__}: {name} of {p.name or 'a parameter'} has shape {old.shape} and the"
                    f" parameter {p.shape}; a parameter of another shape needs an optimizer of its own"
                )
            elif type(old) is not type(p.data) or old.dtype != dtype:  # the parameter was converted since
                there_too = to_device(old, p.device)
                state[name] = there(there_too.astype, there_too)(dtype)
        if kept is self.state.get(p) and all(state[name] is kept.get(name) for name in names):
            return kept, False
        late[p] = state
        return state, any(name not in kept for name in names)

    def new_buffer(self, array):
        dtype = DEFAULT_FLOAT if array.dtype.itemsize < 4 else array.dtype
        return there(BACKENDS[type(array)].xp.zeros_like, array)(array, dtype=dtype)

    def scratch(self, p, number: int = 0):
        """Array ``number`` like ``p`` for intermediate results.

        All parameters of the same shape use the same ones.
        """
        backend = BACKENDS[type(p)]
        key = (p.shape, p.dtype, type(p), number, backend.multi_device and backend.index_of(p))
        found = self._scratch.get(key)
        if found is None:
            made = aligned if type(p) is numpy.ndarray else backend.xp.empty
            found = self._scratch[key] = made(p.shape, p.dtype)
        return found

    def numbers(self, p, options, state):
        """``scalars`` as 0-d arrays, which NumPy reads fastest beside ``p``. They are kept until a number changes."""
        if type(p) is not numpy.ndarray:
            recorder = BACKENDS[type(p)].recorder
            return recorder.numbers(self, p, options, state) if recorder else self.scalars(options, state["step"])
        values, key = self.scalars(options, state["step"]), (id(options), type(p), p.dtype)
        known, arrays = self._numbers.get(key) or (None, [])
        if known is None:
            arrays = [numpy.array(value, p.dtype) for value in values]
        elif known != values:
            for old, new, array in zip(known, values, arrays):
                if old != new:
                    array[...] = new
        else:
            return arrays
        self._numbers[key] = values, arrays
        return arrays

    # --- saving ---------------------------------------------------------------------------------------------

    def __getstate__(self):
        """For copies and pickles. Their parameters are not views of a vector."""
        return {**vars(self), "_layouts": {}, "_scratch": {}}

    def state_dict(self) -> dict[str, Any]:
        """A snapshot: ``{"state": {number: {"step": n, buffer: NumPy copy}}, "param_groups": [options]}``.

        Parameters are known by their numbers, counted through the groups; ``tinygrad_ms.save`` writes it.
        """
        state, groups, first = {}, [], 0
        for group in self.param_groups:
            groups.append({**group, "params": list(range(first, first + len(group["params"])))})
            for number, p in enumerate(group["params"], first):
                if p in self.state:
                    kept = self.state[p]
                    arrays = {name: kept[name] for name in self.buffers(group) if name in kept}
                    state[number] = {"step": kept["step"], **{k: numpy.array(host(a)) for k, a in arrays.items()}}
            first += len(group["params"])
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a ``state_dict()`` of the same method over parameters of the same shapes.

        All is checked before anything changes. Raises ValueError that says what does not fit.
        """
        caller = f"load_state_dict of {type(self).__name__}"
        if not isinstance(state, dict) or not {"state", "param_groups"} <= state.keys():
            raise ValueError(f"{caller}: expected a dict with state and param_groups, as state_dict() returns it")
        groups, entries = state["param_groups"], state["state"]
        if not isinstance(groups, (list, tuple)) or not all(isinstance(new, dict) for new in groups):
            raise ValueError(f"{caller}: param_groups is {str(groups)[:60]}, expected a list of dicts")
        if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
            raise ValueError(f"{caller}: state is {str(entries)[:60]}, expected a dict of dicts")
        if len(groups) != len(self.param_groups):
            raise ValueError(f"{caller}: the state has {len(groups)} groups and the optimizer {len(self.param_groups)}")
        first, restored = 0, {}
        for i, (group, new) in enumerate(zip(self.param_groups, groups)):
            numbers = new.get("params", ())
            if not isinstance(numbers, (list, tuple)) or len(numbers) != len(group["params"]):
                count = len(numbers) if isinstance(numbers, (list, tuple)) else repr(numbers)
                raise ValueError(
                    f"{caller}: group {i} has {count} parameters in the state and {len(group['params'])} here"
                )
            if list(numbers) != list(range(first, first + len(numbers))):
                raise ValueError(
                    f"{caller}: group {i} has the parameters {list(numbers)[:5]} in the state, expected them by their"
                    f" numbers from {first} on"
                )
            if new.keys() != group.keys():
                raise ValueError(
                    f"{caller}: group {i} has the options {', '.join(k for k in new if k != 'params')} in the"
                    f" state and {', '.join(self.defaults)} here: another method?"
                )
            self.check(new)
            for number, p in enumerate(group["params"], first):
                if number in entries:
                    which = f"{caller}: parameter {number}" + (f" ({p.name})" if p.name else "")
                    restored[p] = self._restore(p, entries[number], self.buffers(new), which)
            first += len(group["params"])
        if unknown := [key for key in entries if key not in range(first)]:
            raise ValueError(f"{caller}: the state has parameters {unknown[:5]} and there are {first} here")
        for group, new in zip(self.param_groups, groups):
            group.update({key: value for key, value in new.items() if key != "params"})
        self.state = restored

    def _restore(self, p, entry, names, which):
        if self.starts_late and set(entry) == {"step"}:
            names = ()
        if set(entry) != {"step", *names}:
            raise ValueError(
                f"{which} has {', '.join(map(str, entry))} in the state, expected {', '.join(('step', *names))}"
            )
        step = entry["step"]
        if not isinstance(step, Integral) or step < 0:
            raise ValueError(f"{which}: step is {step!r} in the state, expected an integer of at least 0")
        restored: dict[str, Any] = {"step": int(step)}
        for name in names:
            if isinstance(entry[name], numpy.ma.MaskedArray):
                raise ValueError(f"{which}: {name} is a masked array, whose mask would be lost")
            array, buffer = host(raw(entry[name])), self.new_buffer(p.data)
            if array.shape != p.shape or array.dtype != buffer.dtype:
                raise ValueError(
                    f"{which}: {name} is {array.dtype} of shape {array.shape} in the state, expected"
                    f" {buffer.dtype} of shape {p.shape}"
                )
            with on_card(buffer):
                buffer[...] = to_device(array, p.device)
            restored[name] = buffer
        return restored

    def __repr__(self):
        lines = []
        for i, group in enumerate(self.param_groups):
            options = ", ".join(f"{key}={value}" for key, value in group.items() if key != "params")
            lines.append(f"  group {i}: {len(group['params'])} parameters, {options}")
        return f"{type(self).__name__}(\n" + "\n".join(lines) + "\n)"


NOTHING = ("",)  # names of which no state has any
IMMUTABLE = {float, int, bool, str, tuple, type(None)}


def read_only(caller, p) -> ValueError:
    return ValueError(
        f"{caller}: {p.name or 'a parameter'} of shape {p.shape} is a read-only array: guard_saved made it so until"
        " backward, or whoever made the array"
    )


def fit(caller, p) -> None:
    """Raise ValueError or TypeError unless ``p.grad`` can be the gradient of ``p``."""
    g = p.grad
    if not isinstance(g, Tensor):
        raise TypeError(f"{caller}: the gradient of {p.name or 'a parameter'} is {type(g).__name__}, expected a Tensor")
    if g.data.shape != p.data.shape or type(g.data) is not type(p.data):
        raise ValueError(
            f"{caller}: {p.name or 'a parameter'} has shape {p.shape} on {p.device}"
            f" and its gradient {g.shape} on {g.device}"
        )
    if g.data.dtype != p.data.dtype and not is_float(g.data.dtype):
        raise TypeError(f"{caller}: {p.name or 'a parameter'} is {p.dtype} and its gradient {g.dtype}, expected floats")
