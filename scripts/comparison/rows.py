"""The rows of a comparison: every policy touches the test split once, here.

A row, in results.json as in benchmark.json, has "policy" (its name, without the seed), "seed", and "test":
its :class:`agents.evaluation.scores.Scores`. In results.json it also has "group" (policies of one group make
a line in the figures), for a controller "masks" (its distinct networks) and "controls", and what is known of
a network trained alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.agent import NETWORK, Agent
from agents.evaluation.alone import LoneNetwork
from agents.evaluation.awareness import measure
from agents.evaluation.clock import real_latency
from agents.evaluation.controls import Controls
from agents.evaluation.difficulty import difficulty
from agents.evaluation.image_record import Choices, choices, distinct
from agents.evaluation.over_seeds import gains
from agents.evaluation.scores import Scores, choose_answers, choose_masks, some_images
from agents.reward_regression import RewardRegression
from instanas_env.bandit import InstanceBandit, Outcome
from instanas_env.data import ImageSet
from instanas_env.deploy.timing import Backend, time_networks
from instanas_env.search_space import as_text
from instanas_env.seeding import generator_for
from scripts.comparison.kept import Kept, Made
from scripts.comparison.tables import reference_of

SEED = re.compile(r"_seed(\d+)")
"""In the name of a policy that was made again with another seed."""


class Comparison:
    """Collects the rows of the table.

    Args:
        image_set: the test split.
        seed: of what is shuffled and timed.
        backend: what latencies are measured with by the clock; None leaves them out.
        losses: how hard each image is, ``(N,)``: the loss of a network trained alone; None if there is none.
        kept: where the rows of each :meth:`part` are kept; None keeps none.

    Attributes:
        rows: for results.json.
    """

    def __init__(
        self,
        image_set: ImageSet,
        seed: int = 0,
        backend: Backend | None = None,
        losses: Tensor | None = None,
        kept: Kept | None = None,
    ):
        self.image_set = image_set
        self.losses = losses
        self.kept = kept
        self.seed = seed
        self.backend = backend
        self.rows: list[dict[str, Any]] = []
        self._by_image: list[dict[str, Tensor]] = []  # beside each row; "network" only with a controller

    @property
    def choices(self) -> dict[str, Choices]:
        """Which image got which network, of each policy with a controller (its first seed)."""
        first: dict[str, tuple[int, Choices]] = {}
        for row, found in zip(self.rows, self._by_image, strict=True):
            policy, seed = row["policy"], row["seed"]
            if "network" in found and (policy not in first or seed < first[policy][0]):
                first[policy] = seed, Choices(**found)
        return {policy: chosen for policy, (_, chosen) in first.items()}

    @property
    def gains(self) -> list[dict[str, Any]]:
        """Who is more accurate than whom, see :func:`agents.evaluation.over_seeds.gains`."""
        right = [found["correct"].numpy() for found in self._by_image]
        alone = reference_of([row for row in self.rows if "parameters" in row])
        return gains(self.rows, right, None if alone is None else alone["policy"])

    def part(self, name: str, depends: Mapping[str, Any], add: Callable[[], None]) -> None:
        """The rows that ``add`` adds to this comparison, or those that an earlier call has kept.

        Args:
            name: of this part.
            depends: what its rows depend on besides what all parts do.
            add: calls other methods of this comparison.
        """
        start = len(self.rows)

        def make() -> Made:
            """Add the rows; what is kept of them."""
            add()
            numbered = enumerate(self._by_image[start:])
            tensors = {f"{n}.{key}": value for n, found in numbered for key, value in found.items()}
            return tensors, {"rows": self.rows[start:]}

        tensors, made = make() if self.kept is None else self.kept.get(name, depends, make)
        self.rows[start:] = made["rows"]
        self._by_image[start:] = [
            {key: tensors[f"{n}.{key}"] for key in ("network", "correct") if f"{n}.{key}" in tensors}
            for n in range(len(made["rows"]))
        ]

    def add(self, group: str, name: str, bandit: InstanceBandit, agent: Agent) -> Outcome:
        """Score a policy and keep its row; gives what became of each image."""
        scores, outcome = measure(bandit, agent, generator_for(self.seed, 8))
        masks = torch.from_numpy(outcome.mask)
        if self.backend is not None:
            generator = generator_for(self.seed, 7)
            scores = replace(
                scores, clock_ms=real_latency(bandit, agent, masks, generator, backend=self.backend)
            )
        if self.losses is not None and scores.networks > 1:
            hard = difficulty(outcome.latency_ms, self.losses.numpy(), outcome.label)
            scores = replace(scores, **hard)
        found = vars(choices(outcome))
        if agent.controller is None:
            self._keep(group, name, scores, {"correct": found["correct"]})
        else:
            self._keep(group, name, scores, found, masks=networks(outcome))
        return outcome

    def add_search(
        self,
        name: str,
        agent: Agent,
        val: InstanceBandit,
        test: InstanceBandit,
        dial: Sequence[float],
        controls: Callable[..., Controls] | None,
    ) -> None:
        """Add a row for each setting of a controller's dial, with its controls.

        One mask for all (an agent without a controller) has no controls: it is a fixed mask itself.

        Args:
            name: of the policy.
            agent: the controller.
            val, test: the meta-graph of its search on two splits.
            dial: settings, in multiples of MobileNetV2's latency.
            controls: makes the controls of ``val``, ``test``, and the masks on validation at each setting;
                None where there are none.
        """
        settled, unit = [], val.latency_table.reference("mobilenet_v2")
        for latency_ms in settings(agent, val, [factor * unit for factor in dial]):
            label = name if latency_ms is None else f"{name}, dial {latency_ms / unit:g}"
            correct = self.add(name, label, test, agent).correct
            if agent.controller is not None:
                run = choose_answers(agent, val.image_set) == NETWORK
                on_val = val.space.repair(choose_masks(agent, val.image_set))[run]
                if len(on_val):
                    settled.append((self.rows[-1], on_val, correct, len(on_val) / len(run)))
        if not settled or controls is None:
            return
        made = controls(val, test, [on_val for _, on_val, _, _ in settled])
        for row, on_val, correct, part in settled:
            row["controls"] = found = made.of(on_val, correct, part)
            if (static := found["static_with_controller_time"]) is not None:
                gain = static["gain"]
                row["test"]["over_static_accuracy"] = gain["difference"]
                row["test"] |= {f"over_static_accuracy_{end}": gain[end] for end in ("low", "high")}
            row["test"]["oracle_accuracy"] = found["oracle"]["any_right"]

    def add_network(
        self, bandit: InstanceBandit, lone: LoneNetwork, latency: tuple[float, dict[str, Any]]
    ) -> None:
        """A network trained alone: its ``latency`` in ms, and what else its row tells of it.

        The bandit's window judges the latency, as it does those of its own masks.
        """
        clock_ms = None
        if self.backend is not None:
            side, generator = lone.resolution, generator_for(self.seed, 7)
            clock_ms = time_networks([lone.network], side, generator, backend=self.backend).item()
        latency_ms, source = latency
        correct = lone.correct(self.image_set, bandit.device)
        cost = torch.full(correct.shape, latency_ms, dtype=torch.float64)
        earned = bandit.pay(correct, cost)[2]
        arrays = {"correct": correct, "latency_ms": cost, "reward": earned}
        outcome = SimpleNamespace(**{name: value.numpy() for name, value in arrays.items()}, networks=1)
        scores = Scores.of(outcome, clock_ms=clock_ms)
        scores = replace(scores, latency_ms=latency_ms, reward=float(earned.mean()))
        own = {"parameters": lone.parameters, "mmacs": lone.mmacs, **source}
        self._keep(lone.family, lone.name, scores, {"correct": correct.to(torch.uint8)}, **own)

    def _keep(
        self, group: str, name: str, scores: Scores, by_image: Mapping[str, Tensor], **more: Any
    ) -> None:
        policy, group = (SEED.sub("", text) for text in (name, group))
        seed = int(found[1]) if (found := SEED.search(name)) else 0
        row = {"policy": policy, "seed": seed, "group": group, "test": scores.known(), **more}
        self.rows.append(row)
        self._by_image.append(dict(by_image))


def settings(agent: Agent, val: InstanceBandit, latencies_ms: Sequence[float]) -> Iterator[float | None]:
    """Each mean latency, ms, when the agent's dial is set to it on validation images.

    An agent without a dial, or with no settings for it, is taken as it is, once: None.
    """
    if not isinstance(agent, RewardRegression) or not latencies_ms:
        yield None
        return
    images = some_images(val.image_set)
    for latency_ms in latencies_ms:
        agent.dial(images, latency_ms)
        yield latency_ms


def networks(outcome: Outcome) -> list[dict[str, Any]]:
    """The distinct networks of a policy: mask as a string of bits, latency in ms, number of images.

    The empty one is that of images that the controller answered itself.
    """
    masks, position, first = distinct(outcome)
    bits = as_text(torch.from_numpy(masks))
    latency_ms = [round(float(ms), 4) for ms in outcome.latency_ms[first]]
    found = zip(bits, latency_ms, np.bincount(position).tolist(), strict=True)
    return [{"mask": mask, "latency_ms": ms, "images": images} for mask, ms, images in found]
