"""The peers compute what difflab computes: otherwise their times would say nothing."""

import pytest
import torch
from benchmarks.drawers import fill_zero_layers
from benchmarks.loops import BareLoop
from benchmarks.peer import OwnNetwork, diffusers_network
from benchmarks.stage import open_stage

from difflab.diffusion.build import build_loss, build_process
from difflab.errors import UserError
from difflab.networks.build import build_network

TINY = [
    "network.base_channels=32",
    "network.channel_mult=[1,2]",
    "network.blocks_per_level=1",
    "network.attention_resolutions=[8]",
    "network.attention_heads=1",
    "network.adaptive_norm=false",
    "network.norm_groups=32",
    "diffusion=v_cosine",
    "data.batch_size=4",
    "data.image_size=16",
]


def loop_for(config, network, images=None):
    batches = [torch.zeros(4, 3, 16, 16, dtype=torch.uint8)] if images is None else images
    return BareLoop(network, batches, config.diffusion, config.optimizer, gradient_clip=1.0, ema_decay=0.9)


@pytest.mark.parametrize("diffusion", ["ddpm", "v_cosine"])
def test_bare_loop_has_the_loss_of_difflab(diffusion):
    with open_stage("ddpm/shapes32", [*TINY, f"diffusion={diffusion}"], with_shards=False) as stage:
        config, network = stage.config, stage.network()
    torch.nn.init.normal_(network.conv_out.weight, std=0.1)
    x0, noise = torch.randn(2, 4, 3, 16, 16).unbind()
    t = torch.tensor([0, 10, 500, 999])
    bare = loop_for(config, network)
    process = build_process(config.diffusion)
    x_t = process.q_sample(x0, t, noise)
    terms = build_loss(config.diffusion, process)(network(x_t, process.network_time(t)), x0, x_t, t, noise)
    torch.testing.assert_close(bare.loss(x0, t, noise), terms["loss"].mean())


ADM = [
    "network.base_channels=32",
    "network.channel_mult=[1,2]",
    "network.blocks_per_level=1",
    "network.attention_resolutions=[8]",
    "network.attention_head_channels=32",
    "network.dropout=0",
    "data.classes=6",
    "data.image_size=16",
    "data.batch_size=4",
    "data.workers=0",
    "trainer.accelerator=cpu",
]


def test_bare_loop_has_the_loss_of_a_learned_variance_and_tells_of_classes():
    with open_stage("adm/imagenet64", ADM) as stage:
        model, config, labels = stage.model(), stage.config, stage.labels(2)
        images = stage.batches(2)
    fill_zero_layers(model.network)
    assert [len(part) for part in labels] == [4, 4]
    loop = BareLoop(
        OwnNetwork(model), images, config.diffusion, config.optimizer, gradient_clip=0.0, ema_decay=0.9, labels=labels
    )
    x0, noise = torch.randn(2, 4, 3, 16, 16).unbind()
    t, classes = torch.tensor([0, 10, 500, 999]), torch.tensor([0, 1, 2, 5])
    process = build_process(config.diffusion)
    x_t = process.q_sample(x0, t, noise)
    told = model.conditioners.conditioning({"label": classes})
    output = model.network(x_t, process.network_time(t), told)
    expected = build_loss(config.diffusion, process)(output, x0, x_t, t, noise)["loss"].mean()
    torch.testing.assert_close(loop.loss(x0, t, noise, classes), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(loop.loss(x0, t, noise, classes.flip(0)), expected, rtol=1e-4)
    embedding = model.conditioners["class_label"].embedding.weight
    before = embedding.detach().clone()
    loop.step()
    assert not torch.equal(embedding, before)


def test_bare_loop_trains_and_averages():
    with open_stage("ddpm/shapes32", TINY, with_shards=False) as stage:
        network = stage.network()
        loop = loop_for(stage.config, network)
    before = [p.detach().clone() for p in loop.parameters]
    loop.step()
    index = next(i for i, p in enumerate(loop.parameters) if not torch.equal(p, before[i]))
    torch.testing.assert_close(loop.averages[index], 0.9 * before[index] + 0.1 * loop.parameters[index].detach())


def test_bare_loop_refuses_what_it_would_not_compute():
    with (
        open_stage("ddpm/shapes32", [*TINY, "diffusion.loss=l1"], with_shards=False) as stage,
        pytest.raises(UserError, match=r"diffusion\.loss=mse"),
    ):
        loop_for(stage.config, stage.network())


@pytest.mark.parametrize("patch_size", [1, 2])
def test_diffusers_network_is_ours(patch_size):
    with open_stage(
        "ddpm/shapes32", [*TINY, f"network.patch_size={patch_size}", "network.dropout=0.1"], with_shards=False
    ) as stage:
        ours, config = stage.network(), stage.config.network
    torch.nn.init.normal_(ours.conv_out.weight, std=0.1)
    theirs = diffusers_network(ours, config, 16)
    assert theirs.training
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())
    x, time = torch.randn(3, 3, 16, 16), torch.tensor([1.0, 50.0, 900.0])
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(x, time), ours.eval()(x, time), rtol=1e-3, atol=1e-4)


def test_another_network_is_not_timed_as_a_peer():
    with open_stage("ddpm/shapes32", TINY, with_shards=False) as stage:
        config = stage.config.network
        taller = config.model_copy(update={"norm_eps": 0.5})
        ours = build_network(taller, image_size=16, learned_variance=False)
    torch.nn.init.normal_(ours.conv_out.weight, std=0.1)
    with pytest.raises(UserError, match="is not this one"):
        diffusers_network(ours, config, 16)
