"""Both towers of CLIP against OpenAI's and open_clip's, on the same weights and inputs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from difflab.networks.towers.resnet import ResNet
from difflab.networks.towers.vit import ViT
from golden_fixtures import Fixture, load
from networks.towers.clip_fixtures import clip_network, fingerprint, keymap_of, official_state

NAMES = [
    "clip_vit_tiny",
    "clip_vit_tiny_p16",
    "clip_rn_tiny",
    "clip_rn_tiny_deep",
    "open_clip_gelu_tiny",
    "open_clip_head80_tiny",
]


@pytest.fixture(params=NAMES)
def fixture(request: pytest.FixtureRequest) -> Fixture:
    return load("multimodal", request.param)


def test_features_logits_loss_and_gradients_are_the_official_ones(fixture: Fixture) -> None:
    network = clip_network(fixture)
    images = fixture.input("image").requires_grad_(True)
    ids = fixture.input("tokens")
    fixture.check_close("image_features", network.encode_image(images))
    fixture.check_close("text_features", network.encode_text(ids))
    found = network(images, ids)
    logits = found.scale * found.image @ found.text.T
    fixture.check_close("logits_per_image", logits)
    target = torch.arange(len(ids))
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    fixture.check_close("infonce_loss", loss)
    loss.backward()
    assert images.grad is not None
    if "grad_image" in fixture.arrays:
        fixture.check_close("grad_image", images.grad, "gradients")
    else:
        fixture.check_close("grad_image_every4", images.grad[:, :, ::4, ::4], "gradients")
        fixture.check_close("grad_image_norm", images.grad.norm(), "gradients")
    keymap = keymap_of(network)
    gradients = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    gradients |= {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    official = keymap.to_official(gradients)
    trained = [key for key in fixture.spec["keys"] if not key.endswith(("running_mean", "running_var", "_tracked"))]
    norms = torch.stack([official[key].norm() for key in trained])
    fixture.check_close("param_grad_norm", norms, "gradients")


def test_every_block_computes_what_the_official_one_does(fixture: Fixture) -> None:
    network = clip_network(fixture)
    modules = {f"text.{n}": block for n, block in enumerate(network.text.transformer.blocks)}
    if isinstance(network.image, ViT):
        modules |= {f"visual.{n}": block for n, block in enumerate(network.image.transformer.blocks)}
    else:
        assert isinstance(network.image, ResNet)
        modules |= {f"visual.layer{n + 1}": stage for n, stage in enumerate(network.image.stages)}
    seen: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(_module: object, _inputs: object, output: Tensor) -> None:
            seen[name] = output

        return hook

    for name, module in modules.items():
        module.register_forward_hook(keep(name))
    network(fixture.input("image"), fixture.input("tokens"))
    names = [name.removeprefix("block.") for name in fixture.arrays if name.startswith("block.")]
    assert sorted(names) == sorted(modules)
    for name in names:
        # OpenAI's transformers have the tokens first, open_clip's the batch.
        tokens_first = "cls" in fixture.spec["source"] and fixture.spec["source"].get("repo") == "openai/CLIP"
        output = seen[name].transpose(0, 1) if tokens_first and seen[name].ndim == 3 else seen[name]
        fixture.check_close(f"block.{name}", fingerprint(output))


def test_official_keys_come_back_unchanged(fixture: Fixture) -> None:
    network, official = clip_network(fixture), official_state(fixture)
    back = keymap_of(network).to_official(network.state_dict())
    assert back.keys() == official.keys()
    assert all(torch.equal(back[key], value) for key, value in official.items())


def test_outputs_agree_with_the_embedding(fixture: Fixture) -> None:
    network = clip_network(fixture)
    images, ids = network.normalized(fixture.input("image")), fixture.input("tokens")
    for tower, x in ((network.image_tower, images), (network.text_tower, ids)):
        outputs = tower.outputs(x)
        torch.testing.assert_close(outputs.embedding, tower(x))
        assert outputs.features.ndim == 2
        assert len(outputs.tokens) == len(x)
        if outputs.penultimate is not None:
            assert outputs.penultimate.shape == outputs.tokens.shape
