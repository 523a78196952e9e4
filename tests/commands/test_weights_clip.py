"""CLIPs by the commands: what is inspected, imported and exported, and what a training begins with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from difflab.conf_dir import conf_dir
from difflab.config import groups
from difflab.networks.towers.positions import resized_positions
from difflab.pipelines.stored import load_stored
from interop.clip_files import official, open_clip_config, script_of, written
from tiny_runs import difflab, done, mistake


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An experiment of the small CLIP of `clip_files`, as if it were a published one."""
    conf = Path(shutil.copytree(conf_dir(), tmp_path / "conf"))
    network = yaml.safe_load((conf / "network" / "clip_vit_b32.yaml").read_text())
    network |= {"embedding_dim": 32}
    network["image"] |= {"patch_size": 8, "width": 64, "layers": 2, "heads": 1}
    network["text"] |= {"width": 64, "layers": 2, "heads": 1, "context_length": 16}
    (conf / "network" / "clip_tiny.yaml").write_text(yaml.safe_dump(network))
    experiment = (conf / "experiment" / "clip" / "vit_b32.yaml").read_text()
    experiment = experiment.replace("clip_vit_b32", "clip_tiny").replace("image_size: 224", "image_size: 32")
    experiment = experiment.replace("tokenizer:\n", "tokenizer:\n  context_length: 16\n")
    (conf / "experiment" / "clip" / "tiny.yaml").write_text("# @package _global_\n" + experiment)
    monkeypatch.setattr(groups, "conf_dir", lambda: conf)
    return "clip/tiny"


def saved(name: str, activation: str = "quick_gelu") -> dict[str, torch.Tensor]:
    state = official(activation).state_dict()
    torch.save(state, name)
    return state


def test_a_file_without_anything_beside_it_needs_an_activation(preset: str) -> None:
    state = saved("weights.pt")
    message = mistake("weights", "import", "weights.pt", "--out", "ours")
    assert "weights.pt: nothing says which activation these weights were trained with" in message
    assert "as in --preset clip/vit_b32, or give --activation quick_gelu (OpenAI's) or gelu (most others)" in message
    assert "--activation relu is none of quick_gelu, gelu" in mistake(
        "weights", "import", "weights.pt", "--out", "ours", "--activation", "relu"
    )
    assert not Path("ours").exists()
    out = done("weights", "import", "weights.pt", "--out", "ours", "--activation", "gelu").out
    assert "weights.pt (openai_clip) -> ours: try `difflab weights inspect ours`" in out
    assert "note: took heads of 64 channels, and the mean and std of OpenAI's images" in out
    model, stored = load_stored("ours")
    assert stored.config.network.activation == "gelu"
    assert torch.equal(model.network.text.position, state["positional_embedding"])
    out = done("weights", "import", "weights.pt", "--out", "preset", "--preset", preset).out
    assert "note: nothing beside these weights says their activation: taken for quick_gelu" in out
    assert load_stored("preset")[1].config.experiment == preset


def test_an_archive_of_openai_is_imported_inspected_and_exported(preset: str) -> None:
    state = official().state_dict()
    Path("ViT.pt").write_bytes(script_of(state, input_resolution=32, context_length=16, vocab_size=49408))
    found = json.loads(done("weights", "inspect", "ViT.pt", "--json").out)
    assert (found["format"], found["layout"]) == ("torchscript", "openai_clip")
    assert found["facts"][1] == "activation not told by keys and shapes"
    done("weights", "import", "ViT.pt", "--out", "ours", "--preset", preset)
    text = done("weights", "inspect", "ours").out
    assert "is       CLIP with a ViT of 2 layers of 64 channels on patches of 8 pixels at 32 pixels" in text
    assert "activation quick_gelu" in text
    assert "ours: these are difflab's own weights" in mistake("weights", "import", "ours", "--out", "again")
    for layout, out in (("openai_clip", "out.pt"), ("open_clip_custom", "custom"), ("transformers_clip", "hf")):
        said = done("weights", "export", "ours", "--layout", layout, "--out", out).out
        assert ("note: the file says neither the activation (quick_gelu)" in said) == (out == "out.pt")
        assert json.loads(done("weights", "inspect", out, "--json").out)["layout"] == layout
        given = ("--activation", "quick_gelu") if out == "out.pt" else ()
        done("weights", "import", out, "--out", f"{out}-back", *given)
        ours, back = (load_file(Path(folder) / "model.safetensors") for folder in ("ours", f"{out}-back"))
        assert ours.keys() == back.keys()
        assert all(torch.equal(back[key], value) for key, value in ours.items())
    for folder, program in (("hf", "transformers"), ("custom", "open_clip")):
        message = mistake("sample", f"run={folder}", "n=1")
        assert f"run={folder} is a folder of {program}, not of difflab; make it one with `difflab weights" in message
        assert f"`difflab weights import {folder} --out FOLDER`" in message
    assert load_stored("hf-back")[1].config == load_stored("ours")[1].config


def test_the_silent_mismatch_of_activations_is_refused(preset: str) -> None:
    saved("open_clip_pytorch_model.bin", "gelu")
    written(Path("open_clip_config.json"), open_clip_config("gelu"))
    command = ("weights", "import", "open_clip_pytorch_model.bin", "--out", "ours")
    message = mistake(*command, "--preset", preset)
    assert 'its activation is "gelu", but the requested model has "quick_gelu"' in message
    message = mistake(*command, "--activation", "quick_gelu")
    assert "--activation quick_gelu, but open_clip_pytorch_model.bin has gelu: leave it out" in message
    assert not Path("ours").exists()
    done(*command)
    assert load_stored("ours")[1].config.network.activation == "gelu"
    found = json.loads(done("weights", "inspect", "open_clip_pytorch_model.bin", "--json").out)
    assert found["facts"][1] == "activation gelu"


def test_a_preset_that_learns_its_tokenizer_is_none_for_weights() -> None:
    saved("weights.pt")
    message = mistake("weights", "import", "weights.pt", "--out", "ours", "--preset", "clip/shapes32")
    assert (
        "--preset clip/shapes32: its runs find their tokenizers, text encoders or first stages when they start"
        in message
    )


def test_an_activation_is_for_clips(tiny_run: Path) -> None:
    done("weights", "export", tiny_run, "--out", "theirs", "--layout", "diffusers")
    message = mistake("weights", "import", "theirs", "--out", "ours", "--activation", "gelu")
    assert message.endswith("--activation gelu: only a CLIP has one; leave it out")


def test_a_unet_leaves_in_no_layout_of_clips(tiny_run: Path) -> None:
    for layout in ("openai_clip", "open_clip_custom", "transformers_clip"):
        message = mistake("weights", "export", tiny_run, "--out", "out", "--layout", layout)
        assert "has no network of kind unet; use another layout" in message
        assert not Path("out").exists()


CLIPS = ("tokenizer=clip", "tokenizer.vocabulary=49408")
SMALL = (
    "experiment=clip/shapes32",
    "network=clip_small",
    "network.embedding_dim=32",
    "network.image={kind: vit, patch_size: 8, width: 64, layers: 2, heads: 1}",
    "network.text.width=64",
    "network.text.layers=2",
    "network.text.heads=1",
    "network.mean=[0.48145466,0.4578275,0.40821073]",
    "network.std=[0.26862954,0.26130258,0.27577711]",
    "tokenizer.too_long=truncate",
    "data.batch_size=4",
    "callbacks.throughput=null",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_steps=1",
    "trainer.val_every_steps=0",
    "optimizer.lr=1e-9",
    "logger=csv",
    "init=weights",
    "init.from=ours",
)


@pytest.fixture
def ours(preset: str) -> Path:
    saved("weights.pt")
    done("weights", "import", "weights.pt", "--out", "ours", "--preset", preset)
    return Path("ours")


def test_positions_are_resized_where_images_and_texts_have_another_size(ours: Path, tiny_shapes: Path) -> None:
    """The tiny shapes have 16 pixels, the weights are for 32."""
    ended = done(
        "train", *SMALL, *CLIPS, f"data.path={tiny_shapes}", "name=tuned", "network.activation=quick_gelu",
        "tokenizer.context_length=10",
    )  # fmt: skip
    assert "init: image.position is resized from 16 to 4 patches" in ended.err
    assert "init: text.position is truncated from 16 to 10 tokens" in ended.err
    begun = load_stored("runs/clip/shapes32/tuned", "raw")[0].network
    source = load_stored(ours)[0].network
    torch.testing.assert_close(begun.image.position, resized_positions(source.image.position, 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(begun.text.position, source.text.position[:10], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network.activation=gelu"], "was trained with network.activation=quick_gelu, but this run has gelu: weights"),
        (["network.image.heads=4"], "was trained with network.image.heads=1, but this run has 4"),
        (["network.mean=[0.5,0.5,0.5]"], "was trained with network.mean=[0.481455,"),
        (["tokenizer.context_length=20"], "ours: its texts have 16 tokens, not 20: set tokenizer.context_length=16"),
    ],
)
def test_what_weights_do_not_show_has_to_agree(
    ours: Path, tiny_shapes: Path, overrides: list[str], message: str
) -> None:
    base = ("network.activation=quick_gelu", "tokenizer.context_length=16")
    line = mistake("train", *SMALL, *CLIPS, f"data.path={tiny_shapes}", *base, *overrides)
    assert message in line


def test_weights_belong_to_their_tokenizer(ours: Path, tiny_shapes: Path) -> None:
    ended = difflab("train", *SMALL, f"data.path={tiny_shapes}", "network.activation=quick_gelu")
    assert ended.status == 2
    said = "init.from=ours was trained with tokenizer=clip, but this run has byte_pairs (of sha256 "
    assert said in ended.last_error
