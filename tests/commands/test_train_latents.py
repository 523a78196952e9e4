"""`difflab train` of a model of latents, from images and from encoded shards, and what the run is good for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from command_line import TINY_NETWORK, run_difflab
from difflab.data.index import INDEX_NAME, read_index
from run_files import assert_same_run, checkpoint, losses
from tiny_runs import difflab, done, mistake
from warm_python import spawn_warm_difflab

RUNS = Path("runs/ldm/shapes64")
TINY = (
    "experiment=ldm/shapes64",
    "data.image_size=16",
    "data.batch_size=4",
    *TINY_NETWORK,
    "sampler.steps=3",
    "optimizer.schedule={warmup_steps: 0, decay: none}",
    "trainer.max_steps=6",
    "trainer.log_every_steps=1",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "callbacks.sample_grid=null",
    "callbacks.throughput=null",
    "logger=csv",
    "metrics=none",
)
ON_CPU = ("accelerator=cpu", "precision=32-true")


FIRST_STAGE = (
    "network.base_channels=8",
    "network.norm_groups=4",
    "network.middle_attention=false",
    "discriminator=null",
    "data.image_size=16",
    "data.batch_size=4",
    "perceptual=none",
    "trainer.max_steps=3",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.val_every_steps=0",
    "callbacks.reconstruction_grid=null",
    "logger=csv",
    "name=tiny",
)


@pytest.fixture(scope="module")
def first_stages(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a VQ autoencoder and of a KL one, whose latents are 4x4."""
    root = tmp_path_factory.mktemp("first_stages")
    for name in ("vq_f4_shapes64", "kl_f4_shapes64"):
        command = ["train", f"experiment=autoencoder/{name}", *FIRST_STAGE, f"data.path={tiny_shapes}"]
        ended = run_difflab(command, root)
        assert ended.status == 0, ended
    return root / "runs" / "autoencoder"


@pytest.fixture
def kl(first_stages: Path) -> Path:
    return first_stages / "kl_f4_shapes64" / "tiny"


def train(name: str, data: Path | str, first_stage: Path, *overrides: str) -> tuple[str, ...]:
    return ("train", *TINY, f"name={name}", f"data.path={data}", f"first_stage.weights.path={first_stage}", *overrides)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_encoded_latents_train_as_images_do_to_the_bit(tiny_shapes: Path, first_stages: Path, kind: str) -> None:
    first_stage = first_stages / f"{kind}_f4_shapes64" / "tiny"
    # Equal batches, so that the encoder sees the same ones as training does.
    done("data", "encode", f"path={tiny_shapes}", "out=encoded", f"first_stage={first_stage}", "accelerator=cpu")
    fields = read_index(Path("encoded") / INDEX_NAME).fields
    channels = {"kl": 8, "vq": 4}[kind]
    assert [(field.shape, field.dtype) for field in fields.values()] == [([channels, 4, 4], "float32")] * 2
    for name, data in (("images", tiny_shapes), ("latents", "encoded")):
        done(*train(name, data, first_stage, "data.flip=true"))
    assert losses(RUNS / "latents") == pytest.approx(losses(RUNS / "images"), rel=1e-5)
    log = (RUNS / "latents" / "log.txt").read_text()
    assert "which are read in place of running the encoder" in log
    assert "latents are scaled by" in log
    done(*train("unflipped", "encoded", first_stage))
    assert losses(RUNS / "unflipped") != losses(RUNS / "latents")


@pytest.mark.slow
def test_a_run_stops_goes_on_draws_and_is_exported(tiny_shapes: Path, kl: Path) -> None:
    straight, halves = train("straight", tiny_shapes, kl), train("halves", tiny_shapes, kl)
    done(*straight)
    done(*halves, "trainer.max_steps=3")
    done(*halves)
    assert_same_run(RUNS / "halves", RUNS / "straight")
    state = checkpoint(RUNS / "straight")["state_dict"]
    assert {"first_stage.scale", "first_stage.shift"} <= state.keys()
    assert not [key for key in state if key.startswith("first_stage.") and "autoencoder" in key]
    assert bool((state["first_stage.scale"] > 0).all())
    preview = ("trajectory=2", "preview=linear")
    done("sample", f"run={RUNS / 'straight'}", "n=3", "out=drawn", "size=[16,24]", *preview, *ON_CPU)
    assert (Path("drawn") / "trajectory.png").is_file()
    done("sample", f"run={RUNS / 'straight'}", "n=3", "out=drawn", *ON_CPU)
    done("weights", "export", str(RUNS / "straight"), "--out", "exported")
    done("sample", "run=exported", "n=3", "out=again", "batch_size=2", *ON_CPU)
    for number in range(3):
        name = f"{number:06d}.png"
        assert (Path("drawn") / name).read_bytes() == (Path("again") / name).read_bytes()


@pytest.mark.slow
def test_pictures_are_changed_and_kept_through_the_latent(tiny_shapes: Path, kl: Path) -> None:
    done(*train("straight", tiny_shapes, kl, "trainer.max_steps=2"))
    done("sample", f"run={RUNS / 'straight'}", "n=2", "out=first", *ON_CPU)
    from PIL import Image

    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (0, 0, 5, 16))
    mask.save("mask.png")
    image = ("images=first", f"run={RUNS / 'straight'}", "n=2", *ON_CPU)
    done("sample", *image, "start=0.7", "out=changed")
    done("sample", *image, "mask=mask.png", "out=filled")
    before, after = (Image.open(Path(folder) / "000000.png").convert("RGB") for folder in ("first", "filled"))
    kept = [(x, y) for x in range(5, 16) for y in range(16)]
    assert all(before.getpixel(place) == after.getpixel(place) for place in kept)
    assert any(before.getpixel((x, y)) != after.getpixel((x, y)) for x in range(5) for y in range(16))


def judged(*arguments: object) -> dict[str, float]:
    """What `difflab evaluate` measures."""
    folder = Path(done("evaluate", *arguments).out.rpartition("records in ")[2].strip())
    lines = map(json.loads, (folder / "evaluations.jsonl").read_text().splitlines())
    return {line["name"]: line["value"] for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, 2, 8])
def test_degraded_pictures_are_enlarged_in_latents(tiny_shapes: Path, kl: Path, size: int) -> None:
    """The latents are 4x4: the low-resolution image is resized to them, if it has another size."""
    run = Path("runs/ldm/shapes64_sr/sr")
    changes = [change.replace("shapes64", "shapes64_sr") if "experiment" in change else change for change in TINY]
    where = ("name=sr", f"data.path={tiny_shapes}", f"first_stage.weights.path={kl}")
    done("train", *changes, *where, f"conditioning.low_res.size={size}", "trainer.max_steps=2")
    drawing = (f"run={run}", "split=val", "n=3", *ON_CPU)
    done("sample", *drawing, "out=drawn")
    done("sample", *drawing, "out=again", "batch_size=2")
    for number in range(3):
        name = f"{number:06d}.png"
        assert (Path("drawn") / name).read_bytes() == (Path("again") / name).read_bytes()
    metrics = ("metrics=super_resolution", "metrics.fd=null", "metrics.kid=null", "metrics.ssim=null", "logger=none")
    data = ("data=shapes64", f"data.path={tiny_shapes}", "data.image_size=16", "accelerator=cpu")
    direct = judged(*drawing, *metrics)
    assert set(direct) == {"psnr@3", "consistency@3"}
    # Consistency is with what the degradation made, which depends on the seed of the drawing.
    assert judged("samples=drawn", *data, "split=val", *metrics) == pytest.approx(direct, rel=1e-9)
    line = mistake("sample", *drawing, "out=large", "size=32")
    assert "low_res: the condition is for images of 16x16 pixels, and 32x32 are drawn" in line
    done("sample", *drawing, "out=other", "seed=1")
    assert judged("samples=other", *data, "split=val", *metrics)["consistency@3"] != direct["consistency@3"]


@pytest.mark.slow
def test_two_processes_measure_the_scale_of_one(tiny_shapes: Path, kl: Path) -> None:
    options = ("trainer.max_steps=1", "first_stage.measured_on=7")
    done(*train("one", tiny_shapes, kl, *options))
    both = [*train("two", tiny_shapes, kl, *options), "trainer.devices=2", "trainer.strategy=ddp"]
    ended = spawn_warm_difflab(both, Path.cwd())
    assert ended.status == 0, ended.err
    ours, theirs = (load_file(RUNS / name / "weights" / "ema.safetensors") for name in ("one", "two"))
    torch.testing.assert_close(ours["first_stage.scale"], theirs["first_stage.scale"], rtol=1e-6, atol=0)
    torch.testing.assert_close(ours["first_stage.shift"], theirs["first_stage.shift"], rtol=1e-6, atol=1e-7)


def test_mistakes_end_in_a_line(tiny_shapes: Path, first_stages: Path, kl: Path, tmp_path: Path) -> None:
    encode = ("data", "encode", f"path={tiny_shapes}", f"first_stage={kl}", "accelerator=cpu")
    done(*encode, "out=plain", "mirrored=false")
    flipped = mistake(*train("a", "plain", kl, "data.flip=true"))
    assert "was computed of images as they are, but data.flip=true mirrors half of them" in flipped
    cropped = mistake(*train("a", "plain", kl, "data.crop=adm_random"))
    assert "of one crop of each image, but data.crop=adm_random makes another one in each epoch" in cropped
    other = mistake(*train("a", "plain", first_stages / "vq_f4_shapes64" / "tiny"))
    assert "plain has latents of first_stage" in other
    assert "(first_stage.encoded=never)" in other
    lacking = mistake(*train("a", tiny_shapes, kl, "first_stage.encoded=always"))
    assert "cannot give latent_moments_" in lacking
    threshold = mistake(*train("a", tiny_shapes, kl, "guidance.threshold=static"))
    assert "set guidance.threshold=none, or leave it out" in threshold
    nothing = mistake("train", *TINY, f"data.path={tiny_shapes}")
    assert "first_stage: runs/autoencoder/kl_f4_shapes64/demo does not exist: train an autoencoder" in nothing
    checkpoint = mistake(*train("a", tiny_shapes, kl / "checkpoints" / "last.ckpt"))
    assert "last.ckpt has no config.json beside it that says what it is: give a run directory" in checkpoint
    open_ = mistake("train", *TINY, f"data.path={tiny_shapes}", "first_stage.weights.path=null")
    assert "first_stage.weights: neither path, package nor hub is given" in open_
    size = mistake(*train("a", tiny_shapes, kl, "data.image_size=18", "data.crop=adm"))
    assert "data.image_size=18 is not a multiple of 4, by which the first stage makes images smaller" in size
    channels = mistake(*train("a", tiny_shapes, kl, "network.channels=3"))
    assert "latents of this first stage have 4: set network.channels=4" in channels
    scale = mistake(*train("a", tiny_shapes, kl, "first_stage.scale=[1,2]"))
    assert "first_stage: scale has 2 numbers, but latents have 4 channels" in scale
    value = mistake("train", *TINY, f"data.path={tiny_shapes}", "first_stage.weights=foo")
    assert "first_stage.weights='foo': this is a section, not a value" in value
    twice = mistake(*encode, "encoder=clip", "out=b")
    assert "first_stage= and encoder= are both given" in twice
    uneven = mistake(*encode, "image_size=10", "crop=adm", "out=b")
    assert "image_size=10 is not a multiple of 4" in uneven
    precision = mistake(*encode, "precision=bf16-mixed", "out=b")
    assert "a first stage encodes in full precision" in precision
    broken = tmp_path / "broken"
    done("weights", "export", str(kl), "--out", str(broken))
    weights = load_file(broken / "model.safetensors")
    save_file({name: tensor * float("nan") for name, tensor in weights.items()}, broken / "model.safetensors")
    nan = difflab(*train("a", tiny_shapes, broken))
    assert nan.status == 2
    assert "first_stage: the latents of the training data are not finite: take another" in nan.last_error


def test_weights_of_a_latent_model_are_described_and_leave_in_our_layout_alone(
    tiny_shapes: Path, kl: Path, tmp_path: Path
) -> None:
    # Attention at 4 places a side is of the latents, not of the images.
    done(*train("straight", tiny_shapes, kl, "trainer.max_steps=1"))
    done("weights", "export", str(RUNS / "straight"), "--out", "exported")
    for stored in ("exported", RUNS / "straight"):
        said = done("weights", "inspect", stored).out
        assert "through 4x4x4 latents of an autoencoder (of sha256 " in said
        assert "of no use" not in said
        assert "another model" not in said
    for layout, why in (
        ("diffusers", "StableDiffusionPipeline is conditioned on captions by a frozen text encoder"),
        ("guided", "has no place for the first stage of this model"),
        ("pesser", "has no place for the first stage of this model"),
    ):
        refused = mistake("weights", "export", str(RUNS / "straight"), "--layout", layout, "--out", "other.pt")
        assert why in refused
    demo = Path("runs/autoencoder/kl_f4_shapes64/demo")
    demo.parent.mkdir(parents=True)
    demo.symlink_to(kl)
    done("weights", "export", str(kl), "--layout", "diffusers", "--out", "vae")
    preset = mistake("weights", "import", "vae", "--preset", "ldm/shapes64", "--out", "imported")
    assert "its runs find their tokenizers, text encoders or first stages when they start" in preset


def test_what_latents_do_not_have_is_refused_in_a_line(tiny_shapes: Path, kl: Path) -> None:
    done(*train("straight", tiny_shapes, kl, "trainer.max_steps=1"))
    done(*(one for one in train("pixels", tiny_shapes, kl) if "first_stage" not in one), "first_stage=none")
    guide = mistake(
        *("sample", f"run={RUNS / 'straight'}", "n=1", "guidance=autoguidance", *ON_CPU),
        f"guidance.reference.run={RUNS / 'pixels'}",
    )
    assert "looks at images, the model diffuses the latents of an autoencoder (of sha256 " in guide
    line = mistake("likelihood", f"run={RUNS / 'straight'}", "n=2", "accelerator=cpu")
    assert "this model diffuses latents, and their likelihood is not that of images" in line
