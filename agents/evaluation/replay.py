"""What replays a policy on the test split: every image's mask, answer and reward, in a few kilobytes.

An ``.npz`` without pickles: the distinct masks as packed bits, which of them each image got, packed answers,
rewards as float32, and "about", JSON with the policy's name and seed, the fingerprints of what the answers
depend on, and a SHA-256 of the rewards as float64. Images are in the order of the split. 10,000 images take 3
kB with one mask for all, 53 kB with 2,400 masks, and at most 135 kB, with a random mask for each.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.evaluation.image_record import distinct
from agents.evaluation.scores import score_masks
from instanas_env.atomic import read_file, write_atomic
from instanas_env.contextual import ContextualBandit, Outcome

LARGEST_DIFFERENCE = 0.001
"""Share of the answers that may differ on another processor, by rounding."""
REWARD_ROUNDING = 1e-5
"""Relative: of float32, and of a sum over a table in another order."""


@dataclass(frozen=True)
class Replay:
    """What a policy did on the test split.

    Attributes:
        masks: distinct ones, bool ``(U, num_bits)``.
        network: which of them each image got, ``(N,)``.
        correct: bool ``(N,)``.
        reward: float32 ``(N,)``.
        about: "policy", "seed", "fingerprints" and "rewards".
    """

    masks: np.ndarray
    network: np.ndarray
    correct: np.ndarray
    reward: np.ndarray
    about: dict[str, Any]

    @classmethod
    def of(cls, outcome: Outcome, policy: str, seed: int, prints: dict[str, str]) -> Replay:
        """The replay of what became of all test images."""
        masks, network, _ = distinct(outcome)
        about = {"policy": policy, "seed": seed, "fingerprints": prints, "rewards": _sum(outcome)}
        return cls(masks, network, outcome.correct, outcome.reward.astype(np.float32), about)

    def save(self, path: Path) -> None:
        """Write it."""
        content = io.BytesIO()
        np.savez_compressed(
            content,
            masks=np.packbits(self.masks, axis=1),
            network=self.network.astype(np.min_scalar_type(len(self.masks))),
            correct=np.packbits(self.correct),
            reward=self.reward,
            about=np.frombuffer(json.dumps(self.about).encode(), np.uint8),
        )
        write_atomic(path, content.getvalue())

    @classmethod
    def load(cls, path: Path, num_bits: int) -> Replay:
        """Read one; ``ValueError`` for a file of another kind."""
        try:
            with np.load(io.BytesIO(read_file(path)), allow_pickle=False) as content:
                network, reward = content["network"], content["reward"]
                masks = np.unpackbits(content["masks"], axis=1, count=num_bits).astype(bool)
                correct = np.unpackbits(content["correct"], count=len(network)).astype(bool)
                about = json.loads(content["about"].tobytes())
            if len(reward) != len(network) or network.max() >= len(masks):
                raise ValueError("its parts are of different lengths")
        except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"verify: {path} is not a replay ({error})") from error
        return cls(masks, network, correct, reward, about)

    def verify(self, test: ContextualBandit) -> tuple[list[int], bool]:
        """Score it again.

        Returns:
            Positions of the images whose answer differs, and whether all is the same to the bit.

        Raises:
            ValueError: other images in number, more than :data:`LARGEST_DIFFERENCE` of the answers, or a
                reward that is not that of its mask and answer.
        """
        count, name = len(self.network), f"{self.about['policy']} seed {self.about['seed']}"
        if count != len(test.image_set):
            raise ValueError(f"verify: {name} has {count} images; the split has {len(test.image_set)}")
        bits: Tensor = torch.from_numpy(self.masks[self.network])
        outcome = score_masks(test, bits.unflatten(1, (test.space.num_cells, test.space.num_modules)))
        same = outcome.correct == self.correct
        differ = np.flatnonzero(~same).tolist()
        if not np.allclose(outcome.reward[same], self.reward[same], rtol=REWARD_ROUNDING, atol=0):
            raise ValueError(f"verify: {name} has rewards that are not those of its masks and answers")
        if len(differ) > LARGEST_DIFFERENCE * count:
            raise ValueError(
                f"verify: {len(differ)} of {count:,} answers of {name} differ; up to"
                f" {LARGEST_DIFFERENCE:.1%} will do"
            )
        return differ, not differ and _sum(outcome) == self.about["rewards"]


def _sum(outcome: Outcome) -> str:
    return sha256(outcome.reward.astype("<f8").tobytes()).hexdigest()
