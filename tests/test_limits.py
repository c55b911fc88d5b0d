"""Options that cannot be are refused by name before anything is read or written."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from scripts.__main__ import main
from scripts.options import check_options


@dataclass(frozen=True)
class Inner:
    learning_rate: float = 0.1


@dataclass(frozen=True)
class Options:
    epochs: int = 1
    batch_size: int = 2
    wrong_reward: float = -1.0
    modules: tuple[int, ...] = (0, 2)
    trust: bool = False
    horizon: int | None = None
    agent: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", -1),
        ("batch_size", 1),
        ("wrong_reward", float("nan")),
        ("modules", (0, -2)),
        ("learning_rate", -0.1),
        ("learning_rate", float("inf")),
    ],
)
def test_numbers_have_limits_by_their_names(name, value):
    check_options(Options())
    options = Options(agent=Inner(value)) if name == "learning_rate" else Options(**{name: value})
    with pytest.raises(ValueError, match=f"^{name}: got "):
        check_options(options)


@pytest.mark.parametrize(
    "arguments",
    [
        ["oneshot", "--chunk", "0"],
        ["oneshot", "--seed", "-1"],
        ["tabulate", "--threads", "0"],
        ["benchmark", "--masks", "0"],
        ["benchmark", "--policies", "fixed", "nope"],
        ["search", "regression", "--learning-rate", "nan"],
    ],
)
def test_the_command_names_the_option_and_writes_nothing(arguments, tmp_path, capsys):
    """A policy that cannot be made is known before the first is trained."""
    out = tmp_path / "out"
    assert main([*arguments, "--out", str(out)]) == 2
    name = next(each for each in reversed(arguments) if each.startswith("--"))[2:].replace("-", "_")
    assert f": {name}: " in capsys.readouterr().err and not out.exists()
