"""The page in headless Chromium, at desktop and at phone width: drawn, and within its bounds."""

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

SIZES = {"desktop": (1400, 900), "phone": (390, 844)}
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

UNDER_THE_MOUSE = """() => [...document.querySelectorAll('#frontier .mark')].map(mark => {
  const box = mark.getBoundingClientRect();
  const found = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
  return found.closest('.mark').querySelector('title').textContent;
})"""


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


def test_every_part_is_drawn(page):
    """Each section shows a picture that is not of one colour, or a table, of a size that can be read."""
    assert page.eval_on_selector_all("section", "all => all.map(one => one.id)") == SECTIONS
    assert page.evaluate(BLANK_PICTURES) == []
    for name in SECTIONS:
        shown = page.locator(f"#{name} img, #{name} svg, #{name} table")
        assert shown.count() > 0, name
        for place in range(shown.count()):
            box = shown.nth(place).bounding_box()
            assert box is not None and box["width"] > 70 and box["height"] > 40, name


def test_nothing_runs_off_the_page(page):
    """What is wider than a phone, such as a table, scrolls in a box of its own."""
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.evaluate(SPILLED) == []


def test_the_first_screen_has_the_claim_and_on_a_desktop_frontier_and_images(page):
    height = page.viewport_size["height"]
    assert bottom(page, "h1") < height / 2
    assert page.locator("#frontier").bounding_box()["y"] < height
    if page.viewport_size["width"] > 1000:
        assert bottom(page, "#frontier svg") < height and bottom(page, "#shown li:last-child") < height


def test_pictures_keep_their_proportions(page):
    """A grid of 17 x 5 squares of 8 px, and one line between two of them."""
    for name, ratio in ((".picture", 1.0), (".picture + img", 137 / 41)):
        box = page.locator(f"#shown {name}").first.bounding_box()
        assert box["width"] / box["height"] == pytest.approx(ratio, rel=0.03), name


def test_a_mark_has_its_numbers_where_the_mouse_is(page):
    """A browser shows the title of what lies on top there; marks at the same place hide each other."""
    page.locator("#frontier").scroll_into_view_if_needed()
    titles = page.evaluate(UNDER_THE_MOUSE)
    assert len(titles) == page.locator("#frontier .mark").count()
    assert all("ms" in title and "%" in title and "network" in title for title in titles)
    assert len(set(titles)) > len(titles) / 2


def bottom(page, selector: str) -> float:
    """How far down something reaches, px."""
    box = page.locator(selector).first.bounding_box()
    return box["y"] + box["height"]
