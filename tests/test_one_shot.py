"""The one-shot search: its frontier holds what nothing beats; what is refined is ranked on all images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.one_shot import Candidate, OneShotSearch, best_layers
from instanas_env.bandit import InstanceBandit
from instanas_env.data import load_images
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.seeding import generator_for
from instanas_env.training.epoch import predict_classes

IMAGES = np.zeros((6, 3, 32, 32), np.uint8)


@pytest.fixture(scope="module")
def bandit(tiny_graph, tiny_space) -> InstanceBandit:
    """Eight images whose labels are the answers of the full network: it is right about all of them.

    Module m costs m + 1 ms, so the cheapest network takes 5 (as many cells change shape)
    and the full one 17 * 15 = 255.
    """
    few = load_images("embedded", "val").take(torch.arange(8))
    labels = predict_classes(tiny_graph, few, tiny_space.full_mask())
    costs = torch.arange(1.0, 6.0).double().expand(17, 5)
    return InstanceBandit(tiny_graph, replace(few, labels=labels), LatencyTable(tiny_space, costs, fixed=0.0))


def candidate(
    mask, accuracy: float, latency_ms: float, by_class: tuple[float, ...] | None = None
) -> Candidate:
    """A candidate as good at its one class as on the whole, unless told."""
    return Candidate(mask, accuracy, latency_ms, torch.tensor(by_class or (accuracy,)).double())


points = st.lists(st.tuples(st.integers(0, 8), st.integers(1, 20)), min_size=1, max_size=30)


@given(points=points)
def test_the_frontier_is_what_nothing_beats(bandit, points):
    """Against the definition, over all pairs; of equals, one stays."""
    search = OneShotSearch(bandit)
    for right, latency in points:
        search._keep(candidate(bandit.space.full_mask(), right / 8, float(latency)))

    def beaten(right: int, latency: int) -> bool:
        return any(r >= right and z <= latency and (r, z) != (right, latency) for r, z in points)

    unbeaten = {(right / 8, float(latency)) for right, latency in points if not beaten(right, latency)}
    kept = [(candidate.accuracy, candidate.latency_ms) for candidate in search.frontier]
    assert len(kept) == len(set(kept)) and set(kept) == unbeaten


@given(points=points, limit=st.integers(0, 21))
def test_the_best_within_a_limit(bandit, points, limit):
    """The most accurate of those affordable; where nothing is, the fastest of all."""
    search = OneShotSearch(bandit)
    for right, latency in points:
        search._keep(candidate(bandit.space.full_mask(), right / 8, float(latency)))
    best = search.best(limit)
    affordable = [right / 8 for right, latency in points if latency <= limit]
    if affordable:
        assert best.latency_ms <= limit and best.accuracy == max(affordable)
    else:
        assert best.latency_ms == min(latency for _, latency in points)


def test_a_search_ranks_by_the_meta_graph(bandit, tiny_graph):
    """Accuracies and latencies of the frontier are those of its masks on the images searched on."""
    search = OneShotSearch(bandit, seed=3, images=6).search(12)
    assert len(search.image_set) == 6 and search.frontier
    for candidate in search.frontier:
        mask = candidate.mask
        assert torch.equal(bandit.space.repair(mask), mask)
        right = predict_classes(tiny_graph, search.image_set, mask) == search.image_set.labels
        assert candidate.accuracy == pytest.approx(right.sum().item() / 6)
        assert candidate.latency_ms == sum(m + 1 for _, m in mask.nonzero().tolist())


def test_a_search_yields_every_candidate(bandit):
    """More candidates never make the frontier worse."""
    search, frontier_at = OneShotSearch(bandit, seed=4), []
    ranked = []
    for candidate in search.rank(10):
        ranked.append((candidate.accuracy, candidate.latency_ms))
        frontier_at.append(search.best(80.0).accuracy if search.best(80.0).latency_ms <= 80 else 0.0)
    assert len(ranked) == 10
    assert frontier_at == sorted(frontier_at)
    assert {(c.accuracy, c.latency_ms) for c in search.frontier} <= set(ranked)


def test_the_seed_decides_the_search(bandit):
    def found(seed: int) -> list:
        search = OneShotSearch(bandit, seed=seed).search(6)
        return [(c.accuracy, c.latency_ms, c.mask.tolist()) for c in search.candidates]

    first = found(1)
    torch.manual_seed(7)
    assert found(1) == first != found(2)


def test_a_search_that_has_not_searched_says_so(bandit):
    with pytest.raises(ValueError, match="search"):
        OneShotSearch(bandit).best(1.0)


def ranked(bandit: InstanceBandit, candidates: list[Candidate]) -> OneShotSearch:
    """A search that has ranked these."""
    search = OneShotSearch(bandit)
    for each in candidates:
        search.candidates.append(each)
        search._keep(each)
    return search


def test_a_menu_is_of_masks_that_complement_each_other(bandit):
    """All at 2 ms. A is the frontier; B helps where A fails; C, nearly as good as A, adds nothing to it.

    The classes' accuracies are A (.9, .8), B (.2, .95), C (.85, .8). After A, B adds .15 on the second
    class and C nothing. What adds nothing comes last.
    """
    a, b, c = bandit.space.random_masks(3, 0.5, generator_for(0))
    by_class = ((c, (0.85, 0.8)), (a, (0.9, 0.8)), (b, (0.2, 0.95)))
    search = ranked(bandit, [candidate(mask, sum(by) / 2, 2.0, by) for mask, by in by_class])
    assert torch.equal(search.menu(1), a[None]), "nothing from the frontier: A serves best in both classes"
    assert torch.equal(search.menu(2), torch.stack([a, b]))
    assert torch.equal(search.menu(9), torch.stack([a, b, c]))


def test_a_menu_has_slow_masks_and_fast_ones(bandit):
    """MobileNetV2 takes 17 * 3 = 51 ms here, so prices are 0.01, 0.03 and 0.1 for 51 ms.

    Of one class, A has .9 at 51 ms, B .88 at 10 ms, C .85 at 30 ms. Over the prices A is worth .89, .87
    and .8, B .878, .874 and .86, C .844, .832 and .791. A menu of one is B; of two, A from the frontier
    and then B; of three C too, which helps nobody.
    """
    a, b, c = bandit.space.random_masks(3, 0.5, generator_for(0))
    values = ((c, 0.85, 30.0), (a, 0.9, 51.0), (b, 0.88, 10.0))
    search = ranked(bandit, [candidate(*value) for value in values])
    assert torch.equal(search.menu(1), b[None])
    assert torch.equal(search.menu(2), torch.stack([a, b]))
    assert torch.equal(search.menu(3), torch.stack([a, b, c]))


def test_a_mask_that_was_ranked_twice_is_on_the_menu_once(bandit):
    a, b = bandit.space.random_masks(2, 0.5, generator_for(0))
    search = ranked(bandit, [candidate(b, 0.4, 3.0), *[candidate(a, 0.5, 2.0)] * 2])
    assert torch.equal(search.menu(9), torch.stack([a, b]))


def test_a_menu_of_nothing_ranked_says_so(bandit):
    with pytest.raises(ValueError, match=r"^candidates: empty; call search\(count\) first"):
        OneShotSearch(bandit).menu(3)


def test_accuracy_by_class_averages_to_that_of_all(bandit):
    """Weighted by the images of each class; a class without images counts as 0."""
    search = OneShotSearch(bandit, seed=3, images=6).search(4)
    sizes = torch.bincount(search.image_set.labels, minlength=10).double()
    for each in search.candidates:
        assert each.class_accuracy.shape == (10,)
        assert (each.class_accuracy * sizes).sum().item() / 6 == pytest.approx(each.accuracy)
        assert (each.class_accuracy[sizes == 0] == 0).all()


def test_only_masks_in_range_are_ranked(bandit):
    """The table's networks take 5 to 255 ms; of random ones, hardly any takes less than 40."""
    search = OneShotSearch(bandit, seed=1, images=2, latencies=(30.0, 60.0)).search(8)
    assert len(search.candidates) == 8
    assert all(30 <= candidate.latency_ms <= 60 for candidate in search.candidates)


@pytest.mark.parametrize("latencies", [(60.0, 30.0), (1.0, 4.9), (256.0, 300.0)])
def test_a_range_without_masks_is_refused(bandit, latencies):
    with pytest.raises(ValueError, match=r"^latencies: got .* ms; masks take 5 to 255 ms"):
        OneShotSearch(bandit, latencies=latencies)


def test_a_range_that_no_draw_meets_says_so(bandit, monkeypatch):
    monkeypatch.setattr("agents.one_shot.PROPOSALS", 20)
    with pytest.raises(ValueError, match=r"^latencies: none of 20 masks drawn took 254 to 255 ms; widen"):
        OneShotSearch(bandit, latencies=(254.1, 254.9)).search(1)


@given(points=points, count=st.integers(1, 30))
def test_layers_are_frontiers_of_what_is_left(points, count):
    """Against the definition: of those not yet chosen, what none of them beats; of equals, one a layer."""
    accuracy, latency = zip(*points, strict=True)
    chosen, rest, expected = best_layers(accuracy, latency, count), list(points), []
    while rest and len(expected) < count:
        layer = {(r, z) for r, z in rest if not any(a >= r and b <= z and (a, b) != (r, z) for a, b in rest)}
        expected += sorted(layer)
        for point in layer:
            rest.remove(point)
    assert len(set(chosen)) == len(chosen)
    assert sorted(points[i] for i in chosen) == sorted(expected)


def test_refined_masks_are_ranked_on_all_images(bandit):
    """Ranked on two images the first time, on eight the second; the others are forgotten."""
    search = OneShotSearch(bandit, seed=3, images=2).search(12)
    assert search.answers == 12 * 2
    before = {tuple(c.mask.flatten().tolist()): c for c in search.candidates}
    list(search.refine(3))
    assert 3 <= len(search.candidates) < 12
    assert search.answers == 12 * 2 + len(search.candidates) * 8, "all images, and what was forgotten counts"
    for each in search.candidates:
        right = predict_classes(bandit.meta_graph, bandit.image_set, each.mask) == bandit.image_set.labels
        assert each.accuracy == pytest.approx(right.sum().item() / 8)
        assert each.latency_ms == before[tuple(each.mask.flatten().tolist())].latency_ms
    assert set(map(id, search.frontier)) <= set(map(id, search.candidates))


def test_given_masks_are_ranked_whatever_they_take(bandit):
    masks = torch.stack([bandit.space.full_mask(), bandit.space.mobilenet_v2_mask()])
    search = OneShotSearch(bandit, latencies=(10.0, 60.0))
    full, path = search.rank_masks(masks)
    assert (full.latency_ms, path.latency_ms) == (255.0, 51.0) and full.accuracy == 1.0


def test_a_space_without_mobilenet_v2_has_a_menu(bandit, tiny_space):
    """The cheapest path is the one that everybody knows."""
    space = tiny_space.only(0, 3)
    graph = MetaGraph(space, 10, generator_for(0)).eval()
    table = LatencyTable(space, torch.arange(1.0, 3.0).double().expand(17, 2), fixed=0.0)
    search = OneShotSearch(InstanceBandit(graph, bandit.image_set, table)).search(6)
    assert torch.equal(search.known(), table.cheapest_mask()[None]) and len(search.menu(3)) == 3


def test_samples_are_what_a_search_ranks_after_the_masks_that_anybody_knows(bandit):
    """To the first half of a search's masks; the same for a seed, and in range."""

    def sampled(count: int, seed: int = 3) -> list:
        return OneShotSearch(bandit, seed=seed, images=2, latencies=(30.0, 200.0)).sample(count).tolist()

    search = OneShotSearch(bandit, seed=3, images=2, latencies=(30.0, 200.0)).search(8)
    table, known = bandit.latency_table, search.known().tolist()
    both = [bandit.space.mobilenet_v2_mask(), table.cheapest_mask()]
    assert known == [mask.tolist() for mask in both if 30 <= table.lookup(mask) <= 200] and len(known) >= 1
    ranked = [candidate.mask.tolist() for candidate in search.candidates[:4]]
    assert ranked == [*known, *sampled(4)][:4] and sampled(4) == sampled(8)[:4]
    assert sampled(4, seed=4) != sampled(4)
    latencies = bandit.latency_table.lookup(torch.tensor(sampled(8)))
    assert latencies.min() >= 30 and latencies.max() <= 200


def test_two_thirds_of_the_samples_are_paths(bandit):
    """A third are masks of any density, a third paths of random modules, a third MobileNetV2's less blocks.

    Of 600 samples each kind has 200, with a deviation of 12. A mask of any density is a path of MobileNetV2's
    modules only if it is almost empty; a path of random modules only if its 5 needed cells have that module.
    """
    space = bandit.space
    masks = OneShotSearch(bandit).sample(600)
    paths = masks[(masks.sum(2) <= 1).all(1)]
    part = ~(paths & ~space.mobilenet_v2_mask()).flatten(1).any(1)
    assert 350 < len(paths) < 470 and 150 < part.sum() < 250
    assert (paths.any(2) | ~space.needs_module).all(), "no needed cell is empty"
    blocks = paths[part].sum((1, 2))
    assert blocks.min() == 5 and blocks.max() == 17, "5 cells of 17 are needed here; any number of the others"
    assert len(paths[~part].sum(2).unique()) == 2 and (paths[~part].any(0).all())


def test_a_space_without_mobilenet_v2_samples_paths_too(bandit, tiny_space):
    space = tiny_space.only(0, 3)
    graph = MetaGraph(space, 10, generator_for(0)).eval()
    table = LatencyTable(space, torch.arange(1.0, 3.0).double().expand(17, 2), fixed=0.0)
    masks = OneShotSearch(InstanceBandit(graph, bandit.image_set, table)).sample(60)
    assert torch.equal(space.repair(masks), masks)
    assert any(torch.equal(mask, table.cheapest_mask()) for mask in masks)


def test_mutations_differ_from_the_frontier_by_a_few_bits_or_in_one_cell(bandit):
    """Half of 400 flip two of 85 bits on average; half give one cell a single module, or none.

    The parent has all modules: what was flipped has fewer in some cell, seldom one or none of five.
    """
    search = OneShotSearch(bandit)
    search.add(candidate(bandit.space.full_mask(), 0.5, 255.0))
    masks = search.sample(400, mutate=True)
    changed = masks.sum(2) < 5
    in_one_cell = (changed.sum(1) == 1) & ((masks.sum(2) <= 1).sum(1) == 1)
    assert 150 < in_one_cell.sum() < 250
    flipped = (~masks[~in_one_cell]).sum((1, 2))
    assert 1.6 < flipped.double().mean() < 2.4
    cells = masks[in_one_cell][changed[in_one_cell]]
    assert (cells.sum(1) == 0).any() and cells.any(0).all(), "none, and each of the five"


def test_half_of_a_menu_is_spread_over_the_frontier(bandit):
    """Five on the frontier, at 10, 20, 30, 40 and 50 ms: three of six masks are both ends and the middle."""
    search, masks = OneShotSearch(bandit), bandit.space.random_masks(7, 0.3, generator_for(1))
    for number, mask in enumerate(masks[:5]):
        search.add(candidate(mask, 0.5 + number / 10, 10.0 * (number + 1), (0.5 + number / 10, 0.1)))
    for mask in masks[5:]:  # slower than others as good, but better at a class
        search.add(candidate(mask, 0.4, 45.0, (0.0, 0.9)))
    assert torch.equal(search.menu(6)[:3], masks[[4, 2, 0]])
    assert any(torch.equal(mask, masks[5]) for mask in search.menu(6)[3:])


def test_counts_that_make_no_sense(bandit):
    search = OneShotSearch(bandit, images=4).search(2)
    for wrong in (0, -1, 1.5):
        for call in (search.sample, search.menu, lambda count: list(search.refine(count))):
            with pytest.raises(ValueError, match="^(count|size): got"):
                call(wrong)
    with pytest.raises(ValueError, match="^count: got -1"):
        search.search(-1)
    (nothing,) = search.rank_masks(torch.zeros(1, 17, 5, dtype=torch.bool))
    assert torch.equal(nothing.mask, bandit.space.repair(nothing.mask)), "what must not be empty is not"
