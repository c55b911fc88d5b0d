"""The page that anyone can play with, in headless Chromium: what Python gives, nothing fetched, nothing spilled."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import io
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from test_report_in_browser import BROWSER, FLAGS, SIZES, SPILLED, chromium, pytestmark  # noqa: F401

from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.saved import DataRecord, SavedRun
from instanas_env.data import ImageSet
from instanas_env.latency import LatencyTable
from instanas_env.seeding import generator_for

HERE = Path(__file__).parent.parent / "docs" / "try"
SPEC = importlib.util.spec_from_file_location("build_try", HERE / "build.py")
assert SPEC is not None and SPEC.loader is not None
build = sys.modules["build_try"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(build)

CLASSES = ("<img src=x onerror=alert(1)>", "</script><b>bold", "{{ data }}", *"defghij")

NEWEST = """before => new Promise(resolve => {
  const look = () => (asked > before && !busy ? resolve(shown) : setTimeout(look, 20));
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


@pytest.fixture(scope="module", params=["reinforce", "regression"])
def made(archive, tiny_graph, tiny_space, tmp_path_factory, request) -> tuple[Path, bytes]:
    """The page of an agent that tells images apart, and its dynamic file; only regression has a dial."""
    modules = torch.rand(17, 5, generator=generator_for(3), dtype=torch.float64) + 0.1
    table = LatencyTable(tiny_space, modules, fixed=0.25, controller=0.125)
    agents = {
        "reinforce": lambda: SelfCriticalReinforce(None, space=tiny_space),
        "regression": lambda: RewardRegression(None, trade_off=0.4, space=tiny_space, table=table),
    }
    agent = agents[request.param]()
    for parameter in agent.controller.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator_for(4))
    run = SavedRun(agent, tiny_graph, table, DataRecord(CLASSES, (0.3, 0.3, 0.3), (0.2, 0.2, 0.2)))
    images = ImageSet(grey_images(40), torch.arange(40) % 10, CLASSES, run.data.mean, run.data.std)
    path = tmp_path_factory.mktemp(request.param) / "index.html"
    path.write_text(build.page(run, images, archive))
    return path, next(each["model"] for each in build.networks(run) if each["name"] == "dynamic")


@pytest.fixture(scope="module")
def server(made) -> Iterator[str]:
    """The page as `python -m http.server` has it."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=made[0].parent)
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}/index.html"
        served.shutdown()
