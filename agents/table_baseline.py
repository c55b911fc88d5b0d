"""A baseline for each bit of a mask, from the part of the reward that is known: latency is additive.

Equation (1) may subtract from a bit's reward whatever does not depend on that bit. The plain baselines leave
out the whole mask; but what the *other* bits cost is in the table, so a bit need not be paid for them:

    b_i = sum over a_i of P(a_i) (c R(correct, z(a_i)) + (1 - c) R(wrong, z(a_i)))

with z(a_i) the latency of the mask with bit i set to a_i, R the reward of equation (2), and c how probably
the image is answered correctly, told from other masks. The expected gradient is the same (a test enumerates
it).
"""

from __future__ import annotations

import torch
from torch import Tensor

from instanas_env.bandit import InstanceBandit
from instanas_env.reward import RewardBounds, combine, latency_reward, task_reward


def table_baseline(
    bandit: InstanceBandit, bounds: RewardBounds, probabilities: Tensor, masks: Tensor, correct: Tensor
) -> Tensor:
    """The baseline of each bit of each mask, float64 ``(K, n, num_bits)``.

    Args:
        bandit: its table, and its rewards of right and wrong answers.
        bounds: U_t and L_t under which the masks are judged.
        probabilities: P(a_i = 1) of the distribution that the masks are drawn from, ``(n, num_bits)``.
        masks: the masks drawn, bool ``(K, n, num_cells, num_modules)``.
        correct: c, ``(K, n)`` in [0, 1]; must not depend on the mask in the same place.
    """
    table, space = bandit.cost_table, bandit.space

    def cell_costs(of: Tensor) -> Tensor:
        """What each cell costs, ``(K, n, num_cells)``."""
        return (space.repair(of).double() * table.modules).sum(-1)

    def expected_reward(cost: Tensor) -> Tensor:
        """Equation (2), over right and wrong answers."""
        in_window = latency_reward(cost, bounds)
        right, wrong = (
            combine(task_reward(torch.tensor(flag), bandit.correct_reward, bandit.wrong_reward), in_window)
            for flag in (True, False)
        )
        return torch.lerp(wrong.expand_as(right), right, correct.double().unsqueeze(-1))

    cells = cell_costs(masks)
    elsewhere = cells.sum(-1, keepdim=True) - cells + table.stem + table.head

    def with_bits(value: bool) -> Tensor:
        """Of every bit: the expected reward with that bit set to ``value``, ``(K, n, num_bits)``."""
        rewards = []
        for module in range(space.num_modules):
            changed = masks.clone()
            changed[..., module] = value  # in all cells at once: the cost is a sum over cells
            rewards.append(expected_reward(elsewhere + cell_costs(changed)))
        return torch.stack(rewards, -1).flatten(-2)

    low, high = with_bits(False), with_bits(True)
    return torch.lerp(low, high, probabilities.double().expand_as(high))
