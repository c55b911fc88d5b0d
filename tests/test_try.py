"""The page that anyone can play with, in headless Chromium: what Python gives, and nothing fetched."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import io
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from test_report_in_browser import SIZES, SPILLED, chromium, pytestmark  # noqa: F401

from agents.agent import NETWORK
from agents.early_exit import EarlyExit
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.saved import SavedRun
from instanas_env.data import DataRecord, ImageSet
from instanas_env.latency import LatencyTable
from instanas_env.seeding import generator_for

HERE = Path(__file__).parent.parent / "docs" / "try"
SPEC = importlib.util.spec_from_file_location("build_try", HERE / "build.py")
assert SPEC is not None and SPEC.loader is not None
build = sys.modules["build_try"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(build)

CLASSES = ("<img src=x onerror=alert(1)>", "</script><b>bold", "{{ data }}", *"defghij")

NEWEST = """before => new Promise(resolve => {
  const look = () => shown.number > before && shown.number === asked ? resolve(shown) : setTimeout(look, 20);
  look();
})"""
MEASURED = """() => new Promise(resolve => {
  const look = () => (shown.times ? resolve(shown.times) : setTimeout(look, 50));
  look();
})"""
DROP = """([bytes, name]) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([Uint8Array.from(bytes)], name, {type: 'image/png'}));
  document.body.dispatchEvent(new DragEvent('drop', {dataTransfer, bubbles: true, cancelable: true}));
}"""
LIT = "rows => rows.map(row => [...row.querySelectorAll('i')].map(one => one.classList.contains('on')))"


@pytest.fixture(scope="module")
def archive() -> Iterator:
    try:
        with build.fetched(build.Options.cache) as opened:
            yield opened
    except OSError as error:
        pytest.skip(f"needs onnxruntime-web: npm cannot be reached, and it is not in the cache: {error}")


def grey_images(count: int) -> torch.Tensor:
    """Rectangles of grey noise on black, uint8 ``(count, 3, 32, 32)``."""
    images = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
    noise = torch.randint(0, 256, (count, 1, 32, 32), generator=generator_for(1), dtype=torch.uint8)
    for i, image in enumerate(images):
        image[:, 4 : 12 + i % 14, 3 : 10 + i % 17] = noise[i, :, 4 : 12 + i % 14, 3 : 10 + i % 17]
    return images


@pytest.fixture(scope="module", params=SIZES)
def made(archive, tiny_graph, tiny_space, tmp_path_factory, request) -> tuple[Path, bytes]:
    """The page of an agent that tells images apart, and its dynamic file; the one for a phone has a dial."""
    modules = torch.rand(17, 5, generator=generator_for(3), dtype=torch.float64) + 0.1
    table = LatencyTable(tiny_space, modules, fixed=0.25, controller=0.125)
    agents = {
        "desktop": lambda: SelfCriticalReinforce(None, space=tiny_space),
        "phone": lambda: RewardRegression(None, trade_off=0.4, space=tiny_space, table=table),
    }
    agent = agents[request.param]()
    for parameter in agent.controller.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator_for(4))
    run = SavedRun(agent, tiny_graph, table, DataRecord(CLASSES, (0.3, 0.3, 0.3), (0.2, 0.2, 0.2)))
    images = ImageSet(grey_images(40), torch.arange(40) % 10, CLASSES, run.data.mean, run.data.std)
    path = tmp_path_factory.mktemp(request.param) / "index.html"
    path.write_text(build.page(run, images, archive))
    return path, next(each["model"] for each in build.networks(run) if each["name"] == "dynamic")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """`python -m http.server`, without a line for each request."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def page(chromium, made) -> Iterator:  # noqa: F811
    """The page at one width, from its file on a desktop and from a server on a phone.

    An error, or a request for anything but the page itself, fails.
    """
    width, height = SIZES[made[0].parent.name.rstrip("0")]
    handler = functools.partial(Quiet, directory=made[0].parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        served = f"http://127.0.0.1:{server.server_port}/index.html"
        address = made[0].as_uri() if width > 1000 else served
        context = chromium.new_context(viewport={"width": width, "height": height})
        opened, trouble = context.new_page(), []
        inside = (address, "data:", "blob:")
        opened.on("request", lambda r: trouble.append(r.url) if not r.url.startswith(inside) else None)
        opened.on("pageerror", lambda error: trouble.append(str(error)))
        opened.on(
            "console", lambda message: trouble.append(message.text) if message.type == "error" else None
        )
        opened.goto(address)
        opened.wait_for_selector("#times .bar", timeout=120_000)
        yield opened
        context.close()
        server.shutdown()
    assert trouble == []


def after(page, action) -> dict:
    """What the page shows, and what it keeps of it, once ``action`` has changed the picture."""
    before = page.evaluate("asked")
    action()
    return page.evaluate(NEWEST, before)


def drop(page, picture: np.ndarray, name: str = "<i>mine</i>.png") -> dict:
    """Drop a picture, uint8 ``(H, W)`` or ``(H, W, 3)``, as a PNG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return after(page, lambda: page.evaluate(DROP, [list(file.getvalue()), name]))


def check(page, made, shown: dict) -> np.ndarray:
    """What is shown is what onnxruntime says in Python of the same pixels, which are returned."""
    image = np.array(shown["seen"], np.uint8).reshape(1, 3, 32, 32)
    given = {"image": image}
    if dial := page.evaluate("DATA.dial && DATA.dial[$('dial').value].value"):
        given["dial"] = np.array([dial], np.float32)
    session = onnxruntime.InferenceSession(made[1], providers=["CPUExecutionProvider"])
    logits, mask, latency_ms = session.run(["logits", "mask", "latency_ms"], given)
    np.testing.assert_allclose(shown["logits"], logits[0], atol=1e-4, rtol=1e-4)
    assert shown["latency"] == pytest.approx(latency_ms[0], rel=1e-5)
    lit = np.array(page.eval_on_selector_all("#grid .row:not(.heads)", LIT))
    assert np.array_equal(lit.T, mask[0])
    assert f"{mask.sum()} of 85 modules" in page.inner_text("#chosen")
    assert page.inner_text("#answer") == CLASSES[logits.argmax()] == page.inner_text("#bars span >> nth=0")
    likely = np.exp(logits[0] - logits.max())
    shares = np.sort(likely / likely.sum())[::-1]
    widths = page.eval_on_selector_all(
        "#bars .bar span", "all => all.map(one => parseFloat(one.style.width))"
    )
    np.testing.assert_allclose(widths, 100 * shares, atol=0.01)
    return image[0]


def test_a_picked_image(page, made):
    buttons = page.locator("#examples button")
    assert buttons.count() == 12
    seen = []
    for place in (0, 11):
        shown = after(page, buttons.nth(place).click)
        seen.append(check(page, made, shown).tobytes())
        assert buttons.nth(place).get_attribute("aria-pressed") == "true"
        assert buttons.nth(place).inner_text().split()[0] == str(sum(shown["mask"]))
        name = buttons.nth(place).get_attribute("title")
        right = page.inner_text("#answer") == name
        assert page.inner_text("#truth") == (
            "That is right." if right else f"That is wrong: it is of class {name}."
        )
    assert len(set(seen)) == 2 and set(seen) <= {image.numpy().tobytes() for image in grey_images(40)}


def test_a_drawn_one(page, made):
    after(page, page.locator("#clear").click)
    box = page.locator("#picture").bounding_box()
    x, y, step = box["x"] + box["width"] / 4, box["y"] + box["height"] / 4, box["width"] / 2

    def draw() -> None:
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + step, y, steps=4)
        page.mouse.move(x + step, y + step, steps=4)
        page.mouse.up()

    page.locator("#picture").scroll_into_view_if_needed()
    image = check(page, made, after(page, draw))
    assert image[:, 8, 12:20].min() > 200 and image[:, 12:20, 24].min() > 200, "along the stroke"
    assert image[:, 14:, :20].max() == 0, "and nowhere else"
    assert page.inner_text("#truth") == "" and page.locator("[aria-pressed=true]").count() == 0


def test_a_dropped_file(page, made):
    """Seen pixel by pixel; inverted if light around, made grey, cropped and shrunk."""
    dark = grey_images(9)[8, 0].numpy()
    for picture in (dark, 255 - dark):
        assert (check(page, made, drop(page, picture)) == dark).all()
    assert "<i>mine</i>.png" in page.inner_text("#hint") and "Inverted" in page.inner_text("#hint")
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = (200, 100, 50)
    seen = check(page, made, drop(page, wide))[:, 2:-2, 2:-2].astype(int)
    assert np.abs(seen - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)).max() <= 1


def test_a_dropped_file_of_a_network_that_knows_colours(page, made):
    coloured = np.random.default_rng(0).integers(128, 256, (32, 32, 3), dtype=np.uint8)
    page.evaluate("DATA.light_on_black = false")
    assert (check(page, made, drop(page, coloured)) == coloured.transpose(2, 0, 1)).all()
    page.evaluate("DATA.light_on_black = true")


def test_a_file_that_is_no_picture(page, made):
    page.evaluate(DROP, [[1, 2, 3], "<b>.txt"])
    page.wait_for_selector("#hint:has-text('no picture')")
    assert page.inner_text("#hint").startswith("<b>.txt is no picture")


def test_times_are_beside_those_of_other_networks(page):
    times = page.evaluate(MEASURED)
    assert set(times) == {"dynamic", "mobilenet_v2", "all"} and min(times.values()) > 0
    assert page.locator("#times .bar").count() == 3 and "all modules take" in page.inner_text("#verdict")


def test_the_dial_of_an_agent_that_has_one(page, made):
    dial = page.locator("#dial")
    assert dial.is_visible() == (page.evaluate("DATA.dial?.length ?? 0") > 1)
    if dial.is_visible():
        last = page.evaluate("DATA.dial.length - 1")
        shown = [after(page, lambda at=at: dial.fill(str(at))) for at in (0, last)]
        check(page, made, shown[1])
        assert shown[0]["latency"] < shown[1]["latency"]


def test_nothing_runs_off_the_page(page):
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.evaluate(SPILLED) == []


def test_an_archive_that_is_not_the_pinned_one_is_refused(tmp_path):
    (tmp_path / Path(build.ARCHIVE).name).write_bytes(b"somebody else's")
    with pytest.raises(ValueError, match="onnxruntime-web.*: SHA-512 is .*; the pinned one, .*, will do"):
        build.fetched(tmp_path)


def test_images_that_are_light_on_black():
    images = grey_images(4)
    assert build.light_on_black(images) and not build.light_on_black(255 - images)
    images[0, 0, 8, 8] ^= 1
    assert not build.light_on_black(images), "a colour"


def test_the_command_writes_the_page_of_the_shipped_run(archive, tmp_path):
    build.main(build.Options(out=tmp_path / "index.html"))
    text = (tmp_path / "index.html").read_text()
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert [each["name"] for each in data["networks"]] == ["dynamic", "mobilenet_v2", "all"]
    assert len(data["images"]) == 12 and len({image["name"] for image in data["images"]}) == 4
    assert {image["name"] for image in data["images"]} < set(data["classes"])
    assert data["light_on_black"] and "dial" not in data and "{{" not in text
    assert "docs/try/build.py" in (HERE.parent.parent / "Makefile").read_text()


def test_images_that_the_controller_answers_take_no_time(archive, tiny_graph, tiny_space):
    """The dial is that of the agent inside; the examples begin with what takes nothing."""
    modules = torch.rand(17, 5, generator=generator_for(3), dtype=torch.float64) + 0.1
    table = LatencyTable(tiny_space, modules, fixed=0.25, controller=0.125)
    inner = RewardRegression(None, trade_off=0.4, space=tiny_space, table=table, num_classes=10)
    for parameter in inner.controller.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator_for(4))
    pictures = grey_images(40)
    middle = inner.name_logits(pictures).softmax(1).amax(1).median().item()
    agent = EarlyExit(inner, middle)
    run = SavedRun(agent, tiny_graph, table, DataRecord(CLASSES, (0.3, 0.3, 0.3), (0.2, 0.2, 0.2)))
    answered = agent.own_answers(pictures) != NETWORK
    assert 0 < answered.sum() < 40
    assert torch.equal(build.times(run, pictures) == 0, answered)
    images = ImageSet(pictures, torch.arange(40) % 10, CLASSES, run.data.mean, run.data.std)
    text = build.page(run, images, archive)
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert data["dial"][data["dial_now"]]["value"] == inner.trade_off == 0.4
