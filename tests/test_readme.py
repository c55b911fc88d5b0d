"""The README's Python, run from top to bottom as its reader would, with learning made short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
SHORTENED = {
    "learn(10 * 4_000, progress_bar=True)": "learn(256)",
    "learn(20_000, progress_bar=True)": "learn(512)",
    "model.learn(10_000)": "model.learn(1024)",
}


def blocks() -> list[str]:
    """Its Python blocks, in order."""
    return re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_only_learning_is_shortened():
    text = "\n".join(blocks())
    assert [text.count(words) for words in SHORTENED] == [1, 1, 1]
    assert text.count(".learn(") == len(SHORTENED)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_block_runs(tmp_path, monkeypatch, capsys):
    """One after the other in one session; what they write goes to the folder they are run in."""
    monkeypatch.chdir(tmp_path)
    session: dict[str, object] = {"__name__": "readme"}
    for block in blocks():
        for words, short in SHORTENED.items():
            block = block.replace(words, short)
        exec(compile(block, str(README), "exec"), session)
    shown = capsys.readouterr().out
    assert "by brightness" in shown and "Gain(difference=" in shown
    assert (tmp_path / "runs" / "controller.safetensors").exists()
