"""BlockDrop: its reward and curriculum by hand, and a toy in which each kind of image needs one block."""

from __future__ import annotations

from dataclasses import fields

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.blockdrop import BlockDrop, block_reward, free_blocks
from agents.files import load_agent
from instanas_env.bandit import Contexts, Outcome
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import load_checkpoint, save_checkpoint
from tests.tools.toys import NUM_IMAGES, are_bright, dark_and_bright_envs, flat_weights

pytestmark = pytest.mark.usefixtures("one_meta_graph")
LITE = SearchSpace.preset("lite")
DROPPABLE = torch.tensor([cell.keeps_shape for cell in LITE.cells])
BLOCKS = LITE.mobilenet_v2_mask()
# The toy: dark images are right with the block of cell 4 and without that of cell 12, bright ones conversely.
NEEDED_DARK, NEEDED_BRIGHT = 4, 12
BEST = 1 - (6 / 17) ** 2  # five blocks that cannot be dropped, and the needed one


def toy_score(contexts: Contexts, actions) -> Outcome:
    """Right or wrong by the needed block alone; as an environment's reward, the share of blocks dropped."""
    masks = LITE.masks_from_actions(actions)
    assert not (masks & ~BLOCKS).any(), "only MobileNetV2's blocks"
    assert torch.equal(LITE.repair(masks), masks), "never illegal"
    kept = masks[..., 2]
    bright = are_bright(contexts.images)
    for_dark, for_bright = kept[..., NEEDED_DARK], kept[..., NEEDED_BRIGHT]
    correct = torch.where(bright, for_bright & ~for_dark, for_dark & ~for_bright).numpy()
    dropped = 1 - kept.double().mean(-1).numpy()
    given = {"correct": correct, "reward": dropped}
    return Outcome(**{field.name: given.get(field.name, dropped) for field in fields(Outcome)})


def toy_envs(num_envs: int = 32):
    """The real environment with noisy grey images (dark ones are even) and the toy's rewards."""
    envs = dark_and_bright_envs(num_envs)
    bandit = envs.unwrapped.bandit
    bandit.score = toy_score
    return envs


def test_reward_golden_values():
    """T = 4. All four blocks: 1 - 1 = 0. One: 1 - 1/16. None: 1. Three: 1 - 9/16. Wrong answers: -gamma."""
    kept = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 1]]).bool()
    right, wrong = torch.ones(4).bool(), torch.zeros(4).bool()
    assert block_reward(kept, right, 5.0).tolist() == [0, 15 / 16, 1, 7 / 16]
    assert block_reward(kept, wrong, 5.0).tolist() == [-5] * 4
    assert block_reward(kept.expand(3, 4, 4), right.expand(3, 4), 1.0).shape == (3, 4)


def test_curriculum_golden_values():
    """Blocks 0, 2 and 3 of four are droppable: three stages, each a third; block 1 is never free."""
    droppable = torch.tensor([True, False, True, True])
    last, last_two = [False, False, False, True], [False, False, True, True]
    for progress, expected in (
        (0.0, last), (0.33, last), (0.34, last_two), (0.66, last_two), (0.67, [True, False, True, True]),
        (1.0, [True, False, True, True]), (9.0, [True, False, True, True]),
    ):  # fmt: skip
        assert free_blocks(droppable, progress).tolist() == expected, progress


@given(earlier=st.floats(0, 1.2), later=st.floats(0, 1.2))
def test_the_curriculum_takes_no_block_back(earlier, later):
    earlier, later = sorted((earlier, later))
    assert not (free_blocks(DROPPABLE, earlier) & ~free_blocks(DROPPABLE, later)).any()
    assert torch.equal(free_blocks(DROPPABLE, 1.0), DROPPABLE)


@pytest.mark.parametrize(
    "options",
    [{}, {"samples_per_image": 4}, {"samples_per_image": 4, "curriculum_timesteps": 32 * 60}],
    ids=["greedy baseline", "leave-one-out", "curriculum"],
)
def test_it_solves_the_toy(options):
    """All are right, dark and bright by different blocks, and few blocks are kept besides (BEST is 0.88).

    One mask for all images is right for half of them at most: (0.88 - 1) / 2 < 0.
    """
    envs = toy_envs()
    agent = BlockDrop(envs, gamma=1.0, learning_rate=1e-2, alpha=(0.8, 0.95), **options).learn(32 * 160)
    images = envs.unwrapped.bandit.image_set.images
    masks = agent.masks(images)
    correct = torch.from_numpy(
        toy_score(Contexts(torch.arange(NUM_IMAGES), images), masks.flatten(1)).correct
    )
    assert correct.all()
    reward = block_reward(masks[..., 2], correct, agent.gamma).mean().item()
    assert 0.7 * BEST < reward <= BEST + 1e-9


def test_it_learns_from_the_environments_reward_too():
    """Here that pays for every block dropped, right or wrong: nothing is left but what cannot be dropped."""
    envs = toy_envs()
    agent = BlockDrop(envs, reward="environment", learning_rate=1e-2).learn(32 * 80)
    kept = agent.masks(envs.unwrapped.bandit.image_set.images)[..., 2]
    assert torch.equal(kept, ~DROPPABLE.expand_as(kept))


def test_statistics_hold_the_reward_of_what_was_done():
    """The first step acts with sampled masks at p = 1/2; its reward is R(u) of them, by hand.

    The curriculum has 12 stages over 384 images, so that 32 images free one block more.
    """
    envs = toy_envs()
    seen = []
    step = envs.unwrapped.step
    envs.unwrapped.step = lambda actions: seen.append(step(actions)) or seen[-1]
    envs.unwrapped.bandit.score, asked = (
        lambda contexts, actions: asked.append((contexts, actions)) or toy_score(contexts, actions),
        [],
    )
    agent = BlockDrop(envs, curriculum_timesteps=384, gamma=3.0)
    rows = list(agent.train(32 * 14))
    assert [row["free_blocks"] for row in rows] == [*range(1, 13), 12, 12]
    assert np.shape(asked[0][1]) == (1, 32, 85), "the greedy masks are scored, then the sampled ones act"
    kept = LITE.masks_from_actions(asked[1][1])[..., 2]
    assert kept[:, :15].all(), "only the last droppable block, that of cell 15, may go"
    assert 0 < kept[:, 15].float().mean() < 1
    expected = block_reward(kept, torch.from_numpy(seen[0][4]["final_info"]["correct"]), 3.0).mean().item()
    assert rows[0]["reward"] == pytest.approx(expected)


@given(seed=st.integers(0, 2**32 - 1), deterministic=st.booleans())
def test_masks_are_legal_whatever_the_controller_says(seed, deterministic):
    agent = BlockDrop(None, space=LITE, seed=seed)
    nn.init.normal_(agent.controller.output.weight, std=5.0, generator=generator_for(seed))
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator_for(seed, 1))
    masks = agent.masks(images, deterministic)
    assert masks.dtype == torch.bool and masks.shape == (8, 17, 5)
    assert not (masks & ~BLOCKS).any()
    assert torch.equal(LITE.repair(masks), masks), "nothing is repaired: BasicConv never comes in"
    assert (masks[..., 2] | DROPPABLE).all()
    actions, _ = agent.predict(images.numpy(), deterministic=deterministic)
    assert actions.shape == (8, 85) and actions.dtype == np.int8


def test_real_steps_with_every_option():
    """On the shipped meta-graph; what the environment ran is what was chosen, nothing repaired."""
    envs = gym.make_vec("InstaNAS-v1", num_envs=16, split="val")
    acted = []
    step = envs.unwrapped.step

    def recorded(actions):
        result = step(actions)
        acted.append((actions, result[4]["final_info"]["mask"]))
        return result

    envs.unwrapped.step = recorded
    for options in ({}, {"reward": "environment"}, {"samples_per_image": 2, "log_probability_under": "p"}):
        rows = list(BlockDrop(envs, **options).train(32))
        assert all(np.isfinite(value) for row in rows for value in row.values())
    assert len(acted) == 6
    for actions, masks in acted:
        assert np.array_equal(actions.astype(bool), masks.reshape(16, 85))


def test_save_and_load_predict_the_same(tmp_path):
    """Stopped in the middle of its curriculum: blocks that were not free yet are still kept."""
    envs = toy_envs()
    agent = BlockDrop(envs, gamma=2.0, curriculum_timesteps=640, learning_rate=1e-2).learn(320)
    agent.save(tmp_path / "a.safetensors")
    loaded = load_agent(tmp_path / "a.safetensors")
    assert type(loaded) is BlockDrop
    for name in BlockDrop.hyperparameters:
        assert getattr(loaded, name) == getattr(agent, name), name
    assert loaded.controller.free.sum() == 7, "320 of 640 images: 1 + 12 / 2"
    images = envs.unwrapped.bandit.image_set.images
    assert torch.equal(loaded.masks(images), agent.masks(images))
    assert loaded.masks(images)[:, ~loaded.controller.free, 2].all()
    loaded.env = envs
    loaded.learn(320)
    assert loaded.num_timesteps == 640 and loaded.controller.free.sum() == 12, "the curriculum goes on"


def test_a_resumed_run_reaches_the_same_weights(tmp_path):
    """Through a file, with a new agent on a new environment, in the middle of the curriculum."""
    options = {"curriculum_timesteps": 160, "entropy_coefficient": 0.01}
    envs, others = toy_envs(), toy_envs()
    whole = BlockDrop(envs, **options).learn(96)
    save_checkpoint(tmp_path / "c.pt", {"agent": whole.state_dict(), "envs": envs.unwrapped.state_dict()})
    resumed, state = BlockDrop(others, **options), load_checkpoint(tmp_path / "c.pt")
    resumed.load_state_dict(state["agent"])
    others.unwrapped.load_state_dict(state["envs"])
    rows = [list(agent.train(96)) for agent in (whole, resumed)]
    assert rows[0] == rows[1]
    assert torch.equal(flat_weights(whole), flat_weights(resumed)) and resumed.num_timesteps == 192


def test_the_seed_decides_everything():
    first = flat_weights(BlockDrop(toy_envs(), seed=1).learn(96))
    torch.manual_seed(7)
    assert torch.equal(flat_weights(BlockDrop(toy_envs(), seed=1).learn(96)), first)
    assert not torch.equal(flat_weights(BlockDrop(toy_envs(), seed=2).learn(96)), first)


@pytest.mark.parametrize(
    "options",
    [
        {"reward": "blcoks"},
        {"gamma": -1.0},
        {"curriculum_timesteps": 0},
        {"alpha": (0.4, 0.9)},
        {"gamma": "5"},
    ],
    ids=str,
)
def test_impossible_hyperparameters_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: "):
        BlockDrop(None, space=LITE, **options)


def test_a_space_without_its_block_is_refused():
    with pytest.raises(ValueError, match="^search_space: MobileNetV2 needs MB k3 F6"):
        BlockDrop(None, space=LITE.only(0, 1))
