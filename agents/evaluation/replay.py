"""What replays a policy on the test split: every image's mask, answer and reward, in a few kilobytes.

An ``.npz`` without pickles: the distinct masks as packed bits, which of them each image got, packed answers,
rewards as float32, the classes that a policy with an early exit answered itself, and "about", JSON with the
policy's name and seed, the fingerprints of what the answers depend on, and a SHA-256 of the rewards as
float64. Images are in the order of the split. 10,000 images take 3 kB with one mask for all, 53 kB with 2,400
masks, and at most 135 kB, with a random mask for each.
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

from agents.agent import NETWORK
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
        own: classes that it answered itself ``(N,)``, :data:`NETWORK` for the other images; None if it never
            did.
    """

    masks: np.ndarray
    network: np.ndarray
    correct: np.ndarray
    reward: np.ndarray
    about: dict[str, Any]
    own: np.ndarray | None = None

    @classmethod
    def of(cls, outcome: Outcome, policy: str, seed: int, prints: dict[str, str]) -> Replay:
        """The replay of what became of all test images."""
        masks, network, _ = distinct(outcome)
        about = {"policy": policy, "seed": seed, "fingerprints": prints, "rewards": _sum(outcome)}
        run = outcome.mask.any((1, 2))
        own = None if run.all() else np.where(run, NETWORK, outcome.prediction)
        return cls(masks, network, outcome.correct, outcome.reward.astype(np.float32), about, own)

    def save(self, path: Path) -> None:
        """Write it."""
        content = io.BytesIO()
        own: dict[str, Any] = {} if self.own is None else {"own": self.own.astype(np.int32)}
        np.savez_compressed(
            content,
            **own,
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
                own = content["own"].astype(np.int64) if "own" in content else None
            if own is not None and own.shape != network.shape:
                raise ValueError("its own answers are of another length")
            if own is not None and own.min() < NETWORK:
                raise ValueError("its own answers are no classes")
            if len(reward) != len(network) or network.max() >= len(masks):
                raise ValueError("its parts are of different lengths")
        except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"verify: {path} is not a replay ({error})") from error
        return cls(masks, network, correct, reward, about, own)

    def verify(self, test: ContextualBandit) -> tuple[Outcome, list[int], bool]:
        """Score it again.

        Returns:
            What it earns here, positions of the images whose answer differs, and whether all is the same to
            the bit.

        Raises:
            ValueError: other images in number, more than :data:`LARGEST_DIFFERENCE` of the answers, or a
                reward that is not that of its mask and answer.
        """
        count, name = len(self.network), f"{self.about['policy']} seed {self.about['seed']}"
        if count != len(test.image_set):
            raise ValueError(f"verify: {name} has {count} images; the split has {len(test.image_set)}")
        bits: Tensor = torch.from_numpy(self.masks[self.network])
        answers = None if self.own is None else torch.from_numpy(self.own)
        outcome = score_masks(test, bits.unflatten(1, test.space.mask_shape), answers)
        same = outcome.correct == self.correct
        differ = np.flatnonzero(~same).tolist()
        if not np.allclose(outcome.reward[same], self.reward[same], rtol=REWARD_ROUNDING, atol=0):
            raise ValueError(f"verify: {name} has rewards that are not those of its masks and answers")
        if len(differ) > LARGEST_DIFFERENCE * count:
            raise ValueError(
                f"verify: {len(differ)} of {count:,} answers of {name} differ; up to"
                f" {LARGEST_DIFFERENCE:.1%} will do"
            )
        return outcome, differ, not differ and _sum(outcome) == self.about["rewards"]


def _sum(outcome: Outcome) -> str:
    return sha256(outcome.reward.astype("<f8").tobytes()).hexdigest()
