"""PSNR, SSIM and consistency through the commands: of what is drawn, of what lies in a folder, while a model trains."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import difflab
from difflab.config.data import DataConfig
from difflab.images import Downsampling
from difflab.metrics.protocol import Result
from difflab.metrics.similarity import consistency, peak_signal_noise_ratio, structural_similarity
from difflab.requests.data_split import DataSplit
from tiny_runs import ON_CPU, TRAINING, done, mistake

pytestmark = pytest.mark.slow

UPSAMPLER = ("conditioning=low_res", "conditioning.low_res.size=8", "network.concat_channels=3")
PAIRED = ("metrics=super_resolution", "metrics.fd=null", "metrics.kid=null", "logger=none")
NAMES = ("psnr@10", "ssim@10", "consistency@10")


@pytest.fixture(scope="module")
def upsampler(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from 8 to 16 px, which evaluated ten samples at its end."""
    root = tmp_path_factory.mktemp("upsampler")
    evaluated = ("callbacks=evaluation", "callbacks.sample_grid=null", "callbacks.evaluation.n=10")
    batches = ("callbacks.evaluation.batch_size=4", *PAIRED[:3])
    where = (f"data.path={tiny_shapes}", f"output_root={root}", "name=up")
    done("train", *TRAINING, *UPSAMPLER, *evaluated, *batches, *where)
    return root / "ddpm" / "shapes32" / "up"


@pytest.fixture
def run(upsampler: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(upsampler, tmp_path / "run"))


@pytest.fixture
def data(tiny_shapes: Path) -> tuple[str, ...]:
    return ("data=shapes32_single", f"data.path={tiny_shapes}", "data.image_size=16", "accelerator=cpu")


def results(folder: Path) -> dict[str, Result]:
    lines = (folder / "evaluations.jsonl").read_text().splitlines()
    return {result.name: result for result in map(_result, lines)}


def _result(line: str) -> Result:
    record = json.loads(line)
    record.pop("train_step", None)
    return Result.from_json(json.dumps(record))


def judged(*arguments: object) -> dict[str, Result]:
    ended = done("evaluate", *arguments)
    return results(Path(ended.out.rpartition("records in ")[2].strip()))


def values(found: dict[str, Result]) -> dict[str, float]:
    return {name: result.value for name, result in found.items()}


def test_numbers_are_of_the_originals_wherever_the_samples_are_judged(
    run: Path, data: tuple[str, ...], tiny_shapes: Path
) -> None:
    trained = results(run)
    drawn = judged(f"run={run}", "n=10", "split=val", "batch_size=3", *PAIRED, *ON_CPU)
    assert tuple(drawn) == NAMES
    done("sample", f"run={run}", "n=10", "split=val", "batch_size=3", "out=drawn", *ON_CPU)
    with np.load("drawn/samples.npz") as archive:
        images = torch.from_numpy(archive["arr_0"]).permute(0, 3, 1, 2).contiguous()
    originals = DataSplit(DataConfig(path=str(tiny_shapes), image_size=16, batch_size=4), "val", ["image"])
    pairs = originals(range(10), 0)["image"]
    down = Downsampling(8, "area")
    expected = {
        "psnr@10": peak_signal_noise_ratio(images, pairs).mean().item(),
        "ssim@10": structural_similarity(images, pairs).mean().item(),
        "consistency@10": consistency(images, down(pairs), down).mean().item(),
    }
    assert values(drawn) == pytest.approx(expected, rel=1e-9)
    for samples in ("drawn", "drawn/samples.npz"):
        assert values(judged(f"samples={samples}", *data, "split=val", *PAIRED)) == pytest.approx(expected, rel=1e-9)
    # Samples drawn in other batches may differ in a bit of a few pixels.
    assert values(trained) == pytest.approx(expected, rel=1e-3)
    for name in NAMES:
        assert trained[name].protocol.parameters == drawn[name].protocol.parameters
    python = difflab.load(run, accelerator="cpu").evaluate(
        10, metrics="super_resolution", overrides=["split=val", "batch_size=3", "precision=32-true", *PAIRED[1:]]
    )
    assert {name: python[name] for name in NAMES} == values(drawn)


def test_guidance_that_cannot_be_names_the_condition_of_the_model(run: Path) -> None:
    line = mistake("sample", f"run={run}", "n=1", "guidance=classifier_free", "guidance.scale=2", *ON_CPU)
    assert "no unconditional prediction: train with conditioning.low_res.drop_rate=0.1, or" in line


def test_another_split_is_other_originals(run: Path) -> None:
    val, train = (judged(f"run={run}", "n=4", f"split={split}", *PAIRED, *ON_CPU) for split in ("val", "train"))
    for name, result in val.items():
        assert "parameters.compared_with" in result.protocol.differences(train[name].protocol)


def test_a_plain_resize_is_consistent_and_pairs_from_files_are_compared(run: Path) -> None:
    resized = judged(f"run={run}", "n=10", "pipeline=resize", "pipeline.filter=nearest", "split=val", *PAIRED, *ON_CPU)
    # Each pixel four times over has the mean it had, but for rounding to 8 bits.
    assert resized["consistency@10"].value < (1 / 255) ** 2
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    for folder, size in (("low", 8), ("high", 16)):
        Path(folder).mkdir()
        for number, one in enumerate(pixels):
            Image.fromarray(one).resize((size, size), Image.Resampling.NEAREST).save(Path(folder, f"{number}.png"))
    nearest = ("n=2", "pipeline=resize", "pipeline.filter=nearest", "rounding=nearest", *PAIRED, *ON_CPU)
    same = judged(f"run={run}", *nearest, "low_res=low", "images=high")
    assert same["psnr@2"].details == {"identical": 2}
    assert "2 of 2 samples equal their originals to the bit" in same["psnr@2"].warnings[0]
    assert (same["ssim@2"].value, same["consistency@2"].value) == pytest.approx((1.0, 0.0), abs=1e-12)
    line = mistake("evaluate", f"run={run}", *nearest, "low_res=low")
    assert "metrics.psnr, metrics.ssim compare each sample with its original: low_res was given without it" in line
    assert line.endswith("or set metrics.psnr=null metrics.ssim=null")
    alone = judged(f"run={run}", *nearest, "low_res=low", "metrics.psnr=null", "metrics.ssim=null")
    assert alone["consistency@2"].value == pytest.approx(0.0, abs=1e-12)
    started = mistake("evaluate", f"run={run}", "n=2", *PAIRED, *ON_CPU, "images=high", "start=0.5")
    assert "leave start and mask out" in started


def test_pictures_whose_originals_nobody_knows_are_refused_until_it_is_said(run: Path, data: tuple[str, ...]) -> None:
    done("sample", f"run={run}", "n=10", "split=val", "out=drawn", *ON_CPU)
    known = judged("samples=drawn", *data, "split=val", *PAIRED)
    assert "made from split val, not from train: give split=val" in mistake("evaluate", "samples=drawn", *data, *PAIRED)
    assert "there is no data set" in mistake("evaluate", "samples=drawn", "accelerator=cpu", *PAIRED)
    # Of another name it is somebody else's, wherever it lies.
    Path("drawn/theirs.npz").write_bytes(Path("drawn/samples.npz").read_bytes())
    line = mistake("evaluate", "samples=drawn/theirs.npz", *data, "split=val", *PAIRED)
    assert "nothing beside theirs.npz records which image of the split each was made from: give paired=true" in line
    Path("drawn/theirs.npz").unlink()
    theirs = Path(shutil.copytree("drawn", "theirs"))
    for name in ("sample.json", "samples.npz", "grid.png"):
        (theirs / name).unlink()
    asked = ("samples=theirs", *data, "split=val", *PAIRED)
    assert "paired=true if sample i was made from image i of the split" in mistake("evaluate", *asked)
    assert "metrics.consistency.size: it is not known how" in mistake("evaluate", *asked, "paired=true")
    how = ("paired=true", "metrics.consistency.size=8", "metrics.consistency.downsample=area")
    assert values(judged(*asked, *how)) == values(known)
    (theirs / "sample.json").write_text("[")
    assert "sample.json is damaged: draw the samples again, or give paired=true" in mistake("evaluate", *asked)
    assert values(judged(*asked, *how)) == values(known)
    (theirs / "sample.json").unlink()
    for number in range(10, 14):
        shutil.copyfile(theirs / "000000.png", theirs / f"{number:06d}.png")
    line = mistake("evaluate", *asked, *how)
    assert "there are 14 samples and 12 images in split val: give n=12 or less" in line


def test_pictures_that_were_not_drawn_of_a_data_set_are_refused(
    run: Path, tiny_run: Path, data: tuple[str, ...]
) -> None:
    np.savez("small.npz", np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))
    done("sample", f"run={run}", "n=2", "low_res=small.npz", "out=given", *ON_CPU)
    asked = (*data, "split=train", *PAIRED)
    assert "they were made from low_res=small.npz, not from a data set" in mistake("evaluate", "samples=given", *asked)
    done("sample", f"run={tiny_run}", "n=2", "out=plain", *ON_CPU)
    assert "they are not drawn from images, as those of an upsampler are" in mistake(
        "evaluate", "samples=plain", *asked
    )
    done("sample", f"run={run}", "n=2", "out=drawn", *ON_CPU)
    shutil.move(run, "elsewhere")
    assert "the run named in sample.json no longer exists" in mistake("evaluate", "samples=drawn", *asked)


def test_a_model_that_enlarges_nothing_is_refused_in_every_command(tiny_run: Path, tiny_shapes: Path) -> None:
    line = mistake("evaluate", f"run={tiny_run}", "n=4", *PAIRED, *ON_CPU)
    assert "this model enlarges nothing: evaluate an upsampler, or set metrics.psnr=null metrics.ssim=null" in line
    trained = ("callbacks=evaluation", f"data.path={tiny_shapes}", "name=never", *PAIRED[:3])
    assert "this model enlarges nothing" in mistake("train", *TRAINING, *trained)
    with pytest.raises(difflab.UserError, match="this model enlarges nothing"):
        difflab.load(tiny_run, accelerator="cpu").evaluate(4, metrics="super_resolution", overrides=list(PAIRED[1:3]))


def test_a_cascade_is_consistent_with_what_its_base_drew(run: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    small = ("data.image_size=8", "data.crop=resize_short", "network.attention_resolutions=[4]", "name=base")
    done("train", *TRAINING, f"data.path={tiny_shapes}", f"output_root={tmp_path}", *small)
    runs = {"base": tmp_path / "ddpm/shapes32/base", "upsampler": run}
    stages = [f"pipeline.stages.{name}.run={path}" for name, path in runs.items()]
    steps = [f"pipeline.stages.{name}.sampler.steps=4" for name in runs]
    asked = ("pipeline=cascade", *stages, *steps, "n=3", "batch_size=2", *PAIRED, *ON_CPU)
    assert "the enlarged images are samples of the stage before" in mistake("evaluate", *asked)
    found = judged(*asked, "metrics.psnr=null", "metrics.ssim=null")
    assert list(found) == ["consistency@3"]
    assert found["consistency@3"].value > 0
    assert "compared_with" not in found["consistency@3"].protocol.parameters
