"""What the README says is run, and some other pages: every `difflab` command in their blocks, made small."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from difflab.interop.layouts import LAYOUTS
from difflab.interop.presets import PRESETS
from difflab.interop.registry import export_weights
from golden_fixtures import draw
from tiny_runs import ON_CPU, done

ROOT = Path(__file__).parents[1]
README = "README.md"
RUN = (README, "docs/guidance.md", "docs/super_resolution.md", "docs/text_to_image.md", "docs/weights.md")
"""The pages whose blocks are run; tests/test_pages.py composes the commands of the others."""

TRAINING = (
    "network.base_channels=32",
    "network.norm_groups=8",
    "diffusion.timesteps=50",
    "data.batch_size=4",
    "trainer.max_steps=3",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.log_every_steps=1",
    "trainer.val_batches=1",
    "callbacks.sample_grid.n=2",
    "sampler.steps=2",
)
DRAWING = ("n=2", "sampler.steps=2", *ON_CPU)

ADM_TRAINING = (*TRAINING, "network.attention_head_channels=16")
CLASSIFIER_TRAINING = (
    "network.base_channels=32",
    "network.norm_groups=8",
    "network.attention_head_channels=16",
    *(change for change in TRAINING if change.startswith(("trainer.", "diffusion.", "data."))),
    "trainer.val_every_steps=0",
)
JUDGING = (
    *DRAWING,
    "n=8",
    "metrics.kid.subset_size=4",
    "metrics.fd.reference_n=8",
    "metrics.kid.reference_n=8",
)

SMALLER: dict[str, tuple[str, ...]] = {
    "difflab data make source=folder path=photos out=data/photos resolution=32 crop=adm": (),
    "difflab data inspect data/photos": (),
    "difflab train experiment=ddpm/shapes32 data.path=data/photos name=photos": (
        *TRAINING,
        "trainer.val_every_steps=0",
    ),
    "difflab train experiment=cfg/shapes32 data.path=data/photos name=classes": (
        *TRAINING,
        "trainer.val_every_steps=0",
    ),
    "difflab train experiment=classifier/shapes32 data.path=data/photos name=judge": (
        "network.attention_head_channels=8",
        "network.base_channels=16",
        "network.blocks_per_level=1",
        "data.batch_size=4",
        "trainer.max_steps=1",
        "trainer.accelerator=cpu",
        "logger=csv",
    ),
    "difflab evaluate run=runs/cfg/shapes32/classes metrics=classes classifier=runs/classifier/shapes32/judge n=512": (
        *(change for change in JUDGING if not change.startswith("metrics.")),
    ),
    "difflab data make source=shapes out=data/shapes32_simple objects=1 'sizes=[large]' 'shapes=[circle,triangle]'": (
        "n=48",
        "val=8",
    ),
    "difflab data make source=shapes out=data/shapes32_captions resolution=32 n=40000 objects=1-2 "
    "'sizes=[medium,large]' 'shapes=[circle,square,triangle]'": ("n=48", "val=16"),
    "difflab train experiment=glide/shapes32 trainer.max_steps=5000 name=demo": TRAINING,
    "difflab sample run=runs/glide/shapes32/demo n=8 "
    """'prompts=["a medium red circle above a medium blue square","a large green triangle"]'""": (
        *DRAWING,
        "n=3",
    ),
    "difflab evaluate run=runs/glide/shapes32/demo split=val n=256 metrics=shapes guidance.scale=1,2,3,5,8": (
        *JUDGING,
        "guidance.scale=1,2",
    ),
    "difflab sample run=runs/glide/shapes32/demo n=1 guidance.scale=1,3,8 "
    """'prompts=["a medium red circle above a medium blue square"]'""": (
        *(change for change in DRAWING if not change.startswith("n=")),
        "guidance.scale=1,2",
    ),
    "difflab train experiment=ddpm/shapes32 name=demo": TRAINING,
    "difflab sample run=runs/ddpm/shapes32/demo n=64 sampler=ddim sampler.steps=50 seed=0": DRAWING,
    "difflab evaluate run=runs/ddpm/shapes32/demo n=512 metrics=shapes": JUDGING,
    "difflab evaluate run=runs/ddpm/shapes32/demo n=512 metrics=shapes sampler.steps=10,20,50 seed=0,1,2": (
        *(change for change in JUDGING if not change.startswith("sampler.steps")),
        "sampler.steps=1,2",
        "seed=0,1",
    ),
    "difflab evaluate samples=theirs.npz data=shapes32_simple metrics=lite0": (
        *(change for change in JUDGING if change.startswith("metrics.")),
        "accelerator=cpu",
    ),
    "difflab schedule run=runs/ddpm/shapes32/demo sampler=ddim sampler.steps=6 n=256 metrics=shapes metric=kid-lite0": (
        *JUDGING,
        "candidates=2",
        "metric=oracle-mean-fit",
    ),
    "difflab likelihood run=runs/ddpm/shapes32/demo split=val n=16": ("n=2", *ON_CPU),
    "difflab data make source=shapes out=data/shapes32_single resolution=32 objects=1 'sizes=[large]'": (
        "n=48",
        "val=16",
    ),
    "difflab train experiment=cfg/shapes32 name=demo": TRAINING,
    "difflab evaluate run=runs/cfg/shapes32/demo metrics=guidance n=512 guidance.scale=1,1.5,2,3,4,6": (
        *JUDGING,
        "metrics.precision_recall.reference_n=8",
        "guidance.scale=1,2",
    ),
    "difflab sample run=runs/cfg/shapes32/demo n=16 classes=[2] guidance.scale=3": DRAWING,
    "difflab sample run=runs/cfg/shapes32/demo n=1 classes=[0],[1],[2] guidance.scale=1,2,4": (
        *(change for change in DRAWING if not change.startswith("n=")),
        "guidance.scale=1,2",
    ),
    "difflab train experiment=adm/shapes32_unconditional name=demo": ADM_TRAINING,
    "difflab train experiment=adm/shapes32_classifier name=demo "
    "init=weights init.from=runs/adm/shapes32_unconditional/demo init.partial=true": CLASSIFIER_TRAINING,
    "difflab accuracy run=runs/adm/shapes32_classifier/demo split=val n=256": ("n=2", "times=2", *ON_CPU),
    "difflab sample run=runs/adm/shapes32_unconditional/demo guidance=classifier "
    "guidance.run=runs/adm/shapes32_classifier/demo guidance.scale=4 'guidance.interval=[0,10]'": DRAWING,
    "difflab train experiment=adm/shapes32_upsampler name=demo": ADM_TRAINING,
    "difflab evaluate run=runs/adm/shapes32_upsampler/demo split=val n=256": JUDGING,
    "difflab evaluate run=runs/adm/shapes32_upsampler/demo split=val n=256 pipeline=resize": JUDGING,
    "difflab train experiment=sr3/shapes32 name=demo": TRAINING,
    "difflab train experiment=sr3/shapes32_regression name=demo": tuple(
        change for change in TRAINING if not change.startswith(("diffusion.", "sampler."))
    ),
    "difflab evaluate run=runs/sr3/shapes32/demo n=256 split=val metrics=shapes_super_resolution": JUDGING,
    "difflab evaluate run=runs/sr3/shapes32/demo n=256 split=val metrics=shapes_super_resolution "
    "pipeline=resize": JUDGING,
    "difflab sample run=runs/sr3/shapes32/demo n=60 split=val out=drawn": (*DRAWING, "n=8"),
    "difflab fool-rate page --samples sr3=drawn --out page.html": (),
    "difflab data make source=shapes out=data/shapes64 resolution=64": ("n=48", "val=16"),
    "difflab train experiment=autoencoder/kl_f4_shapes64 name=demo": (
        "network.base_channels=8",
        "network.norm_groups=4",
        "discriminator=null",
        "perceptual=none",
        *(change for change in TRAINING if change.startswith(("trainer.", "data."))),
    ),
    "difflab train experiment=ldm/shapes64_sr name=demo": TRAINING,
    "difflab evaluate run=runs/ldm/shapes64_sr/demo n=256 split=val metrics=shapes_super_resolution": JUDGING,
    "difflab sample run=runs/ldm/shapes64_sr/demo n=16 split=val pipeline=resize pipeline.filter=nearest "
    "out=degraded": (*DRAWING, "n=4"),
    "difflab weights export runs/ddpm/shapes32/demo --out exported": (),
    "difflab weights inspect exported": (),
    "difflab doctor": (),
    "difflab weights inspect ddpm-cifar10-32/": (),
    "difflab weights import ddpm-cifar10-32/ --preset ddpm/cifar10 --out weights/ddpm-cifar10": (),
    "difflab sample run=weights/ddpm-cifar10 n=16 sampler=ancestral": (*DRAWING, "n=1"),
    "difflab weights import cifar10_uncond_50M_500K.pt --preset improved/cifar10 --out weights/improved-cifar10": (),
    "difflab weights export weights/improved-cifar10 --layout guided --out official.pt": (),
    "difflab train --help": (),
    "difflab train --help sampler": (),
    "difflab train experiment=ddpm/shapes32 --cfg job --resolve": (),
}
"""Command of a page -> arguments that replace its own of the same key, or are added."""


GIVEN = ("theirs.npz", "evaluations")
"""Pictures that others made, and where the records of their evaluation lie."""


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def commands_of(page: str, section: str | None = None) -> list[str]:
    """The `difflab` lines in the code blocks of a page, or of what is below one of its headings."""
    text = text_of(page)
    if section is not None:
        text = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [
        line.partition(" #")[0].strip()
        for block in blocks
        for line in block.splitlines()
        if line.startswith("difflab ")
    ]


def inline_commands() -> list[str]:
    """Those in the README's sentences."""
    prose = re.sub(r"```.*?```", "", text_of(README), flags=re.DOTALL)
    return [code for code in re.findall(r"`([^`]+)`", prose) if code.startswith("difflab ")]


def smaller(command: str) -> list[str]:
    """The arguments of a command after the table made it small."""
    words = shlex.split(command)[1:]
    for change in SMALLER[command]:
        same = [i for i, word in enumerate(words) if word.split("=")[0] == change.split("=")[0]]
        if same:
            words[same[0]] = change
        else:
            words.append(change)
    return words


def run_all(page: str, section: str | None = None) -> None:
    commands = commands_of(page, section)
    assert commands
    for command in commands:
        done(*smaller(command))


def test_every_command_is_in_the_table_and_the_table_holds_no_other() -> None:
    written = [command for page in RUN for command in commands_of(page)] + inline_commands()
    missing = [command for command in written if command not in SMALLER]
    assert not missing, f"say in SMALLER how to make these small: {missing}"
    assert set(SMALLER) == set(written)


def test_no_section_of_the_readme_is_left_out() -> None:
    sections = [name for name in re.findall(r"^## (.+)$", text_of(README), re.MULTILINE) if commands_of(README, name)]
    assert sections == ["Train on your own images", "Text to image in a quarter of an hour", "The commands"]


@pytest.mark.parametrize("command", inline_commands())
def test_a_command_in_the_text_runs(command: str, tmp_path: Path) -> None:
    done(*smaller(command))


@pytest.mark.slow
def test_guided_diffusion(tmp_path: Path) -> None:
    run_all("docs/guidance.md")
    (table,) = (tmp_path / "runs" / "cfg" / "shapes32" / "demo" / "evaluations").glob("sweep-*/table.csv")
    assert len(table.read_text().splitlines()) == 3


@pytest.mark.slow
def test_super_resolution(tmp_path: Path) -> None:
    run_all("docs/super_resolution.md")
    assert (tmp_path / "page.html").is_file()
    assert (tmp_path / "degraded" / "grid.png").is_file()


@pytest.mark.slow
def test_text_to_image(tmp_path: Path) -> None:
    page = "docs/text_to_image.md"
    assert set(commands_of(README, "Text to image in a quarter of an hour")) <= set(commands_of(page))
    run_all(page)
    run = tmp_path / "runs" / "glide" / "shapes32" / "demo"
    shown = {path: json.loads(path.read_text())["shows"] for path in (run / "samples").glob("*/sample.json")}
    prompts = ["a medium red circle above a medium blue square", "a large green triangle"]
    (folder,) = (path.parent for path, words in shown.items() if words == [*prompts, prompts[0]])
    assert (folder / "000001.txt").read_text() == prompts[1]
    assert (folder / "grid.png").is_file()
    (table,) = (run / "evaluations").glob("sweep-*/table.csv")
    assert "oracle-caption-attributes@8" in table.read_text()


def test_training_on_own_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cats/a.jpg", "cats/b.png", "dogs/c.jpg", "dogs/d.jpg", "dogs/e.webp"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
        path.with_suffix(".txt").write_text(f"a picture of {path.stem}")
    run_all(README, "Train on your own images")
    assert (tmp_path / "runs" / "ddpm" / "shapes32" / "photos" / "weights" / "ema.safetensors").is_file()


def test_the_commands_and_what_a_run_directory_holds(tmp_path: Path) -> None:
    np.savez(tmp_path / "theirs.npz", np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8))
    run_all(README, "The commands")
    listed = text_of(README).split("**A run directory**")[1].split("\n- ")[0]
    names = re.findall(r"`([^`]+)`", listed)
    assert len(names) > 8
    run = tmp_path / "runs" / "ddpm" / "shapes32" / "demo"
    for name in names:
        assert (run / name).exists(), name
    assert {path.name for path in tmp_path.iterdir()} <= {"runs", "data", "exported", "cache", *GIVEN}


def drawn_official(preset: str, layout: str) -> dict[str, Tensor]:
    """Drawn weights as the published file of a preset would hold them."""
    shapes = LAYOUTS[layout].keymap(PRESETS[preset].target()).official_shapes
    return {key: torch.from_numpy(draw(0, key, shape)) for key, shape in shapes.items()}


@pytest.mark.slow
def test_published_weights(tmp_path: Path) -> None:
    target = PRESETS["ddpm/cifar10"].target()
    ours = LAYOUTS["diffusers"].keymap(target).from_official(drawn_official("ddpm/cifar10", "diffusers"))
    export_weights(tmp_path / "ddpm-cifar10-32", ours, target, "diffusers")
    published = drawn_official("improved/cifar10", "guided")
    torch.save(published, tmp_path / "cifar10_uncond_50M_500K.pt")
    run_all("docs/weights.md")
    assert len(list((tmp_path / "weights" / "ddpm-cifar10" / "samples").glob("*/000000.png"))) == 1
    returned = torch.load(tmp_path / "official.pt", weights_only=True)
    assert returned.keys() == published.keys()
    assert all(torch.equal(returned[key], value) for key, value in published.items())
