"""Early exit: the sure controller's answer counts, and nothing else runs, wherever a policy is used."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.agent import NETWORK
from agents.classifier import InstaNASClassifier
from agents.convnet_aig import ConvNetAIG
from agents.early_exit import NEVER, EarlyExit
from agents.evaluation.awareness import measure
from agents.evaluation.controls import Controls
from agents.evaluation.replay import Replay
from agents.evaluation.scores import choose_answers, choose_masks, score_agent, score_masks
from agents.files import load_agent
from agents.learning import LearningAgent
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.saved import SavedRun, load_run
from agents.static import StaticAgent
from instanas_env import reward
from instanas_env.bandit import InstanceBandit
from instanas_env.build import build_bandit, shipped
from instanas_env.data import DataRecord, load_images
from instanas_env.deploy.export import export
from instanas_env.deploy.runtime import OnnxNetwork
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import save_json
from instanas_env.training.bound import check_same_images
from scripts import evaluate, finetune
from scripts.comparison.contest import Budget, Contest
from scripts.comparison.policies import enter
from scripts.early_exit import Options, chosen, main, one_network
from tests.tools.pipeline_fixtures import home, image_folder, read_strictly, searched

N = 120


@pytest.fixture(scope="module")
def run() -> SavedRun:
    """The shipped controller and meta-graph."""
    return load_run(shipped("reference/controller.safetensors").parent)


@pytest.fixture(scope="module")
def bandit() -> InstanceBandit:
    built = build_bandit(split="val")
    built.image_set = built.image_set.take(torch.arange(N))
    return built


def made(kind: type, space: SearchSpace, **settings) -> LearningAgent:
    """An agent whose controller answers with much or little certainty."""
    agent = kind(None, space=space, num_classes=10, **settings)
    network = getattr(agent.controller, "network", agent.controller)
    generator = generator_for(3)
    with torch.no_grad():
        network.output.weight.copy_(torch.randn(network.output.weight.shape, generator=generator))
        network.output.bias.copy_(torch.randn(network.output.bias.shape, generator=generator))
    agent.controller.eval()
    return agent


def both(space: SearchSpace) -> list[LearningAgent]:
    costs = torch.arange(1.0, 6.0).double().expand(17, 5)
    table = LatencyTable(space, costs, fixed=0.5, controller=0.25)
    return [made(SelfCriticalReinforce, space), made(RewardRegression, space, table=table, trade_off=0.05)]


# --- the agent ------------------------------------------------------------------------------------------


@given(confidence=st.floats(0, 1.5))
def test_it_answers_what_it_is_sure_of(run, bandit, confidence):
    """Against the definition; what it answers is what it names."""
    agent, images = EarlyExit(run.agent, confidence), bandit.image_set.images[:40]
    probabilities = run.agent.name_logits(images).detach().softmax(1)
    sure = probabilities.amax(1) >= confidence
    answers = agent.own_answers(images)
    assert answers.dtype == torch.int64 and torch.equal(answers != NETWORK, sure)
    assert torch.equal(answers[sure], probabilities.argmax(1)[sure])
    assert torch.equal(answers[sure], agent.names(images)[sure])


def test_it_answers_all_or_nothing_at_the_ends(run, bandit):
    images = bandit.image_set.images
    assert (EarlyExit(run.agent, 0.0).own_answers(images) != NETWORK).all()
    assert (EarlyExit(run.agent, NEVER).own_answers(images) == NETWORK).all()
    assert (run.agent.own_answers(images) == NETWORK).all(), "other agents only choose"


def test_the_other_images_get_the_agents_masks_or_one(run, bandit):
    images, mask = bandit.image_set.images[:9], bandit.space.path(3)
    assert torch.equal(EarlyExit(run.agent, 0.9).masks(images), run.agent.masks(images))
    assert torch.equal(EarlyExit(run.agent, 0.9, mask).masks(images), mask.expand(9, -1, -1))
    actions, _ = EarlyExit(run.agent, 0.9).predict(images.numpy())
    assert np.array_equal(actions, run.agent.predict(images.numpy())[0])


def test_a_file_brings_it_back(tiny_space, tmp_path):
    images = torch.randint(256, (20, 3, 32, 32), generator=generator_for(1), dtype=torch.uint8)
    for inner in both(tiny_space):
        for mask in (None, tiny_space.path(1)):
            agent, path = EarlyExit(inner, 0.6, mask), tmp_path / "agent.safetensors"
            agent.save(path)
            loaded = load_agent(path)
            assert isinstance(loaded, EarlyExit) and loaded.confidence == 0.6
            assert torch.equal(loaded.own_answers(images), agent.own_answers(images))
            assert torch.equal(loaded.masks(images), agent.masks(images))
            assert loaded.bits == (None if mask is None else mask.flatten().int().tolist())


def test_a_file_of_another_agent_inside_is_refused(tiny_space, tmp_path, monkeypatch):
    agent, path = EarlyExit(made(SelfCriticalReinforce, tiny_space), 0.6), tmp_path / "agent.safetensors"
    monkeypatch.setattr(EarlyExit, "named", {"agent": "Popen", "hyperparameters": {"args": ["ls"]}})
    agent.save(path)
    with pytest.raises(ValueError, match=r"path: .* has other hyperparameters.*Popen"):
        load_agent(path)


class Subclass(SelfCriticalReinforce):
    """A class that no file names."""


@pytest.mark.parametrize(
    "answers",
    [torch.tensor([10]), torch.tensor([-2]), torch.tensor([0.5]), torch.tensor([[1]]), np.array([1])],
)
def test_answers_that_are_no_classes_are_refused(bandit, answers):
    agent = StaticAgent(bandit.space, bandit.space.full_mask())
    agent.own_answers = lambda images: answers.repeat(len(images), *[1] * (answers.ndim - 1))
    with pytest.raises(ValueError, match=r"^own_answers: got .*; int64 \(120,\) of -1 to 9 will do"):
        choose_answers(agent, bandit.image_set)


def test_an_agent_without_names_is_refused(tiny_space):
    for agent in (SelfCriticalReinforce(None, space=tiny_space), StaticAgent(tiny_space, tiny_space.path(0))):
        with pytest.raises(ValueError, match=r"^agent: got a \w+ that names no images; .* will do"):
            EarlyExit(agent, 0.9)
    with pytest.raises(ValueError, match="^names: this agent learns none"):
        ConvNetAIG(None, space=tiny_space).name_logits(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    named, other = made(SelfCriticalReinforce, tiny_space), made(Subclass, tiny_space)
    with pytest.raises(ValueError, match="^agent: got a Subclass"):  # a file could not bring it back
        EarlyExit(other, 0.9)
    for confidence in (-0.1, float("nan"), "sure"):
        with pytest.raises(ValueError, match="^confidence: got"):
            EarlyExit(named, confidence)


# --- what it is worth -----------------------------------------------------------------------------------


def test_an_answer_of_its_own_takes_no_time(bandit):
    """Image 0 is answered right, 1 wrong, the others by their network; R_A at 0 ms is that of the window."""
    masks = bandit.space.mobilenet_v2_mask().expand(N, -1, -1)
    labels = bandit.image_set.labels
    answers = torch.full((N,), NETWORK)
    answers[0], answers[1] = labels[0], (labels[1] + 1) % 10
    plain, outcome = score_masks(bandit, masks), score_masks(bandit, masks, answers)
    assert outcome.latency_ms[:2].tolist() == [0.0, 0.0] and outcome.correct[:2].tolist() == [True, False]
    assert outcome.prediction[:2].tolist() == answers[:2].tolist()
    upper, lower = bandit.bounds.upper, bandit.bounds.lower
    free = -upper * lower / ((upper - lower) / 2) ** 2  # -(0 - U)(0 - L) / gamma
    assert outcome.reward[0] == pytest.approx(bandit.correct_reward * free)
    assert outcome.reward[1] == bandit.wrong_reward
    assert not outcome.mask[:2].any() and outcome.networks == 2
    for name in ("reward", "correct", "latency_ms", "prediction", "mask", "reward_latency", "reward_task"):
        assert np.array_equal(getattr(outcome, name)[2:], getattr(plain, name)[2:])


def test_no_answers_change_nothing(bandit):
    masks = bandit.space.random_masks(N, 0.3, generator_for(1))
    plain, same = score_masks(bandit, masks), score_masks(bandit, masks, torch.full((N,), NETWORK))
    for name, value in vars(plain).items():
        assert np.array_equal(value, getattr(same, name)), name


def test_scores_have_its_controls(run, bandit):
    """By hand: exchanged, an image that gets another's exit is what the controller takes it for."""
    agent = EarlyExit(run.agent, 0.9)
    scores, outcome = measure(bandit, agent, generator_for(4))
    images, labels = bandit.image_set.images, bandit.image_set.labels
    answers, names = agent.own_answers(images), agent.names(images)
    own = answers != NETWORK
    assert 0.2 < scores.answered < 0.9 and scores.answered == pytest.approx(own.double().mean().item())
    masks = bandit.space.repair(choose_masks(agent, bandit.image_set))
    networks = score_masks(bandit, masks).correct
    right = np.where(own, answers == labels, networks)
    assert np.array_equal(outcome.correct, right) and scores.accuracy == right.mean()
    order = torch.randperm(N, generator=generator_for(4))
    shuffled = np.where(own[order], names == labels, score_masks(bandit, masks[order]).correct)
    assert scores.shuffled_accuracy == pytest.approx(shuffled.mean())
    spent = np.where(own, 0, bandit.latency_table.lookup(masks))
    assert scores.latency_ms == pytest.approx(spent.mean() + bandit.latency_table.controller)
    distinct, images_of = torch.unique(masks[~own].flatten(1), dim=0, return_counts=True)
    assert scores.networks == len(distinct) + 1, "and none"
    favourite = distinct[images_of.argmax()].view(17, 5).expand(N, -1, -1)
    best = np.where(own, answers == labels, score_masks(bandit, favourite).correct)
    assert scores.most_used_accuracy == pytest.approx(best.mean())


def test_an_agent_that_always_answers_has_no_network(run, bandit):
    scores, outcome = measure(bandit, EarlyExit(run.agent, 0.0))
    assert scores.answered == 1 and scores.networks == 1 and not outcome.mask.any()
    assert scores.accuracy == scores.names_accuracy == scores.shuffled_accuracy
    assert scores.latency_ms == bandit.latency_table.controller
    never, _ = measure(bandit, EarlyExit(run.agent, NEVER))
    plain, _ = measure(bandit, run.agent)
    assert never.answered == 0 and plain.answered is None
    assert replace(never, answered=None) == plain


def test_a_fixed_mask_beside_it_has_the_same_time(run, bandit):
    """Half of the images take MobileNetV2's time: the control is the best mask of half that time at most."""
    masks = bandit.space.mobilenet_v2_mask().expand(N, -1, -1)
    correct = score_masks(bandit, masks).correct
    controls = Controls(bandit, bandit, [masks], masks[:1], num_masks=4, num_networks=2, num_images=N)
    unit, table = bandit.latency_table.reference("mobilenet_v2"), bandit.latency_table
    found = controls.of(masks, correct, part=0.5)["static_with_controller_time"]
    assert found["latency_ms"] <= unit / 2 + table.controller + 1e-6
    assert controls.of(masks, correct)["static_with_controller_time"]["latency_ms"] <= unit + 0.1
    assert controls.of(masks, correct, part=0.01)["static_with_controller_time"] is None, "none is so fast"


def test_a_replay_has_its_answers(run, bandit, tmp_path):
    """Saved, read and scored again, to the bit; without them the rewards are not those of the masks."""
    outcome = score_agent(bandit, EarlyExit(run.agent, 0.9))
    replay = Replay.of(outcome, "early-exit", 0, {})
    replay.save(tmp_path / "replay.npz")
    loaded = Replay.load(tmp_path / "replay.npz", bandit.space.num_bits)
    assert loaded.own is not None and loaded.verify(bandit)[1:] == ([], True)
    many = replace(replay, own=np.where(replay.own == NETWORK, NETWORK, 70_000))
    many.save(tmp_path / "many.npz")
    assert (Replay.load(tmp_path / "many.npz", bandit.space.num_bits).own == many.own).all()
    replace(replay, own=replay.own - 1).save(tmp_path / "below.npz")
    with pytest.raises(ValueError, match="its own answers are no classes"):
        Replay.load(tmp_path / "below.npz", bandit.space.num_bits)
    with pytest.raises(ValueError, match="verify: early-exit seed 0 has rewards|answers of early-exit"):
        replace(loaded, own=None).verify(bandit)
    replace(replay, own=replay.own[:-1]).save(tmp_path / "short.npz")
    with pytest.raises(ValueError, match="its own answers are of another length"):
        Replay.load(tmp_path / "short.npz", bandit.space.num_bits)


# --- deployed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
def test_the_file_does_what_python_does(tiny_space, tiny_graph, which):
    """Logits, mask and time; of one's own answers those of the controller, an empty mask, its time alone."""
    inner = both(tiny_space)[which]
    table = LatencyTable(tiny_space, torch.arange(1.0, 6.0).double().expand(17, 5), 0.5, controller=0.25)
    data = DataRecord(tuple("abcdefghij"), (0.5,) * 3, (0.25,) * 3, None)
    images = torch.randint(256, (24, 3, 32, 32), generator=generator_for(2), dtype=torch.uint8)
    sure = inner.name_logits(images).detach().softmax(1).amax(1)
    middle = sure.sort().values[11:13].mean().item()
    for mask in (None, tiny_space.path(4)):
        agent = EarlyExit(inner, middle, mask)
        network = OnnxNetwork(export(agent, tiny_graph, table, data))
        classifier = InstaNASClassifier(agent, tiny_graph, data, table)
        batch, masks = classifier(images), tiny_space.repair(agent.masks(images))
        again = pickle.loads(pickle.dumps(classifier))
        own = agent.own_answers(images) != NETWORK
        assert own.sum() == 12
        for i, image in enumerate(images):
            logits, ran, latency_ms = network.outputs(image[None].numpy())
            one = classifier(image)
            assert ran.any() == one.mask.any() == batch.mask[i].any() == (not own[i])
            if own[i]:
                expected, ms = inner.name_logits(image[None]).detach(), 0.25
            else:
                shown = (image[None] / 255 - 0.5) / 0.25
                expected, ms = tiny_graph.child(masks[i])(shown), table.lookup(masks[i]).item() + 0.25
                assert np.array_equal(ran[0], masks[i].numpy()) and np.array_equal(one.mask, ran[0])
            np.testing.assert_allclose(logits, expected.detach().numpy(), atol=1e-4, rtol=1e-3)
            assert latency_ms[0] == pytest.approx(ms, rel=1e-5) == one.latency_ms == batch.latency_ms[i]
            for found in (one.probabilities, batch.probabilities[i], again(image).probabilities):
                np.testing.assert_allclose(found, expected.detach().softmax(1)[0].numpy(), atol=1e-4)
            assert classifier(image).label == one.label, "the second time from what is kept"
        assert (classifier.measure(images[:2], repetitions=1) > 0).all()


def test_nothing_of_the_network_runs_for_an_answer_of_its_own(tiny_space, randomise_batch_norm):
    """The stem's weights are not numbers, and the answer is one; the controller is in the file once."""
    graph = MetaGraph(tiny_space, 10)
    randomise_batch_norm(graph, 1)
    for parameter in graph.stem.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    inner = both(tiny_space)[0]
    table = LatencyTable(tiny_space, torch.ones(17, 5).double(), 0.5, controller=0.25)
    data = DataRecord(tuple("abcdefghij"), (0.5,) * 3, (0.25,) * 3, None)
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8).numpy()
    for confidence, finite in ((0.0, True), (NEVER, False)):
        model = export(EarlyExit(inner, confidence), graph, table, data)
        assert np.isfinite(OnnxNetwork(model)(image)).all() == finite
    outside = [node.op_type for node in onnx.load_from_string(model).graph.node]
    assert outside.count("Conv") == 3 and outside.count("If") == 1


class Unwritten(RewardRegression):
    """Answers every second image, by a rule that has no ONNX form."""

    def own_answers(self, images: torch.Tensor) -> torch.Tensor:
        even = images.flatten(1).sum(1) % 2 == 0
        return torch.where(even, self.names(images), NETWORK)


def test_an_agent_of_ones_own_may_answer(tiny_space, tiny_graph):
    """The classifier runs nothing for what it answers, one by one or in a batch; a file is refused."""
    table = LatencyTable(tiny_space, torch.arange(1.0, 6.0).double().expand(17, 5), 0.5, controller=0.25)
    agent = made(Unwritten, tiny_space, table=table, trade_off=0.05)
    data = DataRecord(tuple("abcdefghij"), (0.5,) * 3, (0.25,) * 3, None)
    images = torch.randint(256, (8, 3, 32, 32), generator=generator_for(2), dtype=torch.uint8)
    own = agent.own_answers(images)
    assert 0 < (own == NETWORK).sum() < 8
    classifier = InstaNASClassifier(agent, tiny_graph, data, table)
    batch = classifier(images)
    for i, image in enumerate(images):
        one = classifier(image)
        assert one.mask.any() == batch.mask[i].any() == (own[i] == NETWORK)
        assert one.label == batch.label[i] and one.latency_ms == batch.latency_ms[i]
        if own[i] != NETWORK:
            assert one.label == own[i] and one.latency_ms == 0.25
    assert not agent.has_onnx
    with pytest.raises(ValueError, match="agent: Unwritten answers images itself, without exit_to_onnx"):
        export(agent, tiny_graph, table, data)


def test_a_dial_counts_the_images_that_are_left(tiny_space, tiny_graph):
    """The networks that run take what was asked for, in Python, by the classifier and in a file."""
    inner = both(tiny_space)[1]
    table = LatencyTable(tiny_space, torch.arange(1.0, 6.0).double().expand(17, 5), 0.5, controller=0.25)
    data = DataRecord(tuple("abcdefghij"), (0.5,) * 3, (0.25,) * 3, None)
    images = torch.randint(256, (64, 3, 32, 32), generator=generator_for(2), dtype=torch.uint8)
    middle = inner.name_logits(images).detach().softmax(1).amax(1).median().item()
    agent = EarlyExit(inner, middle)
    left = images[agent.own_answers(images) == NETWORK]
    wanted = []
    for latency_ms in (90.0, 115.0):
        assert agent.dial(images, latency_ms) == inner.trade_off
        masks = tiny_space.repair(agent.masks(left))
        assert table.lookup(masks).mean().item() == pytest.approx(latency_ms, rel=0.05)
        wanted.append((inner.trade_off, masks))
    network = OnnxNetwork(export(agent, tiny_graph, table, data, dial=True))
    for trade_off, masks in wanted:
        dial = np.array([trade_off], np.float32)
        found = [network.session.run(["mask"], {"image": x[None].numpy(), "dial": dial})[0] for x in left]
        assert (np.concatenate(found) == masks.numpy()).mean() > 0.99, "but for bits on the verge"
    classifier = InstaNASClassifier(agent, tiny_graph, data, table)
    assert classifier.dial(images, 90.0) == pytest.approx(wanted[0][0])


def test_names_and_classes_are_as_many(tiny_space):
    """A controller of ten names before a network of three classes; and a table that is not one of ms."""
    agent, graph = EarlyExit(made(SelfCriticalReinforce, tiny_space), 0.5), MetaGraph(tiny_space, 3)
    table = LatencyTable(tiny_space, torch.ones(17, 5).double(), 0.5, controller=0.25)
    data = DataRecord(tuple("abc"), (0.5,) * 3, (0.25,) * 3, None)
    for use in (
        lambda: export(agent, graph, table, data),
        lambda: InstaNASClassifier(agent, graph, data, table),
    ):
        with pytest.raises(ValueError, match="^agent: names 10 classes; 3 will do"):
            use()
    with pytest.raises(ValueError, match="^latency_table: got one of MMACs; one of ms will do"):
        InstaNASClassifier(agent.agent, graph, data, replace(table, unit="MMACs"))


def test_without_a_dial(tiny_space, tiny_graph):
    """REINFORCE, and one mask for all, have none."""
    table = LatencyTable(tiny_space, torch.ones(17, 5).double(), 0.5, controller=0.25)
    data = DataRecord(tuple("abcdefghij"), (0.5,) * 3, (0.25,) * 3, None)
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    reinforce, regression = both(tiny_space)
    for agent, name in (
        (EarlyExit(reinforce, 0.5), "SelfCriticalReinforce"),
        (EarlyExit(regression, 0.5, tiny_space.path(4)), "StaticAgent"),
    ):
        with pytest.raises(ValueError, match=f"dial: {name} has none"):
            agent.dial(images, 1.0)
        with pytest.raises(ValueError, match="dial: EarlyExit has none"):
            export(agent, tiny_graph, table, data, dial=True)


# --- the verb -------------------------------------------------------------------------------------------


def test_the_point_that_answers_most_without_losing():
    """.90 .91 .90 .89 .88 with ever more answers: the third, as accurate as none; with .01 the fourth."""
    found = [{"accuracy": accuracy, "place": i} for i, accuracy in enumerate((0.9, 0.91, 0.9, 0.89, 0.88))]
    assert [chosen(found, lose)["place"] for lose in (0.0, 0.0101, 1.0)] == [2, 3, 4]


@pytest.fixture(scope="module")
def left() -> dict[str, Path]:
    """Runs of the verb: of two searches, with a network for all, and evaluated."""
    made = {}
    data = {"dataset": "folder", "data_dir": image_folder()}
    for agent in ("reinforce", "regression"):
        made[agent] = home() / f"exit_{agent}"
        dial = 0.5 if agent == "regression" else None
        main(Options(run=searched(agent), out=made[agent], dial=dial, confidence=0.2))
    made["alone"] = home() / "exit_alone"
    network = shipped("mobilenet_v2.safetensors")
    main(Options(run=searched("reinforce"), out=made["alone"], network=network, lose=0.05, **data))
    made["evaluation"] = home() / "exit_evaluation"
    evaluate.main(
        evaluate.Options(
            out=made["evaluation"],
            runs=(made["reinforce"], made["regression"], made["alone"]),
            **data,
            one_shot_masks=4,
            one_shot_limits=(1.0,),
            control_masks=2,
            control_networks=2,
            time_real=False,
        )
    )
    return made


def test_a_run_of_the_verb_is_a_run(left):
    """Its agent, weights, classes and table; the confidence is the one that was asked for."""
    for name in ("reinforce", "regression"):
        run = load_run(left[name])
        assert isinstance(run.agent, EarlyExit) and run.agent.confidence == 0.2 and run.agent.bits is None
        assert InstaNASClassifier.load(left[name])(torch.zeros(3, 32, 32, dtype=torch.uint8)).latency_ms > 0
        assert export(run.agent, run.meta_graph, run.table, run.data)
    config = read_strictly(left["regression"] / "config.json")
    assert config["dataset"] == "folder" and config["image_sets"]["val"]["images"] == 40


def test_a_network_alone_answers_the_rest(left):
    """MobileNetV2 of the package, in the space of the controller."""
    run = load_run(left["alone"])
    assert torch.equal(run.agent.fixed.mask, run.meta_graph.space.mobilenet_v2_mask())
    alone, image = MetaGraph.load(shipped("mobilenet_v2.safetensors")), torch.zeros(1, 3, 32, 32)
    mine = run.meta_graph.child(run.agent.fixed.mask)(image)
    torch.testing.assert_close(mine, alone.child(alone.space.full_mask())(image))


def test_it_is_compared_like_any_other(left):
    """A row each, with the part that it answered, its controls, and the empty mask for those images."""
    rows = {row["policy"]: row for row in read_strictly(left["evaluation"] / "results.json")["rows"]}
    for name in ("exit_reinforce", "exit_regression", "exit_alone"):
        row, images = rows[name], rows[name]["test"]["images"]
        empty = [found for found in row["masks"] if "1" not in found["mask"]]
        answered = sum(found["images"] for found in empty)
        assert row["test"]["answered"] == pytest.approx(answered / images)
        assert all(found["latency_ms"] == 0 for found in empty)
        assert row["test"]["networks"] == len(row["masks"])
        assert ("controls" in row) == (name != "exit_alone"), (
            "of one network's graph no other mask is trained"
        )
    assert 0 < rows["exit_reinforce"]["test"]["answered"] <= 1


def test_what_does_not_go_together_is_refused(left, tmp_path):
    reinforce, out = searched("reinforce"), tmp_path / "run"
    with pytest.raises(ValueError, match="^out: got .*, whose files are read"):
        main(Options(run=reinforce, out=reinforce))
    with pytest.raises(ValueError, match=r"^dial: got 0\.5, but nobody here has one"):
        main(Options(run=reinforce, out=out, dial=0.5))
    with pytest.raises(ValueError, match=r"^network: .* is a SelfCriticalReinforce, which chooses"):
        main(Options(run=reinforce, out=out, network=reinforce))
    with pytest.raises(FileNotFoundError, match="no such file"):
        main(Options(run=reinforce, out=out, network=tmp_path))
    narrow = MetaGraph(SearchSpace.preset("lite", 0.5).only(2), 10)
    narrow.save(tmp_path / "meta_graph.safetensors")
    with pytest.raises(ValueError, match="network: .* does not fit the controller of run"):
        main(Options(run=reinforce, out=out, network=tmp_path))
    with pytest.raises(ValueError, match="agent: got a EarlyExit that names no images"):
        main(Options(run=left["reinforce"], out=out))
    assert not out.exists()


def test_another_run_stays(left, tmp_path):
    """What a search left, a pick that is read, and a run with other options; the same call may come again."""
    with pytest.raises(ValueError, match="^out: .* holds a run with other"):
        main(Options(run=searched("reinforce"), out=searched("regression")))
    pick = tmp_path / "run" / "choices" / "A"
    shutil.copytree(searched("regression"), tmp_path / "run", dirs_exist_ok=True)
    pick.mkdir(parents=True)
    shutil.copy(searched("regression") / "controller.safetensors", pick)
    choices = {"picks": {"A": 0}, "prefer": {"accuracy": "A", "balanced": "A", "latency": "A"}}
    save_json(tmp_path / "run" / "choices.json", choices)
    with pytest.raises(ValueError, match="^out: got .*, whose files are read"):
        main(Options(run=tmp_path / "run", prefer="A", out=pick))
    out, before = left["reinforce"], (left["reinforce"] / "controller.safetensors").read_bytes()
    with pytest.raises(ValueError, match="^out: .* holds a run with other confidence"):
        main(Options(run=searched("reinforce"), out=out, confidence=0.3))
    main(Options(run=searched("reinforce"), out=out, confidence=0.2))
    assert (out / "controller.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["reinforce", "alone"])
def test_exchanged_labels_are_found(left, name):
    """Also before a network that was trained on other images than the controller."""
    val = load_images("folder", "val", image_folder(), 32)
    check_same_images([left[name]], "folder", "val", val)
    with pytest.raises(ValueError, match="^data_dir: the val images are not those"):
        check_same_images([left[name]], "folder", "val", replace(val, labels=val.labels.flip(0)))


def test_fine_tuning_comes_before(left, tmp_path):
    with pytest.raises(ValueError, match="^run: .* answers images itself; fine-tune the run"):
        finetune.main(finetune.Options(run=left["reinforce"], out=tmp_path / "run"))


def test_a_network_of_some_modules_keeps_its_mask(tmp_path, tiny_space):
    """Of modules 0 and 2, of which the mask has the second: module 2 of the whole space."""
    some = tiny_space.only(0, 2)
    MetaGraph(some, 10).save(tmp_path / "meta_graph.safetensors")
    with pytest.raises(ValueError, match="^network: .* has 2 modules a cell, and no mask beside it"):
        one_network(tmp_path / "meta_graph.safetensors", tiny_space)
    StaticAgent(some, some.path(1)).save(tmp_path / "controller.safetensors")
    graph, mask = one_network(tmp_path / "meta_graph.safetensors", tiny_space)
    assert torch.equal(mask, tiny_space.path(2)) and graph.space == tiny_space


def test_a_network_under_one_mask(tmp_path, tiny_space, tiny_graph):
    tiny_graph.save(tmp_path / "meta_graph.safetensors")
    StaticAgent(tiny_space, tiny_space.path(2)).save(tmp_path / "controller.safetensors")
    graph, mask = one_network(tmp_path / "meta_graph.safetensors", tiny_space)
    assert torch.equal(mask, tiny_space.path(2)) and graph.space == tiny_space


def test_a_benchmark_has_it(tmp_path):
    """It learns as regression does; its confidence is where it earns most on validation."""
    contest = Contest(tmp_path, {}, Budget(steps=400, masks=6, menu=6, passes=1))
    entry = enter(contest, "early-exit", 0)
    entry.learn()
    entry.tune(contest.val)
    agent = entry.agent
    assert isinstance(agent, EarlyExit)
    earned = score_agent(contest.val, agent).reward.mean()
    for confidence in (NEVER, 0.5):
        other = EarlyExit(agent.agent, confidence)
        assert earned >= score_agent(contest.val, other).reward.mean()


def test_time_of_its_own_answers_is_inside_the_window(bandit):
    """R_A at 0 ms is just below its best, at the cheapest network."""
    zero = torch.zeros((), dtype=torch.float64)
    assert 0.98 < reward.latency_reward(zero, bandit.bounds) < 1
