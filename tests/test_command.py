"""The command ``instanas``: its help, its errors, its exit codes; and options that reach what they name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib import import_module

import pytest

from scripts import benchmark
from scripts.__main__ import PLACES, VERBS, main
from scripts.comparison.policies import MAKERS
from tests.tools.pipeline_fixtures import ROOT, image_folder


def test_the_help_fits_on_a_screen(capsys):
    """24 lines of 110 characters, with every verb."""
    assert main([]) == main(["--help"]) == 0
    shown = capsys.readouterr().out
    lines = shown[: len(shown) // 2].splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 110
    for verb in VERBS:
        assert any(line.startswith(f"  {verb} ") for line in lines)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_says_what_it_is_for(verb, monkeypatch, capsys):
    """Its first line is the verb's docstring's; the usage names the command, not a file."""
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    first_line = str(import_module(PLACES.get(verb, f"scripts.{verb}")).__doc__).splitlines()[0]
    assert first_line in shown and f"usage: instanas {verb}" in shown


def test_an_unknown_verb_is_told_the_known_ones(capsys):
    assert main(["serach"]) == 2
    assert "unknown verb 'serach'; choose from demo, pretrain" in capsys.readouterr().err


def test_the_user_s_error_is_one_line_and_exit_code_2(tmp_path, capsys):
    """And nothing is written: the corrected call may use the same folder."""
    out = tmp_path / "run"
    assert main(["search", "reinforce", "--out", str(out), "--dataset", "nope"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("instanas search: dataset: unknown 'nope'; choose from ")
    assert len(shown.splitlines()) == 1 and not out.exists()


def test_an_error_of_ours_keeps_its_traceback(monkeypatch, tmp_path):
    monkeypatch.setenv("INSTANAS_DEBUG", "1")
    with pytest.raises(ValueError, match="^dataset: unknown"):
        main(["search", "reinforce", "--out", str(tmp_path / "run"), "--dataset", "nope"])


@pytest.mark.parametrize("argument", ["--no-such-option", "--epochs=many", "--dial=1"])
def test_a_wrong_argument_stops_before_anything_is_written(argument, capsys, tmp_path):
    """An option of another agent is as wrong as one of none."""
    with pytest.raises(SystemExit) as stop:
        main(["search", "reinforce", "--out", str(tmp_path / "run"), argument])
    assert stop.value.code == 2
    assert list(tmp_path.iterdir()) == []
    assert argument.split("=")[0] in capsys.readouterr().err


def test_ctrl_c_while_a_library_is_imported_is_no_exception_of_python_s(monkeypatch, capsys):
    """A KeyboardInterrupt that C code met would end Python with another code, though it was caught."""
    monkeypatch.setattr("scripts.__main__.run", lambda verb, rest: os.kill(os.getpid(), signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    assert main(["export", "run", "model.onnx"]) == 130
    assert "instanas export: stopped; the same command starts anew" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_says_so_and_ends_with_the_signal_s_code(number, code, tmp_path):
    """It stopped after a checkpoint: what it says is true, see test_search for what comes of it."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "scripts", "search", "regression", "--out", str(out), "--epochs", "500"]
    command += ["--dataset", "folder", "--data-dir", str(image_folder()), "--num-envs", "16"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell ignores Ctrl-C for what it runs in the background, and so do all processes below.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not (out / "checkpoint.pt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, shown = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert "instanas search: stopped; the same command goes on where it was" in shown
    assert "Traceback" not in shown


def test_the_benchmark_names_every_policy():
    """Its help lists the policies that it knows."""
    listed = str(benchmark.__doc__).split("(")[1].split(")")[0].replace(";", ",").replace("\n", " ")
    listed = listed.replace("of Stable-Baselines3:", "")
    assert {name.strip() for name in listed.split(",")} == set(MAKERS)


@pytest.mark.parametrize(
    ("env", "option", "value"),
    [
        ("InstaNAS-v1", "table", "t.npz"),
        ("InstaNASTabular-v1", "dataset", "fashion_mnist"),
        ("InstaNASTabular-v1", "meta-graph", "m.safetensors"),
        ("InstaNASTabular-v1", "latency-table", "l.json"),
    ],
)
def test_the_benchmark_refuses_what_its_environment_does_not_read(tmp_path, capsys, env, option, value):
    out = tmp_path / "run"
    assert main(["benchmark", "--out", str(out), "--env", env, f"--{option}", value]) == 2
    shown = capsys.readouterr().err
    assert f"{option.replace('-', '_')}: {env} reads none; leave it out" in shown and not out.exists()
