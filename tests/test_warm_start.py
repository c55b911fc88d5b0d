"""A controller handed on: the policy goes with it, prices come from the environment's table."""

from __future__ import annotations

import pytest
import torch
from pipeline_fixtures import history, search_options, searched

from agents.blockdrop import BlockDrop
from agents.files import load_agent
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.warm_start import warm_start
from instanas_env.latency import LatencyTable
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from scripts import search

LITE = SearchSpace.preset("lite")
TABLE = LatencyTable(LITE, torch.arange(1.0, 6.0).double().expand(17, 5), fixed=1.0)
DEARER = LatencyTable(LITE, 2 * TABLE.modules, fixed=1.0)
IMAGES = torch.randint(0, 256, (40, 3, 32, 32), generator=generator_for(0)).to(torch.uint8)


def opinionated(**options) -> RewardRegression:
    """A regression controller whose last layer is drawn, so that images differ in what is worthwhile."""
    agent = RewardRegression(None, space=LITE, table=TABLE, **options)
    drawn = [agent.controller.network.output.weight, agent.controller.by_class]
    with torch.no_grad():
        for weight in drawn if options.get("class_gains") else drawn[:1]:
            weight.copy_(torch.randn(weight.shape, generator=generator_for(1)))
    return agent


def test_reinforce_starts_with_the_policy_of_a_regression():
    """A bit is on where its surplus is positive, and the logits' root mean square is 2."""
    source = opinionated(trade_off=0.03)
    agent = SelfCriticalReinforce(None, space=LITE)
    warm_start(agent, source, IMAGES)
    surplus = source.controller.eval()(IMAGES)[1] - 0.03 * TABLE.modules.flatten().float()
    own = agent.masks(IMAGES).flatten(1)
    assert torch.equal(own, surplus > 0) and 0.2 < own.float().mean() < 0.8 and len(own.unique(dim=0)) == 40
    logits = agent.controller.eval()(IMAGES)
    assert logits.square().mean().sqrt().item() == pytest.approx(2, rel=1e-4)


@pytest.mark.parametrize("options", [{}, {"num_classes": 10, "class_gains": True}], ids=["", "classes"])
def test_a_regression_goes_on_at_its_environments_prices(options):
    """Same weights, so the same gains; but modules that cost twice as much."""
    source = opinionated(trade_off=0.03, **options)
    agent = RewardRegression(None, space=LITE, table=DEARER, seed=5, **options)
    warm_start(agent, source, IMAGES)
    assert torch.equal(agent.controller.eval()(IMAGES)[1], source.controller.eval()(IMAGES)[1])
    assert torch.equal(agent.controller.latencies, 2 * source.controller.latencies)
    source.trade_off, agent.trade_off = 0.06, 0.03
    assert torch.equal(agent.masks(IMAGES), source.masks(IMAGES))


def test_the_same_class_starts_with_the_same_weights():
    source = SelfCriticalReinforce(None, space=LITE, seed=3)
    agent = SelfCriticalReinforce(None, space=LITE, seed=4)
    assert not torch.equal(*(one.controller.eval().features(IMAGES / 1.0) for one in (agent, source)))
    warm_start(agent, source, IMAGES)
    assert torch.equal(*(one.controller.eval().features(IMAGES / 1.0) for one in (agent, source)))


MENU = LITE.random_masks(3, 0.5, generator_for(2)).flatten(1).int().tolist()


@pytest.mark.parametrize(
    ("options", "share"),
    [({"menu": MENU}, 0.95), ({"num_classes": 2, "class_gains": True}, 0.8)],
    ids=["off its menu", "for classes"],
)
def test_reinforce_learns_the_masks_that_a_regression_takes(options, share):
    """By imitation: nearly every bit as the regression has it, and sure of it, p near 0.98 or 0.02.

    Off a menu, or where modules are worth something to classes: neither has logits to hand over. The latter's
    85 bits differ from image to image here, and 30 steps are few to learn that.
    """
    source = opinionated(trade_off=0.03, **options)
    images = torch.randint(0, 256, (640, 3, 32, 32), generator=generator_for(3)).to(torch.uint8)
    images = (images * torch.linspace(0.2, 1, 640).view(-1, 1, 1, 1)).to(torch.uint8)  # that differ
    taken = source.masks(images)
    agents = [SelfCriticalReinforce(None, space=LITE, seed=4) for _ in range(2)]
    torch.manual_seed(7)
    for agent in agents:
        warm_start(agent, source, images)
    own = agents[0].masks(images)
    assert len(taken.unique(dim=0)) > 1 and (own == taken).float().mean() > share
    probabilities = agents[0].controller.eval()(images).sigmoid()
    assert (probabilities - torch.where(taken.flatten(1), 0.98, 0.02)).abs().mean() < 2 * (1 - share)
    assert torch.equal(own, agents[1].masks(images)), "the agent's seed decides"


@pytest.mark.parametrize(
    ("agent", "source", "message"),
    [
        (opinionated(), opinionated(menu=MENU), "source: has another menu"),
        (opinionated(num_classes=10), opinionated(), "source: has another menu or other classes"),
        (
            opinionated(num_classes=10),
            opinionated(num_classes=10, class_gains=True),
            "source: has another menu or other classes",
        ),
        (BlockDrop(None, space=LITE), opinionated(), "source: cannot go from RewardRegression to BlockDrop"),
        (
            SelfCriticalReinforce(None, space=SearchSpace.preset("cifar")),
            opinionated(),
            "source: made for the search space",
        ),
    ],
    ids=["other-menu", "other-classes", "no-gains-by-class", "other-kind", "other-space"],
)
def test_what_does_not_fit_is_refused(agent, source, message):
    with pytest.raises(ValueError, match=message):
        warm_start(agent, source, IMAGES)


@pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")
@pytest.mark.parametrize("agent", ["regression", "reinforce"])
def test_a_search_starts_from_another(agent, tmp_path):
    """A search without a step to learn in would be the source: one tiny learning rate instead."""
    file = searched("regression") / "controller.safetensors"
    options = {"start_from": file, "learning_rate": 1e-8, "epochs": 1, "frozen_epochs": 1, "num_envs": 80}
    search.main(search_options(tmp_path, agent, **options))
    source, loaded = load_agent(file), load_agent(tmp_path / "controller.safetensors")
    images = IMAGES.clamp(0, 200)
    assert isinstance(source, RewardRegression)
    if isinstance(loaded, RewardRegression):
        gains = [one.controller.eval()(images)[1] for one in (source, loaded)]
        assert loaded.random_timesteps == 0 and loaded.num_timesteps == 0
    else:
        prices = source.trade_off * source.controller.latencies
        gains = [source.controller.eval()(images)[1] - prices, loaded.controller.eval()(images)]
        gains = [one / one.square().mean().sqrt() for one in gains]
    # BatchNorm's averages moved by the one step that was made.
    assert torch.corrcoef(torch.stack([one.flatten() for one in gains]))[0, 1] > 0.9


@pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")
def test_steady_bounds_stand_where_falling_ones_end(tmp_path):
    search.main(search_options(tmp_path, "reinforce", epochs=2, num_envs=80, steady_bounds=True))
    uppers = [row["upper_ms"] for row in history(tmp_path)]
    assert uppers == [history(searched("reinforce"))[-1]["upper_ms"]] * 2
