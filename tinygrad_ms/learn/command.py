"""What ``python -m tinygrad_ms learn`` prints: the list, the tasks of a lesson, the verdict on a file, the sheet."""

import ast
import inspect
import textwrap

from tinygrad_ms.learn import LESSONS, check, exercises, title
from tinygrad_ms.learn.frame import Exercise

COMMAND = "python -m tinygrad_ms learn"
IMPORTS = "import numpy as np\n\nimport tinygrad_ms as tg\n"


def learn(lesson: int | None = None, answers=None, sheet: bool = False, solutions: bool = False) -> int:
    """Print what is asked for; the exit status: 1 if an answer is wrong or missing."""
    if sheet or solutions:
        print(handout(solutions), end="")
    elif lesson is None:
        print(listing(), end="")
    elif answers is None:
        print(tasks(lesson), end="")
    else:
        report = check(lesson, answers)
        print(report)
        return int(report.right < len(report))
    return 0


def listing() -> str:
    lines = [f"{title(k):42} {', '.join(one.name for one in exercises(k))}" for k in range(1, len(LESSONS) + 1)]
    usage = ("4", "the tasks of lesson 4, as a file to fill in"), ("4 answers.py", "checks your answers")
    return "\n".join([*lines, "", *(f"{COMMAND} {words:16} {what}" for words, what in usage)]) + "\n"


def tasks(lesson: int) -> str:
    """A Python file to fill in."""
    stubs = "\n\n".join(f'\ndef {one.head}:\n    """{textwrap.indent(one.task, "    ").strip()}"""\n    ...' for one in
                        exercises(lesson))  # fmt: skip
    how = f"# Write what stands for ..., then check it: {COMMAND} {lesson} answers.py"
    return f"# {title(lesson)}\n{how}\n\n{IMPORTS}\n{stubs}\n"


def handout(solutions: bool = False) -> str:
    """All tasks in Markdown, to hand out; with ``solutions`` the model answers and the known mistakes, to keep."""
    lines = [
        "# Exercises" + " with answers" * solutions,
        "",
        textwrap.dedent(f"""\
        Three to each lesson. Each asks for one Python function. `{COMMAND} 4` writes the tasks of lesson 4 as a file
        to fill in, `{COMMAND} 4 answers.py` checks the file: it holds what your functions return against differences,
        and says what is wrong. NumPy is `np`, the library `tg`."""),
    ]
    for k in range(1, len(LESSONS) + 1):
        lines += ["", f"## {title(k)}"]
        for i, one in enumerate(exercises(k), 1):
            lines += ["", f"**{k}.{i}** `{one.head}`", "", one.task]
            if solutions:
                lines += ["", f"```python\n{source(one)}\n```", "", *(f"- {words}" for words, _ in one.wrongs)]
    return "\n".join(lines) + "\n"


def source(one: Exercise) -> str:
    """The model answer without its decorator and task."""
    function = ast.parse(inspect.getsource(one.model)).body[0]
    assert isinstance(function, ast.FunctionDef)
    function.decorator_list, function.body = [], function.body[1:]
    return ast.unparse(function)
