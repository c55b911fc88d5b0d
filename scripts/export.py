"""A run as one ONNX file that onnxruntime runs without PyTorch: controller, meta-graph, class names.

    instanas export runs/finetuned model.onnx

Its input is ``image``, uint8 (1, 3, H, W); its outputs are ``logits``, ``mask`` and ``latency_ms``. Only
what the controller chose for the image runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from agents.evaluation.picks import Pick
from agents.saved import load_run
from instanas_env.deploy.export import export
from instanas_env.deploy.runtime import OnnxNetwork
from instanas_env.storage import write_atomic


@dataclass(frozen=True)
class Options:
    """What to export, and where to."""

    run: tyro.conf.Positional[Path]
    """Directory of a search, of fine-tuning or of early exits."""
    out: tyro.conf.Positional[Path]
    """The file to write, such as model.onnx."""
    prefer: Pick | None = None
    """Which of the trade-offs that `instanas choose` picked; by default the run's own controller."""
    dial: bool = False
    """Give the file a second input, `dial`, that replaces the trade-off of a regression controller."""


def main(options: Options) -> None:
    """Write the file, and say what is in it."""
    run = load_run(options.run, options.prefer)
    model = export(run.agent, run.meta_graph, run.table, run.data, options.dial)
    metadata = OnnxNetwork(model).session.get_modelmeta().custom_metadata_map  # onnxruntime takes it
    write_atomic(options.out, model)
    classes = len(json.loads(metadata["classes"]))
    print(f"wrote {options.out}: {metadata['policy']}, {classes} classes, {len(model) / 1e6:.1f} MB")
