"""Exercises to the lessons: ``python -m tinygrad_ms learn``. They use the library as its users do."""

from types import ModuleType

from tinygrad_ms.learn import (
    frame,
    lesson01,
    lesson02,
    lesson03,
    lesson04,
    lesson05,
    lesson06,
    lesson07,
    lesson08,
    lesson09,
    lesson10,
    lesson11,
    lesson12,
    lesson13,
    lesson14,
)  # fmt: skip
from tinygrad_ms.learn.frame import Exercise, Report, Trouble

LESSONS: list[ModuleType] = [found for name, found in sorted(globals().items()) if name.startswith("lesson")]


def exercises(lesson: int) -> list[Exercise]:
    """The exercises of a lesson, in order. Raises ValueError for a lesson that is not there."""
    if not 1 <= lesson <= len(LESSONS):
        raise ValueError(f"learn: there is no lesson {lesson}; they are numbered from 1 to {len(LESSONS)}")
    return [one for one in vars(LESSONS[lesson - 1]).values() if isinstance(one, Exercise)]


def title(lesson: int) -> str:
    return f"{lesson}. {LESSONS[lesson - 1].__doc__}"


def check(lesson: int, answers) -> Report:
    """Check the answers to a lesson: a list of (exercise, what is wrong, or nothing), which prints as a report.

    answers: the path of a Python file, or a dict {name: function} such as ``globals()`` of a notebook.
    Raises ValueError for a lesson that is not there, or a file that cannot be run.
    """
    asked = exercises(lesson)
    if isinstance(answers, dict):
        return frame.check(asked, answers)
    try:
        names = frame.load(answers)
    except Trouble as trouble:
        raise ValueError(f"learn: {trouble}") from None
    return frame.check(asked, names, str(answers))
