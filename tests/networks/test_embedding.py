from __future__ import annotations

import math

import torch

from difflab.networks.embedding import EmbeddingSpec, TimeEmbedding, adm, sinusoidal_embedding
from golden_fixtures import load


def test_ddpm_sinusoids_are_sines_then_cosines() -> None:
    got = sinusoidal_embedding(torch.tensor([0.0, 7.0]), 6, "sin_cos", 1)
    frequencies = [math.exp(-math.log(10_000) * i / 2) for i in range(3)]
    expected = [math.sin(7 * f) for f in frequencies] + [math.cos(7 * f) for f in frequencies]
    torch.testing.assert_close(got[0], torch.tensor([0.0, 0, 0, 1, 1, 1]))
    torch.testing.assert_close(got[1], torch.tensor(expected))


def test_adm_sinusoids_are_cosines_then_sines() -> None:
    got = sinusoidal_embedding(torch.tensor([7]), 6, "cos_sin", 0)
    frequencies = [math.exp(-math.log(10_000) * i / 3) for i in range(3)]
    expected = [math.cos(7 * f) for f in frequencies] + [math.sin(7 * f) for f in frequencies]
    torch.testing.assert_close(got[0], torch.tensor(expected))


def test_what_joins_the_time_is_added_before_the_last_activation() -> None:
    torch.manual_seed(0)
    embedding = TimeEmbedding(EmbeddingSpec(8, 32, 16, "ddpm"))
    time, vector = torch.tensor([1.0, 500.0]), torch.randn(2, 16)
    hidden = torch.nn.functional.silu(embedding.linear1(sinusoidal_embedding(time, 8, "sin_cos", 1)))
    expected = torch.nn.functional.silu(embedding.linear2(hidden) + vector)
    torch.testing.assert_close(embedding(time, vector), expected)


def test_two_channels_have_one_frequency() -> None:
    for shift in (0, 1):
        got = sinusoidal_embedding(torch.tensor([7.0]), 2, "sin_cos", shift)
        torch.testing.assert_close(got, torch.tensor([[math.sin(7), math.cos(7)]]))


def test_without_the_last_activation_blocks_get_the_sum_itself() -> None:
    torch.manual_seed(0)
    spec = EmbeddingSpec(8, 32, 8, "sr3", activation=False)
    embedding = TimeEmbedding(spec)
    time, vector = torch.tensor([0.97, 0.25]), torch.randn(2, 8)
    hidden = torch.nn.functional.silu(embedding.linear1(sinusoidal_embedding(time, 8, "sin_cos", 0)))
    torch.testing.assert_close(embedding(time, vector), embedding.linear2(hidden) + vector)


def test_latent_diffusions_embedding_is_adms() -> None:
    fixture = load("latent", "ldm_timestep_embedding")
    fixture.check_close("dim32", adm(fixture.input("timesteps"), 32))
