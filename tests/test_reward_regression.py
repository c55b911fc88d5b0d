"""Reward regression: its policy by hand, and a toy whose P(correct) is the model's own formula."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from instanas_env.latency import LatencyTable
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import load_checkpoint, save_checkpoint
from tests.tools.toys import NUM_IMAGES, are_bright, dark_and_bright_envs, flat_weights

pytestmark = pytest.mark.usefixtures("one_meta_graph")
LITE = SearchSpace.preset("lite")
WIDE = SearchSpace.preset("lite", width=4)  # where seven cells change shape; in lite itself five do
NEEDED = 5
# Module m of every cell costs m + 1 ms.
TABLE = LatencyTable(WIDE, torch.arange(1.0, 6.0).double().expand(17, 5), fixed=0.0)
IMAGE = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)


def agent_with_gains(gains: Tensor, trade_off: float, table: LatencyTable = TABLE) -> RewardRegression:
    """An agent whose w(x) is ``gains`` ``(17, 5)`` for every image: the last layer's bias.

    With b(x) such that an average network is right with p = 1/2: a logit is then worth p (1 - p) = 1/4.
    """
    agent = RewardRegression(None, trade_off, space=WIDE, table=table)
    with torch.no_grad():
        agent.controller.network.output.bias[0] = -gains.mean(1).sum()
        agent.controller.network.output.bias[1:] = gains.flatten()
    return agent


def test_policy_golden_values():
    """lambda = 0.05: module m must gain more than 0.05 (m + 1) / (1/4) = 0.2 (m + 1) logits. Cells 0 and 1
    change shape, cell 2 does not.

    Cell 0: 0.3 > 0.2 and 0.7 > 0.6, the others fall short. Cell 1: nothing is worth it; the surpluses are
    -1.2, -1.3, -1.4, -0.9 and -1.2, so module 3 stays. Cell 2: nothing is worth it, and nothing is needed.
    """
    gains = torch.full((17, 5), -9.0)
    gains[0] = torch.tensor([0.3, 0.3, 0.7, 0.7, 0.9])
    gains[1] = gains[2] = torch.tensor([-1.0, -0.9, -0.8, -0.1, -0.2])
    mask = agent_with_gains(gains, 0.05).masks(IMAGE)[0]
    assert mask[0].tolist() == [True, False, True, False, False]
    assert mask[1].tolist() == [False, False, False, True, False]
    assert not mask[2].any()
    assert torch.equal(WIDE.repair(mask), mask)
    assert mask.any(1).tolist() == [not cell.keeps_shape or t == 0 for t, cell in enumerate(WIDE.cells)]


@given(seed=st.integers(0, 2**32 - 1), trade_offs=st.tuples(st.floats(0.01, 3), st.floats(0.01, 3)))
def test_a_larger_trade_off_never_lengthens_latency(seed, trade_offs):
    generator = generator_for(seed)
    costs = torch.rand(17, 5, dtype=torch.float64, generator=generator)
    agent = agent_with_gains(torch.randn(17, 5, generator=generator), 0.1, replace(TABLE, modules=costs))
    latencies = []
    for trade_off in sorted(trade_offs):
        agent.trade_off = trade_off
        latencies.append(costs[agent.masks(IMAGE)[0]].sum().item())
    assert latencies[1] <= latencies[0]


def graded_agent() -> RewardRegression:
    """Module 0 (1 ms) of the ten cells that may stay empty gains 0.4, 0.8, ... 4.0 logits, so is worth 0.1,
    0.2, ... 1.0; stem and head take 5 ms.

    So 7 + 5 ms are needed, and lambda between 0.1 k and 0.1 (k + 1) buys 10 - k ms more.
    """
    gains = torch.full((17, 5), -100.0)
    gains[:, 0] = 0.0
    free = [t for t, cell in enumerate(WIDE.cells) if cell.keeps_shape]
    gains[free, 0] = torch.arange(1, 11) * 0.4
    return agent_with_gains(gains, 0.1, replace(TABLE, fixed=5.0))


@pytest.mark.parametrize(("latency", "trade_off"), [(12 + 4, 0.6), (12 + 9.5, 0.1), (1.0, 1.0), (1e6, 0.1)])
def test_the_dial_finds_the_trade_off_of_a_latency(latency, trade_off):
    """Four modules remain from lambda = 0.6 on; out of reach, the dial stops at the last step within."""
    agent = graded_agent()
    assert agent.dial(IMAGE.expand(600, -1, -1, -1), latency) == agent.trade_off
    assert agent.trade_off == pytest.approx(trade_off, rel=1e-5)


def test_masks_spread_between_two_latencies():
    """Lambda from 0.4 to 0.8 buys 6 to 3 of the ten modules; one more or less where it meets a step."""
    masks = graded_agent().spread_masks(IMAGE.expand(500, -1, -1, -1), (12 + 2, 12 + 6), generator_for(0))
    counts = masks.sum((1, 2)) - 7
    assert {3, 4, 5, 6} <= set(counts.tolist()) <= {2, 3, 4, 5, 6, 7}
    assert RewardRegression(None, space=WIDE, table=TABLE).latencies == (7.0, 17 * 15 / 3)


def logistic_envs(num_envs: int = 64, chance: int = 0):
    """The real environment, but P(correct) is sigmoid(-2 + 4 m) of one module m, which takes 1 ms.

    It is one of cell 2 on bright images and one of cell 8 on dark ones; no other module is worth anything.
    """
    envs = dark_and_bright_envs(num_envs)
    bandit, generator = envs.unwrapped.bandit, generator_for(chance, 2)
    bandit.latency_table = bandit.cost_table = replace(TABLE, space=LITE, modules=torch.ones(17, 5).double())

    def predict(contexts, masks: Tensor) -> Tensor:
        bright = are_bright(contexts.images)
        on = torch.where(bright, masks[..., 2, 1], masks[..., 8, 3])
        correct = torch.rand(on.shape, generator=generator) < (4.0 * on - 2).sigmoid()
        return (~correct).long()

    bandit._predict = predict
    return envs


def test_it_learns_which_module_an_image_needs():
    """4 logits for 1 ms are worth more than lambda = 0.25; what is worth nothing is not switched on.

    Correct with the module: sigmoid(2) = 0.88, without it 0.12; to first order, from a network that has a
    fifth of it, sigmoid(-1.2) = 0.23, it is worth 0.23 * 0.77 * 4 = 0.71; five cells need one module in any
    case.
    """
    envs = logistic_envs()
    agent = RewardRegression(envs, trade_off=0.25, learning_rate=1e-2, random_timesteps=10**6)
    agent.learn(64 * 150)
    images = envs.unwrapped.bandit.image_set.images
    masks = agent.masks(images)
    bright = torch.tensor([False, True]).repeat(NUM_IMAGES // 2)
    assert (masks[:, 2, 1] == bright).float().mean() >= 0.95
    assert (masks[:, 8, 3] == ~bright).float().mean() >= 0.95
    assert masks.sum((1, 2)).float().mean().item() == pytest.approx(NEEDED + 1, abs=1)
    base, gains, _ = agent.controller.eval()(images)
    gains = gains.view(-1, 17, 5)
    chosen = torch.where(bright, gains[:, 2, 1], gains[:, 8, 3])
    assert chosen.mean().item() == pytest.approx(4, abs=1.2)
    assert gains.mean().item() == pytest.approx(4 / 85, abs=0.1)


def test_it_explores_its_policy_after_the_random_masks():
    """64 random images at every density, then those of the (empty) policy: 5 needed bits, 5 % flipped."""
    envs = logistic_envs()
    agent = RewardRegression(envs, random_timesteps=64, flip=0.05, learning_rate=1e-9)
    rows = list(agent.train(64 * 3))
    assert rows[0]["latency_ms"] == pytest.approx(85 / 2, abs=12)
    for row in rows[1:]:
        assert row["latency_ms"] == pytest.approx(NEEDED + 0.05 * (85 - NEEDED), abs=2)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-3), "p = 1/2 everywhere at first"


def test_statistics_are_those_of_the_environment():
    """The reward is the one that the step returned, not R_T."""
    envs = logistic_envs()
    returned, step = [], envs.step
    envs.step = lambda actions: returned.append(step(actions)) or returned[-1]
    row = next(RewardRegression(envs).train(64))
    assert row["reward"] == pytest.approx(returned[0][1].mean()) != 2 * row["accuracy"] - 1


def test_the_seed_decides_everything():
    def trained(seed: int) -> Tensor:
        return flat_weights(RewardRegression(logistic_envs(), random_timesteps=128, seed=seed).learn(256))

    first = trained(1)
    torch.manual_seed(7)
    assert torch.equal(trained(1), first)
    assert not torch.equal(trained(2), first)


def test_save_and_load_keep_latencies_and_trade_off(tmp_path):
    """A policy belongs to its table, also in an environment that has another."""
    agent = RewardRegression(logistic_envs(), trade_off=0.3, flip=0.2, replay=8, table=TABLE).learn(64 * 10)
    agent.trade_off = 0.7
    agent.save(tmp_path / "a.safetensors")
    images = agent.env.unwrapped.bandit.image_set.images.numpy()
    for env in (None, logistic_envs()):
        loaded = RewardRegression.load(tmp_path / "a.safetensors", env)
        assert loaded.controller.latencies.tolist() == [1, 2, 3, 4, 5] * 17
        assert np.array_equal(loaded.predict(images)[0], agent.predict(images)[0])
        for name in RewardRegression.hyperparameters:
            assert getattr(loaded, name) == getattr(agent, name), name
    assert loaded.trade_off == 0.7 and loaded.predict(images)[0].any()
    with pytest.raises(ValueError, match="holds 'RewardRegression', not 'SelfCriticalReinforce'"):
        SelfCriticalReinforce.load(tmp_path / "a.safetensors")


def test_the_table_is_the_environments_by_default():
    envs = logistic_envs()
    assert RewardRegression(envs).controller.latencies.tolist() == [1.0] * 85


def test_a_resumed_run_reaches_the_same_weights(tmp_path):
    """The memory goes along, and is trained on again. The toy's own chance is made to agree afterwards."""
    options = {"random_timesteps": 128, "replay": 3, "gradient_steps": 3}
    envs = logistic_envs()
    whole = RewardRegression(envs, **options).learn(256)
    state = {"agent": whole.state_dict(), "envs": envs.unwrapped.state_dict()}
    save_checkpoint(tmp_path / "c.pt", state)

    others, state = logistic_envs(), load_checkpoint(tmp_path / "c.pt")
    resumed = RewardRegression(others, **options)
    resumed.load_state_dict(state["agent"])
    others.unwrapped.load_state_dict(state["envs"])
    for each in (envs, others):
        each.unwrapped.bandit._predict = logistic_envs(chance=1).unwrapped.bandit._predict
    rows = [list(agent.train(256)) for agent in (whole, resumed)]
    assert rows[0] == rows[1]
    assert torch.equal(flat_weights(whole), flat_weights(resumed)) and resumed.num_timesteps == 512


@pytest.mark.parametrize("latencies", [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0), 3, (0.1,), "ab"])
def test_impossible_latencies_are_named(latencies):
    with pytest.raises(ValueError, match="^latencies: got "):
        RewardRegression(None, space=LITE, latencies=latencies)


def menu_of_three() -> Tensor:
    """What is needed (module 0), that with module 2 of cell 2, and with modules 1 and 3 of cell 4."""
    menu = LITE.repair(torch.zeros(3, 17, 5, dtype=torch.bool))
    menu[1, 2, 2] = menu[2, 4, 1] = menu[2, 4, 3] = True
    return menu


@pytest.mark.parametrize(
    ("base", "trade_off", "chosen"), [(0, 0.01, 2), (0, 0.03, 1), (0, 0.2, 0), (3, 0.03, 0), (-5, 0.03, 0)]
)
def test_a_menu_is_judged_by_the_probability_of_being_right(base, trade_off, chosen):
    """Beyond what all share (5 ms), mask 1 gains 1.5 logits for 3 ms, mask 2 gains 2.2 for 2 + 4 ms.

    b(x) = 0: right with 0.5, 0.818 and 0.900. lambda 0.01: 0.5, 0.788 and 0.840 remain; 0.03: 0.728 and
    0.720; 0.2: 0.218 and -0.3. An easy image, b(x) = 3, is right with 0.953, 0.989 and 0.995: not worth 0.09
    and 0.18; a hopeless one, b(x) = -5, with 0.007, 0.029 and 0.057.
    """
    agent = RewardRegression(
        None, trade_off, space=LITE, table=replace(TABLE, space=LITE), menu=menu_of_three()
    )
    assert agent.controller.latencies.tolist() == [5, 5 + 3, 5 + 2 + 4]
    with torch.no_grad():
        agent.controller.network.output.bias[:] = torch.tensor([base, 0.0, 1.5, 2.2])
    assert torch.equal(agent.masks(IMAGE)[0], menu_of_three()[chosen])


def test_it_learns_which_mask_of_a_menu_an_image_needs():
    """The toy again: mask 1 serves the bright images, mask 2 the dark ones, mask 0 neither."""
    envs = logistic_envs()
    menu = LITE.repair(torch.zeros(3, 17, 5, dtype=torch.bool))
    menu[1, 2, 1] = menu[2, 8, 3] = True
    agent = RewardRegression(envs, 0.3, learning_rate=1e-2, random_timesteps=10**6, menu=menu)
    agent.learn(64 * 60)
    masks = agent.masks(envs.unwrapped.bandit.image_set.images)
    bright = torch.tensor([False, True]).repeat(NUM_IMAGES // 2)
    assert (masks[:, 2, 1] == bright).float().mean() >= 0.95
    assert (masks[:, 8, 3] == ~bright).float().mean() >= 0.95


def test_it_learns_to_name_the_images_beside():
    """Bright and dark as two classes: the second loss falls to nothing; the reported one is the reward's."""
    envs = logistic_envs()
    labels = bright_and_dark(envs)
    images = envs.unwrapped.bandit.image_set.images
    agent = RewardRegression(envs, learning_rate=1e-2, gradient_steps=1, num_classes=2)
    assert next(agent.train(64))["loss"] == pytest.approx(math.log(2), abs=1e-3)
    agent.learn(64 * 30)
    _, gains, classes = agent.controller.eval()(images)
    assert gains.shape == (64, 85) and torch.equal(classes.argmax(1), labels)
    assert torch.equal(agent.names(images), labels)
    with pytest.raises(ValueError, match="^names: this agent learns none"):
        RewardRegression(None, space=LITE).names(images)
    with pytest.raises(ValueError, match="^num_classes: got -1"):
        RewardRegression(None, space=LITE, num_classes=-1)


@pytest.mark.parametrize("random_timesteps", [10**6, 0])
def test_nothing_off_the_menu_is_tried(random_timesteps):
    envs = logistic_envs()
    options = {"random_timesteps": random_timesteps, "flip": 0.5, "latencies": (7.0, 13.0)}
    agent = RewardRegression(envs, menu=menu_of_three(), **options)
    tried = []
    step = envs.step
    envs.step = lambda actions: tried.append(torch.as_tensor(actions)) or step(actions)
    agent.learn(256)
    assert set(map(tuple, torch.cat(tried).tolist())) == set(map(tuple, agent.menu))


def test_the_menu_is_saved(tmp_path):
    agent = RewardRegression(None, 0.2, space=LITE, table=TABLE, menu=menu_of_three(), num_classes=4)
    agent.save(tmp_path / "agent.safetensors")
    loaded = RewardRegression.load(tmp_path / "agent.safetensors")
    assert loaded.menu == agent.menu == menu_of_three().flatten(1).int().tolist()
    assert torch.equal(loaded.masks(IMAGE), agent.masks(IMAGE))


@pytest.mark.parametrize("menu", [torch.zeros(1, 17, 5), torch.zeros(0, 85), [[2] * 85], [[1] * 84]])
def test_a_bad_menu_is_refused(menu):
    with pytest.raises(ValueError, match="^menu: got "):
        RewardRegression(None, space=LITE, menu=menu)


def test_annealing_ends_at_zero():
    """256 images in steps of 64: the rate is 4/4, 3/4, 2/4, 1/4 of the first, then 0 for good."""
    envs = logistic_envs()
    agent = RewardRegression(envs, learning_rate=0.4, anneal_timesteps=256)
    rates = [agent.optimizer.param_groups[0]["lr"] for _ in agent.train(64 * 6)]
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1, 0, 0])
    with pytest.raises(ValueError, match="^anneal_timesteps: got 0"):
        RewardRegression(None, space=LITE, anneal_timesteps=0)


def bright_and_dark(envs) -> torch.Tensor:
    """Make these the two classes; the labels of the images."""
    bandit = envs.unwrapped.bandit
    labels = are_bright(bandit.image_set.images).long()
    bandit.image_set = replace(bandit.image_set, labels=labels)
    return labels


def test_every_image_is_asked_about_the_whole_menu():
    """Three masks an image: all of the menu, each once; the step is taken with the first of them."""
    envs = logistic_envs()
    agent = RewardRegression(envs, menu=menu_of_three(), masks_per_image=3, learning_rate=1e-2)
    agent.learn(128)
    for _, choices, correct, _ in agent._memory.steps:
        assert choices.shape == (3, 64, 3) and correct.shape == (3, 64)
        assert (choices.sum(0) == 1).all()
    assert agent.num_timesteps == 128, "an image counts once however many masks it is asked about"
    with pytest.raises(ValueError, match="^masks_per_image: got 0"):
        RewardRegression(None, space=LITE, masks_per_image=0)


def taken_by(agent: RewardRegression) -> list[torch.Tensor]:
    """A list to which every gradient step adds the images that it is taken on."""
    taken: list[torch.Tensor] = []

    def keep(_network, images):
        if agent.controller.training:
            taken.append(images[0])

    agent.controller.register_forward_pre_hook(keep)
    return taken


def shown_and_taken(augment: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The one batch that an agent was shown, and what it took of it in each of three gradient steps."""
    agent = RewardRegression(logistic_envs(), gradient_steps=3, augment=augment)
    taken = taken_by(agent)
    agent.learn(64)
    return agent._memory.steps[0].images, taken


def test_every_gradient_step_sees_its_images_cropped_and_flipped_anew():
    """Each is one of 50: the image moved by at most 2 px either way, flipped or not."""
    shown, taken = shown_and_taken(augment=False)
    assert len(taken) == 3 and all(torch.equal(images, shown) for images in taken)

    shown, taken = shown_and_taken(augment=True)
    padded = torch.nn.functional.pad(shown, (2, 2, 2, 2))
    shifts = [padded[..., y : y + 32, x : x + 32] for y in range(5) for x in range(5)]
    could_be = torch.stack([*shifts, *(images.flip(-1) for images in shifts)])
    for images in taken:
        assert not torch.equal(images, shown)
        assert (could_be == images).flatten(2).all(2).any(0).all()
    assert not torch.equal(taken[0], taken[1]) and not torch.equal(taken[1], taken[2])


def test_after_the_random_masks_all_that_is_kept_is_trained_on_equally_often():
    """Two steps of 64, one batch each; then 5 passes over the 128, in new batches; then as before."""
    agent = RewardRegression(
        logistic_envs(), random_timesteps=128, gradient_steps=1, passes=5, learning_rate=0.4
    )
    taken, rates = taken_by(agent), []
    original = agent._update
    agent._update = lambda loss: (rates.append(agent.optimizer.param_groups[0]["lr"]), original(loss))
    agent.learn(128)
    assert len(taken) == 2 + 5 * 2
    shown = torch.cat([step[0] for step in agent._memory.steps])
    for first, second in zip(taken[2::2], taken[3::2], strict=True):
        both = torch.cat([first, second]).flatten(1)
        assert sorted(map(bytes, both.numpy())) == sorted(map(bytes, shown.flatten(1).numpy()))
        assert not torch.equal(both, shown.flatten(1))
    # 0.4 twice, then cosine: 0.2 (1 + cos(pi step / 10)).
    expected = [0.2 * (1 + math.cos(math.pi * step / 10)) for step in range(10)]
    assert rates == pytest.approx([0.4, 0.4, *expected])
    agent.learn(64)
    assert len(taken) == 13 and rates[-1] == 0.4, "once only"
    with pytest.raises(ValueError, match="^random_timesteps: got 0 with 5 passes; at least 1 will do"):
        RewardRegression(None, space=LITE, passes=5, random_timesteps=0)


def test_passes_over_all_that_is_kept_learn_more():
    """Bright and dark images, one module each: the loss of the answers after 20 passes, and after none."""

    def loss(passes: int) -> float:
        agent = RewardRegression(
            logistic_envs(), random_timesteps=512, gradient_steps=1, passes=passes, learning_rate=1e-2
        )
        agent.learn(512)
        base, gains, _ = agent.controller.eval()(agent._memory.steps[0].images)
        _, choices, correct, _ = agent._memory.steps[0]
        logits = base + (gains * choices).sum(-1)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, correct.float()).item()

    assert loss(20) < loss(0) - 0.1
