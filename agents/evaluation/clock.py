"""A policy's latency by the clock: its one ONNX file, with everything in it, on images one by one."""

from __future__ import annotations

from dataclasses import replace

import torch

from agents.agent import Agent
from agents.evaluation.scores import some_images
from agents.saved import TYPICAL
from instanas_env.bandit import InstanceBandit
from instanas_env.deploy.export import export
from instanas_env.deploy.profiling import EstimateQuality, time_file
from instanas_env.seeding import generator_for


def time_policy(
    test: InstanceBandit, agent: Agent, val: InstanceBandit, count: int
) -> EstimateQuality | None:
    """Milliseconds of the first ``count`` images of ``test``; None for an agent without an ONNX form."""
    if not agent.has_onnx:
        return None
    images = test.image_set
    typical = val.space.repair(agent.masks(some_images(val.image_set, TYPICAL)))
    data = replace(images.record, typical=typical)
    model = export(agent, test.meta_graph, test.latency_table, data)
    count = min(count, len(images))
    return time_file(model, images.images[torch.arange(count)], generator_for(0))
