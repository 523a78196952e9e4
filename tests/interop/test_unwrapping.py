from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from difflab.errors import UserError
from difflab.interop.layouts import LAYOUTS
from difflab.interop.unwrapping import WRAPPERS, read_weights

STATE = {"a.weight": torch.arange(600.0).reshape(20, 30), "a.bias": torch.ones(20)}
OTHER = {key: torch.zeros_like(value) for key, value in STATE.items()}
GUIDED = {LAYOUTS["guided"].marker: torch.ones(4, 3, 3, 3), "out.2.bias": torch.arange(3.0)}
OURS = {
    "network.encoder.0.block.0.norm1.weight": torch.ones(4),
    "conditioners.label.embedding.weight": torch.ones(2, 4),
}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in b)


@pytest.mark.parametrize("state", [STATE, GUIDED, OURS], ids=["unknown", "guided", "ours"])
@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "ema_model.", "ema.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.model.",
     "model.ema_model.module._orig_mod.", "model.diffusion_model.", "_fsdp_wrapped_module.module."],
)  # fmt: skip
def test_prefixes_of_wrappers_are_dropped_in_any_order(tmp_path: Path, state: dict[str, Tensor], prefix: str) -> None:
    found = read_weights(saved(tmp_path / "file.pt", under(prefix, state)))
    assert same(found.state, state)
    said = " ".join(found.notes)
    assert all(f"{part}." in said for part in prefix.strip(".").split("."))


def test_what_wraps_nothing_is_no_prefix(tmp_path: Path) -> None:
    """`network.` is a part of our own keys, and `model` may be a layer."""
    assert same(read_weights(saved(tmp_path / "ours.pt", OURS)).state, OURS)
    layer = {"model": torch.ones(2, 2), "head.weight": torch.ones(2)}
    assert same(read_weights(saved(tmp_path / "layer.pt", layer)).state, layer)
    assert same(read_weights(saved(tmp_path / "wrapped.pt", under("network.", GUIDED))).state, GUIDED)


def test_torch_wrappers_are_dropped_inside_keys(tmp_path: Path) -> None:
    state = {key.replace("network.", "network._orig_mod."): value for key, value in OURS.items()}
    found = read_weights(saved(tmp_path / "file.pt", state))
    assert same(found.state, OURS)
    assert found.notes == ("dropped '_orig_mod.' from the keys",)


def test_a_compiled_copy_beside_the_weights_is_another_set(tmp_path: Path) -> None:
    other = {key: value + 1 for key, value in GUIDED.items()}
    path = saved(tmp_path / "file.pt", GUIDED | under("_orig_mod.", other))
    with pytest.raises(UserError, match="choose one, as with --wrapper _orig_mod"):
        read_weights(path)
    assert same(read_weights(path, "_orig_mod").state, other)


@pytest.mark.parametrize("entries", [["state_dict"], ["model"], ["checkpoint", "model"], ["a", "b", "c", "ema"]])
def test_nested_entries_are_opened_and_said(tmp_path: Path, entries: list[str]) -> None:
    content: Any = under("module.", GUIDED)
    for entry in reversed(entries):
        content = {entry: content, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(5, 5)}}}}
    found = read_weights(saved(tmp_path / "file.pt", content))
    assert same(found.state, GUIDED)
    assert f"took the weights under '{'.'.join(entries)}'" in found.notes
    assert any(note.startswith("left out the entries beside it: epoch, optimizer") for note in found.notes)
    assert "dropped the prefix 'module.' of every key" in found.notes


def test_an_optimizer_beside_unknown_weights_is_no_second_set(tmp_path: Path) -> None:
    content = {"optimizer": {"state": {0: {"exp_avg": torch.ones(5, 5)}}}, "state_dict": STATE, "rng": torch.ones(9)}
    found = read_weights(saved(tmp_path / "file.pt", content))
    assert same(found.state, STATE)
    assert found.notes == ("took the weights under 'state_dict'", "left out the entries beside it: optimizer, rng")


@pytest.mark.parametrize("state", [STATE, GUIDED], ids=["unknown", "guided"])
@pytest.mark.parametrize(
    ("names", "content"),
    [
        (("ema", "state_dict"), lambda a, b: {"state_dict": b, "ema": a, "epoch": 3}),
        (("ema_model", "model"), lambda a, b: {**under("model.", b), **under("ema_model.", a), "step": torch.ones(())}),
        (("state_dict.ema_model", "state_dict.model"),
         lambda a, b: {"state_dict": {**under("model.", b), **under("ema_model.", a)}, "epoch": 1}),
        (("ema.module", "model"), lambda a, b: {"model": b, "ema": under("module.", a), "optimizer": {}}),
    ],
)  # fmt: skip
def test_of_two_sets_one_has_to_be_chosen(
    tmp_path: Path, state: dict[str, Tensor], names: tuple[str, str], content: Any
) -> None:
    other = {key: value + 1 for key, value in state.items()}
    path = saved(tmp_path / "run.ckpt", content(state, other))
    with pytest.raises(UserError, match=r"holds several sets of weights, .*; choose one, as with --wrapper ") as error:
        read_weights(path)
    assert all(f"{name} (2 tensors)" in str(error.value) for name in names)
    first, second = (read_weights(path, name) for name in names)
    assert same(first.state, state)
    assert same(second.state, other)


def test_an_entry_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    path = saved(tmp_path / "run.ckpt", {"state_dict": STATE, "epoch": 3})
    with pytest.raises(UserError, match=r"no weights under 'ema'; its entries are state_dict, epoch"):
        read_weights(path, wrapper="ema")


def test_every_wrapper_may_be_the_entry(tmp_path: Path) -> None:
    for name in WRAPPERS:
        assert same(read_weights(saved(tmp_path / "file.pt", {name: STATE, "epoch": 1})).state, STATE)


@pytest.mark.parametrize(
    "beside",
    [
        np.float64(0.25), np.float32(1), np.int64(7), np.bool_(True), np.arange(5), np.ones((2, 2), order="F"),
        np.dtype("float32"), np.array(["text"]), np.array([None], dtype=object), 3, 2.5, "text", b"bytes", None, True,
        (1, 2), [1, {"lr": np.float64(1)}], {"best": np.float32(1)}, torch.Size([2, 3]), torch.float16,
        torch.device("cpu"), OrderedDict(a=1), {1, 2}, torch.tensor(3), 2**70,
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("legacy", [False, True])
def test_what_is_beside_the_weights_does_no_harm(tmp_path: Path, beside: Any, legacy: bool) -> None:
    path = tmp_path / "file.pt"
    for content in ({"state_dict": OrderedDict(GUIDED), "beside": beside}, {**GUIDED, "beside": beside}):
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        found = read_weights(path)
        assert same(found.state, GUIDED)
        assert any("left out" in note and "beside" in note for note in found.notes)


def test_weights_that_are_numpy_arrays_are_read(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3))}
    found = read_weights(saved(tmp_path / "file.pt", {"state_dict": arrays, "loss": np.float64(2)}))
    assert same(found.state, {"a": torch.arange(6.0).reshape(2, 3).double(), "b": torch.arange(6).short().view(2, 3)})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_precision_is_read_as_it_is(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {key: value.to(dtype) for key, value in GUIDED.items()}
    found = read_weights(saved(tmp_path / "file.pt", {"model": state, "loss": np.float32(1)}))
    assert same(found.state, state)
    assert {value.dtype for value in found.state.values()} == {dtype}


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    found = read_weights(saved(tmp_path / "run.pt", under("module.", STATE) | {"step": 7}))
    assert same(found.state, STATE)
    assert found.notes == (
        "left out entries that are not tensors: step",
        "dropped the prefix 'module.' of every key",
    )
    found = read_weights(saved(tmp_path / "run.pt", under("model.", GUIDED) | {"betas": torch.ones(9), "epoch": 1}))
    assert same(found.state, GUIDED)
    assert found.notes == (
        "left out entries that are not tensors: epoch",
        "left out tensors: betas",
        "dropped the prefix 'model.' of every key",
    )


def test_the_encoder_of_an_autoencoder_is_no_unet(tmp_path: Path) -> None:
    state = {"encoder.down_blocks.0.resnets.0.norm1.weight": torch.ones(4), "decoder.conv_in.weight": torch.ones(4)}
    save_file(state, tmp_path / "vae.safetensors")
    assert same(read_weights(tmp_path / "vae.safetensors").state, state)


@pytest.mark.parametrize(("content", "message"), [([1, 2], "holds a list"), ({"epoch": 1}, "no weights in it")])
def test_files_without_weights_are_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_weights(saved(tmp_path / "none.pt", content))


def test_a_mapping_inside_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = {"state_dict": dict(STATE)}
    content["again"] = content
    content["state_dict"]["again"] = content
    assert same(read_weights(saved(tmp_path / "file.pt", content)).state, STATE)
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"deeper": deep}
    assert same(read_weights(saved(tmp_path / "file.pt", {"state_dict": STATE, "deep": deep})).state, STATE)
