"""What the files of a run hold, read when a part of the report asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from agents.evaluation.image_record import Choices, ImageRecord
from agents.evaluation.over_seeds import by_policy
from agents.evaluation.picks import CHOICES
from instanas_env.build import shipped
from instanas_env.storage import load_json
from instanas_env.training.bound import IMAGE_SETS
from scripts.comparison.tables import rival_pair
from scripts.report.figures_search import History, load_search_history
from scripts.report.printed import System, printed_for


class Missing(Exception):
    """A part of the report cannot be drawn: what is missing, and the command that would make it."""

    def __init__(self, what: str, command: str):
        super().__init__(what)
        self.what = what
        self.command = command


class RunFiles:
    """The files in the directory ``run``; what is not there raises :class:`Missing`.

    Attributes:
        name: of the run.
        content: results.json, empty if there is none.
        benchmark: benchmark.json, empty if there is none.
        rows: of results.json, one for each policy and seed.
    """

    def __init__(self, run: Path):
        self.run = run
        self.name = run.resolve().name
        self.content: dict[str, Any] = _read(run / "results.json")
        self.benchmark: dict[str, Any] = _read(run / "benchmark.json")
        self.rows: list[dict[str, Any]] = self.content.get("rows", [])

    @property
    def policies(self) -> list[dict[str, Any]]:
        """All policies of the comparison: means over seeds."""
        if found := self.content.get("policies") or self.benchmark.get("policies"):
            return found
        raise self.lacks("no comparison of policies (results.json)")

    @property
    def ranked(self) -> list[dict[str, Any]]:
        """The policies of the benchmark, with all that a leaderboard shows."""
        return self.benchmark["policies"]

    @property
    def printed(self) -> tuple[System, ...]:
        """What the paper prints for the run's data set; nothing for others."""
        images = self.content.get(IMAGE_SETS, {}).get("test", {})
        return printed_for(self.content.get("options", {}).get("dataset", ""), images.get("classes", ()))

    @cached_property
    def learned(self) -> list[dict[str, Any]]:
        """The rows of controllers, of each policy's first seed; at least one."""
        _ = self.policies
        first = [members[0] for members in by_policy(self.rows).values()]
        if learned := [row for row in first if row.get("masks")]:
            return learned
        raise self.lacks("a comparison, but no controller in it")

    @property
    def gains(self) -> list[dict[str, Any]]:
        """Who is more accurate than whom, see :func:`agents.evaluation.over_seeds.gains`."""
        return self.content.get("gains", [])

    @cached_property
    def by_image(self) -> tuple[dict[str, Any], Choices, ImageRecord]:
        """The policy that the page is about, which image got which of its networks, and the images."""
        row, file = claimed(self.learned, self.gains), self.run / "images.safetensors"
        if not file.exists():
            raise self.lacks("no record of which image got which network (images.safetensors)")
        record = ImageRecord.load(file)
        choices = record.policies.get(row["policy"])
        images = [network["images"] for network in row["masks"]]
        if choices is None or np.bincount(choices.network, minlength=len(images)).tolist() != images:
            raise self.lacks("a record of images from another comparison (images.safetensors)")
        return row, choices, record

    @property
    def histories(self) -> list[tuple[str, History]]:
        """Name and epochs of each search in the run."""
        found = [(path.parent.name, load_search_history(path)) for path in self._files("history.jsonl")]
        if searches := [(name, rows) for name, rows in found if rows]:
            return searches
        raise Missing("no history of a search", f"instanas search --out {self.run / 'search'}")

    @property
    def choices(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and picks of each search in the run."""
        return [(path.parent.name, load_json(path)) for path in self._files(CHOICES)]

    @property
    def estimate(self) -> dict[str, Any]:
        """What the run's latency table tells of networks that were measured; without one, the shipped one."""
        own = self.run / "latency.json"
        given = Path(self.content.get("options", {}).get("latency_table", ""))
        file = next((path for path in (own, given) if path.is_file()), shipped("latency/lite.json"))
        if found := load_json(file)["record"].get("estimate"):
            return {"table": "the run's table" if file in (own, given) else "the shipped table", **found}
        raise Missing("a latency table without measured networks", f"instanas profile --out {own}")

    def lacks(self, what: str) -> Missing:
        """What `instanas evaluate` would make, of the controllers in the run and the images of before."""
        words = ["instanas evaluate --out", str(self.run)]
        if runs := sorted(str(path.parent) for path in self.run.glob("*/controller.safetensors")):
            words += ["--runs", *runs]
        before = self.content.get("options", {})
        for name in ("dataset", "data_dir", "meta_graph", "latency_table", "alone"):
            if before.get(name, "None") not in ("None", ""):
                words += ["--" + name.replace("_", "-"), before[name]]
        return Missing(what, " ".join(words))

    def _files(self, name: str) -> list[Path]:
        """Those of the run itself and of the directories in it."""
        paths = (self.run.resolve() / name, *sorted(self.run.glob(f"*/{name}")))
        return [path for path in paths if path.exists()]


def _read(file: Path) -> dict[str, Any]:
    return load_json(file) if file.exists() else {}


def claimed(learned: list[dict[str, Any]], gains: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The policy that the page is about: the one with most networks, the user's before a shipped one.

    Those with a rival come first, then those with controls: a policy whose meta-graph was trained anew has
    none (see compare.py).
    The rule looks at neither accuracy nor time, so that the claim is not the luckiest of several.
    """
    own = [row for row in learned if len(row["masks"]) > 1 and "(shipped)" not in row["policy"]]
    rivalled = [row for row in own if rival_pair(row["policy"], gains)]
    controlled = [row for row in own if "controls" in row]
    return max(rivalled or controlled or own or learned, key=lambda row: len(row["masks"]))
