"""Both libraries draw the same images, and what is measured around them is what it says. No time is looked at."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmarks.devices import Way
from benchmarks.drawers import Drawing, NetworkClock, fill_zero_layers, levels_apart, require_same_images
from benchmarks.memory import in_own_process, peak_memory
from benchmarks.pairs import Lap, Rounds
from benchmarks.peer import diffusers_model

from benchmarks import sampling
from command_line import wait_until
from difflab.errors import UserError

ROOT = Path(__file__).parents[2]
TINY = [
    "network.base_channels=32",
    "network.channel_mult=[1,2]",
    "network.blocks_per_level=1",
    "network.attention_resolutions=[4]",
    "network.attention_head_channels=32",
    "data.image_size=8",
]
SHORT = ["--accelerator", "cpu", "--rounds", "1", "--warmup", "0", "--steps", "2", "--batch", "2", "--json", *TINY]


def tiny_model(*overrides, experiment=sampling.EXPERIMENT):
    return sampling.drawn_model(SimpleNamespace(experiment=experiment, overrides=[*TINY, *overrides]))


def drawing_of(model, steps=4, scale=2.0):
    return Drawing(model, "cpu", steps, 2, scale)


def measured(capsys, *arguments):
    """The output of a run, and its last line."""
    sampling.main([*SHORT, *arguments])
    out = capsys.readouterr().out
    return out, json.loads(out.splitlines()[-1])


# -- the peer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch_size", [1, 2])
def test_peer_is_the_whole_model(patch_size):
    size = 8 * patch_size
    model = tiny_model(f"network.patch_size={patch_size}", "data.classes=5", f"data.image_size={size}")
    peer = diffusers_model(model).eval()
    ours = model.as_module()
    assert sum(p.numel() for p in peer.parameters()) == sum(p.numel() for p in ours.parameters())
    x, time = torch.randn(3, 3, size, size), torch.tensor([1.0, 50.0, 900.0])
    batch = {"label": torch.tensor([1, 4, 2])}
    dropped = torch.tensor([False, False, True])
    with torch.no_grad():
        expected = model.network(x, time, model.conditioners.conditioning(batch, {"class_label": dropped}))
        found = peer(x, time, torch.tensor([1, 4, 5]))
        other = peer(x, time, torch.tensor([1, 4, 2]))
    assert expected.shape == (3, 6, size, size)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(other[2], expected[2], atol=1e-2)


def test_another_model_is_not_timed_as_a_peer():
    model = tiny_model()
    model.conditioners["class_label"].embedding.register_forward_hook(lambda module, given, out: 1.01 * out)
    with pytest.raises(UserError, match="is not this one"):
        diffusers_model(model)


@pytest.mark.parametrize(
    ("scale", "experiment", "overrides"),
    [
        (2.0, sampling.EXPERIMENT, []),
        (1.0, sampling.EXPERIMENT, []),
        (1.0, "adm/lsun_bedroom", []),
        (3.0, sampling.EXPERIMENT, ["diffusion=v_cosine", "network.patch_size=2"]),
    ],
)
def test_both_draw_the_same_images(scale, experiment, overrides):
    drawing = drawing_of(tiny_model(*overrides, experiment=experiment), scale=scale)
    ours, theirs = drawing.ours(Way())(), drawing.theirs(Way(), diffusers_model(drawing.model))()
    assert ours.shape == (2, 3, 8, 8)
    assert ours.std() > 0.1
    assert require_same_images(ours, theirs, sampling.SAME_IMAGES) < sampling.SAME_IMAGES


def test_other_images_are_refused():
    model = tiny_model()
    drawn, guided = (drawing_of(model, scale=scale).ours(Way())() for scale in (1.0, 2.0))
    with pytest.raises(UserError, match="other images"):
        require_same_images(drawn, guided, sampling.SAME_IMAGES)
    with pytest.raises(UserError, match="other images"):
        require_same_images(drawn, torch.full_like(drawn, torch.nan), sampling.SAME_IMAGES)


def test_each_contender_has_a_network_of_its_own():
    drawing = drawing_of(tiny_model())
    weight = drawing.pipeline(Way(channels_last=True)).last.network.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not drawing.model.network.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_no_layer_of_drawn_weights_is_zero():
    layer = torch.nn.Conv2d(100, 100, 3)
    torch.nn.init.zeros_(layer.weight)
    fill_zero_layers(layer)
    assert layer.weight.std().item() == pytest.approx(900**-0.5, rel=0.05)
    before = layer.weight.clone()
    fill_zero_layers(layer)
    assert torch.equal(layer.weight, before)
    assert all(p.any() for p in tiny_model().network.parameters() if p.ndim > 1)


# -- what is measured -----------------------------------------------------------------------------------------------


def test_contenders_have_bf16_where_it_is_the_default_or_asked_for():
    assert [str(one) for one in sampling.contenders(Way(), bf16=False)] == ["difflab fp32", "diffusers fp32"]
    assert [str(one) for one in sampling.contenders(Way(), bf16=True)] == [
        "difflab fp32",
        "difflab bf16",
        "diffusers fp32",
        "diffusers bf16",
    ]
    gpu = Way(bf16=True, channels_last=True)
    assert "difflab bf16 + channels_last" in [str(one) for one in sampling.contenders(gpu, bf16=False)]


def test_levels_are_of_eight_bits_and_of_what_is_shown():
    images = torch.tensor([-3.0, 0.0, 0.0, 1.0])
    others = torch.tensor([-1.0, 2 / 127.5, 0.0, 0.0])
    largest, mean = levels_apart(images, others)
    assert largest == pytest.approx(127.5)
    assert mean == pytest.approx((2 + 127.5) / 4)


def test_an_image_is_a_part_of_its_batch():
    rounds = Rounds([{"ours": Lap(4.0, 8.0)}])
    assert sampling.per_image(rounds, 4).laps == [{"ours": Lap(1.0, 2.0)}]


def test_time_outside_is_what_the_network_did_not_take(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    network = torch.nn.Identity()
    network.register_forward_hook(lambda *_: wait(3.0), prepend=True)

    def draw(indices, seed):
        for _ in range(4):
            network(torch.zeros(1))
            wait(1.0)

    pipeline = SimpleNamespace(last=SimpleNamespace(network=network), draw=draw, n_steps=4)
    costs, shares = sampling.outside_of(pipeline, drawing_of(None), rounds=2)
    assert (costs.median, costs.n) == (1.0, 2)
    assert shares.median == 0.25
    # Not watched any more.
    clock = NetworkClock(lambda: None)
    network(torch.zeros(1))
    assert clock.seconds == 0.0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel keeps no peak that can begin anew")
def test_peak_memory_is_of_the_work_alone():
    mebibytes = 2**20
    held = torch.ones(300 * mebibytes, dtype=torch.uint8)
    del held
    # What was there before is no part of the peak, what is freed within the work is.
    idle = peak_memory(lambda: None, torch.device("cpu"))
    busy = peak_memory(lambda: torch.ones(200 * mebibytes, dtype=torch.uint8), torch.device("cpu"))
    assert idle.peak - idle.before < 50
    assert 190 < busy.peak - busy.before < 300


@pytest.mark.skipif(sys.platform.startswith("linux"), reason="Linux can")
def test_peak_memory_says_where_it_cannot_be_measured():
    with pytest.raises(UserError, match="--part time"):
        peak_memory(lambda: None, torch.device("cpu"))


# -- the command ----------------------------------------------------------------------------------------------------


def test_time(capsys):
    out, content = measured(capsys, "--part", "time", "--bf16")
    assert "fp32 / diffusers': " in out
    assert "in 8-bit levels: at most" in out
    assert content["settings"]["steps"] == content["settings"]["batch"] == 2
    assert set(content["time"]["seconds"]) == {"difflab fp32", "difflab bf16", "diffusers fp32", "diffusers bf16"}
    assert all(spread["n"] == 1 for spread in content["time"]["ratios"].values())
    assert 0 < content["time"]["bf16_levels"]["mean"] < content["time"]["bf16_levels"]["max"] < 255
    assert content["time"]["same_images"] < sampling.SAME_IMAGES


def test_outside(capsys):
    out, content = measured(capsys, "--part", "outside")
    assert "largest share outside of the network" in out
    assert set(content["outside"]) == {
        f"{sampler}{way}"
        for sampler in ("ancestral", "ddim")
        for way in ("", ", guided", ", guided, dynamic threshold")
    } | set(sampling.OTHER_SAMPLERS)
    assert all(0 < case["share"]["median"] < 1 for case in content["outside"].values())


def test_layouts(capsys):
    out, content = measured(capsys, "--part", "layouts")
    assert "auto chooses" in out
    assert any(name.endswith("one by one") for name in content["layouts"]["seconds"])
    assert "fp32 + channels_last" in content["layouts"]["seconds"]


@pytest.mark.slow
def test_memory(capsys):
    out, content = measured(capsys, "--part", "memory")
    assert "Memory of the process" in out
    assert {"difflab fp32", "diffusers fp32"} <= set(content["memory"])
    assert all(0 < memory["before"] <= memory["peak"] for memory in content["memory"].values())


@pytest.mark.slow
def test_a_process_of_its_own():
    assert in_own_process(os.getpid) != os.getpid()
    with pytest.raises(FileNotFoundError):
        in_own_process(os.stat, "there/is/nothing/here")


KILLED = """
import os, sys, time
from benchmarks.memory import in_own_process

def works(path):
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(120)

if __name__ == "__main__":
    in_own_process(works, sys.argv[1])
"""


@pytest.mark.slow
def test_a_process_of_its_own_ends_with_the_one_that_is_killed(tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": paths}
    started = tmp_path / "pid"
    with subprocess.Popen([sys.executable, tmp_path / "killed.py", started], env=environment) as parent:
        wait_until(lambda: started.exists() and started.read_text(), seconds=60)
        parent.kill()
    pid = int(started.read_text())
    wait_until(lambda: not Path(f"/proc/{pid}/cmdline").exists(), seconds=60)


def test_mistakes_are_refused_before_anything_is_timed(tmp_path):
    with pytest.raises(UserError, match=r"leave out network\.base_channels=32"):
        sampling.main(["--run", str(tmp_path), "network.base_channels=32"])
    with pytest.raises(UserError, match="2000"):
        sampling.main([*SHORT, "--steps", "2000"])
    with pytest.raises(UserError, match="drop_rate"):
        sampling.main([*SHORT, "conditioning.class_label.drop_rate=0"])
