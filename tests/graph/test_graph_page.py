"""The step-through page: one file, no network, the numbers of the tape, and what a browser makes of it."""

import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.graph.test_graph import HOSTILE, tower
from tinygrad_ms import nn
from tinygrad_ms.engine.primitive import REGISTRY
from tinygrad_ms.graph import build, page, recording
from tinygrad_ms.graph.html_page import Steps, formula_html, is_plain_mathml
from tinygrad_ms.graph.latex import to_text
from tinygrad_ms.graph.values import Summary
from tinygrad_ms.graph.worked import letters


class Outline(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.scripts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "script":
            self.scripts[-1] += data


def data_of(text) -> dict:
    return json.loads(Outline(text).scripts[0])


@pytest.fixture(scope="module")
def step():
    """One training step of an MLP: its page, its module and what the tape computed."""
    tg.set_default_device("cpu")
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    x = tg.tensor(np.linspace(-1, 1, 20).reshape(5, 4).astype("float32"), name="x")
    labels = tg.tensor(np.arange(5) % 3, name="labels")
    with recording() as record:
        hidden = net.layers[1](net.layers[0](x))
        loss = tg.softmax_cross_entropy(net.layers[2](hidden), labels)
    text = page(loss, params=net, values=record, title="MLP")
    loss.backward()
    return text, net, loss, hidden


def rows(steps, phase, title):
    (found,) = [s for s in steps if s["phase"] == phase and re.sub(r" \[\d+\]", "", s["title"]) == title]
    return found


def test_every_number_is_that_of_the_tape(step):
    text, net, loss, hidden = step
    steps = data_of(text)["levels"][0]["steps"]
    assert rows(steps, "forward", "tanh")["results"][0]["numbers"] == Summary(hidden).text
    assert rows(steps, "forward", "softmax_cross_entropy")["results"][0]["numbers"] == Summary(loss).text
    given = {row["name"]: row for row in rows(steps, "given", "What is given")["rows"]}
    for name, parameter in net.named_parameters():
        assert given[name]["numbers"] == Summary(parameter).text
        last = rows(steps, "backward", name)
        assert last["sums"][0]["numbers"] == Summary(parameter.grad).text
        shades = [[str(min(int(v * 7), 6)) for v in line] for line in Summary(parameter).levels()]
        assert given[name]["strip"] == ["".join(line) for line in shades]
    received = rows(steps, "backward", "tanh")
    assert received["sums"][0]["shape"] == "(5, 8) float32" and received["results"][0]["shape"] == "(5, 8)"


def test_the_steps_go_forward_then_backward(step):
    steps = data_of(step[0])["levels"][0]["steps"]
    titles = [(s["phase"], re.sub(r" \[\d+\]", "", s["title"])) for s in steps]
    assert titles[:5] == [
        ("given", "What is given"), ("forward", "affine"), ("forward", "tanh"), ("forward", "affine"),
        ("forward", "softmax_cross_entropy"),
    ]  # fmt: skip
    assert [t for p, t in titles if p == "backward"] == [
        "seed", "softmax_cross_entropy", "affine", "tanh", "affine", "0.weight", "0.bias", "2.weight", "2.bias",
    ]  # fmt: skip


def test_one_small_file_that_asks_for_nothing(step, tmp_path):
    text = step[0]
    assert len(text.encode()) < 300_000
    outline = Outline(text)
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(outline.tags)
    assert not [value for key, value in outline.attributes if key in ("src", "href", "action")]
    assert "default-src 'none'" in text and "fetch(" not in text and "@import" not in text
    assert page(tower(2)[0], tmp_path / "p.html") == (tmp_path / "p.html").read_text(encoding="utf-8")


def test_accumulated_sums_are_shown():
    x = tg.tensor([1.0, 2.0], requires_grad=True, name="x")
    steps = data_of(page((x * x + x).sum()))["levels"][0]["steps"]
    last = steps[-1]
    assert [row["numbers"] for row in last["rows"]] == ["[1, 2]", "[1, 2]", "[1, 1]"] or [
        row["numbers"] for row in last["rows"]] == ["[1, 1]", "[1, 2]", "[1, 2]"]  # fmt: skip
    assert last["sums"][0]["numbers"] == "[3, 5]" and "3 gradients meet here" in last["text"]


def test_scopes_collapse_to_levels_of_detail():
    loss, params = tower(6)
    levels = data_of(page(loss, params=params, fold=False))["levels"]
    assert len(levels) == 2 and "all closed: " in levels[1]["words"]
    assert [s["title"].split()[0] for s in levels[1]["steps"] if s["phase"] == "forward"][:2] == ["layer0", "layer1"]
    folded = data_of(page(loss, params=params))["levels"][0]["steps"]
    assert "6 repetitions" in rows(folded, "forward", "tanh ×6")["text"]


def test_a_folded_ttt_muon_chunk():
    """The page works where repetitions are folded and scopes closed; what is no single number is not
    shown."""
    from tests.graph.test_graph_gallery import gallery

    layer, loss = gallery.ttt_muon(5)
    text = page(loss, params=layer, title="TTT-Muon", depths=[3, 1])
    open_, closed = data_of(text)["levels"]
    titles = {s["title"].split(" [")[0] for s in open_["steps"]}
    assert titles >= {"cell", "update", "cell.weights.0"} and len(closed["steps"]) < len(open_["steps"])
    backward = [s for s in closed["steps"] if s["phase"] == "backward"]
    assert all(s["sums"][0]["numbers"] for s in backward if s["title"].endswith((".weight", "weights.0")))
    assert len(text) < 600_000


def test_a_hairball_is_refused():
    h = tg.tensor([1.0], requires_grad=True)
    for _ in range(300):
        h = h * 1.0
    with pytest.raises(ValueError, match="max_nodes=200"):
        page(h)


@pytest.mark.parametrize(
    "name",
    [*HOSTILE, "@@DATA@@", "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>"],
    ids=str.__len__,
)
def test_no_name_breaks_the_page(name):
    x = tg.tensor([1.0, 2.0], requires_grad=True, name=name)
    with tg.scope(name):
        loss = tg.exp(x).sum()
    text = page({name: loss}, title=name)
    outline = Outline(text)
    assert outline.tags.count("script") == 2 and "img" not in outline.tags
    assert not [key for key, _ in outline.attributes if key.startswith("on")]
    text.encode()
    assert len(text) < 60_000
    assert data_of(text)["levels"][0]["steps"][1]["title"] == "exp [1]"


def test_formulas_without_the_converter(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert formula_html(r"\frac{dy}{dx} < 1") == "<code>dy/dx &lt; 1</code>"


def test_formulas_as_mathematics():
    pytest.importorskip("latex2mathml", reason="pip install latex2mathml")
    from tinygrad_ms.engine.primitive import REGISTRY

    for primitive in REGISTRY.values():
        if primitive.formula:
            assert formula_html(primitive.formula).startswith("<math"), primitive.name
    assert "<script" not in formula_html(r"\text{<script>alert(1)</script>}")
    assert not is_plain_mathml('<math xmlns="http://www.w3.org/1998/Math/MathML"><mi onclick="x()">x</mi></math>')


def test_without_a_renderer_the_steps_remain(monkeypatch):
    monkeypatch.setattr("tinygrad_ms.graph.html_page.find_renderer", lambda: None)
    text = page(tower(2)[0])
    assert "pip install graphviz-pure" in text and data_of(text)["levels"][0]["steps"]


# --- formulas with numbers in -------------------------------------------------------------------------------------


def neurons():
    """The loss of two neurons and, so that they stay, its leaves."""
    x, w1, b1 = scalar(0.5, "x"), scalar(1.5, "w1"), scalar(-0.25, "b1")
    w2, b2 = scalar(-0.8, "w2"), scalar(0.1, "b2")
    with tg.scope("hidden"):
        h = tg.tanh(w1 * x + b1)
    return (w2 * h + b2 - 1.0) ** 2, (x, w1, b1, w2, b2)


def scalar(value, name):
    return tg.tensor(value, dtype="float64", requires_grad=True, name=name)


def lines_of(step) -> list[str]:
    return [to_text(line["line"]) for line in step.get("worked", [])]


def steps_of(loss):
    """The steps alone: no picture is drawn."""
    return list(Steps(build(loss, view="both", values=True, gradients=True), {}))


def test_every_step_of_two_neurons_with_its_numbers():
    loss, leaves = neurons()
    steps = steps_of(loss)
    forward = {s["title"]: lines_of(s) for s in steps if s["phase"] == "forward"}
    assert list(forward.values()) == [
        ["1.5 · 0.5 = 0.75"], ["0.75 + (-0.25) = 0.5"], ["tanh(0.5) = 0.4621"], ["-0.8 · 0.4621 = -0.3697"],
        ["-0.3697 + 0.1 = -0.2697"], ["-0.2697 - 1 = -1.27"], ["(-1.27)² = 1.612"],
    ]  # fmt: skip
    backward = {s["title"]: lines_of(s) for s in steps if s["phase"] == "backward"}
    assert {title: lines for title, lines in backward.items() if lines} == {
        "power [11]": ["1 · 2 · (-1.27)^(2 - 1) = -2.539"],
        "subtract [10]": ["-2.539 · 1 = -2.539"],
        "add [9]": ["-2.539 · 1 = -2.539"] * 2,
        "multiply [8]": ["-2.539 · 0.4621 = -1.173", "-2.539 · (-0.8) = 2.032"],
        "tanh [7]": ["2.032 · (1 - 0.4621²) = 1.598"],
        "add [6]": ["1.598 · 1 = 1.598"] * 2,
        "multiply [5]": ["1.598 · 0.5 = 0.7988", "1.598 · 1.5 = 2.397"],
    }
    (tanh,) = [s for s in steps if s["phase"] == "backward" and s["title"].startswith("tanh")]
    assert [(r["name"], r["numbers"]) for r in tanh["saved"]] == [("x", "0.5")]


def test_lines_of_matrices_of_large_arrays_and_of_sums():
    X, W = tg.tensor([[1.0, 2.0]], requires_grad=True), tg.tensor([[3.0], [4.0]], requires_grad=True)
    steps = steps_of((X @ W).sum())
    (matmul,) = [s for s in steps if s["phase"] == "backward" and s["title"].startswith("matmul")]
    assert lines_of(matmul) == ["[1] [3; 4]ᵀ = [3, 4]", "[1, 2]ᵀ [1] = [1; 2]"]
    big = tg.tensor(np.linspace(0.5, 2, 40), dtype="float64", requires_grad=True)
    steps = steps_of(tg.log(big).sum())
    assert lines_of(steps[1]) == ["first element: ln 0.5 = -0.6931"]
    (log,) = [s for s in steps if s["phase"] == "backward" and s["title"].startswith("log")]
    assert lines_of(log) == ["first element: 1 · 1/0.5 = 2"]
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    last = steps_of((x * x + x).sum())[-1]
    assert to_text(last["adds"]) in ("[1, 1] + [1, 2] + [1, 2] = [3, 5]", "[1, 2] + [1, 2] + [1, 1] = [3, 5]")


def worked(op, *arrays) -> list[str]:
    """The backward lines of one op on float64 arrays."""
    tensors = [tg.tensor(a, dtype="float64", requires_grad=True, name=f"t{i}") for i, a in enumerate(arrays)]
    return [line for s in steps_of(op(*tensors)) if s["phase"] == "backward" for line in lines_of(s)]


UNARY = (
    "abs acos acot asin asinh atan atanh cbrt cos cosh cot coth csc csch erf erfc exp exp2 expm1 floor gelu log"
    " leaky_relu log10 log1p log2 logit negative reciprocal relu round sec sech sigmoid sign silu sin sinh softplus"
    " sqrt square tan tanh trunc"
).split()


@pytest.mark.parametrize("name", UNARY)
def test_the_line_of_an_op_comes_out(name):
    """Both sides of the line agree, read by a reader of its own: the text as Python, with the functions of tg."""
    (line,) = worked(getattr(tg, name), 0.4)
    left, right = line.split(" = ")
    assert float(evaluated(left)) == pytest.approx(float(evaluated(right)), rel=3e-3, abs=1e-3), line
    value = tg.tensor(0.4, dtype="float64", requires_grad=True)
    getattr(tg, name)(value).backward()
    assert float(evaluated(right)) == pytest.approx(value.grad.item(), rel=1e-3), line


def evaluated(text):
    """The number that a line of text says."""
    text = re.sub(r"\[([^\[\]]+)\]", r"(1.0 if \1 else 0.0)", text.replace("≤", "<=").replace("≥", ">="))
    for letter, code in (("·", "*"), ("²", "**2"), ("⁻", "-"), ("^", "**"), ("√", "root "), ("π", "pi"), ("∞", "inf"),
                         ("σ", "sigmoid "), ("Φ", "Phi "), ("ln", "log")):  # fmt: skip
        text = text.replace(letter, code)
    if text.startswith("1 * {"):
        text = re.sub(r"1 \* \{ (.*), (.*); (.*), (.*)", r"(\1) if (\2) else (\3)", text)
    text = re.sub(r"\b(\d+) (pi)", r"\1 * \2", text)
    names = "sin|cos|tan|sinh|cosh|tanh|coth|cot|sec|csc|sech|csch|log|sign|root|sigmoid|Phi"
    call = rf"\b({names})(\*\*2)? ?(\([^()]*\)|[\d.]+|pi)"
    while re.search(call, text):
        text = re.sub(call, r"(F['\1'](\3)\2)", text)
    functions = {name: getattr(np, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "log", "sign")}
    functions |= {"sec": lambda x: 1 / np.cos(x), "csc": lambda x: 1 / np.sin(x), "sech": lambda x: 1 / np.cosh(x)}
    functions |= {"csch": lambda x: 1 / np.sinh(x), "coth": lambda x: 1 / np.tanh(x), "cot": lambda x: 1 / np.tan(x)}
    functions |= {"root": np.sqrt, "sigmoid": lambda x: 1 / (1 + np.exp(-x))}
    functions |= {"Phi": lambda x: (1 + math.erf(x / math.sqrt(2))) / 2}
    return eval(text, {"F": functions, "pi": math.pi, "e": math.e, "inf": math.inf, "log": None})


def test_lines_of_losses_means_and_norms():
    """Letters that the formula explains itself (p = softmax(z)), all elements at once (p_c), sums and counts."""
    labels = tg.tensor([2])
    assert worked(lambda z: tg.softmax_cross_entropy(z, labels), [[1.0, 2.0, 0.5]]) == [
        "1 · ([0.2312, 0.6285, 0.1402] - [0, 0, 1])/1 = [0.2312, 0.6285, -0.8598]"]  # fmt: skip
    several = [[1.0, 2.0, 0.5], [0.0, 0.0, 0.0]]
    assert worked(lambda z: tg.softmax_cross_entropy(z, tg.tensor([2, 0])), several) == [
        "1 · ([0.2312, 0.6285, 0.1402; 0.3333, 0.3333, 0.3333] - [0, 0, 1; 1, 0, 0])/2"
        " = [0.1156, 0.3143, -0.4299; -0.3333, 0.1667, 0.1667]"]  # fmt: skip
    assert worked(lambda z: tg.softmax_cross_entropy(z, tg.tensor([2, 0]), reduction="sum"), several)[0].endswith(
        "/1 = [0.2312, 0.6285, -0.8598; -0.6667, 0.3333, 0.3333]"
    )
    assert worked(tg.mean, [[1.0, 2.0], [3.0, 4.0]]) == ["each element: 1/4 = 0.25"]
    assert worked(tg.mean, np.ones((8, 8))) == ["each element: 1/64 = 0.01562"]
    assert worked(lambda z: tg.softmax_cross_entropy(z, tg.tensor([2] * 5)), np.ones((5, 3))) == []
    assert worked(tg.mse, [0.5, 1.0], [1.0, 3.0])[-1] == (
        "[0.5, 0.5] ⊙ 2 · ([0.5, 1] - [1, 3]) = [-0.5, -2]")  # fmt: skip
    assert worked(tg.logsumexp, [1.0, 2.0]) == ["1 · (e^([1, 2]))/(Σ_j e^([1, 2])) = [0.2689, 0.7311]"]
    assert worked(tg.mish, 0.4)[0].endswith(" = 0.837")
    bias = worked(lambda x, w, b: tg.sum(tg.linear(x, w, b)), [[1.0, 2.0], [3.0, 1.0]], [[1.0, 0.5]], [0.5])
    assert bias[1:] == ["[1; 1] [1, 0.5] = [1, 0.5; 1, 0.5]", "[1; 1]ᵀ [1, 2; 3, 1] = [4, 3]", "Σ_i [1; 1] = [2]"]
    assert worked(lambda z: tg.softmax(z) @ tg.tensor([1.0, 3.0]), [1.0, 2.0])[1:] == [
        "[0.2689, 0.7311] ⊙ ([1, 3] - Σ_j [0.2689, 0.7311] ⊙ [1, 3]) = [-0.3932, 0.3932]"]  # fmt: skip
    assert worked(lambda z: tg.log_softmax(z).sum(), [[1.0, 2.0], [0.0, 0.0]])[1:] == [
        "[1, 1; 1, 1] - e^([-1.313, -0.3133; -0.6931, -0.6931]) ⊙ Σ_j [1, 1; 1, 1] = [0.4621, -0.4621; 0, 0]"
    ]
    assert worked(lambda z: tg.selu(z).sum(), [1.0, -1.0])[1].endswith("= [1.051, 0.6468]")
    assert worked(lambda z: tg.norm(z, ord=3), [1.0, 2.0, -1.0]) == [
        "1 · sign([1, 2, -1]) ⊙ |[1, 2, -1] / 2.154|^(3 - 1) = [0.2154, 0.8618, -0.2154]"]  # fmt: skip
    assert worked(tg.var, [1.0, 2.0, -1.0]) == ["1 · (2 · ([1, 2, -1] - 0.6667))/(3 - 0) = [0.2222, 0.8889, -1.111]"]
    assert worked(lambda x: tg.std(x, correction=1), [1.0, 2.0, -1.0]) == [
        "1 · ([1, 2, -1] - 0.6667)/((3 - 1) · 1.528) = [0.1091, 0.4364, -0.5455]"]  # fmt: skip


def test_operands_have_the_letters_of_the_picture():
    """x and y for a and b, where the user has an a or a b, and z for the result; in words and formulas alike."""
    a, b = (tg.tensor(v, dtype="float64", requires_grad=True, name=n) for v, n in ((3.0, "a"), (2.0, "b")))
    steps = steps_of(a / b - a)
    divide = rows(steps, "forward", "divide")
    assert [row["name"] for row in divide["rows"]] == ["x = a", "y = b"] and divide["letters"] == "z is the result"
    assert to_text(divide["formula"]) == "d(x / y) = dx/y - (z dy)/y"
    assert {row["name"] for row in divide["saved"]} <= {"x", "y", "z"}
    assert to_text(rows(steps, "forward", "subtract")["formula"]) == "d(x - y) = dx - dy"
    sent = rows(steps, "backward", "divide")["results"]
    assert [row["name"] for row in sent] == ["to a (argument x)", "to b (argument y)"]
    assert rows(steps, "forward", "subtract")["letters"] == ""
    assert min(map(float, re.findall(r'font-size="([\d.]+)"', page(a / b - a, font_size=24)))) == 24
    w, z = (tg.tensor([1.0, 2.0], requires_grad=True, name=n) for n in "wz")
    assert {"⊙ w", "⊙ z"} <= {t.strip() for t in re.findall(r">([^<>]*⊙[^<>]*)</text>", page((w * z).sum()))}
    t = tg.tensor(0.5, requires_grad=True, name="t")
    assert rows(steps_of(tg.tanh(t)), "backward", "tanh")["anew"].startswith("y is not kept")
    assert rows(steps_of(tg.exp(t)), "backward", "exp")["anew"] == ""


def test_letters_of_keywords_are_theirs_alone():
    """A letter of the formula that a keyword happens to begin with is no letter of the keyword."""
    bound = {name: set(letters(REGISTRY[name]).values()) for name in ("round", "normalize", "svd", "sqrtm")}
    assert bound == {"round": {"x"}, "normalize": {"x", "weight", "bias"}, "svd": set(), "sqrtm": {"A"}}


def test_lines_on_a_device():
    """Numbers come to the host one array at a time, and a broadcast argument gets the sum."""
    tg.set_default_device("strict")
    assert worked(lambda x, s: tg.sum(x * s), [1.0, 2.0], 0.5)[1:] == [
        "[1, 1] · 0.5 = [0.5, 0.5]", "Σ [1, 1] ⊙ [1, 2] = 3"]  # fmt: skip


def test_a_wrong_formula_is_not_worked_out():
    """A line is computed once more from what stands there: one that does not come out is not shown."""

    @tg.rules.elementwise(derivative=lambda x: 3 * x * x, formula=r"\frac{dy}{dx} = 3x")
    def cubed(xp, x):
        return x * x * x

    assert worked(cubed, 0.4) == []

    @tg.rules.elementwise(derivative=lambda x: 3 * x * x, formula=r"\frac{dy}{dx} = 3 x^2")
    def cube(xp, x):
        return x * x * x

    assert worked(cube, 0.4) == ["1 · 3 · 0.4² = 0.48"]


NASTY = (
    "", "=", "= = =", "{", "}", "y = ", r"\frac{dy}{dphi} = ", r"\frac{dy}{d\phi} = \frac",
    r"\frac{dy}{d\phi} = \phi^{", r"\frac{dy}{d\phi} = [\phi", r"\frac{dy}{d\phi} = \begin{cases} 1", r"dy = d",
    r"dy = \frac{d\phi}{", r"\bar \phi = \sum", r"\frac{dy}{d\phi} = \sqrt", r"\frac{dy}{d\phi} = e^",
    r"\frac{dy}{d\phi} = \phi_", r"\frac{dy}{d\phi} = \bar", r"\frac{dy}{d\phi} = ((((\phi",
    r"q = q, \quad \frac{dy}{d\phi} = q", r"\frac{dy}{d\phi} = \phi / ", r"\bar \phi = [1, 2",
    r"\frac{dy}{d\phi} = \operatorname{sin}", r"\frac{dy}{d\phi} = \operatorname{matmul} \phi",
    r"y^2 = \phi, \quad dy = 3",
)  # fmt: skip


@pytest.mark.parametrize("formula", NASTY, ids=range(len(NASTY)))
def test_no_formula_breaks_the_page(formula):
    @tg.rules.elementwise(derivative=lambda phi: 2.0 + 0 * phi, formula=formula)
    def odd(xp, phi):
        return 2 * phi

    assert worked(odd, 0.4) == []


def test_gradients_in_the_boxes():
    """By default where all arrays are small; ``gradients`` says so or not."""
    loss, leaves = neurons()
    assert "grad 1.598" in page(loss) and "grad 1.598" not in page(loss, gradients=False)
    large = tg.exp(tg.tensor(np.linspace(0, 1, 40), requires_grad=True)).sum()
    assert ">grad" not in page(large) and ">grad 1<" in page(large, gradients=True)


def test_a_picture_for_the_wall():
    """Numbers of the ops, local derivatives on the edges, no small print; it runs the way that is larger."""
    loss, leaves = neurons()
    text = page(loss)
    assert "· 0.7864 <" in text and "· (&#45;0.8) <" in text and "[7]<" in text
    assert min(map(float, re.findall(r'font-size="([\d.]+)"', text))) == 12
    size = re.compile(r'pt"\s+viewBox="\S+ \S+ (\S+) (\S+)"')
    down, right = (size.search(page(loss, rankdir=direction)).groups() for direction in ("TB", "LR"))
    assert size.search(text).groups() == right != down


def test_a_notebook_shows_the_page():
    shown = page(tower(2)[0])
    assert repr(shown).startswith("<Page: ") and len(repr(shown)) < 80
    frame = Outline(shown._repr_html_())
    assert frame.tags == ["iframe"] and dict(frame.attributes)["srcdoc"] == str(shown)
