"""InstaNASTabular-v1: the same bandit from a table, up to a million steps a second, with exact regret."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from instanas_env import checks, paper
from instanas_env.base_env import Parts
from instanas_env.build import shipped
from instanas_env.contextual import Contexts, Order, Rules
from instanas_env.data import ImageSet, load_images
from instanas_env.env import InstaNASEnv
from instanas_env.observations import Observer, features
from instanas_env.reward import BoundsSchedule
from instanas_env.storage import file_fingerprint
from instanas_env.tabular_bandit import TabularBandit
from instanas_env.tabulated import Tabulated
from instanas_env.vector_env import InstaNASVectorEnv
from instanas_env.wrappers.forms import Numbers

TABLE = "tabular.safetensors"
REMAKE = "instanas tabulate --out instanas_env/assets/tabular.safetensors"
OBSERVATIONS = ("image", "features", "index")
CHUNK = 512  # images at a time, to compute features


class TabularObserver(Observer):
    """Turns the numbers of images into observations.

    Args:
        image_set: all images.
        layout: of the images.
        observation: "image", "features", or "index", the image's number in the split.
    """

    def __init__(self, image_set: ImageSet, layout: str = "CHW", observation: str = "image"):
        checks.choice("observation", observation, OBSERVATIONS)
        self.image_set = image_set
        side = image_set.images[0].shape[-1]
        super().__init__(side, layout, "image" if observation == "index" else observation)
        self.observation = observation
        if observation == "index":
            self.space = spaces.Discrete(len(image_set))  # type: ignore[assignment]
        elif observation == "features":
            starts = range(0, len(image_set), CHUNK)
            self._features = np.concatenate([features(image_set.images[i : i + CHUNK]) for i in starts])

    def __call__(self, contexts: Contexts) -> np.ndarray:
        """The observations ``(n, *space.shape)`` of n images; an array of its own."""
        if self.observation == "index":
            return contexts.index.numpy().copy()
        if self.observation == "features":
            return self._features[contexts.index.numpy()]
        return super().__call__(Contexts(contexts.index, self.image_set.images[contexts.index]))


def build_tabular(
    table: str | None = None,
    split: str = "train",
    data_dir: str | None = None,
    bounds: dict[str, Any] | None = None,
    correct_reward: float = paper.CORRECT_REWARD,
    wrong_reward: float = paper.WRONG_REWARD,
    order: Order = "shuffled",
) -> TabularBandit:
    """Load a table and its images, see that they belong together, and make the bandit.

    Args:
        table: path of what `instanas tabulate` wrote; None means the table of the embedded images.
        split: "train", "val" or "test".
        data_dir: where the images are, if they are not the embedded ones.
        bounds, correct_reward, wrong_reward, order: as in :func:`instanas_env.build.build_bandit`.

    Raises:
        ValueError: a table that is none, of other images or, if it is the package's, of other weights.
        FileNotFoundError: files that are not there.
    """
    checks.text("split", split, "train")
    file = shipped(TABLE) if table is None else checks.file("table", table)
    loaded = Tabulated.load(file)
    if table is None:
        _check_shipped(loaded)
    loaded.correct(split)  # refuses what the table does not have, before images are loaded
    image_set = load_images(loaded.dataset, split, data_dir, loaded.space.resolution)
    if image_set.fingerprint != loaded.images[split]:
        raise ValueError(
            f"table: {file} was made with other images of {loaded.dataset!r} ({split}): fingerprint"
            f" {loaded.images[split]}, these have {image_set.fingerprint}; `instanas tabulate` makes one"
        )
    schedule = BoundsSchedule() if bounds is None else BoundsSchedule.from_config(bounds)
    return TabularBandit(loaded, split, image_set, Rules(schedule, correct_reward, wrong_reward, order))


def _check_shipped(table: Tabulated) -> None:
    """``ValueError`` unless the package's table was made with the package's weights and latencies."""
    made_with = {"meta_graph.safetensors": table.meta_graph, "latency/lite.json": table.latency_table}
    for name, theirs in made_with.items():
        ours = file_fingerprint(shipped(name))
        if theirs != ours:
            raise ValueError(
                f"table: the package's {TABLE} was made with another {name} (fingerprint {theirs}) than the"
                f" package's ({ours}); `{REMAKE}` makes it anew, or give the path of a table of your own"
            )


def tabular_parts(layout: str, observation: str, **table_options: Any) -> Parts:
    """The parts of InstaNASTabular-v1, from its keyword arguments."""
    bandit = build_tabular(**table_options)
    observer = TabularObserver(bandit.image_set, layout, observation)
    return Parts(bandit, observer, Numbers(len(bandit.table)))


class InstaNASTabularEnv(InstaNASEnv):
    """InstaNAS-v1 restricted to K masks, whose answers for all images are in a table.

    ## Description
    The same images, window and rewards as in InstaNAS-v1, to the bit, without a network: made for bandit
    algorithms, for sweeps over seeds, and for regret, which is exact here. Arms are sorted by latency.

    ## Action Space
    ``Discrete(K)``, the number of a mask. In the shipped table 0 is the cheapest, K - 1 the full meta-graph.

    ## Observation Space
    The image, as in InstaNAS-v1. ``observation="features"``: ``Box(0, 1, (24,), float32)``, see
    :func:`instanas_env.observations.features`. "index": ``Discrete(N)``, the image's number in the split, for
    agents that have features of their own. These two need not copy images: a million steps a
    second with 1,000 environments.

    ## Rewards, Starting State, Episode End
    As in InstaNAS-v1; under the same seed the same images come.

    ## Information
    The keys of InstaNAS-v1. The table knows which answers are right, so ``prediction`` is the label where
    ``correct``, and -1 where not. And three regrets, each what an oracle would have earned more on the image:
    ``regret_image`` (its best mask), ``regret_class`` (the mask that is best for its class on average over
    the split), ``regret_fixed`` (the one mask that is best on average). The last two may be negative. All are
    NaN while an image waits.

    ## Arguments
    * ``table``: path of what `instanas tabulate` wrote; by default the table of the embedded images.
    * ``split``: "train", "val" or "test". ``data_dir``: see :func:`instanas_env.data.load_images`.
    * ``observation``: "image", "features" or "index". ``layout``: "CHW" or "HWC".
    * ``bounds, correct_reward, wrong_reward, order, render_mode``: as in InstaNAS-v1.

    ## Vectorized environment
    ``gym.make_vec("InstaNASTabular-v1", num_envs=1024)``.

    ## Version History
    * v1: InstaNAS-v1 tabulated.
    """

    def __init__(
        self,
        render_mode: str | None = None,
        layout: str = "CHW",
        observation: str = "image",
        **table_options: Any,
    ):
        self.render_mode = checks.render_mode(render_mode)
        self._assemble(tabular_parts(layout, observation, **table_options))


class InstaNASTabularVectorEnv(InstaNASVectorEnv):
    """``num_envs`` images a step; spaces, rewards and arguments as in :class:`InstaNASTabularEnv`.

    Modes of autoreset, infos and options of ``reset`` are those of
    :class:`instanas_env.vector_env.InstaNASVectorEnv`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        layout: str = "CHW",
        observation: str = "image",
        **table_options: Any,
    ):
        self._set_modes(render_mode, autoreset_mode)
        self._assemble(tabular_parts(layout, observation, **table_options), num_envs)
