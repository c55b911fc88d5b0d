"""The deployed classifier: one image or many, the same answer as controller and meta-graph by hand."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from agents.agent import Agent
from agents.classifier import Classification, InstaNASClassifier
from agents.pictures import as_batch
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.saved import load_run, save_data
from agents.static import RandomAgent, StaticAgent
from instanas_env.data import DataRecord, ImageSet
from instanas_env.data.decoding import decode
from instanas_env.deploy.runtime import OnnxNetwork
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from scripts import export

DATA = DataRecord(tuple("abcdefghij"), (0.3, 0.4, 0.5), (0.2, 0.25, 0.3))
AGENTS = ("reinforce", "regression", "menu")


def noise(count: int) -> torch.Tensor:
    """Images of noise, each with colours of its own."""
    generator = generator_for(8)
    pixels = torch.rand(count, 3, 32, 32, generator=generator)
    return (255 * pixels * torch.rand(count, 3, 1, 1, generator=generator)).to(torch.uint8)


IMAGES = noise(12)
IMAGE_SET = ImageSet(IMAGES, torch.zeros(12, dtype=torch.long), DATA.classes, DATA.mean, DATA.std)


def table_of(space: SearchSpace) -> LatencyTable:
    modules = torch.rand(space.num_cells, space.num_modules, generator=generator_for(3), dtype=torch.float64)
    return LatencyTable(space, modules, fixed=0.25, controller=0.125)


def agent_of(name: str, space: SearchSpace) -> Agent:
    """An agent with weights that tell images apart."""
    if name == "reinforce":
        agent: Agent = SelfCriticalReinforce(None, space=space)
    elif name == "regression":
        agent = RewardRegression(None, trade_off=0.4, space=space, table=table_of(space))
    else:
        menu = space.random_masks(7, 0.4, generator_for(7))
        agent = RewardRegression(None, trade_off=0.02, space=space, table=table_of(space), menu=menu)
    assert agent.controller is not None
    generator = generator_for(4)
    for parameter in agent.controller.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return agent


@pytest.fixture(params=AGENTS)
def classifier(request, tiny_graph, tiny_space) -> InstaNASClassifier:
    return InstaNASClassifier(agent_of(request.param, tiny_space), tiny_graph, DATA, table_of(tiny_space))


@pytest.fixture
def diverse(tiny_graph, tiny_space) -> InstaNASClassifier:
    """Most images have a network of their own."""
    agent = agent_of("reinforce", tiny_space)
    return InstaNASClassifier(agent, tiny_graph, DATA, table_of(tiny_space), cache_size=2)


@pytest.fixture
def run(tmp_path, tiny_graph, tiny_space):
    """The folder of a run."""
    agent = agent_of("reinforce", tiny_space)
    agent.save(tmp_path / "controller.safetensors")
    tiny_graph.save(tmp_path / "meta_graph.safetensors")
    typical = tiny_space.repair(agent.masks(IMAGES))
    save_data(tmp_path, IMAGE_SET, table_of(tiny_space), typical)
    return tmp_path


def assert_same(one: Classification, other: Classification) -> None:
    """The dynamic file and a static child round differently."""
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
    for name in ("label", "name", "mask", "latency_ms"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("name", AGENTS)
def test_a_batch_is_the_meta_graph_under_the_agents_masks(name, tiny_graph, tiny_space):
    """Against the unfolded controller and meta-graph, called one after the other."""
    agent, table = agent_of(name, tiny_space), table_of(tiny_space)
    masks = tiny_space.repair(agent.masks(IMAGES))
    assert len(masks.unique(dim=0)) > 1
    with torch.inference_mode():
        probabilities = tiny_graph(IMAGE_SET.normalize(IMAGES), masks).softmax(1)
    result = InstaNASClassifier(agent, tiny_graph, DATA, table)(IMAGES)
    assert np.array_equal(result.mask, masks.numpy())
    np.testing.assert_allclose(result.probabilities, probabilities.numpy(), atol=1e-5)
    assert np.array_equal(result.label, probabilities.argmax(1).numpy())
    np.testing.assert_array_equal(result.latency_ms, table.lookup(masks).numpy() + table.controller)


def test_a_single_image_is_a_batch_of_one(classifier):
    """In the dynamic file at first, then in a static child, and again from the cache."""
    batch = classifier(IMAGES)
    for sighting in range(3):
        for i, image in enumerate(IMAGES):
            one = classifier(image)
            assert type(one.label) is int and type(one.latency_ms) is float
            assert one.label == batch.label[i] and one.name == batch.name[i] == DATA.classes[one.label]
            assert one.mask.shape == (17, 5) and np.array_equal(one.mask, batch.mask[i])
            assert one.latency_ms == batch.latency_ms[i]
            np.testing.assert_allclose(one.probabilities, batch.probabilities[i], atol=1e-5)
            assert math.isclose(one.probabilities.sum(), 1.0, rel_tol=1e-5)
        assert sighting == 0 or len(classifier._singles.children) == len(np.unique(batch.mask, axis=0))


def test_a_child_is_built_at_the_second_sighting(diverse):
    batch = diverse(IMAGES)
    assert len(diverse._singles.children) == 0, "batches need no separate networks"
    firsts = np.unique(batch.mask, axis=0, return_index=True)[1][:3]
    assert len(firsts) == 3
    a, b, c = (IMAGES[i] for i in firsts)

    def builds(image) -> int:
        before = diverse._singles.built
        diverse(image)
        return diverse._singles.built - before

    assert [builds(image) for image in (a, b, c)] == [0, 0, 0], "the dynamic file has them all"
    assert [builds(image) for image in (a, b, a)] == [1, 1, 0], "kept"
    assert builds(c) == 1 and len(diverse._singles.children) == 2, "b had waited longest"
    assert [builds(image) for image in (a, c, b)] == [0, 0, 1]


def test_an_agent_without_an_onnx_form(tiny_graph, tiny_space):
    """Chooses in PyTorch; its children run in onnxruntime all the same."""
    agent = RandomAgent(tiny_space, keep=0.4, seed=3)
    result = InstaNASClassifier(agent, tiny_graph, DATA, table_of(tiny_space))(IMAGES[0])
    mask = torch.from_numpy(result.mask)[None]
    with torch.inference_mode():
        expected = tiny_graph(IMAGE_SET.normalize(IMAGES[:1]), mask).softmax(1)[0]
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)
    assert result.latency_ms == table_of(tiny_space).lookup(mask)[0], "choosing is free"


def test_a_pickled_one_is_the_same(classifier):
    before = classifier(IMAGES), classifier(IMAGES[0])
    again = pickle.loads(pickle.dumps(classifier))
    assert_same(again(IMAGES), before[0])
    assert_same(again(IMAGES[0]), before[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_forked_worker_processes(diverse):
    """Each task's classifier comes pickled."""
    expected = [diverse(image).label for image in IMAGES[:4]]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        results = pool.map_async(diverse, list(IMAGES[:4].numpy())).get(timeout=120)
    assert [result.label for result in results] == expected


def test_pictures_and_their_files(classifier, tmp_path):
    """Of the right size they are what they are; others are converted, and fitted to the square."""
    pixels = IMAGES[3].permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "image.png")
    for images in (picture, tmp_path / "image.png", str(tmp_path / "image.png")):
        assert_same(classifier(images), classifier(IMAGES[3]))
    for odd in (picture.convert("L"), picture.convert("RGBA").resize((48, 40)), picture.convert("P")):
        assert classifier(odd).mask.shape == (17, 5)
    with pytest.raises(FileNotFoundError, match="nothing.png"):
        classifier(tmp_path / "nothing.png")


def test_a_run_needs_no_data_set(run, tiny_graph, tiny_space):
    classifier = InstaNASClassifier.load(run)
    assert classifier.classes == DATA.classes
    agent = agent_of("reinforce", tiny_space)
    expected = InstaNASClassifier(agent, tiny_graph, DATA, table_of(tiny_space))
    assert_same(InstaNASClassifier.load(run, IMAGE_SET)(IMAGES), expected(IMAGES))
    assert_same(classifier(IMAGES), expected(IMAGES))
    assert_same(classifier(IMAGES[0]), expected(IMAGES[0]))


def test_images_of_other_classes_are_refused(run):
    other = dataclasses.replace(IMAGE_SET, classes=tuple("bacdefghij"))
    with pytest.raises(ValueError, match="^image_set: got 10 classes, b, a, .*; the run's 10, a, b,"):
        InstaNASClassifier.load(run, other)


def test_a_run_that_tells_too_little_is_refused(run):
    (run / "data.json").write_text('{"classes": ["a"], "mean": [0.5], "std": [1, 1, 1]}')
    with pytest.raises(ValueError, match="^data: .*data.json does not tell classes, mean and std"):
        InstaNASClassifier.load(run)
    (run / "data.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"data\.json: no such file; `instanas search`"):
        InstaNASClassifier.load(run)
    (run / "latency.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"latency\.json: no such file; `instanas search`"):
        InstaNASClassifier.load(run)


def test_what_a_run_saved_is_what_is_read(run, tiny_space):
    read = load_run(run)
    assert (read.data.classes, read.data.mean, read.data.std) == (DATA.classes, DATA.mean, DATA.std)
    masks = tiny_space.repair(agent_of("reinforce", tiny_space).masks(IMAGES))
    assert torch.equal(read.data.typical, masks)
    assert torch.equal(read.table.modules, table_of(tiny_space).modules)


def test_a_run_is_exported_as_one_file(run, capsys):
    """``instanas export RUN model.onnx``: the classifier's answers."""
    export.main(export.Options(run, run / "model.onnx"))
    assert "SelfCriticalReinforce, 10 classes" in capsys.readouterr().out
    network, batch = OnnxNetwork((run / "model.onnx").read_bytes()), InstaNASClassifier.load(run)(IMAGES)
    for i, image in enumerate(IMAGES.split(1)):
        logits, mask, latency_ms = network.outputs(image.numpy())
        assert np.array_equal(mask[0], batch.mask[i])
        probabilities = torch.from_numpy(logits[0]).softmax(0).numpy()
        np.testing.assert_allclose(probabilities, batch.probabilities[i], atol=1e-5)
        assert latency_ms[0] == pytest.approx(batch.latency_ms[i], rel=1e-5)


def test_arrays_and_tensors_are_the_same_and_every_call_too(classifier):
    """Also a read-only array with a negative stride, which torch by itself refuses."""
    first, backwards = classifier(IMAGES), IMAGES.numpy()[::-1]
    backwards.flags.writeable = False
    for again in (classifier(IMAGES.numpy()), classifier(IMAGES)):
        for field in dataclasses.fields(Classification):
            assert np.array_equal(getattr(again, field.name), getattr(first, field.name))
    assert np.array_equal(classifier(backwards).label, first.label[::-1])


def test_images_in_any_form_that_an_agent_takes(classifier):
    """Channels last, whole numbers of another type, lists, and arrays that may only be read, as PIL's are."""
    first, frozen = classifier(IMAGES), IMAGES.numpy().copy()
    frozen.flags.writeable = False
    for images in (IMAGES.permute(0, 2, 3, 1), IMAGES.long(), frozen, list(frozen), frozen.tolist()):
        assert_same(classifier(images), first)
    for image in (IMAGES[0].permute(1, 2, 0).numpy(), frozen[0], frozen[0].tolist()):
        assert classifier(image).label == first.label[0]


def test_measuring_runs_every_image_by_itself(diverse):
    """Time is not asserted, but that there is some, for each image, and that the threads come back."""
    before = torch.get_num_threads()
    times = diverse.measure(IMAGES[:3].numpy(), repetitions=2)
    assert times.shape == (3,) and times.dtype == np.float64 and (times > 0).all()
    assert isinstance(diverse.measure(IMAGES[0], repetitions=1), float)
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="^repetitions: got 0; a whole number of at least 1 will do"):
        diverse.measure(IMAGES[0], repetitions=0)


@pytest.mark.parametrize(
    ("images", "got"),
    [
        ({"image": 0}, "dict; an array or tensor .*, a PIL image or a path"),
        ([[0]], r"shape \(1, 1\); \(3, 32, 32\) or \(B, 3, 32, 32\), or channels last,"),
        (IMAGES.float(), "float64; uint8 from 0 to 255"),
        (IMAGES.long() - 1, r"int64 from -1 to \d+; uint8 from 0 to 255"),
        (IMAGES[0, 0], r"shape \(32, 32\); .*"),
        (IMAGES[:, :1], r"shape \(12, 1, 32, 32\); .*"),
        (IMAGES[..., :28, :28], r"shape \(12, 3, 28, 28\); .*"),
        (IMAGES[:0], "an empty batch; an array or tensor .*"),
        (IMAGES.to("meta"), "a meta tensor; .*"),
        (IMAGES[None], r"shape \(1, 12, 3, 32, 32\); .*"),
    ],
)
def test_what_is_no_image_is_refused(diverse, images, got):
    for call in (diverse, diverse.measure):
        with pytest.raises(ValueError, match=f"^images: got {got} will do$"):
            call(images)


def test_a_classifier_reads_files_as_the_loader_of_its_training_images_does(tmp_path):
    """16 bits a pixel, transparency, EXIF; a damaged file, a pipe and one that is not there are named."""
    grey = Image.fromarray(np.full((40, 32), 20000, np.uint16))
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    for name, picture in {"grey.png": grey, "clear.png": clear}.items():
        picture.save(tmp_path / name)
        expected = decode(tmp_path / name, 32)[0]
        for given in (tmp_path / name, str(tmp_path / name), picture):
            assert np.array_equal(as_batch(given, 32)[0][0].permute(1, 2, 0).numpy(), expected)
    (tmp_path / "cut.png").write_bytes((tmp_path / "grey.png").read_bytes()[:70])
    with pytest.raises(ValueError, match=r"^images: .*cut\.png is no whole image"):
        as_batch(tmp_path / "cut.png", 32)
    with (
        Image.open(tmp_path / "cut.png") as picture,
        pytest.raises(ValueError, match="^images: no whole pict"),
    ):
        as_batch(picture, 32)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(FileNotFoundError, match=r"^images: no such file: .*pipe\.png"):
        as_batch(tmp_path / "pipe.png", 32)


def test_training_the_originals_later_changes_nothing(tiny_space, randomise_batch_norm):
    agent, meta_graph = agent_of("reinforce", tiny_space), MetaGraph(tiny_space, 10)
    randomise_batch_norm(meta_graph, 1)
    classifier = InstaNASClassifier(agent, meta_graph, DATA, table_of(tiny_space))
    before, batch = classifier(IMAGES[0]), classifier(IMAGES)
    for module in (agent.controller, meta_graph):
        for parameter in module.parameters():
            nn.init.normal_(parameter, generator=generator_for(0))
    classifier._singles.forget()
    assert_same(classifier(IMAGES[0]), before)
    assert_same(classifier(IMAGES), batch)


def test_the_dial_moves_the_latency_and_not_the_agent_it_came_from(tiny_graph, tiny_space):
    """Of single images too, whose file is written anew."""
    agent, table = agent_of("regression", tiny_space), table_of(tiny_space)
    classifier = InstaNASClassifier(agent, tiny_graph, DATA, table)
    classifier(IMAGES[0])
    for latency_ms in (8.0, 16.0):
        assert classifier.dial(IMAGES, latency_ms) > 0
        batch = classifier(IMAGES)
        assert abs(batch.latency_ms.mean() - table.controller - latency_ms) < 1, "as near as 12 images get"
        assert [classifier(image).latency_ms for image in IMAGES] == batch.latency_ms.tolist()
    assert agent.trade_off == 0.4


def test_an_agent_without_a_dial_says_so(diverse):
    with pytest.raises(ValueError, match="^dial: SelfCriticalReinforce has none; RewardRegression will do"):
        diverse.dial(IMAGES, 1.0)


def test_choosing_without_a_controller_costs_nothing(tiny_graph, tiny_space):
    table = table_of(tiny_space)
    agent = StaticAgent(tiny_space, tiny_space.mobilenet_v2_mask())
    result = InstaNASClassifier(agent, tiny_graph, DATA, table)(IMAGES[0])
    assert result.latency_ms == table.reference("mobilenet_v2")


def test_parts_that_do_not_belong_together_are_refused(tiny_graph, lite_space, tiny_space):
    agent = StaticAgent(lite_space, lite_space.full_mask())
    tiny_agent = StaticAgent(tiny_space, tiny_space.full_mask())
    with pytest.raises(ValueError, match="^agent: made for .*1.0.*, not for .*0.5"):
        InstaNASClassifier(agent, tiny_graph, DATA, table_of(tiny_space))
    with pytest.raises(ValueError, match="^latency_table: made for .*1.0.*, not for .*0.5"):
        InstaNASClassifier(tiny_agent, tiny_graph, DATA, table_of(lite_space))
    two_classes = dataclasses.replace(DATA, classes=("cat", "dog"))
    with pytest.raises(ValueError, match="^data: has 2 classes, the meta-graph 10"):
        InstaNASClassifier(tiny_agent, tiny_graph, two_classes, table_of(tiny_space))
    with pytest.raises(ValueError, match="^cache_size: got 0; a whole number of at least 1 will do"):
        InstaNASClassifier(tiny_agent, tiny_graph, DATA, table_of(tiny_space), cache_size=0)


def test_a_folder_without_a_run_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"controller\.safetensors: no such file"):
        InstaNASClassifier.load(tmp_path)
