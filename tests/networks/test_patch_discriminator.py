"""The patch discriminator against the official one, on the same weights and inputs."""

from __future__ import annotations

import pytest
import torch

from difflab.config.optimizer import OptimizerConfig
from difflab.networks.actnorm import ActNorm2d
from difflab.networks.patch_discriminator import PatchDiscriminator
from difflab.tasks.autoencoder.config import DiscriminatorConfig
from golden_fixtures import Fixture, load

NAMES = ["ldm_disc_bn_3layers", "ldm_disc_bn_2layers", "ldm_disc_actnorm", "ldm_disc_small_signal"]


def official(fixture: Fixture) -> PatchDiscriminator:
    """The discriminator of a fixture, with its weights."""
    args = fixture.spec["args"]
    norm = "actnorm" if args.get("use_actnorm") else "batch"
    discriminator = PatchDiscriminator(args["input_nc"], width=args["ndf"], layers=args["n_layers"], norm=norm)
    load_official(discriminator, fixture, "main.")
    return discriminator


def load_official(discriminator: PatchDiscriminator, fixture: Fixture, prefix: str) -> None:
    """Loads the fixture's weights, whose keys begin with `prefix`, as one that has seen a batch."""
    constant = fixture.spec["constant"]
    drawn = {key: value for key, value in fixture.state_dict().items() if key.startswith(prefix)}
    state = {
        key.replace(prefix, "layers."): value.abs() + 0.5 if key.endswith("running_var") else value
        for key, value in drawn.items()
        if key not in constant
    }
    seen = {key.replace(prefix, "layers."): torch.tensor(1) for key in constant}
    discriminator.load_state_dict({**state, **seen})


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_running_statistics_are_the_official_ones(name: str) -> None:
    fixture = load("latent", name)
    discriminator, x = official(fixture), fixture.input("x")
    fixture.check_close("logits_eval", discriminator.eval()(x))
    fixture.check_close("logits_train", discriminator.train()(x))
    after = {key.removeprefix("after:") for key in fixture.arrays if key.startswith("after:")}
    assert bool(after) == (name != "ldm_disc_actnorm")
    state = discriminator.state_dict()
    for key in after:
        fixture.check_close(f"after:{key}", state[key.replace("main.", "layers.")])


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_the_smallest_image_has_one_logit(layers: int) -> None:
    side = DiscriminatorConfig(layers=layers, optimizer=OptimizerConfig(kind="adam", lr=1.0)).smallest_side
    discriminator = PatchDiscriminator(1, width=4, layers=layers).eval()
    assert discriminator(torch.zeros(1, 1, side, side)).shape == (1, 1, 1, 1)
    with pytest.raises(RuntimeError):
        discriminator(torch.zeros(1, 1, side - 2, side - 2))


def test_weights_begin_small_and_norms_near_one() -> None:
    torch.manual_seed(0)
    first = PatchDiscriminator(3, width=64, layers=3)
    convolutions = [p for p in first.parameters() if p.ndim == 4]
    assert len(convolutions) == 5
    assert all(abs(float(weight.detach().std()) - 0.02) < 2e-3 for weight in convolutions)
    scales = torch.cat([m.weight.detach() for m in first.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert abs(float(scales.mean()) - 1) < 5e-3
    assert abs(float(scales.std()) - 0.02) < 5e-3


def test_no_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        PatchDiscriminator(3, layers=0)


def test_the_first_batch_in_training_is_normalised_and_no_other() -> None:
    norm, x = ActNorm2d(4), 3 + 2 * torch.randn(8, 4, 5, 5)
    assert torch.equal(norm.eval()(x), x)
    y = norm.train()(x)
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.transpose(0, 1).flatten(1).std(dim=1), torch.ones(4), atol=1e-4, rtol=0)
    before = norm.state_dict()["loc"].clone()
    norm(x + 1)
    assert torch.equal(norm.loc, before)
    assert int(norm.initialized) == 1
