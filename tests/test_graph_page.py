"""The step-through page: one file, no network, the numbers of the tape, and what a browser makes of it."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.test_graph import HOSTILE, tower
from tinygrad_ms import nn
from tinygrad_ms.graph import page, recording
from tinygrad_ms.graph.html_page import formula_html, is_plain_mathml
from tinygrad_ms.graph.renderer import find_renderer
from tinygrad_ms.graph.values import Summary

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


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
    assert len(levels) == 2 and "all scopes closed" in levels[1]["words"]
    assert [s["title"].split()[0] for s in levels[1]["steps"] if s["phase"] == "forward"][:2] == ["layer0", "layer1"]
    folded = data_of(page(loss, params=params))["levels"][0]["steps"]
    assert "6 repetitions" in rows(folded, "forward", "tanh ×6")["text"]


def test_a_folded_ttt_muon_chunk():
    """The page works where repetitions are folded and scopes closed; what is no single number is not
    shown."""
    from tests.test_graph_gallery import gallery

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


def in_browser(path):
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    return subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(not BROWSER, reason="no Chromium (apt-get install chromium)")
@pytest.mark.skipif(not find_renderer(), reason="no renderer: pip install graphviz-pure")
def test_in_a_browser(step, tmp_path):
    """Keys and buttons move, a click on a node jumps, the level changes, and nothing throws."""
    probe = """<script>
    const log = [], press = key => document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    const note = () => log.push($("where").textContent + "|" + $("step").querySelector("h2").textContent);
    window.onerror = message => log.push("error " + message);
    try {
      note(); press("ArrowRight"); note(); press("End"); note(); press("ArrowRight"); press("ArrowLeft");
      note(); press("Home"); $("next").click(); $("next").click(); note();
      document.querySelector(".level:not([hidden]) g.node.seed").dispatchEvent(new MouseEvent("click",
      {bubbles: true})); note(); log.push(document.querySelectorAll(".level:not([hidden]) g.now").length > 0);
      log.push(document.querySelector("math, code") !== null || $("step").querySelector(".formula") === null);
      press(" "); log.push($("play").textContent); press(" ");
      $("theme").click(); log.push(!!document.documentElement.dataset.theme);
      const focusable = [...document.querySelectorAll(".level:not([hidden]) g.node")];
      log.push(focusable.every(g => g.tabIndex === 0 && g.getAttribute("aria-label")));
      $("level").value = "1"; $("level").onchange({target: $("level")}); note();
      $("next").click(); note(); $("open").click(); note(); log.push(level);
      const title = document.querySelectorAll(".level:not([hidden]) g.titles text.closes")[1];
      title.dispatchEvent(new MouseEvent("click", {bubbles: true})); note(); log.push(level, $("level").value);
    } catch (error) { log.push("error " + error); }
    document.title = JSON.stringify(log);
    </script></body>"""
    path = tmp_path / "page.html"
    path.write_text(step[0].replace("</body>", probe), encoding="utf-8")
    done = in_browser(path)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert title, done.stderr[-500:]
    log = json.loads(title[1])
    count = len(data_of(step[0])["levels"][0]["steps"])
    assert log[:3] == [f"1 of {count}|What is given", f"2 of {count}|affine [4]", f"{count} of {count}|2.bias"]
    assert log[3].startswith(f"{count - 1} of") and log[4].startswith(f"3 of {count}|tanh")
    assert log[5].endswith("|seed") and log[6:11] == [True, True, "Pause", True, True]
    assert log[11].endswith("|What is given")
    assert log[12:15] == ["2 of 10|Linear [0]", f"2 of {count}|affine [4]", 0]  # the scope opened where it was,
    assert log[15:] == ["2 of 10|Linear [0]", 1, "1"] and not [  # and closed by its title
        entry for entry in log if str(entry).startswith("error")
    ]


@pytest.mark.skipif(not BROWSER, reason="no Chromium (apt-get install chromium)")
@pytest.mark.skipif(not find_renderer(), reason="no renderer: pip install graphviz-pure")
def test_no_text_leaves_its_box_whatever_the_fonts(step, tmp_path):
    probe = """<script>
    const over = [];
    for (const group of document.querySelectorAll(".level:not([hidden]) g.node")) {
      const box = [...group.querySelectorAll("path, polygon, ellipse")].map(shape => shape.getBBox());
      const right = Math.max(...box.map(b => b.x + b.width));
      for (const text of group.querySelectorAll("text")) {
        const b = text.getBBox();
        if (b.x + b.width > right + 1) over.push(text.textContent);
      }
    }
    document.title = JSON.stringify([document.querySelectorAll("g.node text").length > 10, over]);
    </script></body>"""
    path = tmp_path / "page.html"
    path.write_text(step[0].replace("</body>", probe), encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", in_browser(path).stdout, re.S)
    assert json.loads(title[1]) == [True, []]
