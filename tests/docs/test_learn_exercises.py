"""The exercises: model answers pass, each typical mistake gets a sentence of its own, and bad files get one, too."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.learn_pages import FOLDER, lessons
from tinygrad_ms.__main__ import main
from tinygrad_ms.learn import LESSONS, check, command, exercises, title
from tinygrad_ms.learn.frame import exercise, jacobian, load, plain, same

ALL = [one for k in range(1, len(LESSONS) + 1) for one in exercises(k)]


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_the_model_passes_and_each_mistake_gets_its_own_sentence(one):
    assert one.fault(one.model) == ""
    sentences = [sentence for sentence, _ in one.wrongs]
    assert len(set(sentences)) == 3
    assert [one.fault(wrong) for _, wrong in one.wrongs] == sentences
    assert all(re.search(r"[.?]$", sentence) for sentence in sentences)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_no_sentence_gives_the_answer(one):
    answer = command.source(one).partition("return ")[2]
    assert answer and all(answer not in sentence for sentence, _ in one.wrongs)


def test_each_lesson_has_three_and_its_title():
    assert [len(exercises(k)) for k in range(1, len(LESSONS) + 1)] == [3] * len(LESSONS)
    assert [title(k) for k in range(1, len(LESSONS) + 1)] == [
        path.read_text(encoding="utf-8").splitlines()[0][2:] for path in lessons()
    ]
    assert len({one.name for one in ALL}) == len(ALL)


def test_the_sheet_is_current():
    sheet = (FOLDER / "exercises.md").read_text(encoding="utf-8")
    assert sheet == command.handout(), "run: python -m tinygrad_ms learn --sheet > docs/learn/exercises.md"


def test_the_sheet_of_the_teacher_holds_answers_that_run():
    sheet = command.handout(solutions=True)
    assert sheet.count("```python") == len(ALL)
    names = {"np": np, "tg": tg}
    for one in ALL:
        exec(command.source(one), names)
        assert one.fault(names[one.name]) == ""
    assert all(sentence in sheet for one in ALL for sentence, _ in one.wrongs)
    assert not any(sentence in command.handout() for one in ALL for sentence, _ in one.wrongs)


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command(tmp_path, capsys):
    assert main(["learn"]) == 0
    assert capsys.readouterr().out == command.listing() and all(one.name in command.listing() for one in ALL)
    assert main(["learn", "4"]) == 0
    stub = capsys.readouterr().out
    assert stub.startswith("# 4. The chain rule by hand\n") and "def total(x):" in stub and "np.cos" not in stub
    answers = tmp_path / "answers.py"
    answers.write_text(stub, encoding="utf-8")
    assert main(["learn", "4", str(answers)]) == 1
    assert capsys.readouterr().out.count("still to be written") == 3
    right = "\n\n".join(f"import numpy as np\n{command.source(one)}" for one in exercises(4))
    answers.write_text(right, encoding="utf-8")
    assert main(["learn", "4", str(answers)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "3 of 3 right"
    answers.write_text(right.replace("(1 + 2 * x)", "2 * x"), encoding="utf-8")
    assert main(["learn", "4", str(answers)]) == 1
    words = " ".join(capsys.readouterr().out.split())
    assert "total The direct path of x is missing" in words and words.endswith("2 of 3 right")
    with pytest.raises(SystemExit):
        main(["learn", "answers.py"])
    assert "it comes first: learn 4 answers.py" in capsys.readouterr().err
    assert main(["learn", "15"]) == 1 and "from 1 to 14" in capsys.readouterr().err
    assert main(["learn", "--sheet"]) == 0 and capsys.readouterr().out == command.handout()


def test_the_process_ends_though_an_answer_does_not(tmp_path):
    """In a process of its own, as users run it; the loop is in the file itself."""
    file = tmp_path / "answers.py"
    file.write_text("x = 1\nwhile x:\n    x += 1\n")
    code = f"from tinygrad_ms.learn import frame; frame.load({str(file)!r}, seconds=0.5)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          cwd=Path(__file__).parents[2])  # fmt: skip
    assert done.returncode == 1
    assert re.search(r"It is still running after 0.5 seconds in line [23]. Does its loop ever end\?", done.stderr)


def test_in_a_notebook():
    def total(x):
        return tg.cos(x + x**2) * (1 + 2 * x) + (np.asarray(x) > 1)

    found = {one.name: fault for one, fault in check(4, {"total": total})}
    assert found["total"].endswith("(right for 2 of 3 inputs).")
    assert repr(check(4, {})).splitlines()[-1] == "0 of 3 right" and check(4, {}).right == 0
    assert found["dot_factors"] == "It is not there: the file has no function dot_factors."


# --- answers that nobody foresaw ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def total(x)\n    return 1", "Line 1 is no Python: expected ':'."),
        ("x = '\0'", "source code"),
        ("1 / 0", "In line 1 it raises ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(0)", "It ends the program (exit). Take that line out."),
        ("import no_such_module_anywhere", "ModuleNotFoundError"),
    ],
)
def test_files_that_do_not_run(body, words, tmp_path, capsys):
    file = tmp_path / "answers.py"
    file.write_text(body)
    assert main(["learn", "4", str(file)]) == 1
    assert words in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path, capsys):
    for path in (tmp_path / "none.py", tmp_path):
        assert main(["learn", "4", str(path)]) == 1
        assert "cannot be read" in capsys.readouterr().err


@exercise((2.0, np.array([1.0, -2.0, 3.0])), (0.5, np.array([4.0, 1.0, 0.0])), truth=lambda a, x: np.outer(a * x, x))
def outer(a, x):
    """A table."""
    return a * np.outer(x, x)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda a: a, "It should be called as outer(a, x); yours is outer(a)."),
        (lambda a, x: None, "It returns nothing. Is it still to be written, or is a `return` missing?"),
        (lambda a, x: object(), "It returns a result of type object, which holds no numbers."),
        (lambda a, x: "a", "It gives 'a' for a = 2, x = [1, -2, 3]: that is not right."),
        (lambda a, x: (x,), "It returns a tuple with one result in it, and should return one result."),
        (lambda a, x: np.sin * x, "A function stands where its value should"),
        (lambda a, x: a, "The result is one number, and should have shape (3, 3)."),
        (lambda a, x: np.tanh(tg.tensor(x)), "The result has shape (3,), and should have (3, 3)."),
        (lambda a, x: (1, 2), "It returns 2 results, and should return one result."),
        (lambda a, x: a * x, "The result has shape (3,), and should have (3, 3)."),
        (lambda a, x: np.nan * np.outer(x, x), "not a finite number."),
        (lambda a, x: -a * np.outer(x, x), "The result is -1 times what it should be, everywhere: the sign is turned"),
        (lambda a, x: 2 * a * np.outer(x, x), "2 times what it should be, everywhere: a factor is missing, or one too"),
        (lambda a, x: a * np.outer(x, x) + 1, "The result is [[3, -3, 7], [-3, 9, -11], [7, -11, 19]] for a = 2"),
        (lambda a, x: x.missing, "AttributeError: 'numpy.ndarray' object has no attribute 'missing'"),
    ],
)  # fmt: skip
def test_an_unforeseen_mistake_is_described(answer, words):
    assert words in outer.fault(answer)


def test_transposed_shapes_and_tables_are_said_so():
    @exercise((2, 3), truth=lambda m, n: np.arange(m * n).reshape(m, n))
    def table(m, n):
        return np.arange(m * n).reshape(m, n)

    assert table.fault(lambda m, n: np.zeros((n, m))).endswith("and should have (2, 3). It looks transposed.")

    @exercise(3, truth=lambda n: np.arange(n * n).reshape(n, n))
    def square(n):
        return np.arange(n * n).reshape(n, n)

    assert square.fault(lambda n: np.arange(n * n).reshape(n, n).T) == "The result is transposed for n = 3."


def test_an_answer_cannot_change_what_the_next_one_is_given():
    def spoils(a, x):
        x *= 0
        return a * np.outer(x, x)

    assert outer.fault(spoils) and outer.fault(outer.model) == ""


def test_long_arguments_are_told_by_their_shapes():
    (one,) = [one for one in ALL if one.name == "hidden_delta"]
    words = "for W of shape (3, 3), delta of shape (3, 1), z of shape (3, 1), and should be [["
    assert words in one.fault(lambda W, delta, z: W.T @ delta * z)


def test_of_a_large_result_an_element_is_told():
    (one,) = [one for one in ALL if one.name == "product_numerator"]
    words = "Element [0, 1] of the result is 1 for A = [[1, 2, 0.5], [-1, 0.5, 3]], n = 2, and should be 0."
    assert one.fault(lambda A, n: np.kron(A, np.ones((n, n)))) == words


def test_what_passed_by_luck():
    """Answers that are wrong for other inputs than those of a first set of cases."""
    named = {one.name: one for one in ALL}
    assert named["product_numerator"].fault(lambda A, n: np.kron(A, np.eye(len(A))))
    assert named["neuron_gradient"].fault(lambda w, b, x: (x * (w * x + b > 0), float(w @ x + b > 0)))


def test_a_function_is_told_by_its_formula():
    (one,) = [one for one in ALL if one.name == "newton_step"]
    assert "for f = v0³ + v0 v1² + 5 v1², x = [1, 2]" in one.fault(lambda f, x: x)


def test_a_tape_is_told_in_words():
    (one,) = [one for one in ALL if one.name == "shared"]
    words = "It gives 'value 0.4621, slope 0.7864, tanh recorded 1 times' for x = 0.5: that is not right."
    assert one.fault(tg.tanh) == words


def test_a_hidden_truth_is_not_told():
    (one,) = [one for one in ALL if one.name == "passes"]
    assert one.fault(lambda m, n: m + n).endswith("that is not right.")


def test_an_answer_may_be_a_tensor_or_a_list():
    (one,) = [one for one in ALL if one.name == "sigmoid_slope"]
    assert one.fault(lambda z: tg.sigmoid(tg.tensor(z, dtype="float64")) * tg.sigmoid(-np.asarray(z))) == ""
    assert same(plain([1, 2]), plain(tg.tensor([1.0, 2.0], requires_grad=True)))


def test_the_differences_are_exact_enough_to_judge():
    x = np.array([0.3, -1.2])
    assert np.allclose(jacobian(np.sin, x), np.diag(np.cos(x)), rtol=0, atol=1e-11)


def test_load_gives_names(tmp_path):
    (tmp_path / "a.py").write_text("def f():\n    return 3\n", encoding="utf-8")
    assert load(tmp_path / "a.py")["f"]() == 3
