"""`difflab train` of a first stage, from the command line to what the run leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from difflab.images import to_float
from difflab.pipelines.stored import load_stored
from difflab.tracking.csv_rows import read_csv
from run_files import differing
from tiny_runs import done, mistake

SMALL = (
    "experiment=autoencoder/kl_f4_shapes64_adversarial",
    "network=autoencoder_small_vq",
    "optimizer.schedule.decay=none",
    "network.base_channels=8",
    "network.norm_groups=4",
    "network.middle_attention=false",
    "network.regularizer.codes=16",
    "discriminator.width=4",
    "discriminator.layers=1",
    "discriminator.start=2",
    "data.image_size=16",
    "data.batch_size=4",
    "perceptual=none",
    "trainer.max_steps=4",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.val_every_steps=4",
    "trainer.log_every_steps=1",
    "callbacks.reconstruction_grid.n=4",
    "restart_codes_every=3",
    "logger=csv",
)
RUNS = Path("runs/autoencoder/kl_f4_shapes64_adversarial")


@pytest.mark.slow
def test_a_run_trains_stops_goes_on_and_is_a_model(tiny_shapes: Path) -> None:
    small = (*SMALL, f"data.path={tiny_shapes}")
    done("train", *small, "name=straight")
    done("train", *small, "name=halves", "trainer.max_steps=2")
    done("train", *small, "name=halves")
    last = [RUNS / name / "checkpoints" / "last.ckpt" for name in ("halves", "straight")]
    ended = [torch.load(path, weights_only=True) for path in last]
    assert differing(ended[0], ended[1]) == []
    row = next(row for row in read_csv(RUNS / "halves" / "metrics.csv") if row.get("val/loss"))
    assert {"val/nll", "val/rec", "val/codebook", "val/codes_used", "val/d"} <= row.keys()
    assert (RUNS / "halves" / "samples" / "step-000004.png").is_file()
    weights = load_file(RUNS / "halves" / "weights" / "raw.safetensors")
    assert all(key.startswith("network.") for key in weights)
    model, _ = load_stored(RUNS / "halves", "raw")
    images = to_float(torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8))
    assert model.network(images).images.shape == images.shape
    again = done("train", *small, "name=halves")
    assert "nothing to train" in again.out


def test_weights_that_are_not_there_are_named_with_their_key(tiny_shapes: Path) -> None:
    line = mistake("train", *SMALL, f"data.path={tiny_shapes}", "perceptual=lpips")
    assert "perceptual.network: weights/vgg16-397923af.pth does not exist: give the path" in line
    assert not Path("runs").exists()


def test_a_codebook_too_large_and_a_fresh_discriminator_are_said(tiny_shapes: Path) -> None:
    small = (*SMALL, f"data.path={tiny_shapes}", "trainer.max_steps=1", "trainer.val_every_steps=0")
    first = done("train", *small, "name=first", "network.regularizer.codes=2000")
    assert first.err.count("note: a codebook of 2000 codes, but an epoch has only ") == 1
    again = done(
        "train", *small, "name=second", "init=weights", f"init.from={RUNS}/first",
        "init.which=raw", "network.regularizer.codes=2000",
    )  # fmt: skip
    assert f"init: discriminator.* begins untrained: {RUNS}/first has no weights" in again.err
    alone = done(
        "train", *small, "name=third", "init=weights", f"init.from={RUNS}/first",
        "init.which=raw", "network.regularizer.codes=2000", "discriminator=null",
    )  # fmt: skip
    assert "untrained" not in alone.err


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.channels=1"], "data.channels=1, but "),
        (["network.channels=1"], "network.channels=1"),
        (["network.channel_mult=[1,2,2,2,2,2]"], "image_size=16 is not a multiple of 32"),
        (["discriminator=none"], "set its keys, as in discriminator.layers=..., or discriminator=null"),
        (
            ["optimizer.schedule.warmup_steps=0", "optimizer.schedule.warmup_from=1e-6"],
            "warmup_from=1e-06 needs a warmup: set warmup_steps",
        ),
    ],
)
def test_a_mistake_is_one_line(tiny_shapes: Path, overrides: list[str], said: str) -> None:
    assert said in mistake("train", *SMALL, f"data.path={tiny_shapes}", *overrides)
