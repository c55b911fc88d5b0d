"""p', the Bernoulli sample and the greedy mask."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.exploration import encourage, greedy, linear_schedule, sample
from instanas_env.seeding import generator_for

probability = st.floats(0, 1)
alphas = st.floats(0.5, 1)


@pytest.mark.parametrize(
    ("p", "alpha", "expected"),
    [
        (0.9, 0.8, 0.8 * 0.9 + 0.2 * 0.1),
        (1.0, 0.8, 0.8),
        (0.0, 0.8, 0.2),
        (0.5, 0.8, 0.5),
        (0.9, 1.0, 0.9),
        (0.9, 0.5, 0.5),
    ],
)
def test_encourage_golden_values(p, alpha, expected):
    assert encourage(torch.tensor(p, dtype=torch.float64), alpha).item() == pytest.approx(expected)


@given(p=probability, alpha=alphas)
def test_no_bit_is_ever_certain(p, alpha):
    """p' lies in [1 - alpha, alpha], and on and off are treated alike."""
    encouraged = encourage(torch.tensor([p, 1 - p], dtype=torch.float64), alpha)
    assert ((encouraged >= 1 - alpha - 1e-12) & (encouraged <= alpha + 1e-12)).all()
    assert encouraged.sum().item() == pytest.approx(1.0)


@given(percent=st.integers(0, 100), alpha=st.floats(0.51, 1))
def test_the_likelier_choice_stays_the_likelier_one(percent, alpha):
    p = torch.tensor(percent / 100, dtype=torch.float64)
    if percent != 50:
        assert torch.equal(greedy(encourage(p, alpha)), greedy(p))


def test_greedy_needs_more_than_a_half():
    bits = greedy(torch.tensor([0.0, 0.5, 0.51, 1.0]))
    assert bits.dtype == torch.bool and bits.tolist() == [False, False, True, True]


def test_samples_have_the_frequency_they_should():
    """20,000 draws: five standard deviations of the frequency are 5 sqrt(p (1 - p) / 20,000) < 0.018."""
    p = torch.tensor([0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
    frequency = sample(p, generator_for(0), 20_000).double().mean(0)
    assert (frequency - p).abs().max() < 0.018
    assert frequency[0] == 0 and frequency[-1] == 1


def test_bits_are_drawn_independently():
    """Two fair bits agree in half of 20,000 draws; so do those of two rows and of two samples."""
    bits = sample(torch.full((2, 2), 0.5), generator_for(1), 20_000)
    agreements = [bits[:, 0, 0] == bits[:, 0, 1], bits[:, 0, 0] == bits[:, 1, 0], bits[1:] == bits[:-1]]
    for agreement in agreements:
        assert agreement.double().mean().item() == pytest.approx(0.5, abs=0.018)


def test_sample_shapes_and_seed():
    p = torch.full((3, 7), 0.5)
    one, many = sample(p, generator_for(0)), sample(p, generator_for(0), 4)
    assert one.shape == (3, 7) and many.shape == (4, 3, 7) and one.dtype == many.dtype == torch.bool
    assert torch.equal(one, many[0])
    assert not torch.equal(one, sample(p, generator_for(1)))


def test_linear_schedule_golden_values():
    """From 0.8 to 0.98; beyond either end it stays."""
    values = [linear_schedule(0.8, 0.98, progress) for progress in (-1, 0, 0.5, 1, 2)]
    assert values == pytest.approx([0.8, 0.8, (0.8 + 0.98) / 2, 0.98, 0.98])
