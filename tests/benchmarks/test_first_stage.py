"""The benchmark of first stages: both sides do the same work, and a report comes out. Nothing here looks at a time."""

import json

import pytest
import torch
from benchmarks.devices import Way
from benchmarks.first_stage_loop import AdversarialLoop
from benchmarks.first_stage_peer import diffusers_autoencoder, drawn_autoencoder, our_coder, require_agreement
from benchmarks.sampling import OURS, THEIRS
from torch import nn

from benchmarks import first_stage
from difflab.commands.composing import compose_and_validate
from difflab.config.train import TrainConfig
from difflab.errors import UserError
from difflab.images import to_float
from difflab.tasks.autoencoder.adversary import against
from difflab.tasks.build import build_training_module

CPU = torch.device("cpu")
TINY = ["--network", "autoencoder_small", "--side", "32", "--rounds", "1", "--warmup", "0", "--accelerator", "cpu"]
TRAINED = [
    "experiment=autoencoder/kl_f4_shapes64_adversarial",
    "perceptual=none",
    "network.base_channels=8",
    "network.channel_mult=[1,2]",
    "data.path=nowhere",
    "data.image_size=16",
    "discriminator.start=0",
    "discriminator.layers=1",
    "discriminator.width=8",
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFLAB_CACHE", str(tmp_path))


def measured(capsys, *arguments):
    first_stage.main([*TINY, "--json", *arguments])
    out = capsys.readouterr().out
    return out, json.loads(out.splitlines()[-1])


def composed(*overrides):
    return compose_and_validate("train", TrainConfig, [*TRAINED, *overrides])[0]


# -- encoding and decoding --------------------------------------------------------------------------------------------


def test_time(capsys):
    out, content = measured(capsys, "--part", "time", "--bf16", "--images", "2")
    names = {"difflab fp32", "difflab bf16", "diffusers fp32", "diffusers bf16"}
    for work in ("encode", "decode"):
        assert f"{work} of 2 images of 32 px (autoencoder_small):" in out
        assert f"{work}, difflab fp32 / diffusers fp32: " in out
        assert content["time"][work]["seconds"].keys() == content["time"][work]["images_per_s"].keys() == names
    assert "Both give the same in float32" in out


def test_both_libraries_have_one_network():
    network = drawn_autoencoder("autoencoder_small", 32)
    peer = diffusers_autoencoder(network, 32)
    coders = [our_coder(network, Way(), CPU), first_stage.their_coder(peer, Way(), CPU)]
    assert require_agreement(*coders, network, CPU) <= 1e-6
    with torch.no_grad():
        next(peer.decoder.parameters()).add_(0.1)
    with pytest.raises(UserError, match="diffusers' network is not this one"):
        require_agreement(coders[0], first_stage.their_coder(peer, Way(), CPU), network, CPU)


def test_each_contender_has_a_network_of_its_own():
    network = drawn_autoencoder("autoencoder_small", 32)
    our_coder(network, Way(channels_last=True), CPU)
    assert not network.encoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--network", "vq_f8"], "network=vq_f8 is no KL autoencoder"),
        (["--network", "nothing"], "network=nothing: no such choice"),
        (["--side", "30"], "30 px is not a multiple of 4"),
    ],
)
def test_a_mistake_is_one_line(arguments, said):
    with pytest.raises(UserError, match=said):
        first_stage.main([*TINY, "--part", "time", *arguments])


def test_memory_of_one_contender():
    args = first_stage._parse(TINY)
    for work in first_stage.WORK:
        for one in (OURS, THEIRS):
            memory = first_stage.memory_of(work, one, args, "cpu")
            assert 0 < memory.before <= memory.peak


def test_a_tiled_decode():
    args = first_stage._parse([*TINY, "--tiled-side", "64", "--tile", "32"])
    memory, lap = first_stage.tiled_decode(Way(), args, "cpu")
    assert 0 < memory.before <= memory.peak
    assert lap.wall > 0


@pytest.mark.slow
def test_memory_and_tiles_in_processes_of_their_own(capsys):
    out, content = measured(capsys, "--part", "memory")
    assert {"encode, difflab fp32", "decode, diffusers fp32"} <= set(content["memory"])
    out, content = measured(capsys, "--part", "tiled", "--tiled-side", "64", "--tile", "32")
    assert "Decoding an image of 64 px in tiles of 32 px" in out
    assert "peak of the tiled decode, fp32, MB: " in out
    assert all(0 < one["before"] <= one["peak"] for one in content["tiled"].values())


# -- training ---------------------------------------------------------------------------------------------------------


def test_step(capsys):
    own = [one for one in TRAINED if not one.startswith(("experiment", "data.path", "discriminator.start"))]
    out, content = measured(capsys, "--part", "step", "--rounds", "2", "--batch", "2", *own)
    assert "framework tax (difflab / bare loop): " in out
    assert content["step"]["ratios"]["difflab / bare loop"]["n"] == 2
    assert content["step"]["settings"]["batch"] == 2


@pytest.mark.parametrize("pixel_loss", ["l1", "l2"])
@pytest.mark.parametrize("network", ["autoencoder_small", "autoencoder_small_vq"])
def test_the_loop_by_hand_minimises_what_difflab_does(network, pixel_loss):
    config = composed(f"network={network}", f"pixel_loss={pixel_loss}")
    torch.manual_seed(0)
    module = build_training_module(config)
    pixels = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    images, noise = to_float(pixels), torch.randn(3, module.network.latent_channels, 8, 8)
    loop = AdversarialLoop(module.network, None, module.discriminator, [pixels], config)
    minimised, reconstructions = loop.loss(images, noise)
    theirs = torch.autograd.grad(minimised, loop.parameters)
    found = module.network(images, noise)
    fought = against(
        module.adversary,
        module.error,
        found.images,
        images,
        lambda gradient: module.network.last_layer_gradient(found.features, gradient),
    )
    weight = config.network.regularizer.weight
    loss = (found.images * fought.gradient).sum() + weight * found.regularization.mean()
    ours = torch.autograd.grad(loss, loop.parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert float(fought.weight) > 0
    with torch.no_grad():
        judged = module._judged(module.adversary, images, reconstructions)["d"].mean()
        by_hand = loop.discriminator_loss(images, reconstructions)
    assert float(by_hand) == pytest.approx(float(judged), rel=1e-5)


def test_the_loop_by_hand_trains_both():
    config = composed()
    module = build_training_module(config)
    before = [p.detach().clone() for p in module.parameters()]
    AdversarialLoop(module.network, None, module.discriminator, [torch.zeros(2, 3, 16, 16)], config).step()
    moved = {
        name.split(".")[0]
        for (name, now), then in zip(module.named_parameters(), before, strict=True)
        if not torch.equal(now, then)
    }
    assert moved == {"network", "discriminator"}


@pytest.mark.parametrize(
    "override", ["discriminator=null", "discriminator.start=5", "log_variance=1.0", "discriminator.recompute=true"]
)
def test_the_loop_by_hand_refuses_what_it_does_not_do(override):
    config = composed(override)
    module = build_training_module(config)
    with pytest.raises(UserError, match="the bare loop"):
        AdversarialLoop(module.network, None, nn.Identity(), [], config)
