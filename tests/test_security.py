"""The security page names tests that exist; and the promises that no other test stands behind."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.classifier import InstaNASClassifier
from instanas_env.build import shipped
from instanas_env.data import load_images, sources
from scripts.comparison.contest import Budget, Contest
from scripts.comparison.ranking import row_file

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text()


def test_every_line_of_the_page_has_a_test_that_exists():
    """In the tables of what is trusted and what is not; tests are named file::test, in the last column."""
    rows = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")]
    lines = [row for row in rows if row[-1].strip() != "Test"]
    assert len(lines) > 15
    for row in lines:
        names = re.findall(r"`(\w+)::(\w+)`", row[-1])
        assert names, row
        for file, test in names:
            assert f"def {test}(" in (ROOT / "tests" / f"{file}.py").read_text(), (file, test)
    assert "docs/security.md" in (ROOT / "SECURITY.md").read_text()


def test_nothing_is_sent_or_fetched(monkeypatch):
    def refused(*arguments):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    envs = gym.make_vec("InstaNAS-v1", num_envs=2)
    images, _ = envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    classifier = InstaNASClassifier.load(shipped("reference/controller.safetensors").parent)
    assert len(classifier(images).label) == 2


def test_the_embedded_images_are_not_unpickled(tmp_path, monkeypatch):
    (tmp_path / "assets").mkdir()
    objects = np.array([{}], object)
    np.savez(tmp_path / "assets" / "fashion_mnist_6k.npz", val_images=objects, val_labels=objects)
    monkeypatch.setattr(sources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_images("embedded", "val")


@pytest.mark.parametrize("name", ["../../x:Y", "/etc/x.zip", "a:../b", "..", "a\\..\\b", "x\0y", "a\nb"])
def test_a_policy_is_written_into_its_folder_alone(name):
    file = row_file(Contest(Path("out"), {}, Budget(1, 1, 1, 1)), name, 0)
    assert not set(file.name) & {"/", "\\", "\0", "\n"} and file.parent == Path("out/policies")
