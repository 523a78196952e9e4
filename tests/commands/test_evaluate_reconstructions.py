"""`difflab evaluate` of an autoencoder: its reconstructions beside the images that they are of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import difflab
from commands.test_train_autoencoder import SMALL
from difflab.config.data import DataConfig
from difflab.data.build import build_dataset
from difflab.diffusion.noise import SampleNoise
from difflab.images import to_float, to_uint8
from difflab.metrics.extractors.loading import get_extractor
from difflab.metrics.frechet import frechet_distance
from difflab.metrics.gaussian import GaussianStatistics
from difflab.metrics.protocol import Result
from difflab.metrics.similarity import peak_signal_noise_ratio, structural_similarity
from difflab.networks.autoencoder.quantizer import usage
from difflab.pipelines.stored import load_stored
from difflab.seeding import stream_seed
from difflab.tracking.runs import read_offline_run
from tiny_runs import ON_CPU, done, mistake
from tiny_runs import difflab as run_command

RANDOM = "metrics.fd.extractor=random"
QUIET = ("logger=none", *ON_CPU)
TRAINED = (
    *SMALL,
    "discriminator=null",
    "trainer.max_steps=2",
    "trainer.val_every_steps=0",
    "callbacks.reconstruction_grid=null",
    "restart_codes_every=null",
)
KL = ("experiment=autoencoder/kl_f4_shapes64", "~network.regularizer.codes")
N = 12


@pytest.fixture(scope="module")
def kept_runs(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("autoencoders")
    shared = (f"data.path={tiny_shapes}", f"output_root={root}")
    done("train", *TRAINED, *shared, "name=vq")
    neither = [one for one in TRAINED[2:] if not one.startswith(("network.regularizer", "discriminator"))]
    done("train", KL[0], *neither, *shared, "name=kl")
    for place in ("kl_f4_shapes64_adversarial/vq", "kl_f4_shapes64/kl"):
        shutil.move(root / "autoencoder" / place, root)
    return root


@pytest.fixture
def runs(kept_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the runs `kl` and `vq`, in which the test works."""
    monkeypatch.chdir(tmp_path)
    for name in ("kl", "vq"):
        shutil.copytree(kept_runs / name, tmp_path / name)
    return tmp_path


def folder_of(run: Path) -> Path:
    (folder,) = (run / "evaluations").glob("reconstructions-*")
    return folder


def records(folder: Path) -> dict[str, Result]:
    lines = (folder / "evaluations.jsonl").read_text().splitlines()
    return {result.name: result for result in map(Result.from_json, lines)}


def values(folder: Path) -> dict[str, float]:
    return {name: result.value for name, result in records(folder).items()}


def images(data: Path) -> Tensor:
    dataset = build_dataset(DataConfig(path=str(data), image_size=16, batch_size=1), split="val")
    return torch.stack([dataset[index]["image"] for index in range(len(dataset))])


def passed(run: Path, originals: Tensor, noise: Tensor | None = None) -> tuple[Any, Tensor]:
    """What the network makes of images, and the reconstructions as pixels."""
    network: Any = load_stored(run, "auto")[0].network
    with torch.no_grad():
        found = network(to_float(originals), noise)
    return found, to_uint8(found.images)


def statistics(pixels: Tensor) -> GaussianStatistics:
    extractor = get_extractor("random", None, torch.device("cpu"))
    found = GaussianStatistics.empty(extractor.record.feature_dim, torch.device("cpu"))
    found.update(extractor(pixels).pool)
    return found


def test_numbers_are_those_of_a_direct_computation(runs: Path, tiny_shapes: Path) -> None:
    ended = done("evaluate", "run=kl", f"n={N}", "batch_size=5", RANDOM, "logger=csv", *ON_CPU)
    assert "metrics.codebook is left out: it counts the codes of a codebook, and this autoencoder has none" in ended.err
    assert "metrics.perceptual is left out: it compares images of at least 32 pixels per side, not 16" in ended.err
    folder = folder_of(runs / "kl")
    results = records(folder)
    originals = images(tiny_shapes)
    found, made = passed(runs / "kl", originals)
    measured = {name: result.value for name, result in results.items() if not name.startswith("oracle-")}
    assert measured == pytest.approx(
        {
            f"rfd-random@val-{N}": frechet_distance(statistics(made), statistics(originals)),
            f"psnr@val-{N}": float(peak_signal_noise_ratio(made, originals).mean()),
            f"ssim@val-{N}": float(structural_similarity(made, originals).mean()),
            f"kl@val-{N}": float(found.posterior.kl().double().mean()),
        },
        rel=1e-5,
    )
    assert f"oracle-true-objects@val-{N}" in results
    record = json.loads((folder / "evaluations.jsonl").read_text().splitlines()[0])["protocol"]["sampling"]
    assert record == {
        "posterior": "mode",
        "seed": None,
        "tile": None,
        "weights": "raw",
        "rounding": "truncate",
        "precision": "float32",
        "device": "cpu",
    }
    assert (runs / "kl" / "evaluations.jsonl").read_text() == (folder / "evaluations.jsonl").read_text()
    assert (folder / "reconstructions.png").is_file()
    assert "originals above their reconstructions: reconstructions.png" in ended.out


def test_codes_are_counted_over_the_whole_set(runs: Path, tiny_shapes: Path) -> None:
    done("evaluate", "run=vq", f"n={N}", "batch_size=5", RANDOM, "logger=wandb", *ON_CPU)
    folder = folder_of(runs / "vq")
    codes = passed(runs / "vq", images(tiny_shapes))[0].codes
    expected = usage(codes, 16)
    found = values(folder)
    assert found[f"codebook-perplexity@val-{N}"] == pytest.approx(float(expected.perplexity))
    assert found[f"codebook-used@val-{N}"] == int(expected.used) / 16
    assert f"kl@val-{N}" not in found
    logged = read_offline_run(folder)
    assert logged.summary[f"eval/codebook-used@val-{N}"] == pytest.approx(int(expected.used) / 16)
    assert (logged.job_type, len(logged.media["eval/reconstructions"])) == ("evaluate", 1)


def test_a_sample_is_drawn_with_the_stream_of_its_image(runs: Path, tiny_shapes: Path) -> None:
    only = (RANDOM, "metrics.oracle=null", "pictures=0", *QUIET)
    done("evaluate", "run=kl", "n=6", "posterior=sample", "seed=3", "batch_size=4", *only)
    folder = folder_of(runs / "kl")
    assert not (folder / "reconstructions.png").exists()
    # Six of twelve, spread evenly.
    chosen = list(range(0, N, 2))
    originals = images(tiny_shapes)[chosen]
    noise = SampleNoise([stream_seed(3, "posterior", index) for index in chosen]).randn((4, 4, 4))
    made = passed(runs / "kl", originals, noise)[1]
    found = records(folder)["psnr@val-6"]
    assert found.value == pytest.approx(float(peak_signal_noise_ratio(made, originals).mean()), rel=1e-6)
    assert found.protocol.sampling is not None
    assert found.protocol.sampling.model_dump()["seed"] == 3
    mode = float(peak_signal_noise_ratio(passed(runs / "kl", originals)[1], originals).mean())
    assert found.value != pytest.approx(mode, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("run", "n", "more"), [("kl", 5, ["posterior=sample"]), ("vq", 5, []), ("vq", 1, [])])
def test_two_processes_find_what_one_finds(runs: Path, run: str, n: int, more: list[str]) -> None:
    metrics = [RANDOM] if n > 1 else ["metrics.fd=null"]
    # An image at a time: other batches change the last bits of the arithmetic, and so a pixel now and then.
    asked = (f"run={run}", f"n={n}", "batch_size=1", *metrics, *more, *QUIET)
    done("evaluate", *asked, "out=one")
    done("evaluate", *asked, "out=two", "devices=2")
    one, two = values(runs / "one"), values(runs / "two")
    assert list(one) == list(two)
    assert one == pytest.approx(two, rel=1e-5)
    assert (runs / "one" / "reconstructions.png").read_bytes() == (runs / "two" / "reconstructions.png").read_bytes()


def test_posteriors_are_points_of_one_command_that_goes_on(runs: Path) -> None:
    asked = ("run=kl", "n=4", "posterior=mode,sample", RANDOM, "metrics.oracle=null", *QUIET)
    ended = done("evaluate", *asked)
    assert "2 of 2 done" in ended.err
    assert "cannot be compared" not in ended.err
    assert len((runs / "kl" / "evaluations" / "ledger.jsonl").read_text().splitlines()) == 2
    assert "starts" not in done("evaluate", *asked).err


def test_several_runs_are_measured_into_one_folder(runs: Path) -> None:
    ended = done("evaluate", "run=kl,vq", "n=4", "out=both", RANDOM, "metrics.oracle=null", *QUIET)
    assert "2 of 2 done" in ended.err
    assert len(list((runs / "both").glob("reconstructions-val-n4-*"))) == 2


def test_from_python_it_is_what_the_command_finds(runs: Path) -> None:
    done("evaluate", "run=kl", "n=3", "tiled=true", "tile=8", RANDOM, *QUIET)
    rows = difflab.load("kl", accelerator="cpu").reconstruct(n=3, tile=8, overrides=[RANDOM])
    assert {row.name: row.value for row in rows} == values(folder_of(runs / "kl"))
    with pytest.raises(difflab.UserError, match="is an autoencoder and draws no images"):
        difflab.load("kl", accelerator="cpu").sample(n=1)


@pytest.mark.parametrize(
    ("run", "arguments", "message"),
    [
        ("kl", ["n=13"], "has 12 images: give n=12 or less"),
        ("kl", ["data.channels=1"], "the autoencoder takes images of 3 channels, the data has 1: set data.channels=3"),
        ("kl", ["data.image_size=18", "data.crop=adm"], "images of 18x18 have no latent: their sides are no multiple"),
        ("kl", ["tiled=true", "tile=6"], "tile=6 is no multiple of 4, by which latents are smaller: give tile=4"),
        ("vq", ["posterior=sample"], "the latents of this autoencoder have no distribution (it has a codebook)"),
        ("kl", ["metrics.codebook.label=own"], "metrics.codebook counts the codes of a codebook, and this autoencoder"),
        ("vq", ["metrics.kl.label=own"], "metrics.kl is the divergence of a distribution"),
        ("kl", ["metrics=shapes"], "metrics.oracle measures samples, and these are reconstructions: choose metrics="),
        (
            "kl",
            ["metrics=reconstruction_published"],
            "metrics.lpips.network: weights/vgg16-397923af.pth does not",
        ),
        ("kl", ["sampler=ddim"], "an autoencoder reconstructs images, without guidance or a sampler"),
        ("kl", ["compile=true"], "an autoencoder runs once: leave compile out"),
        ("kl", ["batch_size=1,2"], "several may be given for run, posterior, tiled, tile, rounding"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(runs: Path, run: str, arguments: list[str], message: str) -> None:
    if "metrics=reconstruction_published" in arguments:
        arguments = [*arguments, "metrics.fid=null"]
    assert message in mistake("evaluate", f"run={run}", "n=2", *arguments, *QUIET)
    assert not (runs / run / "evaluations").exists()


def test_a_mistake_of_one_of_several_runs_names_it(runs: Path) -> None:
    line = mistake("evaluate", "run=kl,vq", "posterior=mode,sample", "n=2", *QUIET)
    assert "run=vq posterior=sample: posterior=sample, but the latents of this autoencoder have no distribut" in line
    # What is wrong with all of them is no mistake of the first.
    assert mistake("evaluate", "run=kl,vq", "n=13", *QUIET).startswith("difflab evaluate: n=13")
    assert not (runs / "kl" / "evaluations").exists()


def test_reconstructions_that_are_not_finite_are_named(runs: Path) -> None:
    path = runs / "kl" / "weights" / "raw.safetensors"
    state = load_file(path)
    state["network.decoder.conv_out.bias"][0] = float("nan")
    save_file(state, path)
    ended = run_command("evaluate", "run=kl", "n=2", RANDOM, "metrics.codebook=null", "metrics.perceptual=null", *QUIET)
    assert ended.status == 2, ended
    assert "reconstructions 0, 6 are not finite: " in ended.last_error
    weights = "the weights themselves are not finite (network.decoder.conv_out.bias): take another checkpoint"
    assert weights in ended.last_error


def test_what_reconstructs_nothing_is_refused(runs: Path, own_run: Path) -> None:
    # The first run says what is evaluated.
    line = mistake("evaluate", f"run=kl,{own_run}", "n=2", *QUIET)
    assert "is a diffusion model and reconstructs no images: give run= an autoencoder" in line
    line = mistake("sample", "run=kl", "n=2", *ON_CPU)
    assert "is an autoencoder and draws no images" in line
    assert "`difflab evaluate run=kl` can be measured" in line
    line = mistake("evaluate", f"run={own_run}", "n=2", "metrics=reconstruction", *QUIET)
    assert "metrics.kl measures reconstructions, and these are samples: choose metrics=lite0" in line


def test_images_that_cannot_be_read_are_left_out_and_said(runs: Path, tiny_shapes: Path) -> None:
    data = Path(shutil.copytree(tiny_shapes, runs / "data"))
    (shard,) = data.rglob("val*.tar")
    content = shard.read_bytes()
    content = content.replace(b"\x89PNG", b"\x89GNP", 1)
    shard.write_bytes(content)
    ended = done(
        *("evaluate", "run=kl", f"n={N}", f"data.path={data}", "data.max_bad_fraction=0.5", RANDOM),
        *("metrics.oracle=null", *QUIET),
    )
    assert f"note: 1 of {N} images could not be read and are left out" in ended.out
    assert f"psnr@val-{N - 1}" in values(folder_of(runs / "kl"))
