"""Arguments of agents, spaces and verbs, and devices: refused by name, before anything is done."""

from __future__ import annotations

from contextlib import nullcontext

import gymnasium as gym
import pytest
import torch

from agents.blockdrop import BlockDrop
from agents.convnet_aig import ConvNetAIG
from agents.linucb import LinUCB
from agents.one_shot import OneShotSearch
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.saved import load_data, save_data
from instanas_env.bandit import InstanceBandit
from instanas_env.build import build_bandit, parse_device, shipped
from instanas_env.data import Augmentation, load_images
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.reward import RewardBounds
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import load_json, save_json
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.run_directory import machine
from scripts import begin as begin_module
from scripts import choose, finetune, oneshot, pretrain, search_options
from scripts.begin import begin, told
from scripts.experiment.presets import PRESETS
from scripts.options import check_options
from tests.tools.pipeline_fixtures import image_folder

SPACE = SearchSpace.preset("lite", 0.5)
NAN, INF = float("nan"), float("inf")
NUMBERS = (NAN, INF, "1", None, [], True, 10**400)
WHOLE = (0, -1, 1.5, "1", NAN, True)
BAD = {
    SelfCriticalReinforce: {
        "learning_rate": NUMBERS, "constant_rate": (*NUMBERS, 2), "naming_coefficient": NUMBERS,
        "alpha": (0.8, (NAN, 1), (0.5,), "ab", (2, 3), (None, 1)), "entropy_coefficient": (*NUMBERS, (1,)),
        "horizon": WHOLE, "samples_per_image": (*WHOLE, 10**9), "log_probability_under": ("q", []),
        "num_classes": (-1, 1.5, "10", 10**9), "seed": (-1, 1.5, "a", None), "space": ("lite", 3),
        "world": ("x", None), "env": (3, "env"),
    },
    RewardRegression: {
        "learning_rate": NUMBERS, "trade_off": (NAN, "1", None),
        "latencies": (NAN, (1,), "ab", (2, 1), (0, 1)),
        "random_timesteps": (-1, 1.5, "1"), "flip": (NAN, 2, "x"), "weight_decay": NUMBERS, "replay": WHOLE,
        "gradient_steps": WHOLE, "anneal_timesteps": WHOLE, "masks_per_image": WHOLE,
        "passes": (-1, 1.5, "1"),
        "menu": ("menu", 3, [], [[2] * 85], [[0] * 84], torch.zeros(3, 4), [[0.5] * 85]),
        "num_classes": (-1, 1.5, "x"), "augment": (1, "yes", None), "seed": (-1, "a"),
    },
    BlockDrop: {"gamma": NUMBERS, "curriculum_timesteps": WHOLE, "reward": ("x", None, []), "seed": ("a",)},
    ConvNetAIG: {
        "target": (*NUMBERS, 2, [0.5], [NAN] * 17), "weight": NUMBERS, "temperature": (*NUMBERS, 0),
        "meta_graph_learning_rate": (-1, NAN), "learning_rate": NUMBERS, "seed": (-1,),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("agent", "name"), [(agent, name) for agent, names in BAD.items() for name in names], ids=str
)
def test_arguments_of_agents(agent, name):
    for value in BAD[agent][name]:
        with pytest.raises(ValueError, match=f"^{name}: ") as caught:
            agent(**{"env": None, "space": SPACE, name: value})
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("steps", [0, -1, 1.5, "5", None, NAN, True, 10**400])
def test_how_long_to_learn(steps):
    with pytest.raises(ValueError, match="^total_timesteps: got "):
        SelfCriticalReinforce(None, space=SPACE).learn(steps)


@pytest.mark.parametrize("agent", [SelfCriticalReinforce(None, space=SPACE), LinUCB(None, shape=(3, 4))])
def test_learn_takes_no_callback_for_a_progress_bar(agent):
    with pytest.raises(TypeError, match="positional"):
        agent.learn(8, lambda *_: True)
    for value in (None, 1, "yes", print):
        with pytest.raises(ValueError, match="^progress_bar: got "):
            agent.learn(8, progress_bar=value)


def test_a_dial_is_set_to_milliseconds():
    for latency in (NAN, INF, -1, "x", None):
        with pytest.raises(ValueError, match="^latency_ms: got "):
            RewardRegression(None, space=SPACE).dial(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), latency)


MASK = torch.ones(17, 5, dtype=torch.bool)
TABLE = LatencyTable(SPACE, torch.ones(17, 5, dtype=torch.float64), 1.0)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("modules", lambda: SPACE.only("a")), ("modules", lambda: SPACE.only(1.5)),
        ("modules", lambda: SPACE.only(1, 1)), ("modules", lambda: SPACE.only(True)),
        ("search_space", lambda: SearchSpace.preset([])), ("width", lambda: SearchSpace.preset("lite", "1")),
        ("count", lambda: SPACE.random_masks(-1, 0.5, generator_for(0))),
        ("keep", lambda: SPACE.random_masks(1, NAN, generator_for(0))),
        ("masks", lambda: SPACE.repair(MASK.float())), ("masks", lambda: SPACE.repair(MASK.numpy())),
        ("masks", lambda: SPACE.repair(MASK.T)), ("masks", lambda: TABLE.lookup(MASK * NAN)),
        ("masks", lambda: TABLE.lookup(MASK.flatten())), ("bounds", lambda: TABLE.reference([])),
        ("modules", lambda: LatencyTable(SPACE, "x", 0.0)), ("fixed", lambda: LatencyTable(SPACE, MASK, "x")),
        ("fixed", lambda: LatencyTable(SPACE, MASK, NAN)), ("bounds", lambda: RewardBounds("2", "1")),
        ("bounds", lambda: RewardBounds(NAN, 0)), ("crop_padding", lambda: Augmentation(crop_padding=NAN)),
        ("cutout", lambda: Augmentation(cutout="x")), ("flip", lambda: Augmentation(flip="False")),
        ("resolution", lambda: load_images("embedded", "val", None, 0)),
        ("resolution", lambda: load_images("embedded", "val", None, 10**6)),
        ("data_dir", lambda: load_images("folder", "val", 3)), ("seed", lambda: generator_for(1.5)),
        ("data_dir", lambda: load_images("folder", "val", "x" * 5000)),
    ],
)  # fmt: skip
def test_arguments_of_spaces_tables_and_images(name, call):
    with pytest.raises(ValueError, match=f"^{name}: "):
        call()


def test_unknown_keywords_are_named_as_such():
    """Also those that a part of the environment knows under the same name, and the user does not."""
    for name in ("colour", "augmentation", "rules"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            gym.make_vec("InstaNAS-v1", num_envs=2, **{name: 1})
    for name in ("colour", "shard", "rules"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            gym.make_vec("InstaNASTabular-v1", num_envs=2, **{name: 1})
    for name in ("num_classes", "constant_rate"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            BlockDrop(None, space=SearchSpace.preset("lite"), **{name: 1})


def test_draws_and_rankings_are_of_whole_numbers_of_images():
    bandit = build_bandit(split="val")
    for count in (-1, 1.5, "x", 10**9):
        with pytest.raises(ValueError, match="^count: got "):
            bandit.draw(count)
    for images in (0, -1, 1.5, "x"):
        with pytest.raises(ValueError, match="^images: got "):
            OneShotSearch(bandit, images=images)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": "abc"}, {"classes": [1, 2]}, {"classes": []}, {"mean": ["1", "2", "3"]}, {"mean": [0.5]},
        {"mean": [True] * 3}, {"std": [0, 1, 1]}, {"std": None}, {"typical": 5}, {"typical": ["0" * 84]},
        {"typical": ["2" * 85]},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_told_of_the_images_is_checked(tmp_path, change):
    save_data(tmp_path, load_images("embedded", "val"), None, MASK[None])
    assert load_data(tmp_path, SPACE).typical.shape == (1, 17, 5)
    save_json(tmp_path / "data.json", {**load_json(tmp_path / "data.json"), **change})
    with pytest.raises(ValueError, match=r"^data: .*data\.json does not tell"):
        load_data(tmp_path, SPACE)


# --- the command line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", -1), ("epochs", 0), ("batch_size", 1), ("batch_size", 0), ("learning_rate", NAN),
        ("learning_rate", -0.1), ("learning_rate", INF), ("threads", 0), ("threads", 10**6), ("seed", -1),
        ("augmentation", pretrain.Options),
    ],
)  # fmt: skip
def test_numbers_of_options(option, value, tmp_path):
    """Also those of the dataclasses within."""
    if option == "augmentation":
        options, option = (
            pretrain.Options(tmp_path, augmentation=pretrain.Options(tmp_path, epochs=0)),
            "epochs",
        )
    else:
        options = pretrain.Options(tmp_path, **{option: value})
    with pytest.raises(ValueError, match=f"^{option}: got "):
        begin(options)


def test_numbers_within_lists_and_those_that_may_be_negative(tmp_path):
    reinforce = search_options.Reinforce(entropy_coefficient=(-0.1, 0.0))
    check_options(search_options.Options(tmp_path, reinforce, wrong_reward=-3.0, frozen_epochs=0, seed=0))
    with pytest.raises(ValueError, match="^alpha: got nan"):
        check_options(search_options.Options(tmp_path, search_options.Reinforce(alpha=(NAN, 1.0))))
    for options in (oneshot.Options(tmp_path, masks=-1), choose.Options(tmp_path, dials=0)):
        with pytest.raises(ValueError, match="^(masks|dials): got "):
            check_options(options)


def test_the_presets_are_within_the_limits():
    for preset in PRESETS.values():
        check_options(preset)


def test_weights_of_other_classes_are_refused_at_the_start(tmp_path):
    MetaGraph(SPACE, 12).save(tmp_path / "w.safetensors")
    given = {"dataset": "folder", "data_dir": image_folder(), "search_space": "lite@0.5"}
    for option in ("start", "teacher"):
        options = pretrain.Options(tmp_path / "run", **given, **{option: tmp_path / "w.safetensors"})
        with pytest.raises(ValueError, match="12 classes"):
            pretrain.main(options)
    assert not (tmp_path / "run").exists()


# --- devices -----------------------------------------------------------------------------------------


def test_devices(monkeypatch):
    """Without a GPU; that one is chosen where there is one is as far as this can be seen."""
    assert parse_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert parse_device("auto") == torch.device("cuda:0")
    assert parse_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="^device: got 'cuda:2'; PyTorch finds 2 CUDA devices here"):
        parse_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert parse_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(ValueError, match=f"^device: got '{name}'; PyTorch finds 0 CUDA .* auto or cpu"):
            gym.make("InstaNAS-v1", device=name)


def test_the_first_line_tells_device_threads_and_processor(tmp_path, capsys):
    world = begin(pretrain.Options(tmp_path, device="cpu"))
    assert (world.size, world.device) == (1, torch.device("cpu"))
    assert capsys.readouterr().out == f"device cpu, 1 thread, {machine()['processor']}\n"
    assert told(World(0, 2)).startswith("device cpu, 1 thread, 2 processes, ")


def test_a_plain_call_is_on_its_device_and_torchrun_has_chosen():
    assert ALONE.on(torch.device("meta")).device == torch.device("meta") and ALONE.device.type == "cpu"
    for world in (World(1, 2), World(0, 1, "cpu", fabric=object())):
        assert world.on(torch.device("meta")) is world


def test_images_go_where_the_weights_are_and_answers_come_back(tiny_graph, monkeypatch):
    """On the device without data as far as the logits; a value cannot be read there."""
    images, table = load_images("embedded", "val"), TABLE
    bandit = InstanceBandit(tiny_graph, images, table)
    assert bandit.device == torch.device("cpu")
    bandit.folded = bandit.folded.to("meta")
    assert bandit.device == torch.device("meta")
    seen = []

    def stop(inputs, masks):
        seen.append((inputs.device.type, masks.device.type))
        return torch.zeros(len(inputs), 10)

    monkeypatch.setattr(bandit.folded, "forward", stop)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which has no "meta"
    outcome = bandit.score(bandit.contexts(torch.arange(3)), torch.zeros(3, 85))
    assert seen == [("meta", "cpu")] and outcome.prediction.tolist() == [0, 0, 0]


@pytest.mark.parametrize("module", [pretrain, finetune, oneshot, choose], ids=lambda module: module.__name__)
def test_a_device_that_is_not_there_stops_a_verb_at_once(module, tmp_path, monkeypatch):
    monkeypatch.setattr(begin_module.torch.cuda, "device_count", lambda: 0)
    needed = {"run": tmp_path} if module in (finetune, choose) else {}
    out = {} if module is choose else {"out": tmp_path / "run"}
    with pytest.raises(ValueError, match="^device: got 'cuda'; "):
        module.main(module.Options(**needed, **out, device="cuda"))
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_meta_graph_computes_alike_on_auto_and_cpu():
    masks = torch.zeros(4, 85)
    for device in ("cpu", "auto"):
        bandit = build_bandit(split="val", device=device, meta_graph=str(shipped("meta_graph.safetensors")))
        outcome = bandit.score(bandit.contexts(torch.arange(4)), masks)
        assert outcome.prediction.shape == (4,)
