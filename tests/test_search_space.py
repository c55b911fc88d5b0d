"""The search space is the contract of every action: shapes, bit order and repair are pinned down here."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instanas_env.build import parse_search_space, search_space_name
from instanas_env.cells import ALL_MODULES, round_to_eight
from instanas_env.search_space import SearchSpace, as_text
from instanas_env.storage import save_weights

# The first cell of each of MobileNetV2's seven stages (1, 2, 3, 4, 3, 3, 1 cells) changes shape.
SHAPE_CHANGING = [1 + 2, 3 + 3, 6 + 4, 10 + 3, 13 + 3]  # of lite; in wider spaces cells 0 and 1 as well


def random_masks(seed: int, density: float, count: int = 4) -> torch.Tensor:
    """Masks that nobody repaired."""
    return torch.rand(count, 17, 5, generator=torch.Generator().manual_seed(seed)) < density


@pytest.mark.parametrize(
    ("preset", "resolution", "scale", "inputs"),
    [
        ("cifar", 32, 1, [32] * 4 + [16] * 3 + [8] * 7 + [4] * 3),
        ("tiny_imagenet", 64, 1, [64] * 2 + [32] * 2 + [16] * 3 + [8] * 7 + [4] * 3),
        ("imagenet", 224, 1, [112] * 2 + [56] * 2 + [28] * 3 + [14] * 7 + [7] * 3),
        ("lite", 32, 1 / 4, [16] * 4 + [8] * 3 + [4] * 7 + [2] * 3),
    ],
)
def test_presets_have_the_shapes_of_mobilenet_v2(preset, resolution, scale, inputs):
    space = SearchSpace.preset(preset)
    assert (space.num_cells, space.num_modules, space.num_bits) == (17, 5, 17 * 5)
    assert space.resolution == resolution
    assert [cell.resolution for cell in space.cells] == inputs
    assert space.stem_channels == 32 * scale
    assert space.head_channels == 1280 * scale
    # A quarter of 16, 24 and 32 is rounded to 8, of 64, 96, 160 and 320 it is a multiple of 8.
    widths = [16, 24, 32, 64, 96, 160, 320] if scale == 1 else [8, 8, 8, 16, 24, 40, 80]
    stages = [[width] * count for width, count in zip(widths, [1, 2, 3, 4, 3, 3, 1], strict=True)]
    assert [cell.out_channels for cell in space.cells] == sum(stages, [])


@pytest.mark.parametrize("preset", ["cifar", "tiny_imagenet", "imagenet", "lite"])
def test_each_cell_takes_what_the_one_before_it_gives(preset):
    """Also, only the first cell of a stage may not be left empty."""
    space = SearchSpace.preset(preset)
    assert space.cells[0].in_channels == space.stem_channels
    assert space.cells[0].resolution == space.resolution // space.stem_stride
    for before, after in zip(space.cells, space.cells[1:], strict=False):
        assert after.in_channels == before.out_channels
        assert after.resolution == before.resolution // before.stride
    changing = [t for t, cell in enumerate(space.cells) if not cell.keeps_shape]
    assert changing == (SHAPE_CHANGING if preset == "lite" else [0, 1, *SHAPE_CHANGING])


def test_width_multiplies_every_channel_count():
    """16, 24 and 96 halve to 8, 12 and 48; 12 is no multiple of 8, and the nearest above it is 16."""
    whole, half = SearchSpace.preset("cifar"), SearchSpace.preset("cifar", width=0.5)
    assert half.stem_channels == whole.stem_channels // 2
    assert half.head_channels == whole.head_channels // 2
    halves = {16: 8, 24: 16, 32: 16, 64: 32, 96: 48, 160: 80, 320: 160}
    assert [c.out_channels for c in half.cells] == [halves[c.out_channels] for c in whole.cells]
    assert [c.resolution for c in half.cells] == [c.resolution for c in whole.cells]


@pytest.mark.parametrize(
    ("channels", "rounded"), [(1e-6, 8), (11, 16), (12, 16), (19, 24), (26.5, 24), (27, 32)]
)
def test_rounding_golden_values(channels, rounded):
    """As MobileNetV2's: 8 is nearest to 11, but less than 90 % of it; 90 % of 27 is 24.3, of 26.5 23.85."""
    assert round_to_eight(channels) == rounded


@given(channels=st.floats(0.01, 5000))
def test_widths_are_multiples_of_eight_and_hardly_smaller(channels):
    rounded = round_to_eight(channels)
    assert rounded % 8 == 0 and rounded >= 8
    assert rounded >= 0.9 * channels and rounded - channels <= 8


def test_labels_name_the_modules_of_figure_3():
    labels = ["Basic k3", "MB k3 F3", "MB k3 F6", "MB k5 F3", "MB k5 F6"]
    assert [module.label for module in ALL_MODULES] == labels


def test_unknown_preset_is_named():
    with pytest.raises(ValueError, match=r"search_space: unknown 'cifr'; choose from cifar, "):
        SearchSpace.preset("cifr")


@pytest.mark.parametrize("width", [0, -1.0, float("inf"), float("nan")])
def test_bad_width_is_named(width):
    with pytest.raises(ValueError, match="width: got "):
        SearchSpace.preset("lite", width)


@pytest.mark.parametrize("preset", ["cifar", "tiny_imagenet", "imagenet", "lite"])
def test_config_survives_json(preset):
    for space in (SearchSpace.preset(preset, width=0.75), SearchSpace.preset(preset).only(0, 3)):
        assert SearchSpace.from_config(json.loads(json.dumps(space.config))) == space


def test_a_weights_file_tells_its_space(tmp_path):
    """From its header; a file of another kind is named."""
    space = SearchSpace.preset("lite", 0.3).only(0, 3)
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.zeros(1)}, {"search_space": space.config})
    assert SearchSpace.of_file(path) == space
    save_weights(path, {"a": torch.zeros(1)}, {"classes": []})
    with pytest.raises(ValueError, match="w.safetensors: belongs to no search space"):
        SearchSpace.of_file(path)


@pytest.mark.parametrize("width", [1.0, 0.1, 1 / 3])
def test_a_space_has_a_name_that_is_read_back(width):
    space = SearchSpace.preset("cifar", width)
    assert parse_search_space(search_space_name(space)) == space
    with pytest.raises(ValueError, match="^search_space: only spaces with all modules have a name"):
        search_space_name(space.only(2))


def test_only_keeps_the_cells_and_renumbers_the_modules(lite_space):
    alone = lite_space.only(2)
    assert alone.cells == lite_space.cells
    assert alone.modules == (ALL_MODULES[2],)
    assert alone.num_bits == 17 * 1
    assert alone.mobilenet_v2_mask().all()
    assert lite_space.only(3, 2).mobilenet_v2_mask().tolist() == [[False, True]] * 17


def test_mobilenet_v2_is_module_2_of_every_cell(lite_space):
    assert lite_space.mobilenet_v2_mask().tolist() == [[False, False, True, False, False]] * 17


def test_path_takes_one_module_or_one_for_each_cell(lite_space):
    modules = [t % 5 for t in range(17)]
    path = lite_space.path(modules)
    assert path.dtype == torch.bool
    assert path.nonzero().tolist() == [[t, module] for t, module in enumerate(modules)]
    assert torch.equal(lite_space.path(4), lite_space.path([4] * 17))


def test_full_mask_has_every_module(lite_space):
    assert lite_space.full_mask().sum() == 85


def test_repair_golden_example(lite_space):
    """An empty mask gets module (a) where the shape changes and nothing elsewhere."""
    repaired = lite_space.repair(torch.zeros(17, 5, dtype=torch.bool))
    assert repaired.nonzero().tolist() == [[t, 0] for t in SHAPE_CHANGING]


def test_repair_returns_a_new_tensor(lite_space):
    masks = torch.zeros(2, 17, 5, dtype=torch.bool)
    lite_space.repair(masks)
    assert not masks.any()


@given(seed=st.integers(0, 2**32 - 1), density=st.floats(0.0, 1.0))
def test_repair_is_idempotent_minimal_and_valid(lite_space, seed, density):
    """It only ever adds the default module, only to empty cells, only where identity will not do."""
    masks = random_masks(seed, density)
    repaired = lite_space.repair(masks)
    assert torch.equal(lite_space.repair(repaired), repaired)
    assert repaired[:, SHAPE_CHANGING].any(-1).all()
    added = repaired & ~masks
    assert torch.equal(repaired & ~added, masks), "a bit that was on went off"
    for _, cell, module in added.nonzero().tolist():
        assert cell in SHAPE_CHANGING and module == 0
    assert not masks[added.any(-1)].any(), "a cell that was not empty got a module"


@given(seed=st.integers(0, 2**32 - 1), density=st.floats(0.0, 0.5))
def test_repair_answers_each_image_by_itself(lite_space, seed, density):
    """The released code's default module depends on the rest of the batch; ours must not."""
    masks = random_masks(seed, density)
    alone = torch.stack([lite_space.repair(mask) for mask in masks])
    assert torch.equal(lite_space.repair(masks), alone)
    grid = masks.reshape(2, 2, 17, 5)  # any number of leading dimensions
    assert torch.equal(lite_space.repair(grid), alone.reshape(2, 2, 17, 5))


def test_random_masks_have_the_rate_asked_for(lite_space):
    """Module 0 is left out of the count: repair adds to it."""
    count, keep = 2000, 0.3
    masks = lite_space.random_masks(count, keep, torch.Generator().manual_seed(0))
    assert masks.shape == (count, 17, 5) and masks.dtype == torch.bool
    deviation = (keep * (1 - keep) / (count * 17 * 4)) ** 0.5
    assert abs(masks[..., 1:].float().mean() - keep) < 4 * deviation


def test_random_masks_take_a_rate_for_each_mask(lite_space):
    masks = lite_space.random_masks(3, torch.tensor([0.0, 1.0, 0.0]), torch.Generator().manual_seed(0))
    needed = lite_space.repair(torch.zeros(17, 5, dtype=torch.bool))
    assert torch.equal(masks, torch.stack([needed, lite_space.full_mask(), needed]))


@pytest.mark.parametrize(
    "convert",
    [
        lambda bits: bits.to(torch.int8),
        lambda bits: bits.to(torch.int64),
        lambda bits: bits.to(torch.float32),
        lambda bits: bits,
        lambda bits: bits.numpy().astype(np.int8),
        lambda bits: bits.numpy().astype(np.int64),
        lambda bits: bits.numpy().astype(np.float32),
        lambda bits: bits.numpy(),
        lambda bits: bits.int().tolist(),
    ],
    ids=["int8", "int64", "float32", "bool", "np.int8", "np.int64", "np.float32", "np.bool", "list"],
)
def test_bit_5_cell_plus_module_whatever_the_type(lite_space, convert):
    """Gymnasium sends int8, SB3 float32, people lists."""
    bits = torch.zeros(2, 85, dtype=torch.bool)
    bits[0, 5 * 7 + 3] = bits[1, 5 * 16 + 4] = True
    masks = lite_space.masks_from_actions(convert(bits))
    assert masks.shape == (2, 17, 5) and masks.dtype == torch.bool
    assert masks.nonzero().tolist() == [[0, 7, 3], [1, 16, 4]]


def test_actions_of_any_leading_shape(lite_space):
    assert lite_space.masks_from_actions(np.zeros(85)).shape == (17, 5)
    assert lite_space.masks_from_actions(np.zeros((3, 2, 85))).shape == (3, 2, 17, 5)


@given(bits=st.lists(st.booleans(), min_size=85, max_size=85))
def test_masks_flatten_back_to_the_action(lite_space, bits):
    assert lite_space.masks_from_actions(bits).flatten().tolist() == bits


@pytest.mark.parametrize("shape", [(), (84,), (2, 86), (17, 5)])
def test_actions_of_the_wrong_shape_are_named(lite_space, shape):
    with pytest.raises(ValueError, match=r"^probe: got shape \(.*; \(\.\.\., 85\) will do"):
        lite_space.masks_from_actions(np.zeros(shape), "probe")


@pytest.mark.parametrize("value", [2.0, 0.5, -1.0, float("nan")])
def test_actions_other_than_0_and_1_are_named(lite_space, value):
    """Logits or probabilities sent by mistake must not be rounded in silence."""
    actions = np.zeros((2, 85), np.float32)
    actions[1, 84] = value
    with pytest.raises(ValueError, match=rf"^probe: got the value {value}"):
        lite_space.masks_from_actions(actions, "probe")


def test_a_reversed_view_is_an_action_too(lite_space):
    """NumPy hands out arrays with negative strides whenever somebody flips one."""
    bits = np.arange(85) < 5
    assert lite_space.masks_from_actions(bits[::-1]).nonzero()[:, 0].tolist() == [16] * 5


def test_a_space_without_mobilenet_v2_says_so(lite_space):
    with pytest.raises(ValueError, match="MBConv|MobileNetV2|modules"):
        lite_space.only(0, 1).mobilenet_v2_mask()


@given(seed=st.integers(0, 2**31), density=st.floats(0, 1), count=st.integers(0, 3))
def test_masks_as_text_come_back(seed, density, count):
    space, masks = SearchSpace.preset("lite"), random_masks(seed, density, count)
    text = as_text(masks)
    assert all(len(row) == 85 for row in text)
    assert torch.equal(space.masks_from_text(text, "masks"), masks)


@pytest.mark.parametrize("row", ["0" * 84, "0" * 86, "2" + "0" * 84, "٠" * 85])
def test_other_text_is_no_mask(row):
    with pytest.raises(ValueError, match="^masks: got another mask than 85 zeros and ones"):
        SearchSpace.preset("lite").masks_from_text([row], "masks")
