from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from difflab.conditioning.config import ClassConditionerConfig
from difflab.errors import UserError
from difflab.interop.layout import Target
from difflab.interop.layouts import LAYOUTS
from difflab.interop.presets import PRESETS
from difflab.interop.registry import export_weights, import_weights
from golden_fixtures import load
from interop.whole_models import network_of, saved, whole_model
from networks.official_networks import build_target

GUIDED_FIXTURES = [
    "adm-classifier-adaptive",
    "adm-classifier-attention",
    "adm-classifier-spatial",
    "adm-classifier-spatialv2",
    "adm-superres",
    "adm-superres-uncond",
    "adm-unet-legacy-cond",
    "adm-unet-neworder-cond",
    "adm-unet-uncond-plain",
    "improved-superres",
    "improved-unet",
]


def released_cifar10(tmp_path: Path) -> Path:
    """A file with every key and shape of the released CIFAR-10 model, in half precision zeros."""
    keymap = LAYOUTS["pesser"].keymap(PRESETS["ddpm/cifar10"].target())
    path = tmp_path / "ema_diffusion_cifar10_model-790000.ckpt"
    torch.save({key: torch.zeros(shape, dtype=torch.float16) for key, shape in keymap.official_shapes.items()}, path)
    return path


def test_imported_weights_give_the_official_output(tmp_path: Path) -> None:
    path, target, _ = saved(tmp_path, "ddpm-model")
    imported = import_weights(path, target)
    assert imported.layout == "pesser"
    network = build_target(target)
    network.load_state_dict(network_of(imported.state))
    fixture = load("diffusion", "ddpm-model")
    with torch.inference_mode():
        fixture.check("out", network(fixture.input("x"), fixture.input("t")))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", ["ddpm-model", *GUIDED_FIXTURES])
def test_export_gives_back_the_bits_that_were_imported(tmp_path: Path, name: str, suffix: str) -> None:
    path, target, official = saved(tmp_path, name)
    layout = whole_model(load("diffusion", name))[1].name
    ours = import_weights(path, target, layout).state
    out = tmp_path / "new" / f"back{suffix}"
    assert export_weights(out, ours, target, layout) == [out]
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    back = import_weights(out, target, layout).state
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[key], value) for key, value in ours.items())
    written = LAYOUTS[layout].keymap(target).to_official(back)
    assert written.keys() == official.keys()
    assert all(torch.equal(written[key], value) for key, value in official.items())


def test_the_class_embedding_is_a_conditioners(tmp_path: Path) -> None:
    path, target, official = saved(tmp_path, "adm-unet-legacy-cond")
    state = import_weights(path, target, "guided").state
    assert torch.equal(state["conditioners.class_label.embedding.weight"], official["label_emb.weight"])
    assert all(key.startswith(("network.", "conditioners.class_label.")) for key in state)


def test_a_missing_class_embedding_is_named(tmp_path: Path) -> None:
    path, target, _ = saved(tmp_path, "adm-unet-legacy-cond")
    with pytest.raises(UserError, match=r"label_emb\.weight \[10, 128\] is unexpected"):
        import_weights(path, replace(target, conditioning={}), "guided")
    eleven = {"class_label": ClassConditionerConfig(kind="class", classes=10, drop_rate=0.1)}
    with pytest.raises(UserError, match=r"label_emb\.weight is \[10, 128\], expected \[11, 128\]"):
        import_weights(path, replace(target, conditioning=eleven), "guided")


def test_a_classifier_is_no_denoiser(tmp_path: Path) -> None:
    path, classifier, _ = saved(tmp_path, "adm-classifier-attention")
    _, denoiser, _ = saved(tmp_path, "adm-unet-legacy-cond")
    with pytest.raises(UserError, match=r"label_emb\.weight \[10, 128\] is missing"):
        import_weights(path, denoiser, "guided")
    with pytest.raises(UserError, match="pesser/pytorch_diffusion has no network of kind unet_encoder"):
        import_weights(path, classifier, "pesser")


def test_export_needs_a_known_ending_and_layout(tmp_path: Path) -> None:
    path, target, _ = saved(tmp_path, "ddpm-model")
    state = import_weights(path, target).state
    with pytest.raises(UserError, match=r"end the name in \.safetensors or \.pt"):
        export_weights(tmp_path / "out.onnx", state, target, "pesser")
    with pytest.raises(UserError, match="no layout is called 'keras'; there are pesser, diffusers"):
        export_weights(tmp_path / "out.pt", state, target, "keras")


def test_the_two_orders_of_attention_are_told_apart_by_the_model_or_the_user(tmp_path: Path) -> None:
    path, target, _ = saved(tmp_path, "improved-unet")
    with pytest.raises(UserError, match="fit both guided and guided-new-order; give the layout, as in --layout guided"):
        import_weights(path, target)
    older = import_weights(path, target, layout="guided")
    assert older.layout == "guided"
    published = import_weights(path, target, published_in=("guided",))
    assert all(torch.equal(published.state[key], value) for key, value in older.state.items())
    newer = import_weights(path, target, published_in=("guided-new-order",))
    assert newer.layout == "guided-new-order"
    assert not all(torch.equal(newer.state[key], value) for key, value in older.state.items())
    assert import_weights(path, target, layout="guided", published_in=("guided-new-order",)).layout == "guided"


def test_the_wrong_model_is_refused_and_the_right_one_named(tmp_path: Path) -> None:
    path = released_cifar10(tmp_path)
    with pytest.raises(UserError) as error:
        import_weights(path, "ddpm/lsun_church")
    message = str(error.value)
    assert str(path) in message
    assert "down.1.block.0.conv1.weight is [256, 128, 3, 3], expected [128, 128, 3, 3]" in message
    assert message.endswith("(they fit ddpm/cifar10)")
    assert "\n" not in message


def test_a_file_of_another_code_names_keys_and_models_too(tmp_path: Path) -> None:
    with pytest.raises(UserError) as of_ho:
        import_weights(released_cifar10(tmp_path), "improved/cifar10")
    assert "time_embed.0.weight [512, 128] is missing" in str(of_ho.value)
    assert str(of_ho.value).endswith("(they fit ddpm/cifar10)")
    path, target, _ = saved(tmp_path, "improved-unet")
    with pytest.raises(
        UserError, match=r"temb\.dense\.0\.weight .* is missing; .*time_embed\.0\.weight .* is unexpected"
    ):
        import_weights(path, "ddpm/cifar10")
    with pytest.raises(UserError, match="pesser/pytorch_diffusion has no network with"):
        import_weights(path, target, "pesser", published_in=("guided",))


def test_a_network_that_the_layout_cannot_express_is_refused(tmp_path: Path) -> None:
    path, target, _ = saved(tmp_path, "ddpm-model")
    odd = Target(target.network.model_copy(update={"norm_eps": 1e-5}), target.image_size)
    with pytest.raises(UserError, match=r"pesser/pytorch_diffusion has no network with norm_eps=1e-05 \(only 1e-06\)"):
        import_weights(path, odd)


def test_a_model_must_be_named(tmp_path: Path) -> None:
    path, _, _ = saved(tmp_path, "ddpm-model")
    with pytest.raises(UserError, match="name the experiment that these weights are of"):
        import_weights(path)
    with pytest.raises(UserError, match="no published model is called 'ddpm/mnist'"):
        import_weights(path, "ddpm/mnist")


def test_weights_in_no_known_layout_are_refused(tmp_path: Path) -> None:
    _, target, _ = saved(tmp_path, "ddpm-model")
    torch.save({"w": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="in no known layout \\(first key 'w'\\)"):
        import_weights(tmp_path / "other.pt", target)
