"""The playground in a real browser: it learns while the boundary moves, pauses, steps, opens the step, says why not."""

import threading
import time

import pytest

import tinygrad_ms as tg
from tests.browser import Browser, needs_browser
from tinygrad_ms.play import Playground

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(scope="module")
def url():
    tg.set_default_device("cpu")
    with Playground() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.url
        server.shutdown()


@pytest.fixture
def browser(url):
    with Browser(1920, 1080) as started:
        started.open(url)
        started.until("state !== null")
        yield started


def test_moons_while_the_boundary_moves(browser):
    """To 99 % of the points held out in a few hundred steps. The page falls behind by half a second of steps at most.

    Nearly each answer brings a new boundary, however slow the machine is.
    """
    browser.run("window.steps = [0], window.seen = new Set()")
    browser.run(
        "(() => { const before = take; take = got => { steps.push(got.step), seen.add(got.grid), before(got); }; })()"
    )
    browser.press(" ")
    browser.until("state.right >= 0.99", 60)
    browser.press(" ")
    steps, boundaries = browser.run("[steps, seen.size]")
    print(f"{steps[-1]} steps in {len(steps) - 1} answers, {boundaries} boundaries")
    assert steps[-1] < 400 and max(b - a for a, b in zip(steps, steps[1:])) <= 30 / 2 + 1
    assert boundaries > (len(steps) - 1) / 2
    assert browser.errors == []


def test_pause_step_restart_and_the_page_of_the_step(browser, url):
    first = browser.run("state.loss")
    browser.press("s")
    browser.until("state.step === 1")
    browser.press("PageDown")
    browser.until("state.step === 2")
    loss = browser.run("state.loss")
    time.sleep(0.3)
    assert browser.run("state.step") == 2 and browser.run("running") is False
    browser.run("window.open = (address, ...more) => { window.opened = [address, ...more]; }")
    browser.press("o")
    address, *more = browser.run("window.opened")
    assert more == ["_blank", "noopener"]
    browser.press("r")
    browser.until("state.step === 0")
    assert browser.run("state.loss") == first
    for _ in range(2):
        browser.press("s")
        browser.until("!busy")
    assert browser.run("[state.step, state.loss]") == [2, loss]
    key = browser.run("facts.training")
    browser.open(f"{url}{address.split('=')[0]}={key}")
    assert browser.run("document.title") == f"Step 2 on moons: loss {loss:.4g}"
    browser.press("PageDown")
    assert browser.run("$('where').textContent").startswith("2 of")
    assert browser.errors == []


def test_settings_by_hand_and_their_mistakes(browser):
    browser.run("$('data').value = 'circles', $('data').onchange()")
    browser.until("facts.points.length === 300 && state.step === 0")
    browser.run("$('more').click()")
    browser.until("state.layers.length === 4")
    browser.run("document.querySelector('#layers button').click()")
    browser.until("state.layers.length === 3")
    browser.run("$('noise').value = 7, $('noise').onchange()")
    browser.until("$('said').textContent === 'noise is 7; expected a number from 0 to 1'")
    browser.run("$('noise').value = 0.1, $('noise').onchange()")
    browser.until("$('said').textContent === ''")
    browser.run("$('data').value = 'csv', $('data').onchange()")
    browser.until("$('said').textContent.startsWith('Choose a CSV file')")
    browser.run("csv = 'a,b,c\\n' + '1,2,x\\n3,5,y\\n'.repeat(20), start()")
    browser.until("facts.class_names.join() === 'x,y' && $('said').textContent === ''")
    browser.run("document.querySelector('#tries button:last-child').click()")
    browser.until("facts.images && state.step > 2")
    assert browser.run("$('data').value + $('optimizer').value") == "digitsAdam"
    browser.press("?")
    assert browser.run("$('keys').open")


@pytest.mark.parametrize("width, height, text", [(1920, 1080, 20), (1280, 720, 13)])
def test_it_fits_the_screen(browser, width, height, text):
    browser.resize(width, height)
    time.sleep(0.2)
    assert browser.run("document.documentElement.scrollHeight") <= height
    cut = """[...document.querySelectorAll('header > *, section, canvas')].filter(e => {
      const b = e.getBoundingClientRect();
      return b.right > innerWidth + 1 || b.bottom > innerHeight + 1; }).map(e => e.id || e.tagName)"""
    assert browser.run(cut) == []
    sizes = "Math.min(...[...document.querySelectorAll('body *')].map(e => parseFloat(getComputedStyle(e).fontSize)))"
    assert browser.run(sizes) >= text
    assert browser.run("$('settings').scrollHeight <= $('settings').clientHeight")
