"""Whole latent diffusion models by the commands: imported, sampled, exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from interop.latent.small_pipelines import DDIM, latent_pipeline, small_pipeline
from interop.latent.test_compvis import WITH_TEXT, config_of, content_of, text_of_transformers
from interop.latent.test_lora import LAYERS, TEXT, file_of
from tiny_runs import done, mistake


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusers import DDIMScheduler

    folder = tmp_path_factory.mktemp("pipeline")
    small_pipeline(folder / "tokenizer", DDIMScheduler(**DDIM)).save_pretrained(folder / "sd")
    return folder / "sd"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_pipeline_is_imported_sampled_and_exported(pipeline: Path) -> None:
    shutil.copytree(pipeline, "sd")
    out = done("weights", "import", "sd", "--out", "ours").out
    assert "sd -> ours: try `difflab sample run=ours n=4 'prompts=[\"a red circle\"]'`" in out
    out = done("weights", "inspect", "ours").out
    assert "layout   difflab" in out
    assert "beside it is of" not in out
    shutil.rmtree("sd")
    Path("ours").rename("moved")
    done("sample", "run=moved", "n=2", 'prompts=["a red cat","cat"]', "sampler.steps=2", "out=samples")
    drawn = sorted(Path("samples").glob("*.png"))
    assert Image.open(drawn[0]).size == (16, 16)
    out = done("weights", "export", "moved", "--out", "back", "--layout", "diffusers").out
    assert "moved -> back" in out
    done("weights", "import", "back", "--out", "again")
    for name in ("model.safetensors", "first_stage/model.safetensors", "text_encoder/model.safetensors"):
        assert Path("again", name).read_bytes() == Path("moved", name).read_bytes(), name


@pytest.mark.parametrize(
    ("part", "name"), [("vae", "first_stage"), ("text_encoder", "text_encoder"), ("unet", "network")]
)
def test_a_part_that_is_not_finite_is_named_on_import(pipeline: Path, part: str, name: str) -> None:
    shutil.copytree(pipeline, "sd")
    file = next(Path("sd", part).glob("*.safetensors"))
    state = load_file(file)
    state[next(iter(sorted(state)))].view(-1)[0] = torch.nan
    save_file(state, file, metadata={"format": "pt"})
    told = " ".join(done("weights", "import", "sd", "--out", "broken").out.split())
    assert f"note: not finite, so that nothing can be drawn with them: {name}." in told


def test_a_pipeline_is_inspected_part_by_part(pipeline: Path) -> None:
    shutil.copytree(pipeline, "sd")
    out = done("weights", "inspect", "sd").out
    assert "format   folder of StableDiffusionPipeline\n" in out
    lines = [line for line in out.splitlines() if line.startswith(("part ", "unet ", "tokenizer "))]
    assert [line.index(line.split()[1]) for line in lines] == [14, 14, 14]
    assert lines[-1].split()[1:3] == ["UNet2DConditionModel", "985,444"]
    assert lines[-1].endswith("diffusion_pytorch_model.safetensors    network at 8x8")
    found = json.loads(done("weights", "inspect", "sd", "--json").out)
    assert [part["name"] for part in found["parts"] if part["dtypes"]] == ["text_encoder", "unet", "vae"]
    assert "network alone" not in out
    assert json.loads(done("weights", "inspect", "sd/vae", "--json").out)["parts"] == []


def test_a_pipeline_without_conditions_is_imported_sampled_and_exported() -> None:
    from diffusers import DDIMScheduler

    latent_pipeline(DDIMScheduler(clip_sample=False, steps_offset=1)).save_pretrained("ldm")
    out = done("weights", "import", "ldm", "--out", "ours").out
    assert out == "ldm -> ours: try `difflab sample run=ours n=4`\n"
    done("sample", "run=ours", "n=1", "sampler.steps=2", "out=samples")
    assert Image.open(sorted(Path("samples").glob("*.png"))[0]).size == (16, 16)
    out = done("weights", "export", "ours", "--out", "back", "--layout", "diffusers").out
    assert "note: diffusers draws as the run's own sampler does with LDMPipeline.from_pretrained('back')" in out
    done("weights", "import", "back", "--out", "again")
    for name in ("model.safetensors", "first_stage/model.safetensors"):
        assert Path("again", name).read_bytes() == Path("ours", name).read_bytes(), name


def test_loras_are_merged_on_import(pipeline: Path) -> None:
    shutil.copytree(pipeline, "sd")
    file_of(Path("lora.safetensors"), "kohya", LAYERS, TEXT)
    loras = ("--lora", "lora.safetensors:0.5", "--lora", "lora.safetensors")
    out = done("weights", "import", "sd", "--out", "o", *loras).out
    assert "note: merged lora.safetensors with scale 0.5 into 3 layers" in out
    assert "note: merged lora.safetensors with scale 1 into 3 layers" in out
    message = mistake("weights", "import", "sd/vae", "--out", "v", "--lora", "lora.safetensors")
    assert "--lora lora.safetensors: sd/vae is not a whole latent diffusion model" in message


def test_mistakes_are_one_line(pipeline: Path) -> None:
    shutil.copytree(pipeline, "sd")
    assert "--preset: sd says itself what it is" in mistake(
        "weights", "import", "sd", "--out", "o", "--preset", "sd/v1"
    )
    message = mistake("weights", "import", "sd/unet", "--out", "o")
    assert "unet: the network alone of a latent diffusion model; give the folder of its pipeline" in message
    message = mistake("weights", "import", "sd", "--out", "o", "--categories", "phrases.txt")
    assert "--categories: sd says itself what it is" in message
    message = mistake("weights", "import", "sd/vae", "--out", "o", "--categories", "phrases.txt")
    assert "--categories phrases.txt: sd/vae is not a whole latent diffusion model: leave it out" in message
    message = mistake("weights", "import", "sd", "--out", "o", "--activation", "gelu")
    assert "--activation: sd says itself what it is" in message
    shutil.rmtree("sd/vae")
    assert "has no folder vae/" in mistake("weights", "import", "sd", "--out", "o")
    assert not Path("o").exists()


def test_a_checkpoint_is_imported_by_its_experiment_and_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(**WITH_TEXT)
    content = content_of(config, text_of_transformers())
    torch.save(content, "v1.ckpt")
    assert "none of the published ones known here: name the experiment" in mistake(
        "weights", "import", "v1.ckpt", "--out", "o"
    )
    out = done("weights", "inspect", "v1.ckpt").out
    assert "layout   compvis\n" in out
    assert "is       latent diffusion model, denoiser of 4-channel images, autoencoder (KL), f=2" in out
    assert "text encoder under the names of transformers" in out
    assert "it has no averages of training" in out
    monkeypatch.setattr("difflab.commands.weights_latent.model_of_experiment", lambda name: config)
    out = done("weights", "import", "v1.ckpt", "--out", "ours", "--preset", "ldm/mine").out
    assert "v1.ckpt -> ours: try `difflab sample run=ours n=4" in out
    assert "note: it has no averages (model_ema.*): took the weights as they are" in out
    done("sample", "run=ours", "n=1", 'prompts=["a red cat"]', "sampler.steps=2", "out=samples")
    message = mistake("weights", "import", "v1.ckpt", "--out", "o", "--preset", "ldm/mine", "--categories", "no.txt")
    assert "no.txt: no such file" in message
    Path("phrases.txt").write_text("tree")
    message = mistake("weights", "import", "v1.ckpt", "--out", "o", "--preset", "m", "--categories", "phrases.txt")
    assert "--categories phrases.txt: ldm/mine is not conditioned on boxes" in message
    out = done("weights", "export", "ours", "--out", "back.ckpt", "--layout", "compvis").out
    assert "note: the file does not say diffusion.prediction=eps" in out
    back = torch.load("back.ckpt", weights_only=True)["state_dict"]
    assert back.keys() == content["state_dict"].keys()
    assert all(torch.equal(back[key], value) for key, value in content["state_dict"].items())
    torch.save({key: value for key, value in content["state_dict"].items() if "first_stage" not in key}, "part.ckpt")
    message = mistake("weights", "import", "part.ckpt", "--out", "o", "--preset", "ldm/mine")
    assert "part.ckpt: no checkpoint of a UNet (model.diffusion_model.*) with its first stage" in message
    message = mistake("weights", "export", "ours", "--out", "back", "--layout", "compvis")
    assert "back: end the name in .ckpt or .safetensors" in message
    for which, line in (("ema", "has no averages"), ("both", "is not one of auto, ema, raw")):
        message = mistake("weights", "import", "v1.ckpt", "--out", "o", "--preset", "ldm/mine", "--weights", which)
        assert line in message
    out = done("weights", "import", "v1.ckpt", "--out", "stage", "--wrapper", "state_dict.first_stage_model").out
    assert "v1.ckpt (compvis_autoencoder) -> stage" in out
