from __future__ import annotations

import copy
from pathlib import Path
from weakref import WeakValueDictionary

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from difflab import frozen_files
from difflab.config.parts import FrozenConfig
from difflab.errors import UserError
from difflab.networks import frozen
from difflab.networks.frozen import Frozen
from difflab.parts import loading
from difflab.parts.loading import load_frozen
from difflab.parts.selection import Count, count, frozen_names, frozen_parts, frozen_state, trained, written
from parts.frozen_conditioner import CLASSES, WIDTH, FrozenConditioner, write_encoder

PROJECTION = {"conditioners.projection.weight", "conditioners.projection.bias"}


@pytest.fixture
def source(tmp_path: Path) -> FrozenConfig:
    return write_encoder(tmp_path / "encoder.safetensors")


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "_LOADED", WeakValueDictionary())


def model(source: FrozenConfig, width: int = 8) -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"conditioners": FrozenConditioner(source, width)})


def encoder(module: nn.Module) -> Frozen:
    (part,) = frozen_parts(module).values()
    return part


def test_the_weights_are_those_of_the_file_and_buffers_of_no_file_are_there(source: FrozenConfig) -> None:
    loaded = model(source)
    load_frozen(loaded)
    state = load_file(str(source.path))
    label = torch.tensor([0, 5, 5])
    expected = state["table.weight"][label] * 2.0 + 0.25
    assert torch.equal(loaded.conditioners.encoder(label), expected)


def test_it_is_neither_trained_nor_written_nor_asked_for(source: FrozenConfig) -> None:
    loaded = model(source)
    load_frozen(loaded)
    assert set(trained(loaded)) == set(written(loaded)) == PROJECTION
    assert count(loaded) == Count(trained=40, frozen=0, elsewhere=CLASSES * WIDTH)
    assert not any(p.requires_grad for p in encoder(loaded).module.parameters())
    loaded.load_state_dict(written(loaded), strict=True)
    assert set(frozen_state(loaded)) == {"conditioners.encoder.table.weight", "conditioners.encoder.scale"}


def test_it_stays_in_evaluation_mode_and_lets_gradients_through(source: FrozenConfig) -> None:
    loaded = model(source)
    load_frozen(loaded)
    loaded.train().requires_grad_(True)
    inner = encoder(loaded).module
    assert not any(module.training for module in inner.modules())
    assert not any(p.requires_grad for p in inner.parameters())
    label = torch.tensor([1, 2])
    assert torch.equal(loaded.conditioners.encoder(label), loaded.conditioners.encoder(label)), "dropout"
    loaded.conditioners({"label": label}).vector.sum().backward()
    assert loaded.conditioners.projection.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in inner.parameters())


def test_models_share_what_is_loaded_once(
    source: FrozenConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read: list[Path] = []
    original = loading.read_tensors
    monkeypatch.setattr(loading, "read_tensors", lambda path: (read.append(path), original(path))[1])
    copied = tmp_path / "copy.safetensors"
    copied.write_bytes(Path(str(source.path)).read_bytes())
    one, two, three = model(source), model(source), model(FrozenConfig(path=str(copied)))
    for each in (one, two, three, one):
        load_frozen(each)
    assert encoder(one).module is encoder(two).module is encoder(three).module
    assert len(read) == 1
    other = model(write_encoder(tmp_path / "other.safetensors", seed=1))
    load_frozen(other)
    assert encoder(other).module is not encoder(one).module


def test_a_model_that_moves_leaves_the_others_where_they_are(source: FrozenConfig) -> None:
    one, two, three = model(source), model(source), model(source)
    for each in (one, two, three):
        load_frozen(each)
    one.double()
    assert encoder(one).module.table.weight.dtype == torch.float64
    assert encoder(two).module.table.weight.dtype == torch.float32
    three.double()
    assert encoder(three).module is encoder(one).module
    one.float()
    assert encoder(one).module is encoder(two).module
    two.to(memory_format=torch.channels_last)
    assert encoder(one).module is encoder(two).module
    assert not any(p.requires_grad for p in encoder(three).module.parameters())


def test_a_copy_of_a_model_works(source: FrozenConfig) -> None:
    loaded = model(source)
    load_frozen(loaded)
    label = torch.tensor([3])
    assert torch.equal(copy.deepcopy(loaded).conditioners.encoder(label), loaded.conditioners.encoder(label))


def test_nothing_of_it_is_built_or_read_for_the_shapes_of_a_model(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = model(FrozenConfig(path=str(tmp_path / "gone")))
    assert set(written(shapes)) == PROJECTION
    assert count(shapes).elsewhere == 0
    with pytest.raises(AssertionError, match="load_frozen"):
        shapes.conditioners.encoder(torch.tensor([1]))


def test_loading_draws_nothing(source: FrozenConfig) -> None:
    loaded = model(source)
    before = torch.random.get_rng_state()
    load_frozen(loaded)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_model_on_the_meta_device_is_loaded_on_the_cpu(source: FrozenConfig) -> None:
    with torch.device("meta"):
        loaded = model(source)
        load_frozen(loaded)
    assert all(not t.is_meta for t in [*encoder(loaded).module.parameters(), *encoder(loaded).module.buffers()])


def test_other_files_are_refused_in_one_line(source: FrozenConfig, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("DIFFLAB_WEIGHTS", raising=False)
    changed = FrozenConfig(path=source.path, sha256="0" * 64)
    other = tmp_path / "other.safetensors"
    save_file({"table.weight": torch.ones(2, 2)}, other)
    empty = tmp_path / "empty.safetensors"
    empty.touch()
    for part, words in (
        (changed, "the model was trained with 0000000000000000..."),
        (FrozenConfig(path=str(tmp_path / "gone")), "gone does not exist"),
        (FrozenConfig(path=str(other)), "other.safetensors is of another architecture: table.weight is [2, 2]"),
        (FrozenConfig(path=str(empty)), "the file is empty"),
    ):
        with pytest.raises(UserError) as refusal:
            load_frozen(model(part))
        assert str(refusal.value).startswith("conditioners.encoder: ")
        assert words in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_a_pattern_that_names_a_frozen_part_says_so(source: FrozenConfig) -> None:
    for key in ("freeze", "train"):
        with pytest.raises(UserError, match=r"conditioners\.encoder is a frozen part, which is never trained"):
            frozen_names(model(source), **{"freeze": [], "train": [], key: ["conditioners.encoder.*"]})


def test_the_hash_is_looked_up_through_the_cache(source: FrozenConfig) -> None:
    load_frozen(model(source))
    assert any(key[0] == source.path for key in frozen_files._known)
