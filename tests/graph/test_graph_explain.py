"""tg.explain: the worked chain rule; its numbers against the backward pass."""

import re
import sys

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.engine.primitive import REGISTRY
from tinygrad_ms.graph.chain_rule import substituted


def scalar(value, name):
    return tg.tensor(value, dtype="float64", requires_grad=True, name=name)


def test_the_worked_example_of_the_source():
    """Parr and Howard, section 4.5.1: y = ln(sin(x^3)^2)."""
    x = scalar(1.0, "x")
    text = tg.explain(tg.log(tg.sin(x**3) ** 2), form="markdown")
    for line in (
        r"- $u_1 = x^{3} = 1$",
        r"- $u_2 = \operatorname{sin}(u_1) = 0.8415$",
        r"- $u_4 = \ln u_3 = -0.3452 \quad (L = u_4)$",
        r"- $\frac{d{u_2}}{d{u_1}} = \cos {u_1}$ (sin: ai-edu, equation 8)",
        r"- $\frac{\partial u_4}{\partial u_3} = 1.412$",
    ):
        assert line in text.splitlines()
    path = " ".join(re.findall(r"partial (\w+)", text.split("### 4. Result")[1]))
    assert path == "L x u_4 u_3 u_3 u_2 u_2 u_1 u_1 x"
    expected = 6 * np.cos(1.0) / np.sin(1.0)
    assert f"= {expected:.4g}$" in text.split("### 4. Result")[1]


def test_the_total_derivative_adds_over_the_paths():
    """Parr and Howard, section 4.5.2: f(x) = sin(x + x^2)."""
    x = scalar(1.0, "x")
    text = tg.explain(tg.sin(x + x**2))
    sum_line = next(line for line in text.splitlines() if "2 terms meet here" in line)
    assert "∂L/∂x = ∂L/∂u_2 · ∂u_2/∂x + ∂L/∂u_1 · ∂u_1/∂x = (-0.4161) + (-0.8323) = -1.248" in sum_line
    assert text.rstrip().endswith("∂L/∂x = -1.248")
    assert "d(x²) = 2 x dx" in text  # the exponent is a number: no term for it


def test_matrices_show_the_rule_and_its_shapes():
    w, b = tg.tensor(np.ones((3, 2)), requires_grad=True), tg.tensor(np.zeros(2), requires_grad=True)
    x = tg.tensor(np.arange(12.0).reshape(4, 3), name="x")
    loss = tg.mean((x @ w + b) ** 2)
    text = tg.explain(loss, params={"fc.weight": w, "fc.bias": b})
    line = "u_1 = x W_fc:  x* = u*_1 W_fcᵀ,  W*_fc = xᵀ u*_1".replace("*", "\u0304")
    assert line in text and "W_fc = [1, 1; 1, 1; 1, 1]    (fc.weight, shape (3, 2))" in text
    assert "the rule takes (4, 2) to (3, 2)" in text and "the rule takes (4, 2) to (2,)" in text
    loss.backward()
    rows = [" & ".join(f"{v:.4g}" for v in row) for row in w.grad.numpy()]
    assert r" \\ ".join(rows) in tg.explain(tg.mean((x @ w + b) ** 2), form="latex", params={"fc.weight": w})


def test_several_outputs_and_wrt():
    x, z = tg.tensor(np.arange(6.0), requires_grad=True, name="x"), scalar(2.0, "z")
    first, _, last = tg.split(x, 3)
    loss = (first * last).sum() * z
    text = tg.explain(loss, wrt=z)
    assert "split" not in text and text.rstrip().endswith("∂L/∂z = 5")
    assert "[8, 10, 0, 0, 0, 2]" in tg.explain(loss, wrt=x)


def test_no_path_gives_zero_and_a_seed_weighs():
    x, y = scalar(3.0, "x"), tg.tensor([1.0, 2.0], requires_grad=True, name="y")
    out = tg.concat([tg.floor(y), (x * 2.0).reshape(1)])
    text = tg.explain(out, gradient=tg.tensor([0.0, 0.0, 5.0]), wrt=[x, y])
    assert "∂y/∂x = " in text and text.count("= 10") >= 1


def test_nothing_is_changed():
    x = scalar(2.0, "x")
    loss = x * x
    tg.explain(loss)
    assert x.grad is None
    loss.backward()
    assert x.grad.item() == 4.0
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        tg.explain(loss)


def test_hostile_names_are_words():
    for name in ["</script><b>", "a$b$\\input{x}", "two\nlines", "_x_^2", "x" * 10_000, "🦉"]:
        x = scalar(1.0, name)
        for form in ("text", "markdown", "latex"):
            text = tg.explain(tg.exp(x), form=form)
            assert "<b>" not in text and r"\input" not in text and "x" * 60 not in text
            assert form != "markdown" or all(line.count("$") == 2 for line in text.splitlines() if line[:1] == "-")


def test_two_leaves_of_one_name_are_told_apart():
    text = tg.explain(scalar(1.0, "x") * scalar(2.0, "x"))
    assert "∂L/∂x = 2" in text and "∂L/∂x' = 1" in text


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: tg.explain(tg.tensor(1.0)), "not on the tape"),
        (lambda: tg.explain(scalar(1.0, "x") * 2, form="pdf"), "text, markdown, latex"),
        (lambda: tg.explain(scalar(1.0, "x") * 2, wrt=scalar(1.0, "y")), "not computed from"),
        (lambda: tg.explain(scalar(1.0, "x") * 2 * 2, max_steps=1), "max_steps=1"),
        (lambda: tg.explain(tg.tensor(np.ones(7), requires_grad=True) * 2), "gradient="),
    ],
)
def test_errors_are_sentences(call, words):
    with pytest.raises((ValueError, RuntimeError), match=re.escape(words)):
        call()


def test_jupyter_shows_mathematics():
    x = scalar(1.0, "x")
    assert str(tg.explain(x * x)).startswith("Given") and tg.explain(x * x)._repr_markdown_().startswith("### Given")
    assert tg.explain(x * x, form="markdown")._repr_markdown_() == tg.explain(x * x, form="markdown")
    assert tg.explain(x * x, form="text")._repr_markdown_().startswith("```text\nGiven")
    assert tg.explain(x * x, form="latex")._repr_markdown_().startswith("```latex\n\\subsection")


def uneven(x):
    p, q = tg.split(x, [1])
    return (p.sum() * q).sum()


def by_eigenvalues(x):
    values, vectors = tg.eigh(tg.diag(x))
    return tg.square(values).sum() + vectors[0, 0] * 0.0


@pytest.mark.parametrize(
    ("function", "rows"),
    [
        (uneven, ["∂L/∂u_1 = (∂L/∂u_1[0], ∂L/∂u_1[1])", "∂L/∂u_1[0] = ∂L/∂u_2 · ∂u_2/∂u_1[0] = [5]", "= [5, 1, 1]"]),
        (lambda x: tg.prod(tg.stack(tg.unstack(x)[:2])), ["∂L/∂u_1[1] = ", "∂L/∂u_1 = (∂L/∂u_1[0], ∂L/∂u_1[1])"]),
        (lambda x: tg.unstack(x)[1] ** 2, ["∂L/∂u_1 = (∂L/∂u_1[1])", "∂L/∂x = ∂u_2/∂u_1[1] · ∂u_1[1]/∂x"]),
        (by_eigenvalues, ["∂L/∂u_2 = (∂L/∂u_2[w], ∂L/∂u_2[v])"]),
    ],
)
def test_gradients_of_different_outputs_are_no_terms_of_a_sum(function, rows):
    x = tg.tensor([1.0, 2.0, 3.0], dtype="float64", requires_grad=True, name="x")
    text = tg.explain(function(x))
    assert "meet here" not in text
    for row in rows:
        assert row in text, text


def test_outputs_that_are_used_twice_add_up_one_by_one():
    x = tg.tensor([1.0, 2.0, 3.0], dtype="float64", requires_grad=True, name="x")
    a, b, c = tg.unstack(x)
    text = tg.explain(a * b + a * c)
    assert text.count("meet here") == 1 and "= 2 + 3 = 5    (2 terms meet here)" in text.replace("3 + 2", "2 + 3")


def test_it_runs_no_hooks_and_fills_no_grad():
    x = tg.tensor([1.0, 2.0], requires_grad=True, name="x")
    h = (x * 3.0).retain_grad()
    called = []
    x.register_hook(lambda g: called.append("x"))
    h.register_hook(lambda g: called.append("h"))
    with tg.profile() as p:
        loss = tg.checkpoint(lambda a: tg.square(a))(h).sum()
        records = len(p.records)
        text = tg.explain(loss)
        assert len(p.records) == records
    assert "Hooks are left out." in text and "[18, 36]" in text
    assert not called and h.grad is None and x.grad is None


# --- Jacobians ------------------------------------------------------------------------------------------------------


def vector(values, name):
    return tg.tensor(values, dtype="float64", requires_grad=True, name=name)


def test_the_dot_product_in_two_lines_as_001_has_it():
    """Parr and Howard, section 5: w · x = sum(w ⊗ x), and 1^T diag(x) = x^T."""
    w, x = vector([2.0, 3.0, 4.0], "w"), vector([0.5, -1.0, 5.0], "x")
    text = tg.explain((w * x).sum())
    for line in (
        "u_1 = w ⊙ x = [1, -3, 20]",
        "∂u_1/∂w = diag(x) = [0.5, 0, 0; 0, -1, 0; 0, 0, 5]",
        "∂u_2/∂u_1 = 1ᵀ = [1, 1, 1]",
        "∂L/∂w = ∂L/∂u_1 · ∂u_1/∂w = [1, 1, 1] [0.5, 0, 0; 0, -1, 0; 0, 0, 5] = [0.5, -1, 5]",
        "∂L/∂w = ∂u_2/∂u_1 · ∂u_1/∂w = 1ᵀ · diag(x) = [0.5, -1, 5]",
    ):
        assert line in text, text
    assert text.count("⊙ multiplies element by element") == 1
    dot = tg.explain(tg.matmul(w, x))
    assert "u_1 = w · x = 18" in dot and "∂u_1/∂w = xᵀ = [0.5, -1, 5]" in dot and "dot product" in dot
    assert "⊙" not in tg.explain(scalar(2.0, "a") * scalar(3.0, "b"))


@pytest.mark.parametrize(
    ("function", "at", "name"),
    [
        (lambda x: x + vector([1.0, 2.0], "b"), [3.0, 4.0], "∂u_1/∂x = I = [1, 0; 0, 1]"),
        (lambda x: 3.0 - x, [3.0, 4.0], "∂u_1/∂x = -I = [-1, 0; 0, -1]"),
        (lambda x: x * 2.5, [3.0, 4.0], "∂u_1/∂x = 2.5 I = [2.5, 0; 0, 2.5]"),
        (tg.exp, [0.0, 1.0], "∂u_1/∂x = diag(u_1) = [1, 0; 0, 2.718]"),
        (tg.square, [1.0, 2.0], "∂u_1/∂x = diag(2, 4)"),
        (tg.mean, [1.0, 2.0, 4.0, 5.0], "∂u_1/∂x = 0.25 1ᵀ = [0.25, 0.25, 0.25, 0.25]"),
        (lambda x: x * scalar(2.0, "z"), [1.0, 2.0], "∂u_1/∂z = x = [1; 2]"),
        (lambda x: x + scalar(2.0, "z"), [1.0, 2.0], "∂u_1/∂z = 1 = [1; 1]"),
        (lambda x: tg.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], name="A") @ x, [1.0, 2.0, 4.0], "∂u_1/∂x = A = ["),
        (lambda x: x @ tg.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], name="A"), [1.0, 4.0], "∂u_1/∂x = Aᵀ = ["),
        (tg.cumsum, [1.0, 4.0], "∂u_1/∂x = [1, 0; 1, 1]"),
    ],
)
def test_jacobians_are_called_by_their_names(function, at, name):
    text = tg.explain(function(vector(at, "x")))
    assert name in text, text


@pytest.mark.parametrize(
    ("function", "at"),
    [
        (lambda x: tg.tanh(x) * x[0], [0.5, -1.0, 2.0]),
        (lambda x: tg.stack([x.sum(), tg.prod(x)]), [0.5, -1.0, 2.0]),
        (lambda x: tg.softmax(x), [0.5, -1.0, 2.0]),
        (lambda x: tg.concat([x[:1], tg.split(x, 3)[2] * 3.0]), [0.5, -1.0, 2.0]),
    ],
)
def test_a_vector_has_a_jacobian_and_its_numbers_are_those_of_the_library(function, at):
    x = vector(at, "x")
    text = tg.explain(function(x))
    last = text.rstrip().splitlines()[-1].split(" = ")[-1].strip("[]")
    found = np.array([[float(number) for number in row.split(", ")] for row in last.split("; ")])
    assert np.allclose(found, tg.jacobian(function, np.array(at), layout="numerator").numpy(), rtol=1e-3)
    assert x.grad is None


def test_factors_of_a_layer_multiply_to_the_gradient():
    """What is written as a product of two matrices is one."""
    model = tg.nn.Sequential(tg.nn.Linear(2, 3, rng=0), tg.nn.Tanh(), tg.nn.Linear(3, 1, rng=1)).astype("float64")
    loss = tg.mse(model(tg.tensor([[1.0, 2.0]], dtype="float64")), tg.tensor([[1.0]], dtype="float64"))
    products = re.findall(r"= \[([^]]+)\] \[([^]]+)\] = \[([^]]+)\]", tg.explain(loss, params=model))
    assert len(products) == 2
    for parts in products:
        left, right, total = (np.array([row.split(", ") for row in part.split("; ")], float) for part in parts)
        assert np.allclose(left @ right, total, rtol=2e-3)


# --- LaTeX ----------------------------------------------------------------------------------------------------------


def check_latex(text):
    """Braces and environments close in order, no script stands on a script, and no letter is outside ASCII."""
    assert text.isascii(), text
    stack = []
    for token in re.findall(r"\\begin\{[a-z]+\*?\}|\\end\{[a-z]+\*?\}|\\.|[{}$]", text, re.DOTALL):
        if token.startswith(r"\begin") or token == "{" or (token == "$" and "$" not in stack):
            stack.append(token.replace(r"\begin", r"\end"))
        elif token.startswith(r"\end") or token in "}$":
            assert stack and stack.pop() == {"}": "{"}.get(token, token), text
    assert not stack, text
    scripts = r"([_^])(?:[A-Za-z0-9]|\\[A-Za-z]+|\{(?:[^{}]|\{[^{}]*\})*\})\1"
    assert not re.search(scripts, text), text


PRIMITIVES = sorted((name, primitive) for name, primitive in REGISTRY.items() if primitive.formula)


@pytest.mark.parametrize(("name", "primitive"), PRIMITIVES, ids=[name for name, _ in PRIMITIVES])
def test_formulas_with_names_in_them_are_latex(name, primitive):
    symbols = [r"W_{\mathrm{fc}}", "u_{12}", "x'", "b_2", "u_3", "u_4", "u_5", "u_6"]
    check_latex(substituted(primitive, symbols[: len(primitive.arguments)], "u_{13}"))
    check_latex(primitive.formula)


def test_explanations_are_latex():
    latex2mathml = pytest.importorskip("latex2mathml.converter") and sys.modules["latex2mathml"]
    x, w = vector([1.0, -2.0], "x"), vector([0.5, 3.0], "_w^2%#&~")
    model = tg.nn.Sequential(tg.nn.Linear(2, 3, rng=0), tg.nn.ReLU(), tg.nn.Linear(3, 1, rng=1))
    for output, params in (
        ((w * x).sum() / tg.exp(-x).max(), None), (tg.softmax(x * 1e-7), None), (tg.split(x, 2)[1] ** 2, None),
        (tg.mse(model(tg.tensor([[1.0, 2.0]])), tg.tensor([[1.0]])), model), (tg.sqrt(tg.square(x)) ** 3, None),
    ):  # fmt: skip
        text = tg.explain(output, params=params, form="latex")
        check_latex(text.replace("·", "."))
        for formula in re.findall(r"^- \$(.*)\$", tg.explain(output, params=params, form="markdown"), re.M):
            latex2mathml.converter.convert(formula)  # it raises where an environment stays open
        assert text.count(r"\begin{align*}") == 5 and "\n\n\\end" not in text


@pytest.mark.parametrize(
    ("op", "line"),
    [
        (lambda a: a / 4, "d(a / 4) = da/4"),
        (lambda a: 4 / a, "d(4 / a) = -(u_1 da)/a"),
        (lambda a: 1 - a, "d(1 - a) = -da"),
        (lambda a: tg.atan2(2.0, a), "du_1 = (-2 da)/(2² + a²)"),
        (lambda a: tg.hypot(a, 3.0), "du_1 = (a da)/u_1"),
        (lambda a: tg.softmax_cross_entropy(a * tg.tensor([1.0, 2.0]), tg.tensor(1)),
         "u_2 = -ln p_{c_4}, p = softmax(u_1):  du_2/(d(u_1)_c) = (p_c - [c = c_4])/n"),
    ],
)  # fmt: skip
def test_a_fixed_operand_leaves_the_formula_and_letters_are_bound(op, line):
    told = tg.explain(op(tg.tensor(3.0, dtype="float64", requires_grad=True, name="a")))
    assert f"    {line}    (" in str(told)
    latex = str(tg.explain(op(tg.tensor(3.0, requires_grad=True, name="a")), form="latex"))
    assert latex.count("{") == latex.count("}")
