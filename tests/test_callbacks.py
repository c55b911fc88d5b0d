"""Hooks run at their moment; interleaved training changes the meta-graph at an epoch's end and only then."""

from __future__ import annotations

import copy
from dataclasses import replace

import gymnasium as gym
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from instanas_env.callbacks import MetaGraphUpdate, shuffle_policies
from instanas_env.hooks import EnvCallback
from instanas_env.seeding import generator_for
from instanas_env.storage import load_checkpoint, save_checkpoint
from tests.tools.scratch import SCRATCH

N = 3


def make(images: int = 2 * N, update: MetaGraphUpdate | None = None, **options):
    """An environment that shows three of ``images`` images a step, reset, with seeded actions."""
    envs = gym.make_vec("InstaNAS-v1", num_envs=N, **SCRATCH, **options)
    bandit = envs.unwrapped.bandit
    bandit.image_set = bandit.image_set.take(torch.arange(images))
    if update is not None:
        envs.unwrapped.add_callback(update)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    return envs


def step(envs, times: int, actions=None) -> None:
    """Any agent will do: this one draws from the action space."""
    for _ in range(times):
        envs.step(envs.action_space.sample() if actions is None else actions)


def weights(envs) -> dict[str, Tensor]:
    return copy.deepcopy(envs.unwrapped.bandit.meta_graph.state_dict())


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def recorder(log: list, name: str) -> EnvCallback:
    """A callback that writes down what is called and the epoch at that moment."""
    callback = EnvCallback()
    callback.on_step = lambda step: log.append((name, "step", int(step.epoch[0]), step.index.tolist()))
    callback.on_epoch_end = lambda env: log.append((name, "end", env.bandit.epoch, env))
    return callback


def test_hooks_run_in_order_and_bounds_move_after_them():
    """Six images, three a step: the second step ends epoch 0."""
    envs, log = make(), []
    for name in "ab":
        envs.unwrapped.add_callback(recorder(log, name))
    shown = [envs.step(envs.action_space.sample())[4]["final_info"]["index"].tolist() for _ in range(3)]
    expected = [(name, "step", 0, shown[k]) for k in range(2) for name in "ab"]
    expected += [(name, "end", 0, envs.unwrapped) for name in "ab"]
    assert log == expected + [(name, "step", 1, shown[2]) for name in "ab"]


def test_the_scalar_environment_has_the_same_hooks():
    env, log = gym.make("InstaNAS-v1", **SCRATCH), []
    env.unwrapped.bandit.image_set = env.unwrapped.bandit.image_set.take(torch.arange(2))
    env.unwrapped.add_callback(recorder(log, "a"))
    for _ in range(3):
        env.reset()
        env.step(env.action_space.sample())
    assert [entry[:3] for entry in log] == [
        ("a", *e) for e in (("step", 0), ("step", 0), ("end", 0), ("step", 1))
    ]


def test_callbacks_that_override_nothing_do_nothing():
    envs = make()
    envs.unwrapped.add_callback(EnvCallback())
    step(envs, 2)
    assert envs.unwrapped.bandit.epoch == 1


def test_weights_change_at_the_end_of_an_epoch_and_are_used_from_then_on():
    envs = make(update=MetaGraphUpdate(learning_rate=0.1))
    bandit, actions = envs.unwrapped.bandit, torch.rand(20, 6, 85, generator=generator_for(0)) < 0.5
    contexts, before = bandit.contexts(torch.arange(6)), weights(envs)
    predicted = bandit.score(contexts, actions).prediction
    step(envs, 1)
    assert equal(weights(envs), before)
    step(envs, 1)
    assert not equal(weights(envs), before)

    assert not bandit.meta_graph.training
    after = bandit.score(contexts, actions).prediction
    masks = bandit.space.repair(actions.reshape(120, 17, 5))
    with torch.no_grad():
        images = bandit.image_set.normalize(contexts.images).repeat(20, 1, 1, 1)
        expected = bandit.meta_graph(images, masks).argmax(1).reshape(20, 6)
    assert torch.equal(torch.from_numpy(after), expected)
    assert (after != predicted).any()


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 8))
def test_shuffling_keeps_the_multiset(seed, count):
    masks = torch.rand(count, 17, 5, generator=generator_for(seed, 0)) < 0.5
    shuffled = shuffle_policies(masks, generator_for(seed, 1))
    assert sorted(shuffled.flatten(1).tolist()) == sorted(masks.flatten(1).tolist())
    assert torch.equal(shuffled, shuffle_policies(masks, generator_for(seed, 1)))


def test_shuffling_gives_images_the_masks_of_others():
    masks = torch.rand(64, 17, 5, generator=generator_for(0)) < 0.5
    assert (shuffle_policies(masks, generator_for(1)) == masks).flatten(1).all(1).sum() < 8


@pytest.mark.parametrize("shuffle", [False, True])
def test_images_train_with_their_own_masks_unless_shuffled(shuffle):
    """One batch, no augmentation: the loss of the first epoch is that of the weights before it."""
    update = MetaGraphUpdate(shuffle=shuffle, augmentation=None)
    envs = make(images=2 * N, update=update)
    bandit = envs.unwrapped.bandit
    untrained = copy.deepcopy(bandit.meta_graph).train()
    infos = [envs.step(envs.action_space.sample())[4]["final_info"] for _ in range(2)]
    index, masks = (torch.cat([torch.from_numpy(info[name]) for info in infos]) for name in ("index", "mask"))
    with torch.no_grad():
        logits = untrained(bandit.image_set.normalize(bandit.image_set.images[index]), masks)
    loss = F.cross_entropy(logits, bandit.image_set.labels[index]).item()
    assert (update.history[0]["loss"] == pytest.approx(loss, rel=1e-4)) is not shuffle


@pytest.mark.parametrize(("shuffle", "expected"), [(True, [1, 1, 1]), (False, [0, 0, 0]), (2, [1, 1, 0])])
def test_history_tells_which_epochs_were_shuffled(shuffle, expected):
    """A number is a number of first epochs."""
    update = MetaGraphUpdate(shuffle=shuffle)
    step(make(images=N, update=update), 3)
    assert [row["shuffled"] for row in update.history] == expected


def test_the_learning_rate_falls_linearly_and_stays():
    """Five epochs are four falls of 0.02; the seventh epoch is beyond the end. The loss falls as well."""
    update = MetaGraphUpdate(learning_rate=0.1, final_learning_rate=0.02, epochs=5, augmentation=None)
    envs = make(images=N, update=update)
    step(envs, 7, actions=envs.unwrapped.bandit.space.mobilenet_v2_mask().flatten().expand(N, -1))
    rates = [row["learning_rate"] for row in update.history]
    assert rates == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02, 0.02, 0.02])
    assert update._optimizer.param_groups[0]["lr"] == rates[-1]
    assert update.history[-1]["loss"] < update.history[0]["loss"]
    assert all(0 <= row["accuracy"] <= 1 for row in update.history)


def test_frozen_epochs_leave_the_meta_graph_alone():
    """Two of four epochs: then the rate starts at its first value and ends at its last."""
    update = MetaGraphUpdate(learning_rate=0.1, final_learning_rate=0.02, epochs=4, frozen_epochs=2)
    envs = make(images=N, update=update)
    before = weights(envs)
    step(envs, 2)
    assert equal(weights(envs), before) and update.history == []
    step(envs, 2)
    assert not equal(weights(envs), before)
    assert [row["epoch"] for row in update.history] == [3, 4]
    assert [row["learning_rate"] for row in update.history] == pytest.approx([0.1, 0.02])


def test_the_same_seed_gives_the_same_weights():
    def trained(seed: int) -> dict[str, Tensor]:
        envs = make(update=MetaGraphUpdate(seed=seed, batch_size=4))
        step(envs, 4)
        return weights(envs)

    first = trained(1)
    torch.manual_seed(7)
    assert equal(trained(1), first)
    assert not equal(trained(2), first)


def test_a_resumed_run_reaches_the_same_weights(tmp_path):
    """Two epochs, a file, and two more in new objects: momentum, learning rate and exchanges go on."""
    options = {"epochs": 4, "shuffle": 3, "batch_size": 4}
    whole = MetaGraphUpdate(**options)
    envs = make(update=whole, augment=True)
    step(envs, 4)
    state = {"env": envs.unwrapped.state_dict(), "update": whole.state_dict(), "weights": weights(envs)}
    save_checkpoint(tmp_path / "c.pt", state)

    resumed = MetaGraphUpdate(**options)
    others = make(update=resumed, augment=True)
    state, bandit = load_checkpoint(tmp_path / "c.pt"), others.unwrapped.bandit
    bandit.meta_graph.load_state_dict(state["weights"])
    bandit.refresh()
    resumed.load_state_dict(state["update"], bandit)
    others.unwrapped.load_state_dict(state["env"])
    actions = torch.rand(4, N, 85, generator=generator_for(5)) < 0.5
    for action in actions:
        results = [each.step(action) for each in (envs, others)]
        assert (results[0][0] == results[1][0]).all() and (results[0][1] == results[1][1]).all()
    assert equal(weights(envs), weights(others))
    assert whole.history == resumed.history and len(whole.history) == 4


def test_a_callback_that_trained_another_meta_graph_begins_anew():
    """In another environment, or where the bandit is given another meta-graph: as a new callback would."""

    def trained(update: MetaGraphUpdate) -> dict[str, Tensor]:
        envs = make(update=update)
        actions = torch.rand(4, N, 85, generator=generator_for(5)) < 0.5
        for action in actions[:2]:
            envs.step(action)
        bandit = envs.unwrapped.bandit
        bandit.meta_graph = copy.deepcopy(untrained)
        bandit.refresh()
        for action in actions[2:]:
            envs.step(action)
        return weights(envs)

    untrained, used = make().unwrapped.bandit.meta_graph, MetaGraphUpdate()
    first = trained(used)
    assert not equal(first, untrained.state_dict())
    assert equal(trained(used), first)
    assert len(used.history) == 4


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_rewind_drops_what_came_after_it(at_the_end):
    """An epoch's end that failed, or half an epoch, is not settled on the state that was loaded."""
    update, twin = MetaGraphUpdate(), MetaGraphUpdate()
    envs, other = make(update=update), make(update=twin)
    failing = EnvCallback()
    failing.on_epoch_end = lambda env: 1 / 0
    before = weights(envs)
    saved = copy.deepcopy((envs.unwrapped.state_dict(), update.state_dict()))
    step(envs, 1)
    if at_the_end:
        envs.unwrapped.add_callback(failing)
        with pytest.raises(ZeroDivisionError):
            step(envs, 1)
        failing.on_epoch_end = lambda env: None
    bandit = envs.unwrapped.bandit
    bandit.meta_graph.load_state_dict(before)
    bandit.refresh()
    envs.unwrapped.load_state_dict(saved[0])
    update.load_state_dict(saved[1], bandit)
    actions = torch.rand(2, N, 85, generator=generator_for(5)) < 0.5
    for each in (envs, other):
        for action in actions:
            each.step(action)
    assert str(envs.unwrapped.state_dict()["bandit"]) == str(other.unwrapped.state_dict()["bandit"])
    assert equal(weights(envs), weights(other)) and update.history == twin.history


def test_a_teacher_is_imitated():
    """One that is sure of a class that is never said without it: after two epochs the meta-graph says it."""
    path = gym.make("InstaNAS-v1", **SCRATCH).unwrapped.bandit.space.mobilenet_v2_mask()

    def train(teacher) -> Tensor:
        """The classes that are said afterwards."""
        update = MetaGraphUpdate(learning_rate=0.05, batch_size=8, augmentation=None, teacher=teacher)
        envs = make(24, update)
        bandit = envs.unwrapped.bandit
        step(envs, 16, path.flatten().expand(N, -1).to(torch.int8))
        images = bandit.image_set.normalize(bandit.image_set.images)
        return bandit.meta_graph(images, path.expand(24, -1, -1)).argmax(1)

    untaught = train(None)
    never = int(torch.bincount(untaught, minlength=10).argmin())
    sure = 50.0 * F.one_hot(torch.tensor(never), 10).float()
    taught = train(lambda inputs: sure.expand(len(inputs), -1))
    assert (taught == never).float().mean() > (untaught == never).float().mean() + 0.2


def test_the_history_tells_of_the_loss_with_the_teacher_in_it():
    """At a learning rate of 0 the logits stay: that loss is the mean of those with either's labels."""

    def loss(label: int, teacher=None) -> float:
        update = MetaGraphUpdate(
            learning_rate=0.0, final_learning_rate=0.0, batch_size=8, augmentation=None, teacher=teacher
        )
        envs = make(24, update)
        bandit = envs.unwrapped.bandit
        bandit.image_set = replace(bandit.image_set, labels=torch.full((24,), label))
        step(envs, 8)
        return update.history[0]["loss"]

    sure = 50.0 * F.one_hot(torch.tensor(4), 10).float()
    taught = loss(1, lambda inputs: sure.expand(len(inputs), -1))
    assert loss(1) != pytest.approx(loss(4), abs=0.01)
    assert taught == pytest.approx((loss(1) + loss(4)) / 2)
