"""Before training a CLIP cannot tell: the loss is the logarithm of the batch."""

from __future__ import annotations

import math

import pytest
import torch

from difflab.commands.composing import compose_and_validate
from difflab.conf_dir import conf_dir
from difflab.config.learning import TrainingTexts
from difflab.config.train import TrainConfig
from difflab.data.shapes import ShapesSource
from difflab.images import to_float
from difflab.tasks.build import build_training_module
from difflab.tasks.contrastive.loss import InfoNCE
from difflab.tasks.contrastive.module import ContrastiveModule

SMALL = sorted(path.stem for path in (conf_dir() / "network").glob("clip*small*.yaml"))
BATCH = 128


def test_there_are_small_networks_of_both_kinds() -> None:
    assert {"clip_small", "clip_rn_small"} <= set(SMALL)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("network", SMALL)
def test_the_loss_is_within_a_tenth_of_the_logarithm_of_the_batch(network: str, seed: int) -> None:
    source = ShapesSource(resolution=32, n=BATCH, seed=1, split="train")
    samples = [source.sample(index) for index in range(BATCH)]
    captions = [sample["caption"].split("\n")[0] for sample in samples]
    asked = ["experiment=clip/shapes32", f"network={network}", f"seed={seed}", "data.path=none"]
    config, _ = compose_and_validate("train", TrainConfig, asked, checking=True)
    torch.manual_seed(seed)
    module = build_training_module(config.completed(TrainingTexts(lambda: captions, list)))
    assert isinstance(module, ContrastiveModule)
    images = to_float(torch.stack([torch.as_tensor(sample["image"]).permute(2, 0, 1) for sample in samples]))
    with torch.no_grad():
        found = InfoNCE()(module.network.train()(images, module.tokenizer(captions).ids))
    assert float(found.minimized) == pytest.approx(math.log(BATCH), rel=0.1)
