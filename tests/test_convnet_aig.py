"""ConvNet-AIG: gate, divisor and rate loss by hand, and a toy meta-graph whose best masks are known."""

from __future__ import annotations

import math
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.convnet_aig import ConvNetAIG, logistic_noise, straight_through, target_rate_loss
from agents.files import load_agent
from instanas_env.networks.gated import gated_logits
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import load_checkpoint, save_checkpoint

LITE = SearchSpace.preset("lite")
TINY = SearchSpace.preset("lite", width=0.5)
NUM_IMAGES = 64
# The toy: two classes, two modules (cell, module) that speak for one of them each, and 83 that say nothing.
FOR_DARK, FOR_BRIGHT = (4, 1), (12, 3)


class Says(nn.Module):
    """A module that gives the same two values for every image, ``(B, 2, 1, 1)``; trainable."""

    def __init__(self, *values: float):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, x: Tensor) -> Tensor:
        return self.values.view(1, 2, 1, 1).repeat(len(x), 1, 1, 1)


def toy_graph(space: SearchSpace, values: dict[tuple[int, int], tuple[float, float]]) -> MetaGraph:
    """A meta-graph whose logits are the sum over cells of the mean of what their modules say."""
    meta_graph = MetaGraph(space, 2)
    meta_graph.stem, meta_graph.head = Says(0.0, 0.0), nn.Flatten()
    for t, cell in enumerate(meta_graph.cells):
        says = [Says(*values.get((t, m), (0.0, 0.0))) for m in range(space.num_modules)]
        cell.options = nn.ModuleList(says)
        cell.out_channels, cell.out_resolution, cell.keeps_shape = 2, 1, True
    return meta_graph


def toy_envs(num_envs: int = 32):
    """The real environment with noisy grey images, dark ones (even) of class 0 and bright ones of class 1."""
    envs = gym.make_vec("InstaNAS-v1", num_envs=num_envs, split="val")
    bandit = envs.unwrapped.bandit
    labels = torch.tensor([0, 1]).repeat(NUM_IMAGES // 2)
    noise = torch.randint(-40, 41, (NUM_IMAGES, 3, 32, 32), generator=generator_for(1))
    images = (60 + 130 * labels.reshape(-1, 1, 1, 1) + noise).to(torch.uint8)
    bandit.image_set = replace(bandit.image_set, images=images, labels=labels)
    bandit.meta_graph = toy_graph(LITE, {FOR_DARK: (4.0, 0.0), FOR_BRIGHT: (0.0, 4.0)})
    bandit.refresh()
    return envs


def flat_weights(module: nn.Module) -> Tensor:
    return torch.cat([tensor.flatten().float() for tensor in module.state_dict().values()])


def test_noise_golden_values():
    """u = 1/2 leaves a logit, 4/5 adds log 4; with l = log 3 a gate is on for u > 1/4: sigmoid(l) = 3/4."""
    assert logistic_noise(torch.tensor([0.5, 0.8])).tolist() == pytest.approx([0.0, math.log(4)], abs=1e-6)
    uniforms = (torch.arange(1000) + 0.5) / 1000
    assert (math.log(3) + logistic_noise(uniforms) > 0).sum() == 750
    assert logistic_noise(torch.tensor([0.0, 1.0])).isfinite().all()


@pytest.mark.parametrize(("logit", "value"), [(0.4, 1.0), (-0.4, 0.0)])
def test_the_gate_is_hard_forward_and_soft_backward(logit, value):
    """tau = 2, no noise: s = sigmoid(+-0.2), ds/dl = s (1 - s) / 2 = 0.5498 * 0.4502 / 2 = 0.12376."""
    x = torch.tensor(logit, requires_grad=True)
    soft = (x / 2.0).sigmoid()
    gate = straight_through(soft, x > 0)
    gate.backward()
    assert gate.item() == value
    assert (
        x.grad.item()
        == pytest.approx(soft.item() * (1 - soft.item()) / 2)
        == pytest.approx(0.12376, abs=1e-5)
    )


def test_target_rate_loss_golden_values():
    """Cell 0 runs 3 of 4 gates, cell 1 none: (3/4 - 1/2)^2 + (0 - 1/4)^2; slope 2 (z - t) / 4 each."""
    gates = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]], requires_grad=True)
    loss = target_rate_loss(gates, torch.tensor([0.5, 0.25]))
    loss.backward()
    assert loss.item() == pytest.approx(1 / 16 + 1 / 16)
    assert gates.grad[:, 0].flatten().tolist() == pytest.approx([2 * 0.25 / 4] * 4)
    assert gates.grad[:, 1].flatten().tolist() == pytest.approx([2 * -0.25 / 4] * 4)


@pytest.mark.parametrize(
    ("gates", "value", "gradient"),
    [
        ([1, 1, 0, 0, 0], 3.0, [0.5, -0.5, -1.0, -1.5, -1.5]),  # (f - mean) / 2
        ([1, 0, 0, 0, 0], 4.0, [4.0, 2.0, 1.0, 0.0, 0.0]),  # the divisor 1 is constant
        ([0, 0, 0, 0, 0], 0.0, [4.0, 2.0, 1.0, 0.0, 0.0]),
    ],
)
def test_a_gate_is_paid_for_the_difference_its_module_makes(gates, value, gradient):
    """One cell whose modules say 4, 2, 1, 0 and 0."""
    meta_graph = toy_graph(LITE, {(2, m): (float(v), 0.0) for m, v in enumerate((4, 2, 1))})
    x = torch.zeros(1, 17, 5)
    x[0, 2] = torch.tensor(gates).float()
    x.requires_grad_()
    logits = gated_logits(meta_graph, torch.zeros(1, 3, 32, 32), x)
    logits[0, 0].backward()
    assert logits.tolist() == [[value, 0.0]]
    assert x.grad[0, 2].tolist() == pytest.approx(gradient)


@settings(max_examples=8)
@given(keep=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_hard_gates_are_the_meta_graph(tiny_graph, keep, seed):
    generator = generator_for(seed)
    images = torch.randn(3, 3, 32, 32, generator=generator)
    masks = tiny_graph.space.random_masks(3, keep, generator)
    with torch.inference_mode():
        expected = tiny_graph(images, masks)
        assert (gated_logits(tiny_graph, images, masks.float()) - expected).abs().max() < (
            1e-5 * expected.abs().max()
        )


def test_it_solves_the_toy():
    """Target 0: where cells may stay empty, each image runs the one module that speaks for its class."""
    envs = toy_envs()
    agent = ConvNetAIG(envs, target=0.0, learning_rate=2e-2).learn(32 * 40)
    bandit = envs.unwrapped.bandit
    masks = agent.masks(bandit.image_set.images)
    expected = torch.zeros(NUM_IMAGES, 17, 5, dtype=torch.bool)
    for start, (cell, module) in enumerate((FOR_DARK, FOR_BRIGHT)):
        expected[start::2, cell, module] = True
    free = torch.tensor([cell.keeps_shape for cell in LITE.cells])
    assert torch.equal(masks[:, free], expected[:, free])
    assert (masks[:, ~free].sum(2) == 1).all(), "these run one module, since they must"


def test_rates_go_to_their_targets():
    """Where modules say nothing only the rates matter: cell 5 to 0.8, the others to 0.2 (sampled)."""
    envs = toy_envs()
    envs.unwrapped.bandit.meta_graph = toy_graph(LITE, {})
    target = [0.8 if t == 5 else 0.2 for t in range(17)]
    agent = ConvNetAIG(envs, target=target, learning_rate=2e-2, weight=10.0)
    rows = list(agent.train(32 * 25))
    images = envs.unwrapped.bandit.image_set.images
    rates = torch.stack([agent.masks(images, deterministic=False) for _ in range(20)]).float().mean((0, 1, 3))
    assert rates.tolist() == pytest.approx(target, abs=0.1)
    assert rows[0]["rate"] == pytest.approx(0.5, abs=0.05) and rows[-1]["rate"] < 0.3


def real_envs(num_envs: int = 8):
    """Real images, a fresh meta-graph of half the width."""
    envs = gym.make_vec("InstaNAS-v1", num_envs=num_envs, split="val")
    bandit = envs.unwrapped.bandit
    bandit.meta_graph = MetaGraph(TINY, 10, generator_for(3)).eval()
    bandit.space = TINY
    bandit.refresh()
    return envs


@pytest.mark.parametrize("rate", [0.0, 1e-3])
def test_the_meta_graph_is_trained_only_if_asked(rate):
    """Frozen, it keeps its weights and gets no gradients. Trained, the environment sees the new ones."""
    envs = real_envs()
    bandit = envs.unwrapped.bandit
    before = flat_weights(bandit.meta_graph)
    agent = ConvNetAIG(envs, meta_graph_learning_rate=rate)
    controller = flat_weights(agent.controller)
    (row,) = agent.train(8)
    assert math.isfinite(row["loss"]) and row["loss"] > row["cross_entropy"]
    assert not torch.equal(flat_weights(agent.controller), controller)
    changed = not torch.equal(flat_weights(bandit.meta_graph), before)
    assert changed == bool(rate)
    graded = [p.grad is not None for p in bandit.meta_graph.parameters()]
    assert all(graded) if rate else not any(graded)
    assert all(map(torch.equal, bandit.meta_graph.buffers(), MetaGraph(TINY, 10).buffers())), (
        "statistics stay"
    )
    images = bandit.image_set.normalize(bandit.image_set.images[torch.arange(4)])
    masks = TINY.full_mask().expand(4, -1, -1)
    folded = bandit.folded(images, masks)
    assert torch.allclose(folded, bandit.meta_graph(images, masks), atol=1e-4)


def test_in_another_environment_its_meta_graph_is_trained():
    """And no longer the first one's; the optimizer's state can still be taken."""
    one, other = real_envs(), real_envs()
    graphs = [each.unwrapped.bandit.meta_graph for each in (one, other)]
    agent = ConvNetAIG(one, meta_graph_learning_rate=1e-3).learn(8)
    first, second = map(flat_weights, graphs)
    agent.env = other
    agent.learn(8)
    assert torch.equal(flat_weights(graphs[0]), first) and not torch.equal(flat_weights(graphs[1]), second)
    assert len(agent.state_dict()["optimizer"]["param_groups"]) == 2


def test_save_and_load_predict_the_same(tmp_path):
    agent = ConvNetAIG(toy_envs(), target=[0.1] * 17, weight=2.0, temperature=0.5).learn(64)
    agent.save(tmp_path / "a.safetensors")
    loaded = load_agent(tmp_path / "a.safetensors")
    assert type(loaded) is ConvNetAIG
    for name in ConvNetAIG.hyperparameters:
        assert getattr(loaded, name) == getattr(agent, name), name
    images = agent.env.unwrapped.bandit.image_set.images
    assert torch.equal(loaded.masks(images), agent.masks(images))
    with pytest.raises(ValueError, match="^env: this agent was made without one"):
        loaded.learn(1)


@pytest.mark.parametrize("rate", [0.0, 1e-2])
def test_a_resumed_run_reaches_the_same_weights(rate, tmp_path):
    """Through a file, with a new agent on a new environment, whose meta-graph is brought along."""
    envs, others = toy_envs(), toy_envs()
    graphs = [each.unwrapped.bandit.meta_graph for each in (envs, others)]
    whole = ConvNetAIG(envs, meta_graph_learning_rate=rate).learn(96)
    state = {
        "agent": whole.state_dict(),
        "envs": envs.unwrapped.state_dict(),
        "graph": graphs[0].state_dict(),
    }
    save_checkpoint(tmp_path / "c.pt", state)
    state = load_checkpoint(tmp_path / "c.pt")
    resumed = ConvNetAIG(others, meta_graph_learning_rate=rate)
    resumed.load_state_dict(state["agent"])
    others.unwrapped.load_state_dict(state["envs"])
    graphs[1].load_state_dict(state["graph"])
    others.unwrapped.bandit.refresh()
    rows = [list(agent.train(96)) for agent in (whole, resumed)]
    assert rows[0] == rows[1]
    assert torch.equal(flat_weights(whole.controller), flat_weights(resumed.controller))
    assert torch.equal(*map(flat_weights, graphs)) and resumed.num_timesteps == 192


def test_the_seed_decides_everything():
    def trained(seed: int) -> Tensor:
        return flat_weights(ConvNetAIG(toy_envs(), seed=seed).learn(64).controller)

    first = trained(1)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    assert torch.equal(trained(1), first)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is not touched"
    assert not torch.equal(trained(2), first)


@given(seed=st.integers(0, 2**32 - 1), deterministic=st.booleans())
def test_masks_are_legal_whatever_the_controller_says(seed, deterministic):
    agent = ConvNetAIG(None, space=LITE, seed=seed)
    nn.init.normal_(agent.controller.output.weight, std=5.0, generator=generator_for(seed))
    nn.init.constant_(agent.controller.output.bias, -3.0)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator_for(seed, 1))
    masks = agent.masks(images, deterministic)
    assert masks.dtype == torch.bool and masks.shape == (8, 17, 5)
    assert torch.equal(LITE.repair(masks), masks)
    actions, _ = agent.predict(images.numpy(), deterministic=deterministic)
    assert actions.shape == (8, 85) and actions.dtype == np.int8


@pytest.mark.parametrize(
    "options",
    [
        {"target": 1.5}, {"target": [0.2] * 16}, {"weight": -1.0}, {"temperature": 0.0},
        {"meta_graph_learning_rate": -1e-3}, {"target": "often"},
        {"learning_rate": float("-inf")}, {"seed": -1},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_hyperparameters_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: "):
        ConvNetAIG(None, space=LITE, **options)
