"""The training step of a CLIP, difflab's and open_clip's, on the same towers, weights and batches."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from difflab.config.optimizer import OptimizerConfig
from difflab.errors import UserError
from difflab.interop.clip_layout import OPENAI_CLIP
from difflab.interop.layout import Target
from difflab.networks.build import build_network
from difflab.networks.towers.clip import CLIP
from difflab.networks.towers.config import CLIPConfig
from difflab.optimizer import build_optimizer, learning_rate_factor
from difflab.tasks.contrastive.loss import InfoNCE
from difflab.tasks.contrastive.module import ContrastiveModule
from difflab.text.base import Tokenizer
from difflab.types import Batch

AGREEMENT = 1e-4
"""How far the losses of both may differ, before anything is timed."""
MAX_SCALE = 100.0
STEPS = 1_000_000
"""Of the training that is timed in parts: far from the end of its schedule."""


@dataclass(frozen=True)
class Recipe:
    """What both train with. autocast: the type of the networks' arithmetic, None for float32."""

    optimizer: OptimizerConfig
    autocast: torch.dtype | None

    def forward(self) -> contextlib.AbstractContextManager[Any]:
        """The context of a forward pass."""
        return torch.autocast("cpu", self.autocast, enabled=self.autocast is not None)


class OurStep:
    """All that difflab does for a step on a batch that the loader has read, but for Lightning's own hooks.

    Images become floats, the loss and what is logged of it is computed and added up, gradients are computed and their
    norm is recorded, the learning rate is set, and the optimizer steps.
    """

    def __init__(self, network: CLIP, tokenizer: Tokenizer, batches: Sequence[Batch], recipe: Recipe) -> None:
        config = recipe.optimizer
        self.module = ContrastiveModule(
            network, tokenizer, config, loss=InfoNCE(), max_scale=MAX_SCALE, seed=0, max_steps=STEPS
        ).train()
        self.recipe, self.batches = recipe, itertools.cycle(batches)
        self.parameters = list(self.module.parameters())
        self.optimizer = build_optimizer(config, self.parameters)

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch, recorded with what is logged beside it."""
        (part,) = self.module.parts(batch, 1)
        with self.recipe.forward():
            terms = self.module.terms(part.batch, part.seeds, training=True)
        self.module.record(terms)
        return terms.minimised

    def __call__(self) -> None:
        module, config = self.module, self.recipe.optimizer
        self.loss(next(self.batches)).backward()
        factor = learning_rate_factor(config.schedule, module.train_step, STEPS)
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * factor
        nn.utils.clip_grad_norm_(self.parameters, math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        module.on_optimized()
        module.train_step += 1


class TheirStep:
    """A step as open_clip_train has it (train.py, main.py), with what its loader does to pixels.

    field: of the batches, with the token ids.
    """

    def __init__(
        self, network: nn.Module, config: CLIPConfig, field: str, batches: Sequence[Batch], recipe: Recipe
    ) -> None:
        from open_clip.loss import ClipLoss

        self.network, self.field = network.train(), field
        self.loss_of, self.recipe, self.batches = ClipLoss(), recipe, itertools.cycle(batches)
        mean, std = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
        self.normalization = mean, std
        optimizer = recipe.optimizer
        gains, rest = _grouped(self.network)
        self.optimizer = torch.optim.AdamW(
            [{"params": gains, "weight_decay": 0.0}, {"params": rest, "weight_decay": optimizer.weight_decay}],
            lr=optimizer.lr,
            betas=(optimizer.betas[0], optimizer.betas[1]),
            eps=optimizer.eps,
        )

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch."""
        mean, std = self.normalization
        images = (batch["image"].float() / 255 - mean) / std
        with self.recipe.forward():
            return self.loss_of(*self.network(images, batch[self.field]))

    def __call__(self) -> None:
        batch = next(self.batches)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.optimizer.lr
        self.optimizer.zero_grad()
        self.loss(batch).backward()
        self.optimizer.step()
        with torch.no_grad():
            self.network.get_parameter("logit_scale").clamp_(0, math.log(MAX_SCALE))


def open_clip_network(ours: CLIP, config: CLIPConfig, size: int) -> nn.Module:
    """open_clip's network with the weights of ours."""
    try:
        import open_clip
    except ImportError:
        raise UserError("open_clip is not installed; `pip install 'difflab[text]'`") from None
    image, text = config.image.model_dump(), config.text.model_dump()
    vision: dict[str, Any] = {"image_size": size, "width": image["width"]}
    if image["kind"] == "vit":
        channels = image["width"] // image["heads"]
        vision |= {"layers": image["layers"], "patch_size": image["patch_size"], "head_width": channels}
    else:
        vision |= {"layers": image["depths"], "head_width": 32 * image["width"] // image["heads"]}
    network = open_clip.CLIP(
        embed_dim=config.embedding_dim,
        vision_cfg=vision,
        text_cfg={
            "context_length": text["context_length"],
            "vocab_size": text["vocabulary"],
            **{key: text[key] for key in ("width", "heads", "layers")},
        },
        quick_gelu=config.activation == "quick_gelu",
    )
    state = {f"network.{key}": value.clone() for key, value in ours.state_dict().items()}
    network.load_state_dict(OPENAI_CLIP.keymap(Target(config, size)).to_official(state))
    return network


def steps_of(
    config: CLIPConfig, size: int, tokenizer: Tokenizer, batches: Sequence[Batch], recipe: Recipe
) -> Mapping[str, OurStep | TheirStep]:
    """Both steps, from the same weights. Raises UserError if their losses differ."""
    torch.manual_seed(0)
    network = build_network(config, image_size=size, learned_variance=False)
    assert isinstance(network, CLIP)
    theirs = TheirStep(open_clip_network(network, config, size), config, tokenizer.field, batches, recipe)
    ours = OurStep(network, tokenizer, batches, recipe)
    exact = Recipe(recipe.optimizer, None)
    losses = []
    for one in (ours, theirs):
        one.recipe = exact
        losses.append(float(one.loss(batches[0]).detach()))
        one.recipe = recipe
    if not math.isclose(*losses, rel_tol=AGREEMENT):
        raise UserError(f"open_clip's network is not this one: the losses are {losses[0]} and {losses[1]}; report it")
    return {"difflab": ours, "open_clip": theirs}


def _grouped(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Gains and biases, and the rest (open_clip_train, main.py)."""
    exclude = ("bn", "ln", "bias", "logit_scale")
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, parameter in network.named_parameters():
        groups[not (parameter.ndim < 2 or any(part in name for part in exclude))].append(parameter)
    return groups
