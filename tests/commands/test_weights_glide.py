"""GLIDE's weights by the commands: imported, drawn from with prompts, exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from difflab.commands import composing
from difflab.conf_dir import conf_dir
from difflab.interop.glide import GLIDE
from difflab.interop.presets import preset_named
from difflab.pipelines.stored import load_stored
from golden_fixtures import draw, load
from interop.glide_files import glide_state, glide_target
from tiny_runs import ON_CPU, done, mistake

FIXTURE = "glide_text2im_tiny_3level"
PROMPTS = 'prompts=["a red, round circle","it\'s a \\"blue\\" square: small"]'


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The weights of a small GLIDE in base.pt; glide/base64 is its experiment."""
    fixture = load("multimodal", FIXTURE)
    target, state = glide_target(fixture), glide_state(fixture)
    conf = Path(shutil.copytree(conf_dir(), tmp_path / "conf"))
    network = target.network.model_dump(mode="json") | {"dropout": 0.0}
    conditioning = {name: config.model_dump(mode="json") for name, config in target.conditioning.items()}
    conditioning["caption"] |= {"drop_rate": 0.2}
    conditioning["caption"]["tokenizer"] |= {"too_long": "truncate"}
    (conf / "network" / "glide_base.yaml").write_text(yaml.safe_dump(network))
    (conf / "conditioning" / "glide.yaml").write_text(yaml.safe_dump(conditioning))
    experiment = conf / "experiment" / "glide" / "base64.yaml"
    experiment.write_text(experiment.read_text().replace("image_size: 64", f"image_size: {target.image_size}"))
    # Where configurations are composed alone: weights are compared with the model as it was published.
    monkeypatch.setattr(composing, "conf_dirs", lambda: (conf,))
    torch.save(state, "base.pt")
    return state


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


def test_a_file_comes_in_draws_prompts_and_goes_out(official: dict[str, Tensor]) -> None:
    said = done("weights", "import", "base.pt", "--preset", "glide/base64", "--out", "ours").out
    assert "base.pt (glide) -> ours: try `difflab sample run=ours n=4 'prompts=[\"a red circle\"]'`" in said
    config = load_stored("ours")[1].config
    assert (config.sampler.kind, config.sampler.steps, config.sampler.spacing) == ("ancestral", 100, "sections")
    assert (config.guidance.kind, config.guidance.scale, config.guidance.threshold) == ("classifier_free", 3, "auto")
    assert "text transformer of 3 layers of 48 channels on 6 tokens" in done("weights", "inspect", "ours").out
    done("sample", "run=ours", "n=4", "sampler.steps=2", PROMPTS, "out=drawn", *ON_CPU)
    record = json.loads(Path("drawn/sample.json").read_text())
    assert record["shows"] == ["a red, round circle", 'it\'s a "blue" square: small'] * 2
    assert "this model reads caption, which is missing" in mistake("sample", "run=ours", "n=1", *ON_CPU)
    said = done("weights", "export", "ours", "--layout", "glide", "--out", "back.pt").out
    assert "note: the file does not contain the tokenizer (byte_pairs (of sha256 " in said
    assert same(torch.load("back.pt", weights_only=True), official)


def test_guidance_is_of_the_first_three_channels_and_the_empty_caption(official: dict[str, Tensor]) -> None:
    done("weights", "import", "base.pt", "--preset", "glide/base64", "--out", "ours")
    fast = ("n=1", "sampler.steps=2", "png=false", "grid=false", *ON_CPU)
    done("sample", "run=ours", *fast, 'prompts=[""]', "out=empty", "guidance.scale=1")
    done("sample", "run=ours", *fast, 'prompts=[""]', "out=guided", "guidance.scale=3")
    done("sample", "run=ours", *fast, 'prompts=["a red circle"]', "out=red", "guidance.scale=3")
    pixels = {name: np.load(Path(name) / "samples.npz")["arr_0"].astype(int) for name in ("empty", "guided", "red")}
    # Guiding the empty caption against itself changes nothing.
    assert np.abs(pixels["empty"] - pixels["guided"]).max() <= 1
    assert np.abs(pixels["guided"] - pixels["red"]).max() > 16


def test_mistakes_are_one_line(official: dict[str, Tensor]) -> None:
    torch.save(official | {"input_blocks.0.0.weight": torch.ones(32, 7, 3, 3)}, "base_inpaint.pt")
    for options in (("--preset", "glide/base64"), ()):
        message = mistake("weights", "import", "base_inpaint.pt", *options, "--out", "ours")
        assert "base_inpaint.pt: this is GLIDE's inpainting model (takes the known pixels and a mask" in message
    torch.save({key: value for key, value in official.items() if key != "final_ln.bias"}, "cut.pt")
    message = mistake("weights", "import", "cut.pt", "--preset", "glide/base64", "--out", "ours")
    assert "cut.pt: these weights do not fit the glide layout of this network: final_ln.bias [48] is missing" in message
    message = mistake("weights", "import", "base.pt", "--out", "ours")
    assert "base.pt: name the experiment that these weights are of" in message
    message = mistake("weights", "import", "base.pt", "--preset", "glide/shapes32", "--out", "ours")
    assert (
        "--preset glide/shapes32: its runs find their tokenizers, text encoders or first stages when they start"
        in message
    )
    assert not Path("ours").exists()


@pytest.mark.slow
def test_the_released_model_comes_in_and_goes_out(tmp_path: Path) -> None:
    shapes = GLIDE.keymap(preset_named("glide/base64").target()).official_shapes
    # Released in half precision but for a few tensors; the values of large ones repeat.
    state = {key: torch.from_numpy(draw(0, key, (min(shape[0], 64), *shape[1:]))) for key, shape in shapes.items()}
    state = {
        key: value.repeat(-(-shapes[key][0] // len(value)), *[1] * (value.ndim - 1))[: shapes[key][0]]
        for key, value in state.items()
    }
    state = {key: value.half() if value.ndim > 2 else value for key, value in state.items()}
    torch.save(state, "base.pt")
    assert "fits     glide/base64" in done("weights", "inspect", "base.pt").out
    done("weights", "import", "base.pt", "--preset", "glide/base64", "--out", "ours")
    done("weights", "export", "ours", "--layout", "glide", "--out", "back.pt")
    assert same(torch.load("back.pt", weights_only=True, mmap=True), state)
