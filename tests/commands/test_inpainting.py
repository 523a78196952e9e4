"""A model of latents that inpaints, from training to pictures: masks drawn with the seed, and masks that are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import TINY_NETWORK
from tiny_runs import ON_CPU, done, mistake

SMALL = (
    "data.image_size=16",
    "data.batch_size=4",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "logger=csv",
)
RUN = Path("runs/ldm/shapes64_inpainting/tiny")


@pytest.fixture
def run(tiny_shapes: Path) -> Path:
    first_stage = ("network.base_channels=8", "network.norm_groups=4", "discriminator=null", "perceptual=none")
    done(
        *("train", "experiment=autoencoder/kl_f4_shapes64", "name=tiny", f"data.path={tiny_shapes}", *SMALL),
        *(*first_stage, "trainer.max_steps=2", "trainer.val_every_steps=0", "callbacks.reconstruction_grid=null"),
    )
    text = ("layers=1", "heads=2", "tokenizer.vocabulary=560", "width=16")
    done(
        *("train", "experiment=ldm/shapes64_inpainting", "name=tiny", f"data.path={tiny_shapes}", *SMALL),
        *(*TINY_NETWORK, *(f"conditioning.caption.{option}" for option in text), "sampler.steps=3"),
        *("first_stage.weights.path=runs/autoencoder/kl_f4_shapes64/tiny", "trainer.max_steps=2", "metrics=none"),
        *("conditioning.masked_image.masks={strokes: 1, boxes: 1, objects: 2}", "callbacks.sample_grid.n=2"),
    )
    return RUN


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.slow
def test_it_draws_what_is_missing_and_keeps_the_rest(run: Path) -> None:
    # Neither images nor masks: those of the data, and masks from the seed.
    done("sample", f"run={run}", "n=3", "out=drawn", *ON_CPU)
    done("sample", f"run={run}", "n=3", "out=again", "batch_size=1", *ON_CPU)
    for number in range(3):
        name = f"{number:06d}.png"
        assert (Path("drawn") / name).read_bytes() == (Path("again") / name).read_bytes()
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[4:12, 2:9] = 255
    Image.fromarray(mask).save("mask.png")
    # Two steps of training make captions matter little.
    asked = ("prompts=['a red circle']", "images=drawn", "mask=mask.png", "n=3", "guidance.scale=1000")
    done("sample", f"run={run}", *asked, "out=filled", *ON_CPU)
    before, after = pixels("drawn/000001.png"), pixels("filled/000001.png")
    assert np.array_equal(before[mask == 0], after[mask == 0])
    assert (before[mask > 0] != after[mask > 0]).mean() > 0.5
    guided = ("sample", f"run={run}", *asked, *ON_CPU)
    done(*guided, "out=away", "negative_prompts=['a blue square']")
    assert not np.array_equal(pixels("away/000001.png"), after)
    unguided = ("sample", f"run={run}", *asked[:-1], *ON_CPU, "out=unguided", "guidance=none")
    line = mistake(*unguided, "negative_prompts=[a]")
    assert "negative_prompts: nothing leads away from them without classifier-free guidance" in line
    long = (*unguided[:2], *asked[1:-1], *ON_CPU, f"prompts=['{'a red circle above ' * 40}']")
    assert "shorten it, or set too_long=truncate" in mistake(*long, "out=long")
    done(*long, "out=long", "too_long=truncate")
    assert "shorten it, or set too_long=truncate" in mistake(*long, "out=again")
    Image.fromarray(mask[:8, :8]).save("small.png")
    line = mistake("sample", f"run={run}", "images=drawn", "mask=small.png", "prompts=[a]", "n=3", *ON_CPU)
    assert "holds 8x8 images; this model takes 16x16 as mask" in line
