"""What the file of a comparison, results.json, tells of how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def facts(content: dict[str, Any]) -> str:
    """One line: on what and where a comparison was made."""
    if not content.get("policies"):
        return "No comparison was found in this run."
    options, machine = content.get("options", {}), content.get("machine", {})
    images = {row["images"] for row in content["policies"]}
    parts = [
        f"{options.get('dataset', 'unknown data')}, {max(images, default=0):,} test images",
        f"seed {options.get('seed', 'unknown')}",
        str(machine.get("processor", "unknown processor")),
        f"torch {machine.get('torch', 'unknown')}",
    ]
    return ", ".join(parts) + ". Latency at batch 1, from the table."


def evaluate_command(run: Path, before: dict[str, str]) -> str:
    """What makes results.json and images.safetensors, of the controllers in the run.

    Args:
        run: the run's directory.
        before: options of an earlier comparison, whose images and weights are meant again.
    """
    words = ["instanas evaluate --out", str(run)]
    runs = sorted(str(path.parent) for path in run.glob("*/controller.safetensors"))
    if runs:
        words += ["--runs", *runs]
    for name in ("dataset", "data_dir", "meta_graph", "latency_table", "alone"):
        if before.get(name, "None") not in ("None", ""):
            words += ["--" + name.replace("_", "-"), before[name]]
    return " ".join(words)
