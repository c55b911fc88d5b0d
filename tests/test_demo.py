"""Scripts from the command line: their help, and what the demo asks of the searches."""

from __future__ import annotations

import dataclasses
import runpy
import sys

import pytest
from pipeline_fixtures import ROOT

from agents.agent import native
from instanas_env.callbacks import MetaGraphUpdate
from instanas_env.storage import load_json, save_json
from scripts import demo, search, search_setup
from scripts.run_directory import RunDirectory

SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py") if "__main__" in path.read_text())
"""Files that can be run; the others are parts of them."""


def test_the_pipeline_has_its_verbs():
    pipeline = {"pretrain", "profile_latency", "search", "finetune", "evaluate", "figures"}
    assert pipeline | {"benchmark", "demo", "embed_images", "report"} <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_says_what_a_script_is_for(name, monkeypatch, capsys):
    """As ``python -m`` runs it, but without a process of its own: that would import torch nine times."""
    path = ROOT / "scripts" / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    first_line = path.read_text().split('"""')[1].splitlines()[0]
    assert first_line in shown
    assert "--help" in shown and "usage:" in shown


@pytest.mark.parametrize("argument", ["--no-such-option", "--epochs=many"])
def test_a_wrong_argument_stops_before_anything_is_written(argument, monkeypatch, capsys, tmp_path):
    path = ROOT / "scripts" / "demo.py"
    monkeypatch.setattr(sys, "argv", [str(path), argument])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    assert stop.value.code == 2
    assert list(tmp_path.iterdir()) == []
    assert argument.split("=")[0] in capsys.readouterr().err


def refuse_later(options: search.Options) -> RunDirectory:
    """A directory that belongs to just these options, but for one more that no search can have."""
    run = RunDirectory(options.out, options, free=("out", "data_dir"))
    save_json(options.out / "config.json", {**run.config, "stop here": True})
    return run


def expected(out, agent: str, frozen_epochs: int) -> search.Options:
    chosen = {"epochs": 5, "frozen_epochs": frozen_epochs, "seed": 3, "threads": 1}
    return search.Options(out=out / agent, agent=agent, **chosen)


def test_options_reach_the_search_with_reward_regression(tmp_path):
    """Half of the epochs, rounded down, are frozen. Any other difference would be named as well."""
    refuse_later(expected(tmp_path, "regression", frozen_epochs=2))
    with pytest.raises(ValueError, match="/regression holds a run with other stop here;"):
        demo.main(demo.Options(tmp_path, epochs=5, seed=3, threads=1))


def test_a_finished_search_is_passed_over_and_options_reach_the_next(tmp_path):
    """The first search has its five rows already; the second is refused. The demo goes on after a stop."""
    done = expected(tmp_path, "regression", frozen_epochs=2)
    run, envs = (
        RunDirectory(done.out, done, free=("out", "data_dir")),
        search_setup.make_envs(done, "train", 256),
    )
    agent, bandit = search_setup.make_agent(done, envs, 4000), native(envs).bandit
    state = {
        "agent": agent.state_dict(),
        "meta_graph": bandit.meta_graph.state_dict(),
        "update": MetaGraphUpdate().state_dict(),
        "envs": native(envs).state_dict(),
    }
    for epoch in range(5):
        run.checkpoint({"epoch": epoch + 1}, state)
    refuse_later(expected(tmp_path, "reinforce", frozen_epochs=0))
    with pytest.raises(ValueError, match="/reinforce holds a run with other stop here;"):
        demo.main(demo.Options(tmp_path, epochs=5, seed=3, threads=1))
    assert (done.out / "controller.safetensors").is_file()
    assert load_json(done.out / "config.json")["epochs"] == 5


def test_the_demo_is_small_by_default():
    """Minutes on a laptop: both searches and the comparison share these numbers."""
    defaults = dataclasses.asdict(demo.Options())
    assert defaults["epochs"] <= 10 and defaults["one_shot_masks"] <= 500
