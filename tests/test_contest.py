"""How each policy of a contest is made and learns, and what its figures mean."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.agent import Agent
from agents.evaluation.awareness import measure
from agents.evaluation.controls import paired_gain
from agents.evaluation.picks import hypervolume
from agents.evaluation.scores import score_masks
from agents.one_shot import Candidate
from agents.predicting import Predicting, form_of, observer_of
from agents.reward_regression import RewardRegression
from agents.static import StaticAgent
from instanas_env.build import build_bandit, shipped_table
from instanas_env.callbacks import shuffle_policies
from instanas_env.latency import LatencyTable
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from scripts.comparison.contest import Budget, Contest, worth
from scripts.comparison.learning import let_learn
from scripts.comparison.policies import TRADE_OFFS, best_trade_off, enter, maker, trade_offs
from scripts.comparison.ranking import mean_curve, seeded
from tests.tools.pipeline_fixtures import image_folder


@pytest.fixture(scope="module")
def contest(tmp_path_factory: pytest.TempPathFactory) -> Contest:
    out = tmp_path_factory.mktemp("contest")
    return Contest(out, {"dataset": "embedded"}, Budget(256, 4, 2, 1))


# --- policies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("best", "unknown 'best'; choose from random, fixed"),
        ("no_such_module:Class", "no_such_module:Class cannot be imported"),
        ("math:Policy", "math:Policy cannot be imported"),
        ("runs/ppo.zip", "--trust reads it nevertheless"),
    ],
)
def test_a_policy_that_is_none_is_refused(contest, name, told):
    with pytest.raises(ValueError, match=f"^policies: .*{told}"):
        enter(contest, name, 0)


def test_a_policy_of_another_space_is_refused_before_any_learns(contest, tmp_path):
    StaticAgent(SearchSpace.preset("lite", 2), SearchSpace.preset("lite", 2).full_mask()).save(
        tmp_path / "wide.safetensors"
    )
    with pytest.raises(ValueError, match=r"^policies: .*wide\.safetensors: made for the search space .*2"):
        maker(contest, str(tmp_path / "wide.safetensors"))


def test_where_networks_take_longer_a_millisecond_weighs_less():
    """cifar@0.5 takes 2.9 times as long as lite: its table's 4.25 ms over 1.48."""
    spaces = SearchSpace.preset("lite"), SearchSpace.preset("cifar", 0.5)
    tables = [LatencyTable.load(shipped_table(space)) for space in spaces]
    lite, cifar = (trade_offs(SimpleNamespace(cost_table=table)) for table in tables)
    assert tuple(lite) == TRADE_OFFS
    ratio = tables[1].reference("full") / tables[0].reference("full")
    assert ratio == pytest.approx(2.9, abs=0.1)
    assert cifar == pytest.approx([each / ratio for each in lite])


ANSWERS = {"linucb": 256, "dqn": 256, "trpo": 2048, "convnet-aig": 256, "blockdrop": 512, "paper": 512}
ANSWERS |= {"unnamed": 1024}
"""A whole step is the least: 256 images. TRPO collects eight; others have 2 or 4 masks an image answered."""
PACKAGES = {"dqn": "stable_baselines3", "trpo": "sb3_contrib"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "trpo")) for name in ANSWERS]
)
def test_a_learner_learns_and_chooses(contest, name):
    """From the answers that it is said to ask for, on a meta-graph that stays as it is."""
    pytest.importorskip(PACKAGES.get(name, "torch"))
    images = contest.test.image_set.images[torch.arange(8)]
    with seeded(0):
        entry = enter(contest, name, 0)
        meta_graph = entry.envs.unwrapped.bandit.meta_graph
        before = {key: value.clone() for key, value in meta_graph.state_dict().items()}
        learnt = let_learn(contest, entry)
    assert learnt["steps"] == ANSWERS[name] and learnt["curve"][-1][0] == ANSWERS[name]
    masks = entry.agent.masks(images)
    assert masks.shape == (8, 17, 5) and torch.equal(masks, entry.agent.masks(images))
    if name == "unnamed":
        assert entry.agent.num_classes == 0, "it never sees a label"
    if name in ("linucb", "dqn"):
        menu = contest.masks("menu").flatten(1).tolist()
        assert all(mask in menu for mask in masks.flatten(1).tolist())
    assert all(torch.equal(value, before[key]) for key, value in meta_graph.state_dict().items())


def test_a_zip_of_sb3_is_ranked_if_it_is_trusted(contest, tmp_path):
    """It chooses what the model predicts deterministically."""
    pytest.importorskip("stable_baselines3")
    from stable_baselines3 import A2C

    from agents.sb3 import ControllerPolicy, NativeVecEnv

    model = A2C(ControllerPolicy, NativeVecEnv(contest.envs()), device="cpu", seed=0)
    model.save(tmp_path / "a2c_of_mine.zip")
    agent = enter(replace(contest, trust=True), str(tmp_path / "a2c_of_mine.zip"), 0).agent
    images = contest.test.image_set.images[torch.arange(8)]
    predicted, _ = model.predict(images.numpy(), deterministic=True)
    assert (agent.masks(images).flatten(1).numpy() == predicted).all()


def test_the_global_generators_are_seeded_and_left_alone():
    """SB3 and policies of users draw from them."""
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    drawn = []
    for _ in range(2):
        with seeded(3):
            drawn.append((torch.rand(()).item(), np.random.rand()))
    assert drawn[0] == drawn[1]
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()


def test_a_policy_that_gives_other_actions_is_refused(lite_space):
    class Wrong:
        def predict(self, images, deterministic):
            return np.zeros((len(images), 84)), None

    with pytest.raises(ValueError, match=r"^policy: Wrong.predict gave actions of shape \(2, 84\) for 2"):
        Predicting(lite_space, Wrong()).masks(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


def test_a_model_is_asked_in_the_forms_that_it_learnt(lite_space):
    """By its spaces: numbers of cells from images whose channels come last."""
    menu = lite_space.full_mask()[None]
    form = form_of(spaces.MultiDiscrete([32] * 17), lite_space, menu)
    observer = observer_of(spaces.Box(0, 255, (32, 32, 3), np.uint8), 32)

    class Model:
        def predict(self, images, deterministic):
            assert images.shape == (2, 32, 32, 3)
            return np.full((2, 17), 31), None

    agent = Predicting(lite_space, Model(), form, observer)
    assert agent.masks(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).all()
    with pytest.raises(ValueError, match=r"^policy: chooses from Discrete\(7\); .*bits.* or Discrete\(1\)"):
        form_of(spaces.Discrete(7), lite_space, menu)
    with pytest.raises(ValueError, match="^policy: sees Box.* one of"):
        observer_of(spaces.Box(0, 1, (3,)), 32)


# --- figures -----------------------------------------------------------------------------------------


class ByLabel(Agent):
    """All modules for the first half of the classes, MobileNetV2's path for the others."""

    def __init__(self, space, labels):
        super().__init__(space)
        self.labels, self.at = labels, 0

    def masks(self, images, deterministic=True):
        labels = self.labels[self.at : self.at + len(images)]
        self.at = (self.at + len(images)) % len(self.labels)
        path = self.space.mobilenet_v2_mask().expand(len(images), -1, -1)
        return path | (labels < 5).view(-1, 1, 1)


def test_awareness_golden_values():
    """Half of the classes at the cost of all modules, half at MobileNetV2's; no controller to pay for."""
    bandit = build_bandit(split="val")
    table = bandit.latency_table
    figures, outcome = measure(bandit, ByLabel(bandit.space, bandit.image_set.labels))
    full, path = table.reference("full"), table.reference("mobilenet_v2")
    assert figures.latency_ms == pytest.approx((full + path) / 2)
    assert figures.latency_sd_ms == pytest.approx((full - path) / 2)
    assert figures.class_latency_ms == pytest.approx([full] * 5 + [path] * 5)
    assert figures.networks == 2 and figures.names_accuracy is None
    assert figures.accuracy == outcome.correct.mean() and figures.reward == pytest.approx(
        outcome.reward.mean()
    )
    assert figures.most_used_latency_ms in (pytest.approx(full), pytest.approx(path))
    assert figures.lost_shuffled_accuracy == figures.accuracy - figures.shuffled_accuracy
    assert figures.lost_shuffled_accuracy_low <= figures.lost_shuffled_accuracy
    assert figures.lost_shuffled_accuracy <= figures.lost_shuffled_accuracy_high
    assert figures.lost_shuffled_reward == figures.reward - figures.shuffled_reward


def test_a_shuffled_policy_is_scored_with_the_masks_of_others():
    """The same generator exchanges the same masks; the interval is that of pairs of images."""
    bandit = build_bandit(split="val")
    agent = ByLabel(bandit.space, bandit.image_set.labels)
    figures, own = measure(bandit, agent, generator_for(3))
    masks = shuffle_policies(torch.from_numpy(own.mask), generator_for(3))
    shuffled = score_masks(bandit, masks)
    gain = paired_gain(own.correct, shuffled.correct)
    assert figures.shuffled_accuracy == shuffled.correct.mean()
    assert (figures.lost_shuffled_accuracy_low, figures.lost_shuffled_accuracy_high) == (gain.low, gain.high)


def test_one_network_for_all_loses_nothing():
    bandit = build_bandit(split="val")
    figures, _ = measure(bandit, StaticAgent(bandit.space, bandit.space.mobilenet_v2_mask()))
    assert figures.networks == 1 and figures.lost_shuffled_accuracy == figures.lost_most_used_reward == 0
    assert (figures.lost_shuffled_accuracy_low, figures.lost_shuffled_accuracy_high) == (0, 0)
    assert figures.most_used_latency_ms == figures.latency_ms


def test_the_worth_of_a_fixed_mask_is_its_mean_reward():
    bandit = build_bandit(split="val")
    mask = bandit.space.mobilenet_v2_mask()
    figures, outcome = measure(bandit, StaticAgent(bandit.space, mask))
    candidate = Candidate(mask, float(outcome.correct.mean()), figures.latency_ms, torch.zeros(10))
    assert worth(bandit, candidate) == pytest.approx(figures.reward)


@pytest.mark.parametrize(("wrong_reward", "modules"), [(0.0, "few"), (-100.0, "all")])
def test_the_dial_stops_where_the_policy_earns_most(lite_space, wrong_reward, modules):
    """A menu of the cheapest mask and of all modules, which are slow, but right about all of these images."""
    bandit = build_bandit(split="val", wrong_reward=wrong_reward)
    bandit.image_set = bandit.image_set.take(torch.arange(100))
    _, outcome = measure(bandit, StaticAgent(lite_space, lite_space.full_mask()))
    bandit.image_set = bandit.image_set.take(torch.from_numpy(outcome.correct.nonzero()[0]))
    menu = torch.stack([bandit.latency_table.cheapest_mask(), lite_space.full_mask()])
    agent = RewardRegression(None, space=lite_space, table=bandit.latency_table, menu=menu)
    with torch.no_grad():
        agent.controller.network.output.bias[2] = 1.0  # all modules are worth one logit more
    cheapest, full = (measure(bandit, StaticAgent(lite_space, mask))[0].reward for mask in menu)
    agent.trade_off = best_trade_off(agent, bandit)
    assert measure(bandit, agent)[0].reward == max(cheapest, full)
    more = 1 / (1 + math.exp(-1)) - 1 / 2  # of P(correct)
    turn = (
        more / bandit.latency_table.lookup(menu).diff().item()
    )  # from here on they are not worth their time
    if modules == "all":
        assert full > cheapest and agent.trade_off == max(each for each in TRADE_OFFS if each < turn)
    else:
        assert cheapest > full and agent.trade_off == max(TRADE_OFFS)


def test_the_hypervolume_is_an_area():
    """Half right in 2 of 10 ms, all right in 6: 0.4 x 1 + 0.4 x 0.5; slower ones count nothing."""
    assert hypervolume([0.5, 1.0], [2.0, 6.0], 10.0) == pytest.approx(0.6)
    assert hypervolume([0.5, 1.0, 0.4, 1.0], [2.0, 6.0, 5.0, 12.0], 10.0) == pytest.approx(0.6)
    assert hypervolume([1.0], [0.0], 10.0) == 1.0 and hypervolume([1.0], [11.0], 10.0) == 0.0


def test_a_curve_over_seeds_has_the_points_that_all_have():
    """Means 1 and 2 of two seeds that differ by 2: half of it times Student's t at 0.975, 12.706."""
    curves = [[[100, 0.0], [200, 1.0], [300, 5.0]], [[100, 2.0], [200, 3.0]]]
    points = mean_curve([{"curve": curve} for curve in curves])
    assert [point[:2] for point in points] == [[100.0, 1.0], [200.0, 2.0]]
    assert points[0][3] == pytest.approx(1 + 12.706, abs=1e-3)


def test_a_folder_of_few_images_is_enough(tmp_path):
    """80 training images: as many environments, where there are 256 otherwise."""
    given = {"dataset": "folder", "data_dir": str(image_folder())}
    assert Contest(tmp_path, given, Budget(100, 2, 2, 1)).envs().num_envs == 80
