"""The bandit: which images come when, and what a mask on an image is worth."""

from __future__ import annotations

import copy
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from instanas_env.bandit import InstanceBandit, Outcome
from instanas_env.build import shipped
from instanas_env.contextual import Rules
from instanas_env.data import Augmentation, ImageSet, load_images
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.reward import BoundsSchedule
from instanas_env.seeding import generator_for
from instanas_env.storage import load_checkpoint, save_checkpoint

SIZE = 6
SHIPPED = {MetaGraph: "meta_graph.safetensors", LatencyTable: "latency/lite.json"}
TO_60_PERCENT = BoundsSchedule(((0.6, "full"),) * 2, ((0.0, "full"),) * 2, None)
NAMES = [field.name for field in fields(Outcome)]


@pytest.fixture(scope="module")
def images(tiny_graph, tiny_space) -> ImageSet:
    """Six images; the full network is right about the first three and wrong about the others."""
    few = load_images("embedded", "val").take(torch.arange(SIZE))
    with torch.no_grad():
        full = tiny_space.full_mask().expand(SIZE, -1, -1)
        labels = tiny_graph(few.normalize(few.images[torch.arange(SIZE)]), full).argmax(1)
    labels[3:] = (labels[3:] + 1) % 10
    return replace(few, labels=labels)


@pytest.fixture
def table(tiny_space) -> LatencyTable:
    """Module m costs m + 1 ms: a full cell 15, all modules 17 * 15 = 255, the mobilenet_v2 path 17 * 3."""
    return LatencyTable(tiny_space, torch.arange(1.0, 6.0).double().expand(17, 5), fixed=5.0)


@pytest.fixture
def make(tiny_graph, images, table):
    """A function that makes a bandit on the six images."""
    return lambda cost_table=None, augmentation=None, **rules: InstanceBandit(
        tiny_graph, images, table, cost_table, augmentation, rules=Rules(**rules)
    )


def actions_for(bandit: InstanceBandit, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, bandit.space.num_bits, generator=generator_for(0)) < 0.5


def assert_same(one: Outcome, other: Outcome) -> None:
    for name in NAMES:
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs), name


def test_a_pass_shows_every_image_once(make, images):
    bandit = make()
    drawn = [bandit.draw(count) for count in (1, 2, 3)]
    assert torch.cat([contexts.index for contexts in drawn]).sort().values.tolist() == list(range(SIZE))
    for contexts in drawn:
        assert torch.equal(contexts.images, images.images[contexts.index])


def test_passes_are_shuffled_anew_or_all_alike(make):
    bandit = make(order="shuffled")
    orders = [bandit.draw(SIZE).index.tolist() for _ in range(3)]
    assert all(sorted(order) == list(range(SIZE)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    bandit = make(order="sequential")
    assert [bandit.draw(4).index.tolist() for _ in range(3)] == [[0, 1, 2, 3], [4, 5, 0, 1], [2, 3, 4, 5]]


def test_a_draw_across_the_boundary_takes_from_both_passes(make):
    bandit = make()
    index = torch.cat([bandit.draw(count).index for count in (4, 4, 4)])
    assert sorted(index[:SIZE].tolist()) == sorted(index[SIZE:].tolist()) == list(range(SIZE))


def test_reset_starts_again(make):
    """Nothing of what happened before is left: neither epoch, nor queue, nor count."""
    bandit = make(augmentation=Augmentation())
    bandit.reset(np.random.default_rng(3))
    first = bandit.draw(4)
    bandit.act(first, actions_for(bandit, 4))
    bandit.act(bandit.draw(4), actions_for(bandit, 4))
    bandit.next_epoch()
    bandit.reset(np.random.default_rng(3))
    again = bandit.draw(4)
    assert torch.equal(first.images, again.images) and bandit.epoch == 0
    assert [bandit.act(again, actions_for(bandit, 4))[1] for _ in range(2)] == [False, True]


def test_an_image_is_augmented_alike_alone_and_in_a_batch(make):
    together, alone = make(augmentation=Augmentation()), make(augmentation=Augmentation())
    batch = together.draw(SIZE)
    single = [alone.draw(1) for _ in range(SIZE)]
    assert torch.equal(batch.index, torch.cat([contexts.index for contexts in single]))
    assert torch.equal(batch.images, torch.cat([contexts.images for contexts in single]))
    assert not torch.equal(batch.images, together.image_set.images[batch.index])


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_scoring_draws_and_changes_nothing(make, augmentation):
    """The next images are those that would have come anyway."""
    scoring, other = make(augmentation=augmentation), make(augmentation=augmentation)
    contexts, _ = scoring.draw(4), other.draw(4)
    before = copy.deepcopy(scoring.state_dict())
    first = scoring.score(contexts, actions_for(scoring, 4))
    assert_same(scoring.score(contexts, actions_for(scoring, 4)), first)
    assert scoring.state_dict() == before, "two scores later"
    assert torch.equal(scoring.draw(5).images, other.draw(5).images)


def test_several_masks_score_as_each_by_itself(make):
    bandit = make()
    contexts, actions = bandit.draw(4), actions_for(bandit, 3, 4)
    together = bandit.score(contexts, actions)
    assert together.mask.shape == (3, 4, 17, 5)
    for k in range(3):
        row = {name: getattr(together, name)[k] for name in NAMES}
        assert_same(Outcome(**row), bandit.score(contexts, actions[k]))


def test_outcomes_by_hand(make, images, table):
    """Every field from the others: the mask's price, R_A, R_T and equation (2), for six images, 8 masks."""
    bandit = make(correct_reward=3.0, wrong_reward=-2.0, bounds=TO_60_PERCENT)
    contexts = bandit.contexts(torch.tensor([5, 0, 1, 4, 2, 3]))
    actions = torch.cat([actions_for(bandit, 7, SIZE), torch.ones(1, SIZE, 85)])
    outcome = bandit.score(contexts, actions)
    upper, lower = 0.6 * (255 + 5), 0.0
    for k in range(8):
        for i, image in enumerate([5, 0, 1, 4, 2, 3]):
            mask = bandit.space.repair(actions[k, i].reshape(17, 5).bool())
            assert np.array_equal(outcome.mask[k, i], mask.numpy())
            assert outcome.index[k, i] == image and outcome.label[k, i] == images.labels[image]
            right = outcome.prediction[k, i] == outcome.label[k, i]
            assert outcome.correct[k, i] == outcome.is_success[k, i] == right
            latency = 2 + 3 + sum(m + 1 for _, m in mask.nonzero().tolist())
            assert outcome.latency_ms[k, i] == latency
            fast = max(0.0, (upper - latency) * (latency - lower) / ((upper - lower) / 2) ** 2)
            assert outcome.reward_task[k, i] == (3.0 if right else -2.0)
            assert outcome.reward_latency[k, i] == pytest.approx(fast)
            assert outcome.reward[k, i] == pytest.approx(3.0 * fast if right else -2.0)
    assert outcome.correct[7].tolist() == [False, True, True, False, True, False]
    assert (outcome.upper_ms == upper).all() and (outcome.lower_ms == lower).all() and not outcome.epoch.any()


def test_predictions_are_those_of_the_repaired_masks(make, tiny_graph, images):
    """The last action is empty: cells that change shape get module 0 at 1 ms; stem and head take 5."""
    bandit = make()
    contexts, actions = bandit.draw(SIZE), actions_for(bandit, SIZE)
    actions[-1] = False
    masks = bandit.space.repair(actions.reshape(SIZE, 17, 5))
    with torch.no_grad():
        expected = tiny_graph(images.normalize(contexts.images), masks).argmax(1)
    outcome = bandit.score(contexts, actions)
    assert outcome.prediction.tolist() == expected.tolist()
    needed = sum(not cell.keeps_shape for cell in bandit.space.cells)
    assert outcome.mask[-1].sum() == needed and outcome.latency_ms[-1] == needed * 1 + 5


def test_another_cost_is_judged_but_latency_is_told(make, table):
    """All modules cost 1 of the other cost: the window is 0.6 * 85, and 85 lies outside, 17 inside."""
    other = LatencyTable(table.space, torch.ones(17, 5).double(), fixed=0.0)
    bandit = make(cost_table=other, bounds=TO_60_PERCENT)
    masks = torch.stack([table.space.full_mask(), table.space.mobilenet_v2_mask()])
    outcome = bandit.score(bandit.contexts(torch.tensor([0, 0])), masks.flatten(1))
    assert outcome.latency_ms.tolist() == [17 * 15 + 5, 17 * 3 + 5]
    assert outcome.reward_latency.tolist() == pytest.approx([0, (51 - 17) * 17 / (51 / 2) ** 2])


def test_new_weights_count_from_refresh_on(tiny_graph, images, table):
    """A bias of 1000 makes everything class 7."""
    bandit = InstanceBandit(copy.deepcopy(tiny_graph), images, table)
    contexts, actions = bandit.draw(SIZE), actions_for(bandit, SIZE)
    before = bandit.score(contexts, actions)
    bandit.meta_graph.head[-1].bias.data[7] += 1000
    assert_same(bandit.score(contexts, actions), before)
    bandit.refresh()
    assert bandit.score(contexts, actions).prediction.tolist() == [7] * SIZE != before.prediction.tolist()


def test_an_epoch_ends_when_as_many_images_were_acted_on(make):
    """Six images, four a step: after 8, 12 and 20 of them, since what is over counts for the next."""
    bandit = make(bounds=BoundsSchedule(((1.0, "full"), (0.5, "full")), ((0.0, "full"),) * 2, None, epochs=3))
    ends, uppers = [], []
    for _ in range(5):
        outcome, ended = bandit.act(bandit.draw(4), actions_for(bandit, 4))
        ends.append(ended)
        uppers.append(outcome.upper_ms[0])
        if ended:
            bandit.next_epoch()
    assert ends == [False, True, True, False, True]
    assert uppers == pytest.approx([260 * factor for factor in (1, 1, 0.75, 0.5, 0.5)])
    assert bandit.epoch == 3


def test_an_epoch_outside_the_window_warns(make):
    """U is 0.05 * 260 = 13 ms: the cheapest network takes 7 + 5, and one such image is enough."""
    bandit = make(bounds=BoundsSchedule(((0.05, "full"),) * 2, ((0.0, "full"),) * 2, None))
    bandit.act(bandit.draw(1), torch.zeros(1, 85))
    bandit.act(bandit.draw(5), torch.ones(5, 85))
    bandit.next_epoch()  # a warning would be an error here
    bandit.act(bandit.draw(SIZE), torch.ones(SIZE, 85))
    with pytest.warns(UserWarning, match=r"epoch 1: no latency fell inside the reward window \(0, 13\)"):
        bandit.next_epoch()


def test_a_resumed_bandit_goes_on_as_the_first_would_have(make, tmp_path):
    """Through a file, into a bandit that has a past of its own."""
    first, second = make(augmentation=Augmentation()), make(augmentation=Augmentation())
    first.act(first.draw(4), actions_for(first, 4))
    second.reset(np.random.default_rng(9))
    save_checkpoint(tmp_path / "c.pt", first.state_dict())
    second.load_state_dict(load_checkpoint(tmp_path / "c.pt"))
    for _ in range(4):
        one, other = first.draw(3), second.draw(3)
        assert torch.equal(one.index, other.index) and torch.equal(one.images, other.images)
    (one, ended), (other, also) = (b.act(c, actions_for(b, 3)) for b, c in ((first, one), (second, other)))
    assert ended and also
    assert_same(one, other)


SHAPES = [(85,), (5, 85), (SIZE, 84), (SIZE, 17, 5), (2, 5, 85), (2, 2, SIZE, 85), ()]
BAD = [torch.zeros(shape) for shape in SHAPES]
BAD += [torch.full((SIZE, 85), value) for value in (float("nan"), 2, 0.5, -1)]


@pytest.mark.parametrize("actions", BAD, ids=lambda actions: f"{actions.flatten()[0]:g} {[*actions.shape]}")
def test_bad_actions_are_refused_and_change_nothing(make, actions):
    bandit = make()
    contexts = bandit.draw(SIZE)
    before = copy.deepcopy(bandit.state_dict())
    for attempt in (bandit.act, bandit.score):
        with pytest.raises(ValueError, match="^actions: got "):
            attempt(contexts, actions)
    assert bandit.state_dict() == before


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"order": "random"}, "order"),
        ({"correct_reward": -1.0}, "correct_reward"),
        ({"correct_reward": float("nan")}, "correct_reward"),
        ({"bounds": BoundsSchedule(((0.1, "full"),) * 2, ((0.2, "full"),) * 2, None)}, "bounds"),
    ],
)
def test_bad_options_are_named(make, options, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        make(**options)


def test_autocast_computes_in_half_the_bits():
    """Hardly an image of 200 changes sides for it; the shipped weights give it something to decide."""
    images = load_images("embedded", "val").take(torch.arange(200))
    graph, table = (cls.load(shipped(name)) for cls, name in SHIPPED.items())
    exact = InstanceBandit(graph, images, table)
    half = InstanceBandit(graph, images, table, autocast=True)
    actions = actions_for(exact, 200)
    types = []
    half.folded.register_forward_hook(lambda module, args, logits: types.append(logits.dtype))
    predictions = [each.score(each.contexts(torch.arange(200)), actions).prediction for each in (exact, half)]
    assert types == [torch.bfloat16]
    assert (predictions[0] == predictions[1]).mean() > 0.95
