"""diffusers' UNet2DModel with the architecture and the weights of one of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.switches import allowing_tf32
from difflab.conditioning.base import ConditionerSet
from difflab.conditioning.class_label import ClassConditioner
from difflab.errors import UserError
from difflab.interop.diffusers_config import to_diffusers_config
from difflab.interop.diffusers_unet import DIFFUSERS
from difflab.interop.layout import NETWORK, Target
from difflab.networks.config import UNetConfig
from difflab.tasks.build import Model
from difflab.types import Batch, Conditioning

ASKED_SIZE = 64
AGREEMENT = 1e-4
"""Largest difference of the two outputs, relative to the largest value: else the two are not the same network."""


class PeerNetwork(nn.Module):
    """UNet2DModel behind our signature; space to depth, which it does not know, happens around it."""

    def __init__(self, unet: nn.Module, patch_size: int) -> None:
        super().__init__()
        self.unet, self.patch_size = unet, patch_size

    def forward(self, x: Tensor, time: Tensor, classes: Tensor | None = None) -> Tensor:
        """x [B, C, H, W], time [B] (or one for all), classes int64 [B] -> [B, C or 2C, H, W]."""
        if self.patch_size == 1:
            return self.unet(x, time, class_labels=classes, return_dict=False)[0]
        out = self.unet(F.pixel_unshuffle(x, self.patch_size), time, class_labels=classes, return_dict=False)[0]
        return F.pixel_shuffle(out, self.patch_size)


class OwnNetwork(nn.Module):
    """A whole model of ours behind the same signature; what is compiled and laid out is the network inside."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network, self.conditioners = model.network, model.conditioners

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As training compiles it."""
        self.network.compile(*args, **kwargs)

    def forward(self, x: Tensor, time: Tensor, classes: Tensor | None = None) -> Tensor:
        """x [B, C, H, W], time [B], classes int64 [B] -> [B, C or 2C, H, W]."""
        told = None if classes is None else self.conditioners.conditioning({"label": classes})
        return self.network(x, time, told)


def diffusers_network(ours: nn.Module, config: UNetConfig, image_size: int) -> PeerNetwork:
    """The same network, without conditioners, in diffusers: on the CPU, after both gave one answer to one input.

    Raises UserError where diffusers is missing or its UNet2DModel cannot be this network.
    """
    state = {NETWORK + name: tensor for name, tensor in ours.state_dict().items()}
    peer = _built(Target(config, image_size), state)
    _require_agreement((ours, None), (peer, None), shape=_enough(config.channels, image_size))
    return peer


def diffusers_model(model: Model) -> PeerNetwork:
    """The same of a whole model on the CPU; the peer takes classes as numbers, of which the last one is "no class".

    Raises UserError also for a model whose conditioners UNet2DModel does not have.
    """
    target = Target.of(model.config)
    peer = _built(target, model.as_module().state_dict())
    told, numbers = _two_conditions(model.conditioners)
    _require_agreement((model.network, told), (peer, numbers), shape=_enough(model.config.shape[0], target.image_size))
    return peer


def class_conditioner(conditioners: ConditionerSet) -> ClassConditioner | None:
    """The conditioner of a model with classes."""
    return next((one for _, one in conditioners.named() if isinstance(one, ClassConditioner)), None)


def _built(target: Target, state: Mapping[str, Tensor]) -> PeerNetwork:
    try:
        from diffusers import UNet2DModel
    except ImportError:
        raise UserError("diffusers is not installed; `pip install 'difflab[peers]'`, or leave the peer out") from None
    network = target.network
    assert isinstance(network, UNetConfig)
    patch = network.patch_size
    inner = network.model_copy(update={"patch_size": 1, "channels": network.channels * patch**2})
    # A class embedding is as wide as the time embedding, which the patches leave alone.
    target = Target(inner, target.image_size // patch, target.learned_variance, target.conditioning)
    keymap = DIFFUSERS.keymap(target)
    arguments = {key: value for key, value in to_diffusers_config(target).items() if not key.startswith("_")}
    # Nobody waits for initial weights that are replaced at once.
    with torch.device("meta"):
        theirs = UNet2DModel(**arguments)
    assert isinstance(theirs, nn.Module)
    weights = keymap.to_official({name: tensor.detach().cpu().clone() for name, tensor in state.items()})
    theirs.load_state_dict(weights, assign=True)
    theirs.requires_grad_(True)
    return PeerNetwork(theirs, patch)


def _enough(channels: int, image_size: int) -> tuple[int, int, int, int]:
    """Two images that ask the same of every layer as larger ones, which would take a CPU half a minute."""
    size = min(image_size, ASKED_SIZE)
    return 2, channels, size, size


def _two_conditions(conditioners: ConditionerSet) -> tuple[Conditioning | None, Tensor | None]:
    """Class 0, and no class where the model knows that: in our words, and in theirs."""
    classes = class_conditioner(conditioners)
    if classes is None:
        return None, None
    batch: Batch = {"index": torch.zeros(1, dtype=torch.int64), "label": torch.zeros(1, dtype=torch.int64)}
    given, null = conditioners.conditioning(batch), conditioners.null(batch)
    assert given is not None
    if null is None:
        return Conditioning.cat([given, given]), torch.tensor([0, 0])
    return Conditioning.cat([given, null]), torch.tensor([0, classes.classes])


@torch.no_grad()
def _require_agreement(*both: tuple[nn.Module, Any], shape: tuple[int, ...]) -> None:
    """Two networks, each with what it is told, give one answer to one input of two images in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    x, time = torch.randn(shape, generator=generator), torch.tensor([3.0, 700.0])
    modes = [(module, module.training) for module, _ in both]
    with allowing_tf32(False):
        answers = [module.eval()(x, time, told) for module, told in both]
    for module, training in modes:
        module.train(training)
    scale = max(float(answers[0].abs().max()), 1e-12)
    difference = float((answers[0] - answers[1]).abs().max()) / scale
    if not difference <= AGREEMENT:
        raise UserError(f"diffusers' network is not this one: the outputs differ by {difference:.1e}; report it")
