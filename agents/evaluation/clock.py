"""A policy's latency by the clock, images one by one: of its one ONNX file, or of separate networks."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from agents.agent import Agent
from agents.evaluation.scores import some_images
from agents.saved import TYPICAL
from instanas_env.bandit import InstanceBandit
from instanas_env.deploy.export import export
from instanas_env.deploy.profiling import EstimateQuality, time_children, time_file
from instanas_env.deploy.timing import Backend, deployed, low, random_image, time_interleaved
from instanas_env.networks.modules import fold_batch_norm
from instanas_env.seeding import generator_for


def time_policy(
    test: InstanceBandit, agent: Agent, val: InstanceBandit, count: int
) -> EstimateQuality | None:
    """Milliseconds of ``count`` images of ``test``; None for an agent without an ONNX form."""
    if not agent.has_onnx:
        return None
    images = test.image_set
    typical = val.space.repair(agent.masks(some_images(val.image_set, TYPICAL)))
    data = replace(images.record, typical=typical)
    model = export(agent, test.meta_graph, test.latency_table, data)
    return time_file(model, some_images(images, count), generator_for(0))


def real_latency(
    bandit: InstanceBandit,
    agent: Agent,
    masks: Tensor,
    generator: torch.Generator,
    images: int = 40,
    repetitions: int = 15,
    backend: Backend = "onnx",
) -> float:
    """Mean measured milliseconds of one image: the agent's controller, then a separate child network, or
    none where the controller answers (an empty mask).

    Args:
        bandit: gives the meta-graph.
        agent: its controller, if any, is run before every child.
        masks: repaired masks of the split, empty where the agent answered; ``images`` of them are drawn
            and timed.
        generator: CPU generator.
        images: number of masks drawn.
        repetitions: of each distinct child; the 20th percentile counts.
        backend: what runs them; see :func:`time_children`.
    """
    drawn = masks[torch.randperm(len(masks), generator=generator)[:images]]
    distinct, position = torch.unique(drawn.flatten(1), dim=0, return_inverse=True)
    controller = None if agent.controller is None else fold_batch_norm(agent.controller)
    if controller is not None and backend == "eager":
        controller.to(bandit.device)
    runs = distinct.any(1)
    times = torch.zeros(len(distinct), dtype=torch.float64)
    if runs.any():
        children = distinct[runs].view(-1, *masks.shape[1:])
        times[runs] = time_children(
            bandit.meta_graph, children, generator, repetitions, controller, backend=backend
        )
    if controller is not None and not runs.all():  # the others take no more than it
        device = bandit.device if backend == "eager" else None
        image = random_image(bandit.space.resolution, generator, device)
        choose = deployed(controller, image, backend)
        times[~runs] = low(time_interleaved([choose], repetitions, generator, image.device))
    return times[position].mean().item()
