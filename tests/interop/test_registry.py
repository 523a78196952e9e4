from __future__ import annotations

from pathlib import Path

import pytest
import torch

from difflab.errors import UserError
from difflab.interop.layout import Target
from difflab.interop.native import save_export
from difflab.interop.presets import PRESETS
from difflab.interop.registry import LAYOUTS, export_weights, identify, import_weights
from golden_fixtures import load
from networks.official_networks import build_target, target_and_layout


def saved(tmp_path: Path, name: str = "ddpm-model") -> tuple[Path, Target, dict[str, torch.Tensor]]:
    fixture = load("diffusion", name)
    target, _ = target_and_layout(fixture)
    state = fixture.state_dict()
    path = tmp_path / f"{name}.ckpt"
    torch.save(state, path)
    return path, target, state


def released_cifar10(tmp_path: Path) -> Path:
    """A file with every key and shape of the released CIFAR-10 model, in half precision zeros."""
    keymap = LAYOUTS["pesser"].keymap(PRESETS["ddpm/cifar10"].target())
    path = tmp_path / "ema_diffusion_cifar10_model-790000.ckpt"
    torch.save({key: torch.zeros(shape, dtype=torch.float16) for key, shape in keymap.official_shapes.items()}, path)
    return path


def test_imported_weights_give_the_official_output(tmp_path: Path) -> None:
    path, target, _ = saved(tmp_path)
    imported = import_weights(path, target)
    assert imported.layout == "pesser"
    network = build_target(target)
    network.load_state_dict(imported.state)
    fixture = load("diffusion", "ddpm-model")
    with torch.inference_mode():
        fixture.check("out", network(fixture.input("x"), fixture.input("t")))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_export_gives_back_what_was_imported(tmp_path: Path, suffix: str) -> None:
    path, target, state = saved(tmp_path)
    out = tmp_path / "new" / f"back{suffix}"
    assert export_weights(out, import_weights(path, target).state, target, "pesser") == [out]
    again = import_weights(out, target, layout="pesser").state
    assert all(torch.equal(again[key], value) for key, value in import_weights(path, target).state.items())
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    assert len(state) == sum(3 if key.split(".")[-2] == "qkv" else 1 for key in again)


def test_export_needs_a_known_ending_and_layout(tmp_path: Path) -> None:
    path, target, _ = saved(tmp_path)
    state = import_weights(path, target).state
    with pytest.raises(UserError, match=r"end the name in \.safetensors or \.pt"):
        export_weights(tmp_path / "out.onnx", state, target, "pesser")
    with pytest.raises(UserError, match="no layout is called 'keras'; there are pesser, diffusers"):
        export_weights(tmp_path / "out.pt", state, target, "keras")


def test_a_released_file_is_recognised(tmp_path: Path) -> None:
    found = identify(released_cifar10(tmp_path))
    assert found.layout == "pesser"
    assert found.presets == ("ddpm/cifar10",)
    assert (found.tensors, found.parameters, found.dtypes) == (328, 35_746_307, ("float16",))


def test_unknown_networks_keep_their_layout(tmp_path: Path) -> None:
    path, _, _ = saved(tmp_path)
    found = identify(path)
    assert (found.layout, found.presets) == ("pesser", ())
    torch.save({"w": torch.ones(1)}, tmp_path / "other.pt")
    assert identify(tmp_path / "other.pt").layout is None


def test_the_two_orders_of_attention_must_be_told_apart_by_the_user(tmp_path: Path) -> None:
    path, target, _ = saved(tmp_path, "improved-unet")
    found = identify(path)
    assert found.layout == "guided"
    assert found.notes == ("the keys are the same in guided and guided-new-order",)
    with pytest.raises(UserError, match="do not tell guided from guided-new-order; give the layout"):
        import_weights(path, target)
    assert import_weights(path, target, layout="guided").layout == "guided"


def test_weights_of_ours_are_recognised(tmp_path: Path) -> None:
    path, target, _ = saved(tmp_path)
    save_export(tmp_path / "export", import_weights(path, target).state, {})
    found = identify(tmp_path / "export")
    assert (found.layout, found.tensors) == ("difflab", 128)


def test_the_wrong_network_is_refused_and_the_right_one_named(tmp_path: Path) -> None:
    path = released_cifar10(tmp_path)
    with pytest.raises(UserError) as error:
        import_weights(path, "ddpm/lsun_church")
    message = str(error.value)
    assert str(path) in message
    assert "down.1.block.0.conv1.weight is [256, 128, 3, 3], expected [128, 128, 3, 3]" in message
    assert message.endswith("(they fit ddpm/cifar10)")
    assert "\n" not in message


def test_a_network_that_the_layout_cannot_express_is_refused(tmp_path: Path) -> None:
    path, target, _ = saved(tmp_path)
    odd = Target(target.network.model_copy(update={"norm_eps": 1e-5}), target.image_size)
    with pytest.raises(UserError, match=r"pesser/pytorch_diffusion has no network with norm_eps=1e-05 \(only 1e-06\)"):
        import_weights(path, odd)


def test_a_network_must_be_named(tmp_path: Path) -> None:
    path, _, _ = saved(tmp_path)
    with pytest.raises(UserError, match="name the network these weights are for"):
        import_weights(path)
    with pytest.raises(UserError, match="no published network is called 'ddpm/mnist'"):
        import_weights(path, "ddpm/mnist")


def test_weights_in_no_known_layout_are_refused(tmp_path: Path) -> None:
    _, target, _ = saved(tmp_path)
    torch.save({"w": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="in no known layout \\(first key 'w'\\)"):
        import_weights(tmp_path / "other.pt", target)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights in this folder"):
        identify(tmp_path)
