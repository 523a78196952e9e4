"""Every benchmark runs with tiny settings and prints its table. Nothing here looks at a time."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks.pairs import Lap, Rounds
from benchmarks.switches import attending_in_batches

from benchmarks import attention, data_encode, data_make, devices, loader, startup, train_step

ROOT = Path(__file__).parents[2]
TINY = [
    "--experiment",
    "ddpm/shapes32",
    "--batch",
    "2",
    "network.base_channels=32",
    "network.attention_resolutions=[4]",
    "data.image_size=16",
    # What the peers know: neither diffusers' network nor the bare loop has everything that the experiment has.
    "network.adaptive_norm=false",
    "network.norm_groups=32",
    "network.channel_mult=[1,2]",
    "network.blocks_per_level=1",
    "diffusion=v_cosine",
    "trainer.accelerator=cpu",
    "data.workers=0",
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFLAB_CACHE", str(tmp_path))


def printed(capsys):
    """The output, and the content of its last line."""
    out = capsys.readouterr().out
    return out, json.loads(out.splitlines()[-1])


def test_train_step(capsys):
    before = torch.are_deterministic_algorithms_enabled()
    train_step.main(["--steps", "2", "--warmup", "1", "--block", "2", "--json", *TINY])
    out, content = printed(capsys)
    assert torch.are_deterministic_algorithms_enabled() == before
    for label in ("difflab / bare loop", "bare loop / diffusers loop", "ours / diffusers", "framework tax"):
        assert label in out
    assert "CPU: " in out
    assert content["machine"]["threads"] == torch.get_num_threads()
    assert {name: spread["n"] for name, spread in content["loop"]["ratios"].items()} == {
        "difflab / bare loop": 2,
        "difflab / diffusers loop": 2,
        "bare loop / diffusers loop": 2,
    }
    assert content["settings"]["batch"] == 2
    assert 0.0 <= content["data_wait_frac"] < 1.0
    assert all(s["median"] > 0 for part in ("loop", "network") for s in content[part]["seconds"].values())


def test_train_step_of_one_part(capsys):
    train_step.main(["--steps", "1", "--warmup", "0", "--part", "network", "--json", *TINY])
    _, content = printed(capsys)
    assert "network" in content
    assert "loop" not in content


def test_devices_says_whether_auto_is_right(capsys):
    devices.main(["--rounds", "1", "--warmup", "0", "--json", *TINY])
    out, content = printed(capsys)
    assert "Training step on cpu" in out
    assert "Sampling forward on cpu" in out
    assert out.count("fastest: ") == 2
    assert out.count("auto chooses") == 2
    assert set(content["training"]["seconds"]) == {str(way) for way in devices.ways_to_train(False)}


def test_attention_alone_and_in_a_step(capsys):
    attention.main(["--rounds", "1", "--warmup", "0", "--tokens", "4", "--json", *TINY])
    out, content = printed(capsys)
    assert "bfloat16, 4 x 24 channels, 4 tokens: " in out
    assert len(content["kernels"]) == 2 * len(attention.HEADS)
    assert set(content["step"]["seconds"]) == {"fused", "batches"}


def test_attention_of_the_benchmark_is_the_one_that_trains():
    from difflab.networks.attention import attend

    inputs = [torch.randn(2, 2, 5, 8).bfloat16().requires_grad_() for _ in range(3)]
    ours = attend(*inputs)
    assert torch.equal(attention.whole_batches(*inputs), ours)
    with attending_in_batches(False):
        assert torch.equal(attend(*inputs), torch.nn.functional.scaled_dot_product_attention(*inputs))
    assert torch.equal(attend(*inputs), ours)


def test_devices_judges_by_the_fastest():
    rounds = Rounds()
    rounds.add({"fp32": Lap(2.0, 2.0), "bf16": Lap(1.0, 1.0)})
    assert "is NOT the fastest" in devices.judged("Step", rounds, "cpu", "fp32")[-1]
    assert "is the right choice" in devices.judged("Step", rounds, "cpu", "bf16")[-1]
    assert "was not measured" in devices.judged("Step", rounds, "cpu", "bf16 + compile")[-1]


def test_loader(capsys):
    tiny = ["--images", "16", "--batch", "4", "--sizes", "16", "--workers", "0", "--rounds", "1", "--warmup", "0"]
    loader.main([*tiny, "--json"])
    out, content = printed(capsys)
    assert "| 16 px png, 0 workers |" in out
    assert set(content["cases"]) == {"16 px png, 0 workers", "16 px jpg, 0 workers"}
    assert all(math.isfinite(case["ratios"]["difflab / webdataset"]["median"]) for case in content["cases"].values())


def test_both_loaders_read_the_same_images(tmp_path):
    case = loader.Case(16, "png", 0, images=16, batch=4)
    source = loader.ShapesSource(resolution=16, n=16)
    loader.write_shards(source, tmp_path / "data", shard_size=4)
    ours = torch.cat([batch["image"] for batch in loader.difflab_loader(case, tmp_path / "data")])
    theirs = torch.cat([torch.as_tensor(batch[0]) for batch in loader.peer_loader(case, tmp_path / "data")])
    assert ours.dtype == theirs.dtype == torch.uint8
    assert sorted(map(bytes, ours.flatten(1).numpy())) == sorted(map(bytes, theirs.flatten(1).numpy()))


@pytest.mark.slow
def test_startup(capsys, monkeypatch):
    kept = {name: startup.COMMANDS[name] for name in (startup.HELP, "one step of difflab train")}
    monkeypatch.setattr(startup, "COMMANDS", kept)
    startup.main(["--rounds", "1", "--warmup", "0", "--json"])
    out, content = printed(capsys)
    assert "| difflab --help |" in out
    assert content["heavy_imports"] == {
        startup.HELP: [],
        "one step of difflab train": ["lightning", "torch", "torchmetrics", "torchvision"],
    }


def test_heavy_imports_are_found():
    assert startup.heavy_imports(["-c", "import webdataset.tariterators"])[-1] == "webdataset"


def test_a_mistake_is_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.train_step", "--experiment", "ddpm/nothing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "ddpm/nothing" in done.stderr


def test_data_make(capsys):
    data_make.main(
        ["--rounds", "1", "--warmup", "0", "--images", "8", "--files", "2", "--side", "64", "--workers", "0", "--json"]
    )
    out, content = printed(capsys)
    assert "| shapes, 32 px |" in out
    assert "| folder, 64 px JPEG to 64 |" in out
    assert content["cases"]["shapes, 32 px"]["ratios"].keys() == {"one process / all cores", "all cores / samples"}


def test_data_encode(capsys):
    data_encode.main(["--rounds", "1", "--warmup", "0", "--images", "8", "--batch", "2", "--large", "0", "--json"])
    out, content = printed(capsys)
    assert "| clip/shapes32, 8 images, batches of 2 |" in out
    (case,) = content["cases"].values()
    assert case["ratios"].keys() == {"bare / encode"}
