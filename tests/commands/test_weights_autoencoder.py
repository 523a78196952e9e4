"""First stages by the commands: inspected, imported and exported, from CompVis to diffusers and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from difflab.interop.opening import open_weights
from difflab.networks.autoencoder.model import Autoencoder
from difflab.pipelines.stored import load_stored
from golden_fixtures import load
from networks.autoencoder.autoencoder_fixtures import official
from tiny_runs import done, mistake


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["diffusers_kl_attn_levels", "diffusers_vq_attn_none"])
def test_a_checkpoint_goes_to_diffusers_and_back(name: str) -> None:
    fixture = load("latent", name)
    state, found = fixture.state_dict(), official(fixture)
    torch.save({"state_dict": {**state, "loss.logvar": torch.tensor(0.0)}, "epoch": 1}, "model.ckpt")
    out = done("weights", "inspect", "model.ckpt").out
    assert "layout   compvis_autoencoder" in out
    assert f"is       {found.network.config.in_words(256)[0]}" in out
    out = done("weights", "import", "model.ckpt", "--out", "ours").out
    assert "model.ckpt (compvis_autoencoder) -> ours" in out
    assert "note: took images of 256 pixels, as of all published first stages; it takes other sizes too" in out
    model, stored = load_stored("ours")
    assert (stored.config.task, stored.config.image_size) == ("autoencoder", 256)
    network = model.network
    assert isinstance(network, Autoencoder)
    x = found.input("x")
    with torch.no_grad():
        assert torch.equal(network.eval().encode(x).moments, found.network.encode(x).moments)

    out = done("weights", "export", "ours", "--out", "vae", "--layout", "diffusers").out
    assert "note: vae/config.json has scaling_factor=1" in out
    assert json.loads(Path("vae/config.json").read_text())["_difflab"]["experiment"] == stored.config.experiment
    assert "layout   diffusers_autoencoder" in done("weights", "inspect", "vae").out
    done("weights", "import", "vae", "--out", "again")
    assert Path("again/config.json").read_bytes() == Path("ours/config.json").read_bytes()
    done("weights", "export", "again", "--out", "official.pt", "--layout", "compvis_autoencoder")
    back = open_weights(Path("official.pt")).state
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())


def test_our_own_weights_are_described_without_their_configuration() -> None:
    torch.save(load("latent", "ldm_vq_attn8_sane_index").state_dict(), "model.ckpt")
    done("weights", "import", "model.ckpt", "--out", "ours")
    Path("ours/config.json").unlink()
    out = done("weights", "inspect", "ours/model.safetensors").out
    assert "layout   difflab" in out
    assert "is       autoencoder (VQ with 32 codes), f=2, latents of 4 channels" in out


def test_what_cannot_be_is_refused_in_a_line() -> None:
    torch.save(load("latent", "ldm_kl_attn8_embed3").state_dict(), "model.ckpt")
    done("weights", "import", "model.ckpt", "--out", "ours")
    message = mistake("weights", "export", "ours", "--out", "vae", "--layout", "diffusers")
    assert "AutoencoderKL has as many z_channels as latent_channels, not 4 and 3; use another layout" in message
    assert "is no UNet; use another layout" in mistake(
        "weights", "export", "ours", "--out", "o.pt", "--layout", "pesser"
    )
    message = mistake("weights", "import", "model.ckpt", "--out", "unet", "--preset", "ddpm/cifar10")
    assert "these weights do not fit the pesser layout of this network" in message
    torch.save({"encoder.conv_in.weight": torch.zeros(8, 3, 3, 3)}, "half.ckpt")
    assert "in no known layout" in mistake("weights", "import", "half.ckpt", "--out", "half")
