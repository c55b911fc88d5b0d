"""Several processes end where one does: two of them through torchrun, and the parts one by one in threads."""

from __future__ import annotations

import copy
import functools
import importlib.util
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.controller import LargeKernels
from agents.convnet_aig import ConvNetAIG
from agents.files import load_agent
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from instanas_env.build import build_bandit, parse_search_space, shipped
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import load_checkpoint, load_weights
from instanas_env.training.distributed import ALONE, World, launch
from instanas_env.training.run_directory import RunDirectory
from scripts.search_options import Regression, Reinforce, make_shard
from tests.tools.compare_runs import compare_runs
from tests.tools.pipeline_fixtures import history, home, image_folder
from tests.tools.processes import run_stages, search_options, stages
from tests.tools.threads import in_threads

# In two epochs the window falls faster than a controller can follow; that is what the warning is for.
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")

ROOT = Path(__file__).parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
STAGES = ("pretrain", "regression", "reinforce", "finetune")


# --- two processes ---------------------------------------------------------------------------------


def torchrun(*arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    with (home() / "torchrun.txt").open("ab") as log:
        return subprocess.Popen([*TORCHRUN, *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log)


def processes_of(run: Path) -> list[int]:
    """The ids of processes with ``run`` on their command line."""
    lines = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in lines.splitlines() if str(run) in line]


@functools.cache
def one_process() -> Path:
    """The directory of all stages in this process."""
    out = home() / "one_process"
    run_stages(image_folder(), out)
    return out


@functools.cache
def two_processes() -> Path:
    """The directory of all stages in two; before them, a search is killed that they then resume."""
    if importlib.util.find_spec("lightning_fabric") is None:
        pytest.skip('needs the extra: pip install ".[distributed]"')
    out = home() / "two_processes"
    options = search_options(image_folder(), out / "killed", "regression")
    arguments = (
        f"--epochs {options.epochs} --frozen-epochs {options.frozen_epochs} --num-envs {options.num_envs}"
    )
    place = ["--dataset", "folder", "--data-dir", str(options.data_dir), "--out", str(options.out)]
    process = torchrun("-m", "scripts", "search", "regression", *arguments.split(), *place)
    try:
        while not (options.out / "checkpoint.pt").exists():
            assert process.poll() is None, (home() / "torchrun.txt").read_text()
            time.sleep(0.01)
    finally:
        process.kill()  # SIGKILL to torchrun itself, which cannot end its two processes any more
        process.wait()
    deadline = time.monotonic() + 30
    while processes_of(options.out) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_of(options.out), "a process outlives torchrun"
    assert not (options.out / "controller.safetensors").exists(), "killed in the middle"
    assert torchrun("-m", "tests.tools.processes", str(image_folder()), str(out)).wait() == 0, (
        home() / "torchrun.txt"
    ).read_text()
    return out


def start_of(stage: str, name: str) -> dict[str, Tensor]:
    """The weights with which a stage begins."""
    options = stages(image_folder(), home() / "start")[stage][1]
    if stage == "pretrain":
        space = parse_search_space(options.search_space).only(*options.modules)
        return MetaGraph(space, 10, generator_for(0)).state_dict()
    if stage == "finetune":
        return load_weights(options.run / name)[0]
    if name == "meta_graph.safetensors":
        return load_weights(shipped(name))[0]
    agent = load_agent(one_process() / stage / name)
    names = {"num_classes": agent.num_classes} if "num_classes" in agent.hyperparameters else {}
    return type(agent)(None, space=agent.space, seed=0, **names).controller.state_dict()


def distance(one: dict[str, Tensor], other: dict[str, Tensor], running: bool) -> float:
    """Between BatchNorm's running statistics, or between everything else."""
    left_out = ("num_batches_tracked", "latencies", "fixed_ms", "free")
    names = [name for name in one if not name.endswith(left_out) and ("running" in name) is running]
    return sum((one[name].double() - other[name].double()).square().sum() for name in names) ** 0.5


SHARES = {"pretrain": 0.3, "reinforce": 0.2, "finetune": 5e-3}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_end_where_one_does(stage):
    """The distance between them is a fraction of the way that both have gone; figures to two digits.

    Fine-tuning keeps within five thousandths.
    In a search rounding is fed back through the rewards: a bit that is drawn otherwise gives one of 96 images
    another mask (0.09 of the way were seen; what is trained on other images is as far apart as it went).
    Gradients at new weights are ill-conditioned: images changed by 1e-7 may change them by a hundredth. That
    it is rounding, and nothing else, is what the tests in threads show, in float64.
    """
    one, two = one_process() / stage, two_processes() / stage
    files = sorted(path.name for path in one.glob("*.safetensors"))
    assert files == sorted(path.name for path in two.glob("*.safetensors"))
    total = 0.0
    for name in files:
        first, second = (load_weights(out / name)[0] for out in (one, two))
        assert first.keys() == second.keys()
        start, share = start_of(stage, name), SHARES.get(stage, 0.03)
        for running in (False, True):
            gone, apart = distance(first, start, running), distance(first, second, running)
            assert apart <= share * gone, f"{name}: {apart} apart after {gone}"
            total += gone
    assert total > 0
    for expected, row in zip(history(one), history(two), strict=True):
        for figure in expected.keys() - {"epoch", "meta_graph", "val"}:
            assert row[figure] == pytest.approx(expected[figure], rel=1e-2, abs=0.02), figure


@pytest.mark.slow
def test_killed_and_resumed_in_two_processes_equals_unbroken():
    """Every file to the bit: the memory of both processes, and the images that waited, were kept."""
    unbroken, killed = two_processes() / "regression", two_processes() / "killed"
    assert {file.name: file.differences for file in compare_runs(unbroken, killed) if file.differences} == {}


@pytest.mark.slow
def test_one_process_writes_and_prints():
    log = (two_processes().parent / "torchrun.txt").read_text()
    for stage in STAGES:
        assert log.count(f"wrote {two_processes() / stage}") == 1, stage
        assert log.count(f"{stage}: {two_processes() / stage}") == 1, stage
        assert (two_processes() / "notes" / f"{stage}.json").is_file()
    assert not [path for path in two_processes().rglob(".*") if path.is_file()], "a file half written"


@pytest.mark.slow
def test_a_checkpoint_does_not_tell_how_many_processes_wrote_it():
    """The same keys, shapes and numbers of entries: so another number of processes may resume."""
    one, two = (
        load_checkpoint(out() / "regression" / "checkpoint.pt") for out in (one_process, two_processes)
    )

    def form(value):
        if isinstance(value, dict):
            return {name: form(entry) for name, entry in value.items() if name != "seconds"}
        if isinstance(value, (list, tuple)):
            return [form(entry) for entry in value]
        return (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else type(value)

    assert form(one) == form(two)
    assert len(two["agent"]["memory"][0][0]) == 24 and len(two["envs"]["contexts"]["index"]) == 24
    assert two["agent"]["num_timesteps"] == one["agent"]["num_timesteps"] == 168, "7 steps pass 160 images"
    assert torch.equal(two["envs"]["contexts"]["images"], one["envs"]["contexts"]["images"])


# --- the parts -------------------------------------------------------------------------------------


def test_shares_cover_a_batch_and_differ_by_one():
    for size in (1, 2, 3, 5):
        shares = [World(rank, size).rows(7) for rank in range(size)]
        assert [i for share in shares for i in range(share.start, share.stop)] == list(range(7))
        lengths = [share.stop - share.start for share in shares]
        assert max(lengths) - min(lengths) <= 1
    with pytest.raises(ValueError, match="^rank: got 2 of 2 processes; 0 to 1 will do"):
        World(2, 2)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_gathering_undoes_taking_ones_own(dim, dtype):
    """Seven rows among three: 2, 2 and 3."""
    whole = torch.randint(0, 2, (7, 7), generator=generator_for(0)).to(dtype)
    for result in in_threads(3, lambda world: world.gather(world.own(whole, dim), 7, dim)):
        assert torch.equal(result, whole) and result.dtype == dtype
    assert ALONE.own(whole) is whole and ALONE.gather(whole) is whole


def test_means_weigh_processes_by_their_images():
    """Values 1 of one image and 4 of two: (1 + 2 * 4) / 3 = 3; a weight is the share over the mean, 1.5."""
    means = in_threads(2, lambda world: world.mean([(1.0, 4.0)[world.rank]], (1, 2)[world.rank] / 1.5))
    assert means == [pytest.approx([3.0])] * 2
    assert ALONE.mean([0.1], 1.0) == [0.1]


def test_gradients_are_averaged_and_absent_ones_stay_absent():
    def work(world: World) -> list[Tensor | None]:
        parameters = [
            nn.Parameter(torch.zeros(2, 2)),
            nn.Parameter(torch.zeros(3)),
            nn.Parameter(torch.zeros(1)),
        ]
        parameters[0].grad = torch.full((2, 2), 1.0 + world.rank)
        parameters[2].grad = torch.tensor([10.0 * world.rank])
        world.average_gradients(parameters)
        return [parameter.grad for parameter in parameters]

    for first, second, third in in_threads(2, work):
        assert second is None
        assert torch.equal(first, torch.full((2, 2), 1.5)) and third.tolist() == [5.0]


@pytest.mark.parametrize("shares", [(3, 3), (5, 1), (0, 6), (2, 0, 4)])
def test_batch_norm_over_processes_is_that_of_the_whole_batch(shares):
    """In float64: outputs, all gradients, running statistics; also where a process has no image."""
    size, generator = len(shares), generator_for(0)
    x = torch.randn(sum(shares), 4, 3, 3, generator=generator, dtype=torch.float64) + 100
    target = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    expected, layer = x.clone().requires_grad_(), nn.Sequential(nn.BatchNorm2d(4)).double()
    nn.init.uniform_(layer[0].weight, 0.5, 1.5, generator=generator)
    whole = copy.deepcopy(layer)
    (whole(expected) * target).sum().backward()

    def work(world: World):
        module = copy.deepcopy(layer)
        world.synchronise(module)
        part = x.split(shares)[world.rank].clone().requires_grad_()
        output = module(part)
        (output * target.split(shares)[world.rank]).sum().backward()
        return output, part.grad, module

    results = in_threads(size, work)
    outputs, gradients, modules = zip(*results, strict=True)
    assert torch.allclose(torch.cat(outputs), copy.deepcopy(layer)(x), atol=1e-10)
    assert torch.allclose(torch.cat(gradients), expected.grad, atol=1e-10)
    for name, parameter in whole.named_parameters():
        assert torch.allclose(sum(dict(m.named_parameters())[name].grad for m in modules), parameter.grad)
    for module in modules:
        assert module.state_dict().keys() == whole.state_dict().keys()
        for name, buffer in whole.named_buffers():
            assert torch.allclose(dict(module.named_buffers())[name], buffer), name
        assert torch.equal(module.eval()(x), nn.BatchNorm2d.forward(module[0], x)), "evaluation as ever"


@pytest.mark.parametrize("agent", [Reinforce(), Regression(), Regression(passes=2, augment=True)])
def test_a_controller_learns_in_two_processes_what_it_learns_in_one(agent, tmp_path):
    """Ten steps of 24 images, in float64: the same to 1e-10, where weights moved by more than 1e-3."""
    options = replace(search_options(image_folder(), tmp_path, agent.name), agent=agent)

    def work(world: World) -> list[Tensor]:
        agent = options.agent.make(make_shard(options, world), options, 80, world)
        layers = [layer for layer in agent.controller.double().modules() if isinstance(layer, LargeKernels)]
        layers[0][0].register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
        start = [parameter.detach().clone() for parameter in agent.controller.parameters()]
        moved = list(agent.learn(240).controller.parameters())
        assert max((new - old).abs().max() for new, old in zip(moved, start, strict=True)) > 1e-3
        return moved

    one = work(ALONE)
    for other in in_threads(2, work):
        for expected, parameter in zip(one, other, strict=True):
            assert torch.allclose(parameter, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [2, 5])
def test_gradients_of_a_meta_graph_are_those_of_one_process(size):
    """Eleven sparse masks in float64: some modules are chosen in one process only, some by nobody at all."""
    space = SearchSpace.preset("lite", 0.25).only(0, 2, 3)
    masks = space.random_masks(11, 0.2, generator_for(1))
    masks[:, 0, 2] = False
    images = torch.randn(11, 3, 32, 32, generator=generator_for(2), dtype=torch.float64)
    labels = torch.arange(11) % 10

    def work(world: World) -> MetaGraph:
        meta_graph = MetaGraph(space, 10, generator_for(0)).double().train()
        world.synchronise(meta_graph)
        elsewhere = None if world.size == 1 else masks.any(0)
        loss = F.cross_entropy(meta_graph(world.own(images), world.own(masks), elsewhere), world.own(labels))
        (loss * len(world.own(labels)) * world.size / 11).backward()
        world.average_gradients(meta_graph.parameters())
        return meta_graph

    one = work(ALONE)
    counts = torch.stack([World(rank, size).own(masks).any(0) for rank in range(size)]).sum(0)
    assert (counts == 1).any() and not masks[:, 0, 2].any()
    for other in in_threads(size, work):
        for (name, expected), parameter in zip(one.named_parameters(), other.parameters(), strict=True):
            assert (expected.grad is None) == (parameter.grad is None), name
            if expected.grad is not None:
                scale = expected.grad.abs().max()
                assert (parameter.grad - expected.grad).abs().max() <= 1e-6 * scale + 1e-12, name
        for (name, expected), buffer in zip(one.named_buffers(), other.buffers(), strict=True):
            assert torch.allclose(buffer, expected, atol=1e-10), name


def test_shards_draw_together_what_one_environment_draws():
    """Eight images a step, four and four, across the end of a pass of 40; with their augmentation."""
    bandits = [
        build_bandit("folder", str(image_folder()), "val", augment=True, shard=shard)
        for shard in ((0, 1), (0, 2), (1, 2))
    ]
    ends = []
    for _ in range(7):
        whole, first, second = (bandit.draw(8 // bandit.shards) for bandit in bandits)
        assert torch.equal(whole.index, torch.cat([first.index, second.index]))
        assert torch.equal(whole.images, torch.cat([first.images, second.images]))
        for bandit, contexts in zip(bandits, (whole, first, second), strict=True):
            ends.append(bandit.act(contexts, bandit.space.full_mask().flatten().expand(len(contexts), -1))[1])
    assert ends == [step >= 4 for step in range(7) for _ in range(3)]
    with pytest.raises(ValueError, match="^shard: got 2; a whole number from 0 to 1 will do"):
        build_bandit("folder", str(image_folder()), "val", shard=(2, 2))


def test_a_plain_call_is_one_process_without_lightning():
    assert not torch.distributed.is_torchelastic_launched()
    with launch() as world:
        assert world is ALONE and world.is_main and not torch.distributed.is_initialized()
    assert "lightning_fabric" not in sys.modules


def test_torchrun_without_the_extra_says_what_to_install(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)  # as if not installed
    with (
        pytest.raises(ImportError, match=r'^for torchrun: pip install "instanas-env\[distributed\]"'),
        launch(),
    ):
        pass


def test_what_does_not_go_together_is_refused(tmp_path):
    options = search_options(image_folder(), tmp_path, "convnet-aig")
    with pytest.raises(ValueError, match="^num_envs: got 24; a multiple of 5, the processes, will do"):
        make_shard(options, World(0, 5))
    envs = make_shard(options, World(1, 2))
    with pytest.raises(ValueError, match="^agent: convnet-aig learns in one process only; got 2"):
        options.agent.make(envs, options, 80, World(1, 2))
    for agent in (ConvNetAIG(envs), RewardRegression(envs), SelfCriticalReinforce(envs)):
        with pytest.raises(ValueError, match=r"^env: got shard \(1, 2\); this agent's, \(0, 1\), will do"):
            agent.learn(24)


def test_another_process_than_the_main_one_writes_nothing(tmp_path):
    run = RunDirectory(
        tmp_path / "run", search_options(image_folder(), tmp_path, "regression"), world=World(1, 2)
    )
    run.checkpoint({"epoch": 1}, {"model": torch.zeros(1)})
    assert run.history == [{"epoch": 1}] and list(tmp_path.iterdir()) == []
