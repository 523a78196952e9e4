"""The benchmark of latent diffusion: both sides do the same work, and a report comes out. No time is looked at."""

import json
import math
import time

import pytest
import torch
from benchmarks.devices import Way
from benchmarks.gpu_cases import Scale
from benchmarks.gpu_latent import EAGER, OURS, RECOMPUTED, SD256, SD512, flops_per_latent, train_latents
from benchmarks.gpu_report import Goal, Report
from benchmarks.latent_drawing import LatentDrawing, require_same_latents
from benchmarks.latent_peer import (
    AGREEMENT,
    LatentUNet,
    OurNetwork,
    TheirNetwork,
    diffusers_unet,
    drawn_unet,
    require_agreement,
)
from benchmarks.latent_training import TrainingStep, batches_of

from benchmarks import latent, latent_loading
from difflab.errors import UserError
from difflab.networks.build import build_network

CPU = torch.device("cpu")
SMALL = LatentUNet(side=8, base=32, mult=(1, 2), blocks=1, depth=2, heads=2, context=16, tokens=5)
OPTIONS = ["--side", "8", "--base", "32", "--mult", "1", "2", "--blocks", "1", "--heads", "2", "--context", "16"]
TINY = [*OPTIONS, "--batch", "2", "--steps", "2", "--rounds", "1", "--warmup", "0", "--accelerator", "cpu"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def both():
    ours = drawn_unet(SMALL)
    return ours, diffusers_unet(ours, SMALL)


def measured(capsys, *arguments):
    latent.main([*TINY, "--json", *arguments])
    out = capsys.readouterr().out
    return out, json.loads(out.splitlines()[-1])


# -- the networks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mult", [(1, 2), (1, 2, 4)])
def test_both_libraries_have_one_network(mult):
    about = LatentUNet(**{**vars(SMALL), "mult": mult})
    ours = drawn_unet(about)
    theirs = diffusers_unet(ours, about)
    assert require_agreement(ours, theirs, about) <= 1e-5
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    for name in ("down_blocks.0.attentions.0.transformer_blocks.1.attn2.to_k.weight", "conv_out.bias"):
        parameter = theirs.get_parameter(name)
        before = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(0.5)
        with pytest.raises(UserError, match="diffusers' network is not this one"):
            require_agreement(ours, theirs, about)
        with torch.no_grad():
            parameter.copy_(before)


def test_no_layer_of_drawn_weights_is_zero():
    assert all(parameter.any() for parameter in drawn_unet(SMALL).parameters() if parameter.ndim > 1)


def test_stable_diffusion_has_its_published_parameters():
    about = SD512.network(Scale())
    with torch.device("meta"):
        network = build_network(about.config(), image_size=about.side, learned_variance=False)
    assert sum(p.numel() for p in network.parameters()) == 859_520_964


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--side", "9"], "--side 9 is not a multiple of 2"),
        (["--mult", "2", "4"], "is as wide as --base; begin with 1"),
        (["--heads", "3"], "--heads 3 do not divide 32 channels"),
        (["--base", "34"], "a level of 34 channels cannot be normalised in norm_groups=32 groups"),
    ],
)
def test_a_mistake_is_one_line(arguments, said):
    with pytest.raises(UserError, match=said) as caught:
        latent.main([*TINY, "--part", "step", *arguments])
    assert "\n" not in str(caught.value)


# -- training ---------------------------------------------------------------------------------------------------------


def test_both_take_the_same_steps(both):
    ours, theirs = (drawn_unet(SMALL), diffusers_unet(both[0], SMALL))
    batches = batches_of(SMALL, 3, CPU, count=1)
    steps = [TrainingStep(network, batches, None) for network in (OurNetwork(ours), TheirNetwork(theirs))]
    (x0, tokens), t = batches[0], torch.tensor([0, 500, 999])
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2))
    first = float(steps[0].loss(x0, t, noise, tokens).detach())
    for _ in range(3):
        for step in steps:
            torch.manual_seed(5)
            step()
        losses = [float(step.loss(x0, t, noise, tokens).detach()) for step in steps]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] != pytest.approx(first, rel=1e-3), "it trains"


def test_step(capsys):
    out, content = measured(capsys, "--part", "step", "--bf16")
    names = {"difflab fp32", "difflab bf16", "diffusers fp32", "diffusers bf16"}
    assert content["step"]["seconds"].keys() == names
    assert content["step"]["ratios"].keys() == {
        "difflab fp32 / diffusers fp32",
        "difflab bf16 / diffusers bf16",
    }
    assert "step, difflab fp32 / diffusers fp32: " in out
    assert "4x8x8 latents, 32 channels x 1, 2, tokens 77x16" in out


# -- drawing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "scale"), [(2, 7.5), (5, 1.5)])
def test_both_draw_the_same_latents(both, steps, scale):
    drawing = LatentDrawing(SMALL, both[0], CPU, steps=steps, batch=3, scale=scale)
    ours, theirs = drawing.ours(Way())(), drawing.theirs(Way(), both[1])()
    assert ours.shape == (3, 4, 8, 8)
    assert require_same_latents(ours, theirs) <= AGREEMENT
    torch.testing.assert_close(drawing.ours(Way(), one_batch=False)(), ours, rtol=1e-3, atol=1e-4)
    other = LatentDrawing(SMALL, both[0], CPU, steps=steps, batch=3, scale=scale + 1).ours(Way())()
    with pytest.raises(UserError, match="diffusers draws other latents"):
        require_same_latents(other, theirs)


def test_sample(capsys):
    out, content = measured(capsys, "--part", "sample", "--bf16")
    assert "Both draw the same latents in float32" in out
    assert "sample, difflab bf16 / diffusers bf16: " in out
    assert "difflab fp32, one by one / diffusers fp32" in content["sample"]["ratios"]
    assert content["sample"]["same_latents"] <= 1e-3


# -- encoded latents --------------------------------------------------------------------------------------------------


def test_latents(capsys, tmp_path):
    out, content = measured(capsys, "--part", "latents", "--latents", "13", "--read-batch", "4", "--workers", "0")
    assert "Reading 12 encoded latents" in out
    assert "s for 5000 latents: " in out
    assert content["latents"]["latents_per_s"].keys() == {"0"}
    assert list((tmp_path / "cache").glob("difflab-benchmark-*")) == []


def test_a_pass_has_every_latent_once_half_of_them_mirrored(tmp_path):
    data = latent_loading.write_latents(tmp_path, 16)
    batches = list(latent_loading.latents_loader(data, 16, 4, 0))
    assert sorted(index for batch in batches for index in batch["index"].tolist()) == list(range(16))
    read = torch.cat([batch[latent_loading.FIELD] for batch in batches])
    assert (read.shape, read.dtype) == ((16, *latent_loading.MOMENTS), torch.float32)
    assert "image" not in batches[0]
    again = list(latent_loading.latents_loader(data, 16, 4, 0))
    assert torch.equal(torch.cat([batch[latent_loading.FIELD] for batch in again]), read)


# -- the cases of a GPU -----------------------------------------------------------------------------------------------


def test_cases_are_stable_diffusion_at_two_sizes():
    for case, side in ((SD256, 32), (SD512, 64)):
        assert case.network(Scale()).in_words() == (
            f"4x{side}x{side} latents, 320 channels x 1, 2, 4, 4, tokens 77x768"
        )
        assert case.latents(Scale(batch=7)) == 7
    assert SD256.images == Goal(300.0)


def test_flops_are_the_published_ones_and_grow_with_the_latents():
    small, large = (flops_per_latent(case.network(Scale())) for case in (SD256, SD512))
    # About 0.8 TFLOP forward at 512 px, a multiplication with an addition counted as two, and twice that backward.
    assert large / 3e12 == pytest.approx(0.8, rel=0.1)
    assert 0.2 < small / large < 0.25


def test_a_dry_run_has_every_figure(tmp_path, capsys):
    path = tmp_path / "figures.jsonl"
    train_latents(SD512, Scale(tiny=True), Report("sd512", time.time() + 600, path), "cpu")
    found = {one["figure"]: one for one in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
    assert "FAILED" not in capsys.readouterr().out
    for name in (OURS, EAGER, RECOMPUTED):
        assert {f"training alone, {name}", f"training, peak memory, {name}"} <= found.keys()
    assert {f"training in turn, {name}" for name in (OURS, EAGER)} <= found.keys()
    assert f"training in turn, {RECOMPUTED}" not in found
    assert math.isfinite(found[f"training, {OURS}, speed / {EAGER}'s"]["value"])
