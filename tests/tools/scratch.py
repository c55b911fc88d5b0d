"""A latency table and options of an environment that needs none of the shipped weights and tables."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from instanas_env.latency import LatencyTable
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for

_FOLDER = Path(tempfile.mkdtemp(prefix="instanas-scratch-"))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)

TABLE = _FOLDER / "latency.json"
_COSTS = torch.rand(17, 5, dtype=torch.float64, generator=generator_for(0)) + 0.01
LatencyTable(SearchSpace.preset("lite"), _COSTS, fixed=0.1).save(TABLE)

SCRATCH: dict[str, Any] = {"meta_graph": "random", "latency_table": str(TABLE), "split": "val"}
"""Untrained weights; hand them to ``gym.make`` and ``gym.make_vec``."""
