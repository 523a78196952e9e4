"""open_clip and transformers train the same towers: features, logits, loss, gradients, and three steps of Adam."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.loss import ClipLoss
from torch import Tensor, nn
from transformers import CLIPModel

from difflab.config.optimizer import OptimizerConfig
from difflab.interop.clip_layout import OPENAI_CLIP, TRANSFORMERS_CLIP
from difflab.interop.keymap import KeyMap
from difflab.interop.layout import Target
from difflab.interop.registry import export_model, import_weights, model_of_weights
from difflab.networks.build import build_network
from difflab.networks.towers.clip import CLIP, Embeddings
from difflab.optimizer import build_optimizer
from difflab.tasks.contrastive.loss import InfoNCE
from interop.clip_files import RESNET, inputs, normalized, official

PAIRS, STEPS = 6, 3
RECIPE = {"lr": 1e-3, "betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": 0.2}
CLOSE = {"rtol": 1e-7, "atol": 1e-10}
"""In float64, so that Adam does not enlarge rounding."""


@dataclass
class Judge:
    """Another program's network with the same weights as ours.

    step: (images, ids) -> its features [B, dim] of images and of texts, both of unit length, the logits, and the loss.
    """

    ours: CLIP
    theirs: nn.Module
    keymap: KeyMap
    step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]

    def named(self, ours: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of our network under their keys."""
        return self.keymap.to_official({f"network.{name}": value for name, value in ours.items()})


def judged(tmp_path: Path, which: str, tower: str) -> Judge:
    network = official("quick_gelu", vision=RESNET if tower == "resnet" else None)
    torch.save(network.state_dict(), tmp_path / "official.pt")
    config = model_of_weights(tmp_path / "official.pt", activation="quick_gelu").config
    target = Target.of(config)
    state = import_weights(tmp_path / "official.pt", target).state
    ours = build_network(config.network, image_size=config.image_size, learned_variance=False)
    assert isinstance(ours, CLIP)
    ours.load_state_dict({key.removeprefix("network."): value for key, value in state.items()})
    ours = ours.double().train()
    if which == "open_clip":
        theirs = network.double().train()

        def open_clip_step(images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            image, text, scale = theirs(images, ids)
            return image, text, scale * image @ text.T, ClipLoss()(image, text, scale)

        return Judge(ours, theirs, OPENAI_CLIP.keymap(target), open_clip_step)
    export_model(tmp_path / "exported", state, config, "transformers_clip")
    model = CLIPModel.from_pretrained(tmp_path / "exported").double().train()

    def transformers_step(images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        found = model(input_ids=ids, pixel_values=images, return_loss=True)
        return found.image_embeds, found.text_embeds, found.logits_per_image, found.loss

    return Judge(ours, model, TRANSFORMERS_CLIP.keymap(target), transformers_step)


@pytest.fixture(params=["open_clip-vit", "open_clip-resnet", "transformers-vit"])
def judge(request: pytest.FixtureRequest, tmp_path: Path) -> Judge:
    return judged(tmp_path, *request.param.split("-"))


def pairs(network: CLIP, seed: int) -> tuple[Tensor, Tensor]:
    """Images in [-1, 1], and texts of several lengths."""
    size = 64 if any(isinstance(module, nn.BatchNorm2d) for module in network.modules()) else 32
    generator = torch.Generator().manual_seed(seed)
    _, ids = inputs(size)
    images = torch.rand(PAIRS, 3, size, size, generator=generator, dtype=torch.float64) * 2 - 1
    return images, torch.cat([ids, ids.roll(1, dims=0)])[:PAIRS]


def logits(found: Embeddings) -> Tensor:
    return found.scale * found.image @ found.text.T


def test_features_logits_loss_and_every_gradient_agree(judge: Judge) -> None:
    images, ids = pairs(judge.ours, 1)
    found = judge.ours(images, ids)
    loss = InfoNCE()(found).minimized
    image, text, theirs, expected = judge.step(normalized(images), ids)
    for own, other in ((found.image, image), (found.text, text), (logits(found), theirs), (loss, expected)):
        torch.testing.assert_close(own, other, **CLOSE)
    loss.backward()
    expected.backward()
    state = {name: torch.zeros_like(value) for name, value in judge.ours.state_dict().items()}
    own = judge.named(state | {name: p.grad for name, p in judge.ours.named_parameters() if p.grad is not None})
    others = {name: p.grad for name, p in judge.theirs.named_parameters()}
    assert others.keys() <= own.keys()
    for name, gradient in others.items():
        assert gradient is not None, name
        torch.testing.assert_close(own[name], gradient, **CLOSE, msg=name)


def test_three_steps_of_adam_agree(judge: Judge) -> None:
    config = OptimizerConfig.model_validate({"kind": "adamw", "decayed": "matrices", **RECIPE})
    ours = build_optimizer(config, judge.ours.parameters(), fused=False)
    theirs = their_optimizer(judge.theirs)
    before = {name: value.clone() for name, value in judge.theirs.state_dict().items()}
    for number in range(STEPS):
        images, ids = pairs(judge.ours, number)
        for optimizer, loss in (
            (ours, InfoNCE()(judge.ours(images, ids)).minimized),
            (theirs, judge.step(normalized(images), ids)[3]),
        ):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for network in (judge.ours, judge.theirs):
            with torch.no_grad():
                network.get_parameter("logit_scale").clamp_(0, math.log(100))
    own = judge.named(judge.ours.state_dict())
    for name, value in judge.theirs.state_dict().items():
        if name in own:
            torch.testing.assert_close(own[name].to(value), value, rtol=1e-6, atol=1e-8, msg=name)
    moved = [
        name
        for name, _ in judge.theirs.named_parameters()
        if torch.equal(before[name], judge.theirs.state_dict()[name])
    ]
    assert moved == [], "every parameter was trained"


def their_optimizer(network: nn.Module) -> torch.optim.Optimizer:
    """As open_clip's training makes it (open_clip_train, main.py): gains and biases do not decay."""

    def stays(name: str, parameter: Tensor) -> bool:
        words: Any = ("bn", "ln", "norm", "bias", "logit_scale")
        return parameter.ndim < 2 or any(word in name for word in words)

    named = list(network.named_parameters())
    groups = [
        {"params": [p for name, p in named if stays(name, p)], "weight_decay": 0.0},
        {"params": [p for name, p in named if not stays(name, p)], "weight_decay": RECIPE["weight_decay"]},
    ]
    return torch.optim.AdamW(groups, lr=RECIPE["lr"], betas=(0.9, 0.98), eps=RECIPE["eps"])
