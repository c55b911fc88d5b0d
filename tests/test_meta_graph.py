"""The meta-graph skips what a mask leaves out. It must compute what running everything would."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.storage import save_weights


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def draw_masks(count: int, density: float, seed: int = 0) -> Tensor:
    """Not repaired: a shape-changing cell that is empty gives zeros by either way of computing."""
    return torch.rand(count, 17, 5, generator=torch.Generator().manual_seed(seed)) < density


@torch.no_grad()
def defined_logits(meta_graph: MetaGraph, images: Tensor, masks: Tensor) -> Tensor:
    """The definition: every module for every image, times 0 or 1; the mean of those that are on; identity."""
    x = meta_graph.stem(images)
    for t, cell in enumerate(meta_graph.cells):
        on = masks[:, t].float()  # (B, M)
        outputs = torch.stack([option(x) for option in cell.options], dim=1)  # (B, M, C, H, W)
        total = (outputs * on.reshape(*on.shape, 1, 1, 1)).sum(1)
        mean = total / on.sum(1).clamp(min=1).reshape(-1, 1, 1, 1)
        spec = meta_graph.space.cells[t]
        x = x + mean if spec.stride == 1 and spec.in_channels == spec.out_channels else mean
    return meta_graph.head(x)


def assert_same(logits: Tensor, expected: Tensor, tolerance: float) -> None:
    """Equal within ``tolerance`` of the largest logit."""
    assert logits.shape == expected.shape
    error = (logits - expected).abs().max() / expected.abs().max()
    assert error < tolerance, f"relative error {error:.2e}"


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.2, 0.5, 0.8, 1.0])
def test_dispatch_computes_the_definition(tiny_graph, density, count):
    images, masks = draw(count, 3, 32, 32), draw_masks(count, density)
    with torch.no_grad():
        logits = tiny_graph(images, masks)
    assert_same(logits, defined_logits(tiny_graph, images, masks), 1e-5)


@given(seed=st.integers(0, 2**32 - 1), density=st.floats(0.0, 1.0), count=st.integers(1, 5))
def test_dispatch_computes_the_definition_for_any_masks(tiny_graph, tiny_space, seed, density, count):
    images = draw(count, 3, 32, 32, seed=seed)
    masks = tiny_space.repair(draw_masks(count, density, seed))
    with torch.no_grad():
        logits = tiny_graph(images, masks)
    assert_same(logits, defined_logits(tiny_graph, images, masks), 1e-5)


def test_several_masks_of_an_image_are_computed_as_by_themselves(tiny_graph):
    """They share the stem: ``(K, B)`` masks for B images give ``(K, B)`` logits."""
    images, masks = draw(3, 3, 32, 32), draw_masks(12, 0.4).view(4, 3, 17, 5)
    with torch.no_grad():
        logits = tiny_graph(images, masks)
        assert logits.shape == (4, 3, 10)
        for own, mask in zip(logits, masks, strict=True):
            assert_same(own, tiny_graph(images, mask), 1e-5)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("cache", [1, 30_000, 60_000])
def test_a_small_cache_changes_nothing(tiny_space, randomise_batch_norm, monkeypatch, folded, cache):
    """Modules take one image at a time, or a few, or all; one module is chosen by all seven images."""
    monkeypatch.setattr("instanas_env.networks.meta_cell.CACHE_BYTES", cache)
    meta_graph = randomise_batch_norm(MetaGraph(tiny_space, 10), 3)
    limits = torch.tensor([cell.limits for cell in meta_graph.cells])
    assert (limits == 1).all() if cache == 1 else ((limits < 7).any() and (limits > 1).any())
    images, masks = draw(7, 3, 32, 32), draw_masks(7, 0.4)
    masks[:, 0, 1] = masks[:, 3, 4] = True
    graph, calls = meta_graph.folded() if folded else meta_graph, []
    graph.cells[0].options[1].register_forward_hook(lambda module, args, out: calls.append(len(out)))
    with torch.no_grad():
        logits = graph(images, masks)
        assert calls == [len(part) for part in torch.arange(7).split(limits[0, 1].item())]
        assert_same(logits, defined_logits(meta_graph, images, masks), 1e-4)


def test_gradients_are_those_of_the_definition(tiny_graph):
    """With and without images in common: gathered at once, computed by module, scattered at once."""
    images, masks = draw(5, 3, 32, 32), tiny_graph.space.repair(draw_masks(5, 0.5))
    masks[:, 2, 1] = masks[:, 3] = True
    gradients = []
    for forward in (tiny_graph, defined_logits.__wrapped__):
        twin = copy.deepcopy(tiny_graph)
        logits = twin(images, masks) if forward is tiny_graph else forward(twin, images, masks)
        logits.square().sum().backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in twin.parameters()]
        gradients.append(torch.cat([grad.flatten() for grad in grads]))
    assert_same(*gradients, 1e-4)


def test_nothing_waits_for_a_gpu_inside_the_cells(tiny_graph):
    """On the device without data, reading a value back (item, tolist, nonzero) is an error.

    Masks come from the host here; those on a device are copied once, before the first convolution.
    """
    images, masks = draw(6, 3, 32, 32), draw_masks(6, 0.4)
    for meta_graph in (tiny_graph, tiny_graph.folded()):
        distant = copy.deepcopy(meta_graph).to("meta")
        logits = distant(images.to("meta"), masks)
        assert logits.shape == (6, 10) and logits.device.type == "meta"
    with pytest.raises(RuntimeError):
        images.to("meta").sum().item()


@pytest.mark.parametrize("folded", [False, True])
def test_it_runs_in_half_the_bits(tiny_graph, folded):
    """Under autocast; bfloat16 has 8 bits of precision, and 17 cells to lose them in."""
    images, masks = draw(6, 3, 32, 32), tiny_graph.space.repair(draw_masks(6, 0.4))
    meta_graph = tiny_graph.folded() if folded else tiny_graph
    with torch.no_grad():
        expected = meta_graph(images, masks)
        with torch.autocast("cpu", torch.bfloat16):
            logits = meta_graph(images, masks)
    assert logits.dtype == torch.bfloat16
    assert_same(logits.float(), expected, 0.1)


@pytest.mark.parametrize("cell", [2, 11, 15])
def test_a_cell_that_is_empty_for_all_passes_its_input_on(tiny_graph, cell):
    images, masks = draw(4, 3, 32, 32), draw_masks(4, 0.7)
    masks[:, cell] = False
    shorter = copy.deepcopy(tiny_graph)
    shorter.cells[cell].forward = lambda x, indices, counts, elsewhere: x
    with torch.no_grad():
        assert_same(tiny_graph(images, masks), shorter(images, masks), 1e-6)


@pytest.mark.parametrize(
    ("preset", "width", "side"),
    [("cifar", 0.1, 32), ("tiny_imagenet", 0.1, 64), ("imagenet", 0.1, 224), ("lite", 0.5, 32)],
)
def test_every_preset_computes_the_definition(randomise_batch_norm, preset, width, side):
    meta_graph = randomise_batch_norm(MetaGraph(SearchSpace.preset(preset, width), 7), 3)
    images, masks = draw(2, 3, side, side), meta_graph.space.repair(draw_masks(2, 0.4))
    with torch.no_grad():
        logits = meta_graph(images, masks)
        assert_same(logits, defined_logits(meta_graph, images, masks), 1e-5)
        assert_same(meta_graph.folded()(images, masks), logits, 1e-4)


def test_masks_matter(tiny_graph):
    """Otherwise every equality above would hold for a network that ignores its mask."""
    image = draw(1, 3, 32, 32).expand(6, -1, -1, -1)
    masks = tiny_graph.space.repair(draw_masks(6, 0.5))
    with torch.no_grad():
        logits = tiny_graph(image, masks)
    distance = torch.cdist(logits, logits) + 1e9 * torch.eye(6)
    assert distance.min() > 0.01 * logits.abs().max()


def test_an_image_does_not_notice_its_neighbours(tiny_graph):
    """In the released code it does: the default module depends on the rest of the batch."""
    images, masks = draw(6, 3, 32, 32), tiny_graph.space.repair(draw_masks(6, 0.3))
    with torch.no_grad():
        together = tiny_graph(images, masks)
        alone = torch.cat([tiny_graph(images[i : i + 1], masks[i : i + 1]) for i in range(6)])
        others = masks.roll(1, 0)
        others[0] = masks[0]
        among_others = tiny_graph(images, others)
    assert_same(together, alone, 1e-5)
    assert_same(among_others[:1], together[:1], 1e-5)


def test_child_and_folded_give_the_same_logits(tiny_graph):
    images, masks = draw(5, 3, 32, 32), tiny_graph.space.repair(draw_masks(5, 0.3))
    with torch.no_grad():
        expected = tiny_graph(images, masks)
        children = torch.cat([tiny_graph.child(m)(images[i : i + 1]) for i, m in enumerate(masks)])
        assert_same(tiny_graph.folded()(images, masks), expected, 1e-4)
        assert_same(children, expected, 1e-4)


def test_child_repairs_its_mask(tiny_graph):
    images, nothing = draw(2, 3, 32, 32), torch.zeros(17, 5, dtype=torch.bool)
    with torch.no_grad():
        expected = tiny_graph(images, tiny_graph.space.repair(nothing).expand(2, -1, -1))
        assert_same(tiny_graph.child(nothing)(images), expected, 1e-4)


def test_child_holds_the_chosen_modules_and_nothing_else(tiny_graph):
    """A deployable file must not carry 85 modules, nor BatchNorm: each became one bias per channel."""
    mask = tiny_graph.space.repair(draw_masks(1, 0.2)[0])
    chosen = [tiny_graph.cells[t].options[m] for t, m in mask.nonzero().tolist()]
    child = tiny_graph.child(mask)
    assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in child.modules())
    expected = 0
    for layer in (part for whole in (tiny_graph.stem, *chosen, tiny_graph.head) for part in whole.modules()):
        if isinstance(layer, nn.Conv2d):
            expected += layer.weight.numel() + layer.out_channels
        elif isinstance(layer, nn.Linear):
            expected += layer.weight.numel() + layer.out_features
    assert sum(parameter.numel() for parameter in child.parameters()) == expected


def test_children_of_a_folded_graph_share_its_weights(tiny_graph):
    """Hundreds of them fit into memory; those of a graph itself are independent of it."""
    folded, mask = tiny_graph.folded(), tiny_graph.space.full_mask()
    weights = {parameter.data_ptr() for parameter in folded.parameters()}
    assert {parameter.data_ptr() for parameter in folded.child(mask).parameters()} == weights
    own = {parameter.data_ptr() for parameter in tiny_graph.child(mask).parameters()}
    assert not own & weights
    assert not own & {parameter.data_ptr() for parameter in tiny_graph.parameters()}
    images = draw(2, 3, 32, 32)
    assert_same(folded.child(mask)(images), tiny_graph.child(mask)(images), 1e-6)


def test_training_touches_the_chosen_modules_only(tiny_space):
    """Neither a gradient nor a BatchNorm statistic reaches a module that nobody in the batch chose."""
    meta_graph = MetaGraph(tiny_space, 10).train()
    masks = tiny_space.repair(draw_masks(4, 0.15))
    meta_graph(draw(4, 3, 32, 32), masks).square().sum().backward()
    used = masks.any(0)
    assert 0 < used.sum() < used.numel()
    for t, cell in enumerate(meta_graph.cells):
        for m, option in enumerate(cell.options):
            assert all((p.grad is not None) == bool(used[t, m]) for p in option.parameters())
            for layer in (block.bn for block in option):
                assert layer.num_batches_tracked == used[t, m]
                if not used[t, m]:
                    assert (layer.running_mean == 0).all() and (layer.running_var == 1).all()


@pytest.mark.parametrize("chosen", [[1, 3, 4], [0, 1, 2, 3, 4, 5], [2]])
def test_batch_norm_sees_the_images_that_chose_the_module(tiny_space, chosen):
    """Running statistics after one step: 0.9 x the start (0 and 1) + 0.1 x those of the sub-batch."""
    meta_graph = MetaGraph(tiny_space, 10).train()
    images, masks = draw(6, 3, 32, 32), draw_masks(6, 0.5)
    masks[:, 0, 3] = False
    masks[chosen, 0, 3] = True
    block = meta_graph.cells[0].options[3][0]
    with torch.no_grad():
        before = block.conv(copy.deepcopy(meta_graph.stem)(images)[chosen])
        meta_graph(images, masks)
    mean, var = before.mean((0, 2, 3)), before.var((0, 2, 3))
    torch.testing.assert_close(block.bn.running_mean, 0.9 * 0 + 0.1 * mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(block.bn.running_var, 0.9 * 1 + 0.1 * var, rtol=1e-4, atol=1e-6)


def test_the_generator_determines_the_weights(tiny_space):
    def weights(seed: int) -> Tensor:
        meta_graph = MetaGraph(tiny_space, 10, torch.Generator().manual_seed(seed))
        return torch.cat([parameter.flatten() for parameter in meta_graph.parameters()])

    torch.manual_seed(1)
    first = weights(5)
    torch.manual_seed(2)
    assert torch.equal(weights(5), first)
    assert not torch.equal(weights(6), first)


def test_building_a_meta_graph_draws_nothing_from_the_global_generator(tiny_space):
    state = torch.get_rng_state()
    MetaGraph(tiny_space, 10, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_folding_draws_nothing_from_the_global_generator(tiny_graph):
    """Folding happens at every evaluation: it must not shift an agent's random numbers."""
    state = torch.get_rng_state()
    tiny_graph.folded()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("masks", [torch.ones(2, 17, 5), torch.ones(1, 17, 5) > 0, torch.ones(2, 85) > 0])
def test_wrong_masks_are_named(tiny_graph, masks):
    with pytest.raises(ValueError, match=r"^masks: got torch\..* torch\.bool \(2, 17, 5\) will do"):
        tiny_graph(draw(2, 3, 32, 32), masks)


def test_save_and_load_bit_for_bit(tiny_graph, tmp_path):
    tiny_graph.save(tmp_path / "weights.safetensors", {"how": "test"})
    loaded = MetaGraph.load(tmp_path / "weights.safetensors")
    assert not loaded.training and loaded.space == tiny_graph.space and loaded.num_classes == 10
    expected, state = tiny_graph.state_dict(), loaded.state_dict()
    assert state.keys() == expected.keys()
    for name in (name for name in state if not name.endswith("num_batches_tracked")):
        assert torch.equal(state[name], expected[name]), name


def test_a_truncated_file_is_named(tiny_graph, tmp_path):
    path = tmp_path / "weights.safetensors"
    tiny_graph.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="weights.safetensors"):
        MetaGraph.load(path)


@pytest.mark.parametrize("spoil", ["smaller space", "fewer modules", "too few", "another kind"])
def test_a_file_that_does_not_fit_is_named(tiny_graph, tmp_path, spoil):
    weights = {n: t for n, t in tiny_graph.state_dict().items() if not n.endswith("num_batches_tracked")}
    config = {"search_space": tiny_graph.space.config, "num_classes": 10}
    if spoil == "smaller space":
        config["search_space"] = SearchSpace.preset("lite", width=0.25).config
    elif spoil == "fewer modules":
        config["search_space"] = tiny_graph.space.only(0, 1).config
    elif spoil == "too few":
        del weights["stem.conv.weight"]
    else:
        config = {"controller": "three convolutions"}
    path = tmp_path / "weights.safetensors"
    save_weights(path, weights, config)
    with pytest.raises(ValueError, match=r"^meta_graph: .*weights\.safetensors"):
        MetaGraph.load(path)
