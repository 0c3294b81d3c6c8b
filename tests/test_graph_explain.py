"""tg.explain: the worked chain rule; its numbers against the backward pass."""

import re

import numpy as np
import pytest

import tinygrad_ms as tg


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
    assert "u_1 = x fc.weight:  x̄ = ū_1 fc.weightᵀ,  bar(fc.weight) = xᵀ ū_1".replace("x̄", "x\u0304").replace(
        "ū", "u\u0304") in text  # fmt: skip
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
        (lambda: tg.explain(tg.tensor([1.0, 2.0], requires_grad=True) * 2), "gradient="),
    ],
)
def test_errors_are_sentences(call, words):
    with pytest.raises((ValueError, RuntimeError), match=re.escape(words)):
        call()


def test_jupyter_shows_mathematics():
    x = scalar(1.0, "x")
    assert tg.explain(x * x)._repr_markdown_().startswith("```\nGiven")
    assert tg.explain(x * x, form="markdown")._repr_markdown_().startswith("### Given")


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
