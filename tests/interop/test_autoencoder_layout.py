"""First stages under the keys of CompVis and diffusers: shapes, outputs of diffusers itself, and the same bits back."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from difflab.errors import UserError
from difflab.interop.autoencoder_folder import autoencoder_of_folder
from difflab.interop.autoencoder_layout import COMPVIS_AUTOENCODER, DIFFUSERS_AUTOENCODER
from difflab.interop.identifying import fitting_presets, identify
from difflab.interop.keymap import shapes_of
from difflab.interop.layout import NETWORK, Target
from difflab.interop.opening import open_weights
from difflab.interop.presets import PRESETS
from difflab.interop.registry import export_weights, import_weights, model_of_weights
from difflab.networks.autoencoder.model import Autoencoder
from golden_fixtures import ROOT, Fixture, load
from networks.autoencoder.autoencoder_fixtures import config_of, official

RELEASED = sorted((ROOT / "latent" / "released").glob("*first_stage*.keys.json.gz"))
IN_DIFFUSERS = ["diffusers_kl_attn_levels", "diffusers_kl_noattn", "diffusers_vq_attn_none", "diffusers_vq_noattn"]
IN_COMPVIS_ALONE = ["ldm_kl_attn8_embed3", "ldm_kl_linear_attn_tanh"]
OTHERS = ["ldm_kl_attn16_8_f4_nonsquare", "ldm_vq_attn8_sane_index", "ldm_vq_interface_attn_none_embed2"]


def saved(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


def target_of(fixture: Fixture) -> Target:
    return Target(config_of(fixture.spec["args"]), fixture.spec["args"]["ddconfig"]["resolution"])


def with_weights(target: Target, state: dict[str, Tensor]) -> Autoencoder:
    assert target.network.kind == "autoencoder"
    network = Autoencoder(target.network)  # type: ignore[arg-type]
    network.load_state_dict({key.removeprefix(NETWORK): value for key, value in state.items()})
    return network.eval()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], value) for key, value in other.items())


SHARED = ("kl_f8", "sd_vae", "sd_vae_ft_ema", "sd_vae_ft_mse")
"""One architecture, published with several weights."""


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.name.removesuffix(".keys.json.gz"))
def test_a_released_first_stage_is_its_preset_and_is_told_by_its_shapes(path: Path) -> None:
    released = json.loads(gzip.decompress(path.read_bytes()))
    keys = {key: torch.empty(shape, device="meta") for key, shape in released["keys"].items()}
    name = path.name.removesuffix(".keys.json.gz").removeprefix("ldm_first_stage_").removesuffix("_first_stage")
    fitting = fitting_presets(keys)
    names = SHARED if name in ("kl_f8", "sd_v1", "sd_v2") else {"sd_v2_x4": ("sd_x4_vae",)}.get(name, (name,))
    assert fitting == dict.fromkeys((f"autoencoder/{one}" for one in names), "compvis_autoencoder")
    described = COMPVIS_AUTOENCODER.model_of(shapes_of(keys), "some", None)
    assert described is not None
    target = Target.of(described.config)
    assert target.architecture() == Target(config_of(released["constructor"]), 256).architecture()
    ours = COMPVIS_AUTOENCODER.keymap(target).from_official(keys)
    moved = DIFFUSERS_AUTOENCODER.keymap(target).to_official(ours)
    assert DIFFUSERS_AUTOENCODER.in_words(shapes_of(moved)) == COMPVIS_AUTOENCODER.in_words(shapes_of(keys))
    assert fitting_presets(moved).keys() == fitting.keys()


def test_words() -> None:
    words = [PRESETS[f"autoencoder/{name}"].target().network.in_words(256) for name in ("kl_f8", "vq_f4")]
    assert words == [
        ("autoencoder (KL), f=8, latents of 4 channels",),
        ("autoencoder (VQ with 8192 codes), f=4, latents of 3 channels",),
    ]


@pytest.mark.parametrize("name", [*IN_DIFFUSERS, *IN_COMPVIS_ALONE, *OTHERS])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_compvis_files_go_out_and_come_back_to_the_bit(tmp_path: Path, name: str, suffix: str) -> None:
    fixture = load("latent", name)
    target, state = target_of(fixture), fixture.state_dict()
    ours = import_weights(saved(tmp_path / "official.ckpt", {"state_dict": state}), target)
    assert ours.layout == "compvis_autoencoder"
    out = tmp_path / f"out{suffix}"
    assert export_weights(out, ours.state, target, "compvis_autoencoder") == [out]
    assert same(open_weights(out).state, state)
    assert same(import_weights(out, target).state, ours.state)


@pytest.mark.parametrize("name", IN_DIFFUSERS)
def test_the_key_map_of_diffusers_is_the_golden_one(name: str) -> None:
    fixture = load("latent", name)
    target, state = target_of(fixture), fixture.state_dict()
    theirs = DIFFUSERS_AUTOENCODER.keymap(target).to_official(COMPVIS_AUTOENCODER.keymap(target).from_official(state))
    expected = {
        other: state[key].squeeze((2, 3)) if op == "squeeze_hw" else state[key]
        for key, (other, op) in fixture.spec["key_map"].items()
    }
    assert same(theirs, expected)
    assert {key: list(value.shape) for key, value in theirs.items()} == fixture.spec["diffusers_keys"]


@pytest.mark.parametrize("name", [*IN_DIFFUSERS, *OTHERS])
@torch.no_grad()
def test_diffusers_loads_a_folder_and_gives_the_same(tmp_path: Path, name: str) -> None:
    from diffusers import AutoencoderKL, VQModel

    fixture = load("latent", name)
    target, found = target_of(fixture), official(fixture)
    ours = import_weights(saved(tmp_path / "official.ckpt", fixture.state_dict()), target)
    folder = tmp_path / "vae"
    export_weights(folder, ours.state, target, "diffusers")
    cls: Any = AutoencoderKL if "_kl_" in name else VQModel
    theirs = cls.from_pretrained(folder, low_cpu_mem_usage=False).eval()
    x = found.input("x")
    if cls is AutoencoderKL:
        moments, z = theirs.encode(x).latent_dist.parameters, found.input("z")
    else:
        moments = theirs.encode(x).latents
        z = moments
    torch.testing.assert_close(found.network.encode(x).moments, moments, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.network.decode(z), theirs.decode(z).sample, rtol=1e-4, atol=1e-5)
    # What the library writes is read as the same weights.
    theirs.save_pretrained(tmp_path / "again")
    again = import_weights(tmp_path / "again")
    assert again.layout == "diffusers_autoencoder"
    assert same(again.state, ours.state)
    assert again.target.architecture() == target.architecture()
    assert again.target.image_size == target.image_size


@pytest.mark.parametrize("name", IN_DIFFUSERS)
def test_the_configuration_is_the_one_that_diffusers_writes(tmp_path: Path, name: str) -> None:
    fixture = load("latent", name)
    target = target_of(fixture)
    ours = import_weights(saved(tmp_path / "official.ckpt", fixture.state_dict()), target)
    export_weights(tmp_path / "vae", ours.state, target, "diffusers")
    written = json.loads((tmp_path / "vae" / "config.json").read_text())
    expected = {key: value for key, value in fixture.spec["diffusers_config"].items() if key != "_diffusers_version"}
    assert written == {**expected, "scaling_factor": 1.0}


def test_a_whole_checkpoint_of_training_is_read_without_its_loss_and_with_its_averages(tmp_path: Path) -> None:
    fixture = load("latent", "ldm_vq_interface_noattn")
    state, target = fixture.state_dict(), target_of(fixture)
    averages = {f"model_ema.{key.replace('.', '')}": value + 1 for key, value in state.items()}
    counters = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    loss = {"loss.logvar": torch.tensor(0.0), "loss.discriminator.main.0.weight": torch.ones(4, 3, 4, 4)}
    loss["loss.perceptual_loss.lin0.model.1.weight"] = torch.ones(1, 64, 1, 1)
    content = {"epoch": 3, "global_step": 7, "state_dict": {**state, **loss}}
    found = import_weights(saved(tmp_path / "plain.ckpt", content), target)
    assert same(found.state, COMPVIS_AUTOENCODER.keymap(target).from_official(state))
    assert "left out the modules of its loss: discriminator, perceptual_loss" in found.notes
    content["state_dict"] = {**state, **loss, **averages, **counters}
    found = import_weights(saved(tmp_path / "averaged.ckpt", content), target)
    assert same(
        found.state, COMPVIS_AUTOENCODER.keymap(target).from_official({key: value + 1 for key, value in state.items()})
    )
    assert "took the averages of training (model_ema.*) in place of the weights" in found.notes
    del averages["model_ema.quant_convweight"]
    with pytest.raises(UserError, match=r"averages \(model_ema.\*\) have no quant_conv.weight: they are of another"):
        import_weights(saved(tmp_path / "odd.ckpt", {"state_dict": {**state, **averages}}), target)


def test_the_first_stage_of_a_whole_diffusion_model(tmp_path: Path) -> None:
    fixture = load("latent", "ldm_kl_noattn")
    state, target = fixture.state_dict(), target_of(fixture)
    whole = {f"first_stage_model.{key}": value for key, value in state.items()}
    whole |= {"betas": torch.zeros(10), "cond_stage_model.embedding.weight": torch.zeros(3, 4)}
    ours = COMPVIS_AUTOENCODER.keymap(target).from_official(state)
    # Without a network of a known layout beside it, there is but one set of weights.
    assert same(import_weights(saved(tmp_path / "alone.ckpt", {"state_dict": whole}), target).state, ours)
    whole["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(4, 4, 3, 3)
    path = saved(tmp_path / "sd.ckpt", {"state_dict": whole})
    with pytest.raises(UserError, match=r"several sets of weights, .*state_dict.first_stage_model \(124 tensors\)"):
        import_weights(path, target)
    found = import_weights(path, target, wrapper="state_dict.first_stage_model")
    assert same(found.state, ours)
    told = model_of_weights(path, wrapper="state_dict.first_stage_model")
    assert Target.of(told.config).architecture() == target.architecture()
    assert told.notes == ("took images of 256 pixels, as of all published first stages; it takes other sizes too",)


def test_attention_under_its_older_names(tmp_path: Path) -> None:
    fixture = load("latent", "diffusers_kl_attn_levels")
    target = target_of(fixture)
    ours = COMPVIS_AUTOENCODER.keymap(target).from_official(fixture.state_dict())
    theirs = DIFFUSERS_AUTOENCODER.keymap(target).to_official(ours)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    older = {}
    for key, value in theirs.items():
        for new, old in names.items():
            key = key.replace(f".{new}.", f".{old}.")
        older[key] = value
    assert older.keys() != theirs.keys()
    assert same(import_weights(saved(tmp_path / "older.bin", older), target).state, ours)


def test_weights_say_what_they_are(tmp_path: Path) -> None:
    fixture = load("latent", "ldm_kl_linear_attn_tanh")
    found = identify(saved(tmp_path / "some.ckpt", {"state_dict": fixture.state_dict()}))
    assert found.layout == "compvis_autoencoder"
    assert found.facts == ("autoencoder (KL), f=2, latents of 4 channels",)
    read = import_weights(saved(tmp_path / "some.ckpt", fixture.state_dict()), target_of(fixture))
    assert "nothing beside these weights says their tanh_output: taken for tanh_output=true" in read.notes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ldm_kl_attn8_embed3", "AutoencoderKL has as many z_channels as latent_channels, not 4 and 3; use another"),
        ("ldm_kl_linear_attn_tanh", "diffusers has no autoencoder with tanh_output=True"),
    ],
)
def test_what_diffusers_has_not_is_refused(tmp_path: Path, name: str, message: str) -> None:
    fixture = load("latent", name)
    target = target_of(fixture)
    state = COMPVIS_AUTOENCODER.keymap(target).from_official(fixture.state_dict())
    with pytest.raises(UserError, match=message):
        export_weights(tmp_path / "vae", state, target, "diffusers")
    assert not (tmp_path / "vae").exists()


def test_norms_of_another_width_are_in_diffusers_alone(tmp_path: Path) -> None:
    config = config_of(load("latent", "ldm_kl_noattn").spec["args"])
    target = Target(config.model_copy(update={"norm_groups": 8}), 16)
    with pytest.raises(UserError, match="latent-diffusion has no autoencoder with norm_groups=8"):
        COMPVIS_AUTOENCODER.keymap(target)
    assert DIFFUSERS_AUTOENCODER.keymap(target).official_shapes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fixture = load("latent", "diffusers_kl_noattn")
    target = target_of(fixture)
    state = COMPVIS_AUTOENCODER.keymap(target).from_official(fixture.state_dict())
    export_weights(tmp_path / "vae", state, target, "diffusers")
    return tmp_path / "vae"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act_fn": "gelu"}, "act_fn='gelu' is not supported \\(only 'silu'\\)"),
        ({"shift_factor": 0.1159}, "shift_factor=0.1159 is not supported"),
        ({"use_quant_conv": False}, "use_quant_conv=False is not supported"),
        ({"latents_mean": [0.0] * 4}, "latents_mean=.* is not supported"),
        ({"out_channels": 4}, "out_channels=4, but in_channels=3"),
        ({"down_block_types": ["DownEncoderBlock2D"]}, "down_block_types has 1 entries and block_out_channels 2"),
        ({"down_block_types": ["DownEncoderBlock2D", "Odd"]}, "down_block_types has Odd; known are DownEncoderBlock2D"),
        ({"up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"]}, "do not mirror down_block_types"),
        ({"block_out_channels": [32, 48]}, "block_out_channels=\\[32, 48\\] are not multiples of the first"),
        ({"sample_size": [16, 32]}, "sample_size=\\[16, 32\\]; set it to the image size"),
        ({"norm_num_groups": 5}, "cannot be normalised in norm_groups=5 groups"),
        ({"latent_channels": "4"}, "latent_channels"),
    ],
)
def test_what_difflab_has_not_is_refused_with_the_file_and_the_key(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message) as refused:
        import_weights(folder)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_a_folder_of_a_pipeline_says_how_its_latents_are_scaled(folder: Path) -> None:
    path = folder / "config.json"
    described = autoencoder_of_folder(folder)
    assert described is not None
    assert (described.notes, described.config.experiment, described.config.image_size) == ((), "diffusers/vae", 16)
    path.write_text(json.dumps({**json.loads(path.read_text()), "scaling_factor": 0.18215}))
    described = autoencoder_of_folder(folder)
    assert described is not None
    assert "scaling_factor=0.18215 is what the latents of its diffusion model are multiplied by" in described.notes[0]


def test_a_folder_tells_the_norms_that_shapes_do_not(tmp_path: Path) -> None:
    config = config_of(load("latent", "ldm_kl_noattn").spec["args"])
    target = Target(config.model_copy(update={"base_channels": 16, "norm_groups": 8}), 16)
    state = {key: torch.zeros(shape) for key, shape in target.shapes().items()}
    export_weights(tmp_path / "vae", state, target, "diffusers")
    assert identify(tmp_path / "vae").facts == config.in_words(16)
    (tmp_path / "vae" / "config.json").unlink()
    assert identify(tmp_path / "vae").facts == ()


def test_weights_of_another_network_do_not_fit(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match="its base_channels is 32, but the requested model has 128"):
        import_weights(folder, "autoencoder/kl_f8")
    state = load("latent", "ldm_kl_noattn").state_dict()
    with pytest.raises(UserError, match="these weights do not fit the compvis_autoencoder layout of this network"):
        import_weights(saved(tmp_path / "some.ckpt", state), "autoencoder/kl_f4")
