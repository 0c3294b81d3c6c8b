"""The step-through page in a real browser: keys, zoom, search, links, the wall and the notebook; nothing is cut."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.browser import Browser, needs_browser
from tinygrad_ms import nn
from tinygrad_ms.graph import page, recording
from tinygrad_ms.graph.renderer import find_renderer

pytestmark = [
    pytest.mark.slow,
    needs_browser,
    pytest.mark.skipif(not find_renderer(), reason="no renderer: pip install graphviz-pure"),
]


def mlp():
    """One step of an MLP: its page."""
    net = nn.Sequential(nn.Linear(4, 8, rng=0), nn.Tanh(), nn.Linear(8, 3, rng=1))
    x = tg.tensor(np.linspace(-1, 1, 20).reshape(5, 4).astype("float32"), name="x")
    labels = tg.tensor(np.arange(5) % 3, name="labels")
    with recording() as record:
        loss = tg.softmax_cross_entropy(net(x), labels)
    return page(loss, params=net, values=record, title="MLP")


def neurons():
    x, w, b, v, c = (tg.tensor(value, dtype="float64", requires_grad=True, name=name)
                     for name, value in zip("xwbvc", (0.5, 1.5, -0.25, -0.8, 0.1)))  # fmt: skip
    return page((v * tg.tanh(w * x + b) + c - 1.0) ** 2, title="Two neurons")


PAGES = {"mlp": mlp, "neurons": neurons}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    tg.set_default_device("cpu")
    folder = tmp_path_factory.mktemp("pages")
    for name, make in PAGES.items():
        (folder / f"{name}.html").write_text(make(), encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in PAGES}


@pytest.fixture(scope="module")
def browser():
    with Browser() as started:
        yield started
        assert started.errors == []


WHERE = "$('where').textContent + '|' + $('step').querySelector('h2').firstChild.textContent"
BOX = """(() => { const pane = $('pictures'), svg = root().querySelector('svg'), box = svg.getBoundingClientRect();
  const scale = svg.getScreenCTM().a;
  const sizes = [...svg.querySelectorAll('text')].map(t => t.getAttribute('font-size') * scale);
  return {wide: box.width / pane.clientWidth, high: box.height / pane.clientHeight, text: Math.min(...sizes)}; })()"""
SMALLEST = """Math.min(...[...document.querySelectorAll('header *, aside *')].filter(e => e.textContent.trim()
  && !e.closest('svg, math')).map(e => parseFloat(getComputedStyle(e).fontSize)))"""


def test_every_key_works(browser, pages):
    browser.open(pages["mlp"])
    browser.until("!!window.data || typeof data === 'object'")
    count = browser.run("data.levels[0].steps.length")

    def after(key):
        browser.press(key)
        return browser.run(WHERE)

    assert browser.run(WHERE) == f"1 of {count}|What is given"
    assert after("ArrowRight").startswith("2 of") and after("PageDown").startswith("3 of")
    assert after("PageUp") == f"2 of {count}|affine [4]" and after("ArrowLeft").startswith("1 of")
    assert after("End") == f"{count} of {count}|2.bias" and after("PageDown").startswith(f"{count} of")
    assert after("Home").startswith("1 of")
    before = browser.run(BOX)["wide"]
    browser.press("+")
    assert browser.run(BOX)["wide"] == pytest.approx(1.2 * before, rel=0.01)
    browser.press("-")
    browser.press("0")  # from readable to whole
    box = browser.run(BOX)
    assert max(box["wide"], box["high"]) <= 1 and max(box["wide"], box["high"]) >= 0.9
    browser.press(" ")
    assert browser.run("$('play').textContent") == "Pause"
    browser.press(" ")
    assert browser.run("$('play').textContent") == "Play"
    browser.press("?")
    assert browser.run("$('keys').open && $('keys').textContent.includes('PageDown')")
    browser.press("?")
    assert not browser.run("$('keys').open")
    for on in (True, False):
        browser.press("t")
        assert browser.run("document.documentElement.classList.contains('dark')") is on
    browser.press("f")
    browser.until("!!document.fullscreenElement")
    browser.press("f")
    browser.until("!document.fullscreenElement")


def test_search_links_clicks_and_scopes(browser, pages):
    browser.open(pages["mlp"] + "#step=3")
    assert browser.run(WHERE).startswith("3 of")
    browser.run("location.hash = '#step=9'")
    browser.until("$('where').textContent.startsWith('9 of')")
    browser.press("PageDown")
    assert browser.run("location.hash") == "#step=10"
    browser.press("/")
    for letter in "TANH":
        browser.press(letter)
    assert browser.run("document.activeElement.id + root().querySelectorAll('.found').length") == "find1"
    browser.press("Enter")
    first = browser.run(WHERE)
    browser.press("Enter")
    assert {first.split("|")[1], browser.run(WHERE).split("|")[1]} == {"tanh [6]"} and first != browser.run(WHERE)
    browser.press("Escape")
    assert browser.run("root().querySelectorAll('.found').length") == 0
    browser.run("root().querySelector('g.node.seed').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert browser.run(WHERE).endswith("|seed")
    browser.run("$('level').value = 1, $('level').onchange({target: $('level')})")
    browser.press("PageDown")
    closed = browser.run(WHERE)
    browser.run("$('open').click()")
    assert closed.endswith("|0: Linear [0]")
    assert browser.run("level") == 0 and browser.run(WHERE).split("|")[1].startswith("affine")
    browser.run("root().querySelector('text.closes').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert browser.run("level") > 0
    assert browser.run("document.querySelectorAll('main g.node[tabindex][aria-label]').length > 20")


@pytest.mark.parametrize("name", PAGES)
def test_it_fills_the_wall(browser, pages, name):
    """At 1920 x 1080 the graph fills 90 % of a side of its pane, no text is below 20 px, and the step is in view."""
    browser.resize(1920, 1080)
    browser.open(pages[name])
    steps = browser.run("data.levels[0].steps.length")
    for _ in range(steps):
        box = browser.run(BOX)
        assert max(box["wide"], box["high"]) >= 0.9 and box["text"] >= 19.9, box
        assert browser.run(SMALLEST) >= 20
        assert browser.run(NOW_IS_SEEN)
        assert browser.run("[...document.querySelectorAll('.worked')].every(w => w.scrollWidth <= w.clientWidth + 1)")
        browser.press("PageDown")


NOW_IS_SEEN = """(() => { const pane = $('pictures').getBoundingClientRect();
  return [...root().querySelectorAll('g.node.now')].slice(0, 1).every(g => { const b = g.getBoundingClientRect();
    return b.left >= pane.left - 2 && b.right <= pane.right + 2 && b.top >= pane.top - 2 && b.bottom <= pane.bottom + 2;
  }); })()"""
CUT = """[...document.querySelectorAll('header, header > *, main, aside, main .level:not([hidden]) svg')].filter(e => {
  const b = e.getBoundingClientRect();
  const out = b.left < -1 || b.right > innerWidth + 1 || b.bottom > innerHeight + 1;
  return e.offsetParent !== null && !e.hidden && b.width && out;
}).map(e => e.id || e.tagName)"""


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_on_a_laptop(browser, pages, name):
    """At 1280 x 720 the whole graph, the header and the panel are on the screen; no text runs out of its box."""
    browser.resize(1280, 720)
    browser.open(pages[name])
    assert browser.run(CUT) == []
    box = browser.run(BOX)
    assert box["wide"] <= 1 and box["high"] <= 1 and box["text"] >= 9, box
    for _ in range(browser.run("data.levels[0].steps.length")):
        assert browser.run("$('step').scrollWidth <= $('step').clientWidth + 1"), browser.run(WHERE)
        browser.press("PageDown")
    over = """[...root().querySelectorAll('g.node')].filter(g => {
      const shape = g.querySelector('path, polygon, ellipse').getBBox(), right = shape.x + shape.width + 1;
      return [...g.querySelectorAll('text')].some(t => t.getBBox().x + t.getBBox().width > right); }).length"""
    assert browser.run(over) == 0


def test_dark_has_no_seam(pages):
    """Behind the graph is the page itself, and the system's wish is followed."""
    with Browser(1280, 720, dark=True) as browser:
        browser.open(pages["mlp"])
        assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 25, 31)"
        fills = "[...document.querySelectorAll('.graph > polygon')].every(p => getComputedStyle(p).fill === 'none')"
        assert browser.run(fills)
        assert browser.run("getComputedStyle(root().querySelector('svg')).filter") == "none"
        assert browser.errors == []


def test_a_quiz_hides_what_is_asked_for(browser, pages):
    browser.resize(1280, 720)
    browser.open(pages["neurons"] + "#step=4")
    hidden = """[...document.querySelectorAll('.answer, .results td, .now text')].filter(e =>
      getComputedStyle(e).visibility === 'hidden').map(e => e.textContent).filter(text => !text.startsWith('grad'))"""
    assert browser.run(hidden) == [] and browser.run(WHERE).endswith("tanh [7]")
    browser.press("q")
    assert browser.run(hidden).count("0.4621") == 3  # in the line, the table and the box
    browser.press("PageDown")
    assert browser.run(hidden) == [] and browser.run(WHERE).endswith("tanh [7]")
    browser.press("PageDown")
    assert "-0.3697" in browser.run(hidden) and browser.run(WHERE).endswith("multiply [8]")
    browser.press("q")
    assert browser.run(hidden) == []


def test_a_handout_has_every_step(browser, pages):
    browser.open(pages["neurons"])
    steps = browser.run("dispatchEvent(new Event('beforeprint')), $('handout').children.length")
    assert steps == browser.run("data.levels[0].steps.length")
    assert "1.6" in browser.run("$('handout').textContent") and browser.send("Page.printToPDF")["data"]


def test_on_a_phone_the_panel_stays_in_view(browser, pages):
    browser.resize(390, 844)
    browser.open(pages["mlp"])
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.run("$('step').getBoundingClientRect().bottom") <= 845
    browser.resize(1280, 720)


def test_in_the_frame_of_a_notebook(browser, tmp_path):
    loss = tg.tanh(tg.tensor(0.5, requires_grad=True, name="x"))
    (tmp_path / "notebook.html").write_text(f"<!doctype html><body>{page(loss)._repr_html_()}", encoding="utf-8")
    browser.open((tmp_path / "notebook.html").as_uri())
    browser.until(
        "document.querySelector('iframe').contentDocument.querySelector('#where')?.textContent.startsWith('1 of')"
    )
    inside = "document.querySelector('iframe').contentDocument"
    browser.run(f"{inside}.querySelector('#next').click()")
    assert browser.run(f"{inside}.querySelector('#where').textContent").startswith("2 of")
