"""An exercise: its task, the truth that answers are held against, a model answer, and mistakes that it recognises."""

import copy
import inspect
import re
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tinygrad_ms.graph.values import number

MOST = 80  # letters of the arguments in a sentence
MANY = 12  # elements: larger arrays are not written out
SECONDS = 10.0  # an answer that takes longer has a loop without an end


class Trouble(Exception):
    """Why an answer cannot be held against the truth, as a sentence for who wrote it."""


@dataclass(eq=False)
class Exercise:
    """One function to write. Its name, arguments and task are those of the model answer.

    cases: the arguments of each call that is compared.
    truth: the right result for these arguments, by differences or another way than the model's.
    look: what is compared, from the answer (a function) and the arguments; by default what the answer returns.
    shown: whether a sentence may say what the truth is. Where the task asks for a bare number it may not.
    wrongs: (sentence, answer) for typical mistakes: who makes one of them gets its sentence.
    """

    model: Callable
    cases: tuple
    truth: Callable
    look: Callable
    shown: bool = True
    wrongs: list[tuple[str, Callable]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.model.__name__

    @property
    def head(self) -> str:
        """``slope(f, x, h)``"""
        return f"{self.name}{inspect.signature(self.model)}"

    @property
    def task(self) -> str:
        return inspect.getdoc(self.model) or ""

    def wrong(self, sentence: str, answer: Callable) -> None:
        """Add a mistake and the sentence for it."""
        self.wrongs.append((sentence, answer))

    def results(self, answer) -> list:
        return [plain(self.look(answer, *copy.deepcopy(case))) for case in self.cases]

    def fault(self, answer, path: str = "", seconds: float = SECONDS) -> str:
        """What is wrong with an answer, in a sentence; nothing if it is right."""
        try:
            inspect.signature(answer).bind(*self.cases[0])
        except TypeError:
            return f"It should be called as {self.head}; yours is {self.name}{inspect.signature(answer)}."
        except ValueError:
            pass  # a function of NumPy without a signature
        try:
            got = within(seconds, lambda: self.results(answer), path)
        except Trouble as trouble:
            return str(trouble)
        truths = [plain(self.truth(*copy.deepcopy(case))) for case in self.cases]
        failing = [k for k, (a, b) in enumerate(zip(got, truths)) if not same(a, b)]
        if not failing:
            return ""
        for sentence, wrong in self.wrongs:
            if all(map(same, got, self.results(wrong))):
                return sentence
        return self.describe(got, truths, failing)

    def describe(self, got, truths, failing) -> str:
        """A mistake that nobody foresaw: its kind, and where it shows."""
        mine, right = got[failing[0]], truths[failing[0]]
        where = f"for {self.arguments(self.cases[failing[0]])}"
        if isinstance(mine, tuple) != isinstance(right, tuple) or isinstance(mine, tuple) and len(mine) != len(right):
            return f"It returns {count(mine)}, and should return {count(right)}."
        if isinstance(right, str) or isinstance(mine, str):
            return f"It gives {mine!r} {where}: that is not right."
        pairs = list(zip(mine, right)) if isinstance(right, tuple) else [(mine, right)]
        k = next(k for k, pair in enumerate(pairs) if not same(*pair))
        mine, right = pairs[k]
        which = f"Result {k + 1} of {len(pairs)}" if len(pairs) > 1 else "The result"
        if mine.shape != right.shape:
            wanted = f"have {right.shape}" if right.ndim else "be one number"
            turned = " It looks transposed." if mine.shape == right.shape[::-1] else ""
            is_one = f"is one number, and should have shape {right.shape}"
            return f"{which} {f'has shape {mine.shape}, and should {wanted}' if mine.ndim else is_one}.{turned}"
        if not np.isfinite(mine).all():
            return f"{which} is {text(mine)} {where}: not a finite number."
        everywhere = [(a[k], b[k]) if len(pairs) > 1 else (a, b) for a, b in zip(got, truths)]
        if factor := common_factor(everywhere):
            return f"{which} is {factor:.4g} times what it should be, everywhere: " + (
                "the sign is turned around." if np.isclose(factor, -1) else "a factor is missing, or one too many."
            )
        if mine.ndim == 2 and same(mine.T, right):
            return f"{which} is transposed {where}."
        if mine.size > MANY:
            place = tuple(map(int, np.argwhere(~np.isclose(mine, right, rtol=1e-6, atol=1e-7))[0]))
            which = f"Element {list(place)} of {which[:1].lower()}{which[1:]}"
            mine, right = mine[place], right[place]
        expected = f", and should be {text(right)}" if self.shown else ": that is not right"
        also = f" (right for {len(got) - len(failing)} of {len(got)} inputs)" if len(failing) < len(got) else ""
        return f"{which} is {text(mine)} {where}{expected}{also}."

    def arguments(self, case) -> str:
        named = list(zip(inspect.signature(self.model).parameters, case))
        words = ", ".join(f"{name} = {text(value)}" for name, value in named)
        if len(words) <= MOST:
            return words
        return ", ".join(f"{name} of shape {v.shape}" if np.ndim(v) else f"{name} = {text(v)}" for name, v in named)


def exercise(*cases, truth: Callable, look: Callable | None = None, shown: bool = True) -> Callable:
    """Make an Exercise of the model answer below. A case is the tuple of the arguments, or one argument."""
    whole = tuple(case if isinstance(case, tuple) else (case,) for case in cases)
    return lambda model: Exercise(model, whole, truth, look or (lambda answer, *case: answer(*case)), shown)


# --- results --------------------------------------------------------------------------------------------------------


def plain(value):
    """A number, array, Tensor or list as an array of float64; text, and tuples of all these, as they are."""
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    if value is None or value is ...:
        raise Trouble("It returns nothing. Is it still to be written, or is a `return` missing?")
    if isinstance(value, str):
        return value
    try:
        return np.array(value.numpy() if hasattr(value, "numpy") else value, dtype=np.float64)
    except (TypeError, ValueError):
        raise Trouble(f"It returns a result of type {type(value).__name__}, which holds no numbers.") from None


def same(a, b) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if type(a) is not type(b) or isinstance(a, str | tuple):
        return type(a) is type(b) and a == b
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=1e-7, equal_nan=True)


def common_factor(pairs) -> float | None:
    """The number k with ``a = k b`` for all pairs (a, b), if there is one."""
    if any(a.shape != b.shape or a.dtype.kind != "f" for a, b in pairs):
        return None
    a, b = (np.concatenate([part.ravel() for part in parts]) for parts in zip(*pairs))
    factor = float(a @ b / (b @ b)) if b.any() else 0.0
    return factor if factor and np.allclose(a, factor * b, rtol=1e-6, atol=1e-7) else None


def count(value) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} results" if len(value) > 1 else "a tuple with one result in it"
    return "text" if isinstance(value, str) else "one result"


def text(value) -> str:
    """A value inside a sentence."""
    if callable(value):  # a function of an exercise says its formula
        formula = inspect.getdoc(value) if inspect.isfunction(value) else None
        return formula or str(getattr(value, "__name__", "a function"))
    if not hasattr(value, "shape"):
        return number(value) if isinstance(value, float) else repr(value)
    if value.size > MANY:
        return f"an array of shape {value.shape}"
    shown = np.array2string(np.asarray(value), separator=", ", formatter={"all": number})
    return " ".join(shown.split())


# --- answers --------------------------------------------------------------------------------------------------------


def within(seconds: float, call: Callable, path: str = ""):
    """What ``call()`` returns. Raises Trouble where it raises, ends the program, or takes too long."""
    box: dict = {}

    def work():
        try:
            box["value"] = call()
        except BaseException as error:  # SystemExit, too
            box["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        frame = sys._current_frames().get(thread.ident or 0)
        while frame and frame.f_code.co_filename != path:
            frame = frame.f_back
        at = f" in line {frame.f_lineno}" if frame else ""
        raise Trouble(f"It is still running after {seconds:g} seconds{at}. Does its loop ever end?")
    if isinstance(error := box.get("error"), Trouble):
        raise error
    if error is not None:
        raise Trouble(complaint(error, path)) from error
    return box["value"]


def complaint(error: BaseException, path: str) -> str:
    """An exception of an answer in a sentence, with the line of the answer."""
    if isinstance(error, SyntaxError):
        return f"Line {error.lineno} is no Python: {error.msg}."
    if isinstance(error, SystemExit):
        return "It ends the program (exit). Take that line out."
    line, trace = None, error.__traceback__
    while trace:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == path else line
        trace = trace.tb_next
    words = str(error).partition("\n")[0]
    if isinstance(error, TypeError) and re.search(r"unsupported operand.*'(numpy\.ufunc|function)'", words):
        words += ". A function stands where its value should: is a bracket such as (x) missing?"
    at = f"In line {line} it" if line else "It"
    return f"{at} raises {type(error).__name__}" + (f": {words}" if words else ".")


def load(path, seconds: float = SECONDS) -> dict:
    """The names that a file of answers defines. Raises Trouble with a sentence where it cannot be run."""
    try:
        source = Path(path).read_bytes()
    except OSError as error:
        raise Trouble(f"{path} cannot be read: {error.strerror}.") from None
    names: dict = {"__name__": "answer", "__file__": str(path)}

    def run():
        exec(compile(source, str(path), "exec"), names)

    within(seconds, run, str(path))
    return names


class Report(list[tuple[Exercise, str]]):
    """Each exercise with what is wrong with its answer, in a sentence; nothing where it is right."""

    @property
    def right(self) -> int:
        return sum(not fault for _, fault in self)

    def __repr__(self):
        lines = [
            textwrap.fill(f"{one.name:18} {fault or 'right'}", 100, subsequent_indent=" " * 19, break_long_words=False)
            for one, fault in self
        ]
        return "\n".join([*lines, f"{self.right} of {len(self)} right"])


def check(exercises, names: dict, path: str = "", seconds: float = SECONDS) -> Report:
    """The answers among ``names``, one after the other."""
    found = Report()
    for one in exercises:
        answer = names.get(one.name)
        if answer is None:
            fault = f"It is not there: the file has no function {one.name}."
        elif not callable(answer):
            fault = f"{one.name} should be a function; it is a {type(answer).__name__}."
        else:
            fault = one.fault(answer, path, seconds)
        found.append((one, fault))
    return found


# --- differences ----------------------------------------------------------------------------------------------------


def jacobian(f: Callable, x, h: float = 1e-4) -> np.ndarray:
    """By differences of fourth order: a row per element of ``f(x)``, a column per element of ``x``."""
    x = np.array(x, dtype=np.float64)
    columns = []
    for k in range(x.size):
        step = np.zeros(x.size)
        step[k] = h
        step = step.reshape(x.shape)
        near = np.asarray(f(x + step), dtype=np.float64) - f(x - step)
        far = np.asarray(f(x + 2 * step), dtype=np.float64) - f(x - 2 * step)
        columns.append(((8 * near - far) / (12 * h)).ravel())
    return np.stack(columns, axis=1)


def gradient(f: Callable, x) -> np.ndarray:
    """Of a function with one number as its result; it has the shape of ``x``."""
    return jacobian(f, x).reshape(np.shape(x))
