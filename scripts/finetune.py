"""Fine-tune a meta-graph under a fixed controller (section 3.1, stage three).

    instanas finetune --run runs/search --out runs/finetuned
    instanas finetune --run runs/search --prefer accuracy --out runs/finetuned_a
    instanas finetune --run runs/search --one-shot runs/one_shot --from-scratch --out runs/fixed_alone

Each training image goes through the network that the controller chooses for it. With a regression
controller, lambda is drawn for each image between the latencies that its search explored, so that its dial
stays usable; a pick (``--prefer``, see `instanas choose`) is trained at its own lambda alone.
Resumes where it was. Writes ``meta_graph.safetensors`` and copies the controller beside it. Several processes
share every batch under torchrun, see instanas_env.training.distributed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from agents.evaluation.picks import Pick
from agents.evaluation.scores import choose_masks, spread_over
from agents.learning import LearningAgent
from agents.reward_regression import RewardRegression
from agents.saved import TYPICAL, save_data, table_file, table_of
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.seeding import generator_for
from instanas_env.storage import write_atomic
from instanas_env.training.bound import check_same_images
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.epoch import accuracy
from instanas_env.training.fitting import Optimizer, Recipe, fit
from instanas_env.training.matching import CONTROLLER, META_GRAPH
from instanas_env.training.run_directory import FREE, RunDirectory
from instanas_env.training.teacher import load_teacher
from scripts.begin import begin, images_to_train
from scripts.comparison.fixed import as_fast_as, frontier_file
from scripts.comparison.picked import fixed_agent
from scripts.options import Compute, DataOfRun, Training, filled


@dataclass(frozen=True, kw_only=True)
class Numbers(Training):
    """How to fine-tune; an experiment has these in its preset."""

    controller: Path | None = None
    """Another controller for the meta-graph in ``run``, such as one of `instanas benchmark`."""
    masks: Literal["policy", "random", "all"] = "policy"
    """Random: any mask off the menu of a regression controller, whatever the image, so that all of them are
    good before a controller learns (again) to choose. All: every module, without a controller, such as those
    of a network trained alone."""
    epochs: int = 10
    learning_rate: float = 0.02
    """Peak; cosine to 0."""
    optimizer: Optimizer = "sgd"
    """SGD with Nesterov momentum, or Adam as in section 4.2."""
    teacher: Path | None = None
    """Weights of a network to imitate, such as MobileNetV2 trained alone; all its modules are on."""
    from_scratch: bool = False
    """Re-train from new weights (section 4.2) instead of the given ones."""


@dataclass(frozen=True, kw_only=True)
class Options(Numbers, Compute, DataOfRun):
    """What to fine-tune, on what, and how."""

    run: Path = field(kw_only=False)
    """Directory with meta_graph.safetensors and controller.safetensors, such as that of a search."""
    out: Path = field(kw_only=False)
    """Directory of this run."""
    prefer: Pick | None = None
    """Which of the trade-offs that `instanas choose` picked; by default the search's last controller."""
    one_shot: Path | None = None
    """Directory of `instanas oneshot`, whose best mask for all images alike takes the controller's place: the
    most accurate one that on validation is no slower. What a controller has to beat."""
    seed: int = 0


def main(options: Options, world: World = ALONE) -> None:
    """Train to the end, or from where an earlier call was stopped."""
    world = begin(options, world)
    options = filled(options, [options.run])
    assert options.dataset is not None
    run = RunDirectory(options.out, options, free=FREE, world=world)
    meta_graph = MetaGraph.load(options.run / META_GRAPH)
    source, agent = fixed_agent(options, meta_graph.space)
    if isinstance(agent, LearningAgent):
        agent.world = world
    space = agent.space
    files = {"run": options.run / META_GRAPH, "controller": source, "teacher": options.teacher}
    if options.one_shot is not None:  # the table chooses among its masks
        files |= {
            "one_shot": frontier_file(options.one_shot),
            "latency_table": table_file(options.run, space),
        }
    run.read(**files)
    new = options.from_scratch and options.optimizer == "sgd"  # then as `pretrain` and `baseline` begin
    if options.from_scratch:
        meta_graph = MetaGraph(space, meta_graph.num_classes, generator_for(options.seed))
    train, val = images_to_train(options, space.resolution, run)
    check_same_images((options.run,), options.dataset, "val", val)
    val_masks = space.repair(choose_masks(agent, val))
    table = table_of(options.run, space)
    if options.one_shot is not None:
        agent = as_fast_as(val_masks, agent, table, options.one_shot)
        val_masks = choose_masks(agent, val)

    def masks_for(images: Tensor, count: int, progress: float, generator: torch.Generator) -> Tensor:
        """The masks of a whole batch, ``(count, num_cells, num_modules)``, from this process's images."""
        if not isinstance(agent, RewardRegression) or options.prefer is not None:
            return world.gather(space.repair(agent.masks(images)), count)
        if options.masks == "random":
            return agent.arms.masks(agent.arms.random(1, count, generator)[0])
        assert agent.latencies is not None  # a saved one has them
        return space.repair(agent.spread_masks(images, agent.latencies, generator, count))

    fit(
        meta_graph,
        train,
        masks_for,
        lambda: {"policy": accuracy(meta_graph, val, val_masks, world)},
        meta_graph.save,
        run,
        Recipe.of(options, warmup_epochs=int(new), optimizer=options.optimizer),
        load_teacher(options.teacher, meta_graph.num_classes, world.device),
    )
    if world.is_main and source is not None:
        if options.one_shot is None:
            write_atomic(options.out / CONTROLLER, source.read_bytes())
        else:
            agent.save(options.out / CONTROLLER)
        save_data(options.out, train, table, val_masks[spread_over(len(val_masks), TYPICAL)])
