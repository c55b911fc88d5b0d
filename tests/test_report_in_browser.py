"""The page in headless Chromium, at desktop and at phone width: drawn, hovered over, within its bounds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from test_report import SECTIONS, reported

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason='needs playwright: pip install ".[browser]"')
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome on the PATH: apt install chromium"),
    pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window"),
]

SIZES = {"desktop": (1280, 900), "phone": (375, 812)}
# Nothing may reach for a network, which the page's policy forbids as well.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

BLANK_PICTURES = """() => [...document.querySelectorAll('img')].filter(picture => {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 64;
  const context = canvas.getContext('2d');
  context.drawImage(picture, 0, 0, 64, 64);
  const pixels = context.getImageData(0, 0, 64, 64).data;
  return picture.naturalWidth == 0 || pixels.every((value, i) => value == pixels[i % 4]);
}).map(picture => picture.alt)"""

SPILLED = """() => [...document.querySelectorAll('body *')].filter(element => {
  const inner = element.closest('.box, svg') && !element.matches('.box, svg');
  return !inner && spills(element);
  function spills(element) {
    const box = element.getBoundingClientRect();
    return box.width > 0 && (box.left < -0.5 || box.right > document.documentElement.clientWidth + 0.5);
  }
}).map(element => element.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=SIZES)
def page(chromium, request) -> Iterator:
    """The report, opened from its file; a request to anywhere else or an error in its script fails."""
    width, height = SIZES[request.param]
    context = chromium.new_context(
        viewport={"width": width, "height": height}, has_touch=request.param == "phone"
    )
    opened, trouble = context.new_page(), []
    opened.on(
        "request", lambda r: trouble.append(r.url) if not r.url.startswith(("file:", "data:")) else None
    )
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    opened.goto(reported().as_uri())
    yield opened
    context.close()
    assert trouble == []


def test_every_figure_is_drawn(page):
    """Each section shows a chart with marks, a picture that is not of one colour, or a table."""
    assert page.eval_on_selector_all("section", "all => all.map(one => one.id)") == SECTIONS
    assert page.evaluate(BLANK_PICTURES) == []
    for name in SECTIONS:
        shown = page.locator(f"#{name} img, #{name} svg, #{name} table")
        assert shown.count() > 0, name
        for place in range(shown.count()):
            box = shown.nth(place).bounding_box()
            assert box is not None and box["width"] > 100 and box["height"] > 50, name
    for chart in ("frontier", "map"):
        assert page.locator(f"#{chart} svg .mark").count() > 1


def test_nothing_runs_off_the_page(page):
    """What is wider than a phone, such as a table, scrolls in a box of its own."""
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.evaluate(SPILLED) == []


def test_hovering_over_a_policy_tells_its_numbers(page):
    tip, mark = page.locator("#tip"), page.locator("#frontier .mark").first
    assert tip.is_hidden()
    mark.locator(".hit").hover()
    text = tip.inner_text()
    assert text == mark.get_attribute("data-tip") and "ms" in text and "%" in text
    inside(page, tip)
    page.mouse.move(2, 2)
    assert tip.is_hidden()


def test_hovering_over_a_network_shows_images_that_got_it(page):
    """The thumbnails are cut out of one picture, and not two of them at the same place."""
    mark, tip = page.locator("#map .mark[data-i]").last, page.locator("#tip")
    mark.scroll_into_view_if_needed()
    mark.hover()
    thumbs = tip.locator(".thumb")
    indices = mark.get_attribute("data-i").split(",")
    assert thumbs.count() == len(indices) > 0
    places = {
        thumbs.nth(i).evaluate("t => getComputedStyle(t).backgroundPosition") for i in range(thumbs.count())
    }
    assert len(places) == len(set(indices))
    picture = thumbs.first.evaluate("t => getComputedStyle(t).backgroundImage")
    assert picture.startswith('url("data:image/png;base64,')
    inside(page, tip)


def test_the_keyboard_reaches_the_policies(page):
    page.locator("#frontier .mark").first.focus()
    assert page.locator("#tip").is_visible()
    first = page.locator("#tip").inner_text()
    page.keyboard.press("Tab")
    assert page.locator("#tip").inner_text() != first


def inside(page, tip) -> None:
    """The tip lies within the window."""
    box, window = tip.bounding_box(), page.viewport_size
    assert box["x"] >= 0 and box["x"] + box["width"] <= window["width"]
    assert box["y"] >= 0 and box["y"] + box["height"] <= window["height"]
