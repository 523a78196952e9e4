"""The contrastive LightningModule: images and texts that belong together (CLIP, Radford et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from difflab.config.optimizer import OptimizerConfig
from difflab.images import to_float
from difflab.networks.towers.clip import CLIP, Embeddings
from difflab.tasks.contrastive.loss import Contrasted, Loss
from difflab.tasks.stepping import Part
from difflab.tasks.training_module import StepTerms, TrainingModule
from difflab.tasks.windows import MeanWindow
from difflab.text.base import Tokenizer
from difflab.types import Batch

LOGGED = ("loss", "image_top1", "text_top1")


class ContrastiveModule(TrainingModule):
    """Trains two towers so that a pair's cosine is larger than that of every other pair of the global batch.

    network:   (images [B, C, H, W] in [-1, 1], token ids int64 [B, L]) -> `Embeddings`.
    tokenizer: of the captions.
    loss:      over the global batch, whatever the number of processes and parts.
    max_scale: the factor on the cosines is kept within [1, max_scale] (section 2.5); None for no limit.

    With `accumulate` > 1, embeddings of all parts are computed and detached first, then the loss and its gradient
    with respect to them, then each part again with gradients (Gao et al. 2021, gradient caching): the gradient of the
    whole batch in the memory of a part, for a second forward pass.
    Logs `loss`, `image_top1`, `text_top1` as in `Contrasted`, and `logit_scale`, the factor itself.
    """

    def __init__(
        self,
        network: CLIP,
        tokenizer: Tokenizer,
        optimizer: OptimizerConfig,
        *,
        loss: Loss,
        max_scale: float | None,
        seed: int,
        max_steps: int,
        accumulate: int = 1,
        gradient_clip: float = 0.0,
    ) -> None:
        super().__init__(
            optimizer,
            seed=seed,
            max_steps=max_steps,
            accumulate=accumulate,
            gradient_clip=gradient_clip,
            window=MeanWindow(LOGGED),
            validation_window=MeanWindow(LOGGED),
        )
        self.network = network
        self.tokenizer, self.loss, self.max_scale = tokenizer, loss, max_scale

    def batch_keys(self) -> tuple[str, ...]:
        return ("caption",)

    def tokenizers(self) -> Mapping[str, Tokenizer]:
        return {self.tokenizer.field: self.tokenizer}

    @property
    def empty_captions(self) -> bool:
        """False: they would belong to several images."""
        return False

    @property
    def compares_samples(self) -> bool:
        """True: with fewer others the right one is found more easily."""
        return True

    def networks(self) -> Sequence[nn.Module]:
        return (self.network,)

    def terms(self, batch: Batch, seeds: Sequence[int], *, training: bool) -> StepTerms:
        """Padding is no pair, and nobody's other."""
        if training:
            found = self.loss(self._embedded(batch), None)
        else:
            found = self.loss(self._embedded_in_parts(batch), batch["weight"].to(self.device))
        return StepTerms(found.minimized, found.values)

    def optimize(self, batch: Batch) -> Tensor:
        if self.accumulate == 1:
            return super().optimize(batch)
        # Both passes compute the same. Under `no_grad` they would not: attention may have another kernel there.
        cached = [_detached(self._embedded(part.batch)) for part in self.parts(batch)]
        leaves = [torch.cat(each).requires_grad_() for each in zip(*cached, strict=True)]
        whole, scalars = self._contrasted(leaves)
        gradients = torch.autograd.grad(whole.minimized, [*leaves, *scalars])
        self.record(StepTerms(whole.minimized, whole.values))
        size = len(leaves[0]) // self.accumulate
        for part in self.parts(batch):
            self.add_gradients(
                self._surrogate(part, gradients, slice(part.number * size, (part.number + 1) * size)), part
            )
        self.update()
        return whole.minimized.detach()

    def _contrasted(self, leaves: Sequence[Tensor]) -> tuple[Contrasted, list[Tensor]]:
        held = [p.detach().requires_grad_() for p in self._scalars()]
        found = Embeddings(leaves[0], leaves[1], held[0].exp(), held[1] if len(held) > 1 else None)
        return self.loss(found, None), held

    def _surrogate(self, part: Part, gradients: Sequence[Tensor], rows: slice) -> Tensor:
        """A value whose gradient with respect to the parameters is that of the loss of the whole batch."""
        found = self._embedded(part.batch)
        image, text, *scalars = gradients
        value = (found.image * image[rows]).sum() + (found.text * text[rows]).sum()
        for parameter, gradient in zip(self._scalars(), scalars, strict=True):
            value = value + parameter * gradient / part.count
        # The parts' mean is taken, and this is a sum.
        return value * part.count

    def _scalars(self) -> list[Tensor]:
        """The parameters of the logits besides the embeddings: the scale and, if there is one, the bias."""
        return [p for p in (self.network.logit_scale, self.network.logit_bias) if p is not None]

    def _embedded(self, batch: Batch) -> Embeddings:
        return self.network(to_float(batch["image"]), batch[self.tokenizer.field])

    def _embedded_in_parts(self, batch: Batch) -> Embeddings:
        """All of a batch, with the memory of a part of it."""
        size = math.ceil(len(batch["position"]) / self.accumulate)
        parts = [
            self._embedded({name: values[begin : begin + size] for name, values in batch.items()})
            for begin in range(0, len(batch["position"]), size)
        ]
        image, text = (torch.cat(each) for each in zip(*map(_detached, parts), strict=True))
        return parts[0]._replace(image=image, text=text)

    def on_optimized(self) -> None:
        if self.max_scale is not None:
            with torch.no_grad():
                self.network.logit_scale.clamp_(0.0, math.log(self.max_scale))

    def training_means(self) -> dict[str, float]:
        return {**super().training_means(), "train/logit_scale": float(self.network.logit_scale.detach().exp())}


def _detached(found: Embeddings) -> tuple[Tensor, Tensor]:
    return found.image.detach(), found.text.detach()
