"""The deployed classifier: one image or many, the same answer as controller and meta-graph by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from pipeline_fixtures import image_folder, searched
from torch import nn

from agents.baselines import StaticAgent
from agents.classifier import Classification, InstaNASClassifier
from agents.files import load_agent
from agents.reward_regression import RewardRegression
from instanas_env.build import shipped
from instanas_env.data import load_images
from instanas_env.latency import LatencyTable
from instanas_env.meta_graph import MetaGraph
from instanas_env.seeding import generator_for

pytestmark = pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")

TABLE = LatencyTable.load(shipped("latency.json"))
EMBEDDED = load_images("embedded", "test")
IMAGES = EMBEDDED.images[torch.arange(24)]
SEARCHES = ("searched_reinforce", "searched_regression")


def shipped_search(name: str):
    """The directory of a search that comes with the package."""
    return shipped(f"{name}/controller.safetensors").parent


@pytest.fixture(params=SEARCHES)
def classifier(request) -> InstaNASClassifier:
    return InstaNASClassifier.load(shipped_search(request.param), EMBEDDED)


@pytest.fixture
def diverse() -> InstaNASClassifier:
    """The shipped regression controller: most images have a network of their own."""
    return InstaNASClassifier.load(shipped_search("searched_regression"), EMBEDDED, cache_size=3)


def distinct(classification: Classification) -> int:
    return len(np.unique(classification.mask.reshape(len(IMAGES), -1), axis=0))


@pytest.mark.parametrize("name", SEARCHES)
def test_a_batch_is_the_meta_graph_under_the_agents_masks(name):
    """Against the unfolded controller and meta-graph, called one after the other."""
    folder = shipped_search(name)
    classifier = InstaNASClassifier.load(folder, EMBEDDED)
    agent = load_agent(folder / "controller.safetensors")
    meta_graph = MetaGraph.load(folder / "meta_graph.safetensors")
    masks = agent.space.repair(agent.masks(IMAGES))
    with torch.inference_mode():
        probabilities = meta_graph(EMBEDDED.normalize(IMAGES), masks).softmax(1)
    result = classifier(IMAGES)
    assert np.array_equal(result.mask, masks.numpy())
    np.testing.assert_allclose(result.probabilities, probabilities.numpy(), atol=1e-5)
    assert np.array_equal(result.label, probabilities.argmax(1).numpy())
    np.testing.assert_array_equal(result.latency_ms, TABLE.lookup(masks).numpy() + TABLE.controller)
    assert (result.label == EMBEDDED.labels[: len(IMAGES)].numpy()).mean() > 0.7, "it is a trained one"


def test_a_single_image_is_a_batch_of_one(classifier):
    """The child network of a mask gives what the meta-graph gives; no dimension is left over."""
    batch = classifier(IMAGES)
    for i, image in enumerate(IMAGES):
        one = classifier(image)
        assert type(one.label) is int and type(one.latency_ms) is float
        assert one.label == batch.label[i] and one.name == batch.name[i] == EMBEDDED.classes[one.label]
        assert one.mask.shape == (17, 5) and np.array_equal(one.mask, batch.mask[i])
        assert one.latency_ms == batch.latency_ms[i]
        np.testing.assert_allclose(one.probabilities, batch.probabilities[i], atol=1e-5)
        assert math.isclose(one.probabilities.sum(), 1.0, rel_tol=1e-5)


def test_arrays_and_tensors_are_the_same_and_every_call_too(classifier):
    """Also a read-only array with a negative stride, which torch by itself refuses."""
    first, backwards = classifier(IMAGES), IMAGES.numpy()[::-1]
    backwards.flags.writeable = False
    for again in (classifier(IMAGES.numpy()), classifier(IMAGES)):
        for field in dataclasses.fields(Classification):
            assert np.array_equal(getattr(again, field.name), getattr(first, field.name))
    assert np.array_equal(classifier(backwards).label, first.label[::-1])


def test_the_cache_is_bounded_and_the_least_recently_used_goes(diverse):
    batch = diverse(IMAGES)
    assert distinct(batch) > 4 and diverse.cached() == 0, "batches need no separate networks"
    firsts = np.unique(batch.mask.reshape(len(IMAGES), -1), axis=0, return_index=True)[1][:4]
    a, b, c, d = (IMAGES[i] for i in firsts)
    for image in (a, b, c):
        diverse(image)
    assert diverse.cached() == 3

    def builds(image) -> int:
        before = diverse._child_of.cache_info().misses
        diverse(image)
        return diverse._child_of.cache_info().misses - before

    assert builds(a) == 0, "kept"
    assert builds(d) == 1 and diverse.cached() == 3, "b had waited longest"
    assert [builds(image) for image in (a, c, d)] == [0, 0, 0]
    assert builds(b) == 1


def test_training_the_originals_later_changes_nothing():
    folder = shipped_search("searched_reinforce")
    agent = load_agent(folder / "controller.safetensors")
    meta_graph = MetaGraph.load(folder / "meta_graph.safetensors")
    classifier = InstaNASClassifier(agent, meta_graph, EMBEDDED, TABLE)
    before, batch = classifier(IMAGES[0]), classifier(IMAGES)
    for module in (agent.controller, meta_graph):
        for parameter in module.parameters():
            nn.init.normal_(parameter, generator=generator_for(0))
    classifier._child_of.cache_clear()
    assert np.array_equal(classifier(IMAGES[0]).probabilities, before.probabilities)
    assert np.array_equal(classifier(IMAGES).probabilities, batch.probabilities)


def test_the_dial_moves_the_latency_and_not_the_agent_it_came_from():
    folder = shipped_search("searched_regression")
    agent = load_agent(folder / "controller.safetensors")
    assert isinstance(agent, RewardRegression)
    meta_graph, before = MetaGraph.load(folder / "meta_graph.safetensors"), agent.trade_off
    classifier = InstaNASClassifier(agent, meta_graph, EMBEDDED, TABLE)
    for latency_ms in (1.2, 2.4):
        assert classifier.dial(latency_ms, IMAGES) > 0
        mean = classifier(IMAGES).latency_ms.mean() - TABLE.controller
        assert abs(mean - latency_ms) < 0.1, "as near as 24 images get"
    assert agent.trade_off == before


def test_an_agent_without_a_dial_says_so():
    classifier = InstaNASClassifier.load(shipped_search("searched_reinforce"), EMBEDDED)
    with pytest.raises(ValueError, match="^dial: SelfCriticalReinforce has none; RewardRegression will do"):
        classifier.dial(1.0, IMAGES)


def test_choosing_without_a_controller_costs_nothing(lite_space):
    meta_graph = MetaGraph.load(shipped("meta_graph.safetensors"))
    agent = StaticAgent(lite_space, lite_space.mobilenet_v2_mask())
    result = InstaNASClassifier(agent, meta_graph, EMBEDDED, TABLE)(IMAGES[0])
    assert result.latency_ms == TABLE.reference("mobilenet_v2")


def test_measuring_runs_every_image_by_itself(diverse):
    """Time is not asserted, but that there is some, for each image, and that the threads come back."""
    before = torch.get_num_threads()
    times = diverse.measure(IMAGES[:3].numpy(), repetitions=2)
    assert times.shape == (3,) and times.dtype == np.float64 and (times > 0).all()
    assert isinstance(diverse.measure(IMAGES[0], repetitions=1), float)
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="^repetitions: got 0; at least 1 will do"):
        diverse.measure(IMAGES[0], repetitions=0)


@pytest.mark.parametrize("agent", ["regression", "reinforce"])
def test_a_run_of_ours_is_deployed_from_its_directory(agent):
    """Statistics and class names are those of the run's own images, not of the embedded ones."""
    images = load_images("folder", "test", image_folder())
    classifier = InstaNASClassifier.load(searched(agent), images)
    assert classifier.classes == tuple("0123456789")
    chosen = load_agent(searched(agent) / "controller.safetensors")
    batch = images.images[torch.arange(8)]
    result = classifier(batch)
    assert np.array_equal(result.mask, chosen.space.repair(chosen.masks(batch)).numpy())
    meta_graph = MetaGraph.load(searched(agent) / "meta_graph.safetensors")
    logits = meta_graph(images.normalize(batch), torch.from_numpy(result.mask))
    np.testing.assert_allclose(result.probabilities, logits.softmax(1).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("images", "got"),
    [
        ([[0]], "list"),
        (IMAGES.float(), r"torch\.float32 \(24, 3, 32, 32\)"),
        (IMAGES.numpy().astype(np.int64), r"int64 \(24, 3, 32, 32\)"),
        (IMAGES[0, 0], r"torch\.uint8 \(32, 32\)"),
        (IMAGES[:, :1], r"torch\.uint8 \(24, 1, 32, 32\)"),
        (IMAGES.permute(0, 2, 3, 1), r"torch\.uint8 \(24, 32, 32, 3\)"),
        (IMAGES[..., :28, :28], r"torch\.uint8 \(24, 3, 28, 28\)"),
        (IMAGES[:0], r"torch\.uint8 \(0, 3, 32, 32\)"),
        (IMAGES[None], r"torch\.uint8 \(1, 24, 3, 32, 32\)"),
    ],
)
def test_what_is_no_image_is_refused(diverse, images, got):
    will_do = r"a uint8 tensor or array \(3, 32, 32\) or \(B, 3, 32, 32\) will do$"
    for call in (diverse, diverse.measure, lambda images: diverse.dial(1.0, images)):
        with pytest.raises(ValueError, match=f"^images: got {got}; {will_do}"):
            call(images)


def test_parts_that_do_not_belong_together_are_refused(tiny_graph, lite_space, tiny_space):
    lite_graph = MetaGraph.load(shipped("meta_graph.safetensors"))
    agent = StaticAgent(lite_space, lite_space.full_mask())
    tiny_agent = StaticAgent(tiny_space, tiny_space.full_mask())
    with pytest.raises(ValueError, match="^agent: made for .*1.0.*; got a meta-graph of .*0.5"):
        InstaNASClassifier(agent, tiny_graph, EMBEDDED, TABLE)
    with pytest.raises(ValueError, match="^latency_table: made for .*1.0.*; got a meta-graph of .*0.5"):
        InstaNASClassifier(tiny_agent, tiny_graph, EMBEDDED, TABLE)
    two_classes = dataclasses.replace(EMBEDDED, classes=("cat", "dog"))
    with pytest.raises(ValueError, match="^image_set: has 2 classes, the meta-graph 10"):
        InstaNASClassifier(agent, lite_graph, two_classes, TABLE)
    with pytest.raises(ValueError, match="^cache_size: got 0; at least 1 will do"):
        InstaNASClassifier(agent, lite_graph, EMBEDDED, TABLE, cache_size=0)


def test_a_folder_without_a_run_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"controller\.safetensors: no such weights file"):
        InstaNASClassifier.load(tmp_path, EMBEDDED)
