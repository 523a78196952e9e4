from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from command_line import start_program
from difflab.commands import composing
from difflab.commands.composing import compose_and_validate
from difflab.conf_dir import conf_dir
from difflab.config import groups
from difflab.config.stored import read_train_config
from difflab.config.train import TrainConfig
from difflab.interop.layouts import LAYOUTS
from difflab.interop.presets import PRESETS
from difflab.pipelines.stored import load_stored
from golden_fixtures import Fixture, draw, load
from interop.whole_models import whole_model
from tiny_runs import ON_CPU, TRAINING, difflab, done, mistake


class RunsCode:
    """Unpickled without care, it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def averaged(run: Path) -> dict[str, Tensor]:
    return load_file(run / "weights" / "ema.safetensors")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def tiny_preset(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An experiment of the tiny run's network, as if it were a published one."""
    conf = Path(shutil.copytree(conf_dir(), tmp_path / "conf"))
    network = read_train_config(tiny_run / "config.yaml").network.model_dump(mode="json")
    (conf / "network" / "tiny.yaml").write_text(yaml.safe_dump(network))
    experiment = (conf / "experiment" / "ddpm" / "shapes32.yaml").read_text()
    experiment = experiment.replace("override /network: unet_small", "override /network: tiny")
    experiment = experiment.replace("data:\n", "data:\n  image_size: 16\n").replace(
        "trainer:\n", "diffusion:\n  timesteps: 50\ntrainer:\n"
    )
    (conf / "experiment" / "ddpm" / "tiny.yaml").write_text(experiment)
    monkeypatch.setattr(groups, "conf_dir", lambda: conf)
    return "ddpm/tiny"


def test_a_run_is_inspected_by_its_averaged_weights(tiny_run: Path) -> None:
    found = json.loads(done("weights", "inspect", tiny_run, "--json").out)
    state = averaged(tiny_run)
    assert found["layout"] == "difflab"
    assert found["tensors"] == len(state)
    assert found["parameters"] == sum(tensor.numel() for tensor in state.values())
    assert (found["format"], found["dtypes"]) == ("safetensors", ["float32"])
    text = done("weights", "inspect", tiny_run).out
    assert f"tensors  {len(state)} with {found['parameters']:,} parameters, float32" in text
    assert "layout   difflab" in text


@pytest.mark.parametrize("what", ["run", "weights/ema.safetensors", "checkpoints/last.ckpt", "killed", "export"])
def test_whatever_holds_our_own_weights_is_told_by_its_configuration(own_run: Path, what: str) -> None:
    path = own_run / what
    if what == "export":
        done("weights", "export", own_run, "--out", path)
    if what in ("run", "killed"):
        path = own_run
    if what == "killed":
        for file in (*(own_run / "weights").iterdir(), own_run / "checkpoints" / "last.ckpt"):
            file.unlink()
    found = json.loads(done("weights", "inspect", path, "--json").out)
    assert (found["layout"], found["facts"]) == ("difflab", ["denoiser of 3-channel images"])
    assert any("a training checkpoint of difflab" in note for note in found["notes"]) == (
        what in ("killed", "checkpoints/last.ckpt")
    )


def test_a_snapshot_of_power_ema_is_told_by_its_run(own_run: Path) -> None:
    snapshots = own_run / "weights" / "power_ema"
    snapshots.mkdir()
    shutil.copy(own_run / "weights" / "ema.safetensors", snapshots / "sigma_rel-0.050-step-000003.safetensors")
    found = json.loads(done("weights", "inspect", *snapshots.iterdir(), "--json").out)
    assert (found["layout"], found["facts"]) == ("difflab", ["denoiser of 3-channel images"])


def test_of_several_sets_of_weights_one_is_asked_for(tiny_run: Path) -> None:
    state = averaged(tiny_run)
    torch.save({"model": {key: value + 1 for key, value in state.items()}, "ema": state, "step": 3}, "both.pt")
    message = mistake("weights", "inspect", "both.pt")
    assert message.endswith("choose one, as with --wrapper model")
    found = json.loads(done("weights", "inspect", "both.pt", "--wrapper", "ema", "--json").out)
    assert (found["layout"], found["tensors"]) == ("difflab", len(state))
    assert found["notes"][:2] == ["took the weights under 'ema'", "left out the entries beside it: model, step"]


@pytest.mark.parametrize("overrides", [(), ("sampler=ancestral", "sampler.steps=4"), ("sampler=heun",)])
def test_there_and_back_without_a_preset_draws_the_same_bits(tiny_run: Path, overrides: tuple[str, ...]) -> None:
    done("weights", "export", tiny_run, "--out", "theirs", "--layout", "diffusers")
    assert "`difflab weights import theirs --out FOLDER`" in mistake("sample", "run=theirs", "n=1", *ON_CPU)
    ended = done("weights", "import", "theirs", "--out", "back")
    assert ended.out == "theirs (diffusers) -> back: try `difflab sample run=back n=4`\n"
    for run, out in ((tiny_run, "first"), ("back", "second")):
        done("sample", f"run={run}", f"out={out}", "n=2", "seed=3", *overrides, *ON_CPU)
    first, second = (np.load(Path(out) / "samples.npz") for out in ("first", "second"))
    assert first.files == second.files
    assert all(np.array_equal(first[name], second[name]) for name in first.files)
    assert load_stored("back")[1].config == load_stored(tiny_run)[1].config


@pytest.mark.parametrize("command", ["sample", "evaluate", "likelihood"])
def test_every_command_that_takes_a_run_names_the_import(tiny_run: Path, command: str) -> None:
    done("weights", "export", tiny_run, "--out", "theirs", "--layout", "diffusers")
    message = mistake(command, "run=theirs", *ON_CPU)
    assert "run=theirs is a folder of diffusers, not of difflab; make it one with `difflab weights import`" in message


def test_a_folder_of_another_process_than_the_preset_is_remarked(tiny_run: Path, tiny_preset: str) -> None:
    done("weights", "export", tiny_run, "--out", "theirs", "--layout", "diffusers")
    out = done("weights", "import", "theirs", "--preset", tiny_preset, "--out", "back").out
    assert f"note: theirs has prediction=eps, but it was taken for {tiny_preset}, which has x0" in out
    assert "has timesteps=" not in out


def test_a_file_without_a_preset_names_what_it_fits(tiny_run: Path) -> None:
    done("weights", "export", tiny_run, "--out", "file.pt", "--layout", "pesser")
    message = mistake("weights", "import", "file.pt", "--out", "back")
    assert "file.pt: name the experiment that these weights are of, as in --preset ddpm/cifar10" in message
    assert not Path("back").exists()


@pytest.mark.parametrize("preset", [(), ("--preset", "ddpm/cifar10")])
def test_our_own_weights_need_no_import(tiny_run: Path, preset: tuple[str, ...]) -> None:
    command = ("--out", "back", *preset)
    message = mistake("weights", "import", tiny_run, *command)
    assert message.endswith(
        f"{tiny_run} is a run of difflab's own, which every command accepts as it is: run={tiny_run}"
    )
    done("weights", "export", tiny_run, "--out", "ours")
    for path in ("ours", "ours/model.safetensors", tiny_run / "checkpoints" / "last.ckpt"):
        assert f"{path}: these are difflab's own weights" in mistake("weights", "import", path, *command)


def test_an_export_says_how_diffusers_draws_the_same(tiny_run: Path) -> None:
    out = done("weights", "export", tiny_run, "--out", "theirs", "--layout", "diffusers").out
    assert "note: diffusers' images differ from the run's own (sampler=ddim): it does not take the steps of" in out


@pytest.mark.parametrize(
    ("overrides", "layout", "message"),
    [
        (["network.patch_size=2"], "diffusers", "has no network with patch_size=2"),
        (["conditioning=low_res", "conditioning.low_res.size=8", "network.concat_channels=3"], "diffusers", "concat"),
        (["network.adaptive_norm=true"], "pesser", "has no network with adaptive_norm=True"),
        (["diffusion.prediction=prev", "diffusion.weighting=none"], "diffusers", "has no prediction=prev"),
        (["conditioning=class"], "pesser", "cannot hold class_label"),
    ],
)
def test_what_a_layout_cannot_hold_is_said_before_weights_are_read(
    own_run: Path, overrides: list[str], layout: str, message: str
) -> None:
    config = yaml.safe_load((own_run / "config.yaml").read_text())
    composed = compose_and_validate("train", TrainConfig, [*TRAINING, *overrides])[0]
    whole = composed.model_dump(mode="json")
    for group in ("network", "diffusion", "conditioning"):
        config[group] = whole[group]
    (own_run / "config.yaml").write_text(yaml.safe_dump(config))
    (own_run / "weights" / "ema.safetensors").write_bytes(b"not to be read")
    assert message in mistake("weights", "export", own_run, "--out", "out.pt", "--layout", layout)
    assert not Path("out.pt").exists()


def test_an_export_does_not_mix_with_another_layout(tiny_run: Path) -> None:
    done("weights", "export", tiny_run, "--out", "folder", "--layout", "diffusers")
    assert "folder: holds diffusion_pytorch_model" in mistake("weights", "export", tiny_run, "--out", "folder")
    done("weights", "export", tiny_run, "--out", "ours")
    message = mistake("weights", "export", tiny_run, "--out", "ours", "--layout", "diffusers")
    assert "ours: holds model.safetensors, a model in another layout" in message
    Path("file").touch()
    assert "file: a file, where layout difflab writes a folder" in mistake(
        "weights", "export", tiny_run, "--out", "file"
    )
    message = mistake("weights", "export", tiny_run, "--out", "ours.pt", "--layout", "keras")
    Path("folder.pt").mkdir()
    assert "folder.pt: a folder" in mistake("weights", "export", tiny_run, "--out", "folder.pt", "--layout", "pesser")


@pytest.mark.parametrize("layout", ["difflab", "diffusers"])
@pytest.mark.parametrize(
    ("there", "message"),
    [
        ("config.yaml", "folder: holds config.yaml, a run; give another folder"),
        ("config.json", "folder: holds a config.json that difflab did not write; give another folder"),
        ("model_index.json", "folder: holds model_index.json, a model in another layout; give another folder"),
    ],
)
def test_an_export_writes_over_nothing_of_others(tiny_run: Path, layout: str, there: str, message: str) -> None:
    Path("folder").mkdir()
    (Path("folder") / there).write_text('{"mine": 1}')
    assert message in mistake("weights", "export", tiny_run, "--out", "folder", "--layout", layout)
    assert [path.read_text() for path in Path("folder").iterdir()] == ['{"mine": 1}']


@pytest.mark.parametrize("layout", ["difflab", "diffusers"])
@pytest.mark.parametrize("out", [".", "below/.."])
def test_an_export_into_the_present_folder(
    tiny_run: Path, tmp_path: Path, layout: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):
        done("weights", "export", tiny_run, "--out", out, "--layout", layout)
    assert Path("config.json").is_file()
    assert not list(tmp_path.rglob("*partial*"))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["difflab", "diffusers"])
def test_an_export_on_a_full_disk_leaves_what_was_there(tiny_run: Path, tmp_path: Path, layout: str) -> None:
    """A limit on the size of files is the full disk that a test can make."""
    program = (
        "import resource, signal, sys; from difflab.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    for kept in (False, True):
        if kept:
            done("weights", "export", tiny_run, "--out", "out", "--layout", layout)
        before = {path.name: path.read_bytes() for path in Path("out").glob("*")}
        command = [sys.executable, "-c", program, "weights", "export", tiny_run, "--out", "out", "--layout", layout]
        process = start_program([str(part) for part in command], tmp_path)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "larger than this file system" in err
        assert "out/" in err.strip().splitlines()[-1]
        assert {path.name: path.read_bytes() for path in Path("out").glob("*")} == before
        assert [path.name for path in tmp_path.iterdir()] == (["out"] if kept else [])


@pytest.mark.parametrize(
    ("layout", "name"),
    [("difflab", "folder"), ("diffusers", "folder"), ("pesser", "file.pt"), ("pesser", "f.safetensors")],
)
def test_what_was_exported_is_recognised(tiny_run: Path, layout: str, name: str) -> None:
    ended = done("weights", "export", tiny_run, "--out", name, "--layout", layout)
    assert name in ended.out
    found = json.loads(done("weights", "inspect", name, "--json").out)
    assert found["layout"] == layout
    assert found["parameters"] == sum(tensor.numel() for tensor in averaged(tiny_run).values())


@pytest.mark.parametrize(
    ("layout", "name"), [("diffusers", "folder"), ("pesser", "file.pt"), ("pesser", "f.safetensors")]
)
def test_export_and_import_give_the_same_bits(tiny_run: Path, tiny_preset: str, layout: str, name: str) -> None:
    done("weights", "export", tiny_run, "--out", name, "--layout", layout)
    ended = done("weights", "import", name, "--preset", tiny_preset, "--out", "back")
    assert f"{name} ({layout}) -> back: try `difflab sample run=back n=4`" in ended.out
    model, stored = load_stored("back")
    assert same(model.as_module().state_dict(), averaged(tiny_run))
    assert stored.config.experiment == tiny_preset
    done("sample", "run=back", "n=1", "sampler.steps=2", *ON_CPU)


def test_weights_that_are_not_finite_are_named_on_import(tiny_run: Path, tiny_preset: str) -> None:
    done("weights", "export", tiny_run, "--out", "file.pt", "--layout", "pesser")
    state = torch.load("file.pt", weights_only=True)
    assert "not finite" not in done("weights", "import", "file.pt", "--preset", tiny_preset, "--out", "fine").out
    broken = [name for name in state if name.startswith("conv_out.")]
    for name in broken:
        state[name].view(-1)[-1] = torch.nan if name.endswith("bias") else -torch.inf
    torch.save(state, "file.pt")
    told = done("weights", "import", "file.pt", "--preset", tiny_preset, "--out", "broken").out
    assert re.search(r"note: not finite, .*: network\.\S+, network\.\S+, 2 of \d+ tensors", " ".join(told.split()))


def test_export_of_an_export_is_the_same_file(tiny_run: Path, tmp_path: Path) -> None:
    done("weights", "export", tiny_run, "--out", "first")
    done("weights", "export", "first", "--out", "second")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_raw_weights_can_be_exported(tiny_run: Path, tmp_path: Path) -> None:
    done("weights", "export", tiny_run, "--out", "raw", "--weights", "raw")
    state = torch.load(tiny_run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    exported = load_file(tmp_path / "raw" / "model.safetensors")
    assert same(exported, {key: state[key] for key in exported})
    assert not same(exported, averaged(tiny_run))


def test_diffusers_computes_the_same_from_what_was_exported(tiny_run: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DModel

    done("weights", "export", tiny_run, "--out", "theirs", "--layout", "diffusers")
    theirs = UNet2DModel.from_pretrained(tmp_path / "theirs").eval()
    ours, _ = load_stored(tiny_run)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    time = torch.tensor([3, 40])
    with torch.inference_mode():
        expected = theirs(x, time).sample
        assert torch.allclose(ours.network(x, time.float()), expected, atol=1e-5, rtol=1e-4)
    assert expected.std() > 1e-3


def test_a_model_with_classes_leaves_in_layouts_that_have_them(class_run: Path, tmp_path: Path) -> None:
    message = mistake("weights", "export", class_run, "--out", "theirs.pt", "--layout", "pesser")
    assert message.endswith("layout pesser cannot hold class_label, a conditioner of kind class; use layout difflab")
    done("weights", "export", class_run, "--out", "ours")
    assert same(load_stored("ours")[0].as_module().state_dict(), averaged(class_run))
    done("weights", "export", class_run, "--out", "theirs", "--layout", "diffusers")
    names = {"config.json", "diffusion_pytorch_model.safetensors", "scheduler_config.json"}
    assert {path.name for path in (tmp_path / "theirs").iterdir()} == names
    assert "class-conditional with 6 classes" in done("weights", "inspect", "theirs").out


@pytest.fixture
def tiny_adm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ADM's experiments with the networks of the golden fixtures, as if those were the published ones."""
    conf = Path(shutil.copytree(conf_dir(), tmp_path / "conf"))
    for experiment, network, fixture, classes in ADM:
        target = whole_model(load("diffusion", fixture))[0]
        (conf / "network" / f"{network}.yaml").write_text(yaml.safe_dump(target.network.model_dump(mode="json")))
        path = conf / "experiment" / f"{experiment}.yaml"
        data = f"data:\n  image_size: 16\n  classes: {classes}\n"
        path.write_text(path.read_text().replace("data:\n", data).replace("size: 64", "size: 4"))
    # Where configurations are composed alone: weights are compared with the networks as they were published.
    monkeypatch.setattr(composing, "conf_dirs", lambda: (conf,))
    return tmp_path


ADM = [
    ("adm/imagenet64", "adm_64", "adm-unet-neworder-cond", 10),
    ("adm/imagenet128", "adm_128", "adm-unet-legacy-cond", 10),
    ("adm/imagenet64_classifier", "adm_classifier_64", "adm-classifier-attention", 10),
    ("adm/imagenet64_256_upsampler", "adm_64_256_upsampler", "adm-superres", 6),
]


@pytest.mark.parametrize(("experiment", "network", "fixture", "classes"), ADM)
def test_openais_files_come_in_and_go_out(
    tiny_adm: Path, experiment: str, network: str, fixture: str, classes: int
) -> None:
    golden = load("diffusion", fixture)
    layout = whole_model(golden)[1].name
    torch.save(golden.state_dict(), "official.pt")
    ended = done("weights", "import", "official.pt", "--preset", experiment, "--out", "ours")
    assert f"official.pt ({layout}) -> ours: try `difflab sample run=" in ended.out
    model, stored = load_stored("ours")
    assert stored.config.experiment == experiment
    facts = done("weights", "inspect", "ours").out
    assert f"{classes} classes" in facts
    cond = model.conditioners.conditioning({"label": golden.input("y")} | given_low_res(golden))
    with torch.inference_mode():
        out = model.network(golden.input("x"), golden.input("t").float(), cond)
    golden.check("logits" if "logits" in golden.arrays else "out", out)
    done("weights", "export", "ours", "--out", "back.pt", "--layout", layout)
    assert same(torch.load("back.pt", weights_only=True), golden.state_dict())


def given_low_res(fixture: Fixture) -> dict[str, Tensor]:
    return {"low_res": fixture.input("low_res")} if "low_res" in fixture.spec["inputs"] else {}


def test_a_file_under_the_name_of_another_model_is_remarked(tiny_adm: Path) -> None:
    torch.save(load("diffusion", "adm-unet-legacy-cond").state_dict(), "256x256_diffusion.pt")
    ended = done("weights", "import", "256x256_diffusion.pt", "--preset", "adm/imagenet128", "--out", "ours")
    remark = "note: 256x256_diffusion.pt is the name of adm/imagenet256's file, but it was taken for adm/imagenet128"
    assert remark in ended.out


def test_a_layout_that_the_model_was_not_published_in_is_remarked(tiny_adm: Path) -> None:
    torch.save(load("diffusion", "adm-unet-legacy-cond").state_dict(), "official.pt")
    command = ("weights", "import", "official.pt", "--preset", "adm/imagenet128", "--out", "ours", "--layout")
    remark = "note: adm/imagenet128 was published in layout guided, not guided-new-order"
    assert remark in done(*command, "guided-new-order").out
    assert "note:" not in done(*command, "guided").out


def test_a_classifier_is_not_taken_for_a_denoiser(tiny_adm: Path) -> None:
    torch.save(load("diffusion", "adm-classifier-attention").state_dict(), "official.pt")
    message = mistake("weights", "import", "official.pt", "--preset", "adm/imagenet128", "--out", "ours")
    assert "official.pt: these weights do not fit the guided layout" in message
    assert not Path("ours").exists()


def test_weights_of_another_network_name_what_differs(tiny_run: Path) -> None:
    done("weights", "export", tiny_run, "--out", "file.pt", "--layout", "pesser")
    message = mistake("weights", "import", "file.pt", "--preset", "ddpm/cifar10", "--out", "back")
    assert "expected [" in message
    assert not Path("back").exists()


@pytest.mark.parametrize("command", ["inspect", "import"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_runs_code_is_refused(command: str, legacy: bool, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save(
        {"temb.dense.0.weight": torch.zeros(1), "x": RunsCode(trace)},
        "bad.pt",
        _use_new_zipfile_serialization=not legacy,
    )
    options = [] if command == "inspect" else ["--preset", "ddpm/cifar10", "--out", "back"]
    message = mistake("weights", command, "bad.pt", *options)
    assert "bad.pt: refused, because reading it would run" in message
    assert not trace.exists()
    assert not (tmp_path / "back").exists()
    with Path("bad.pt").open("rb") as file:
        torch.load(file, weights_only=False)
    assert trace.exists(), "the file is as bad as the test says"


@pytest.mark.parametrize("name", ["file.pt", "f.safetensors"])
@pytest.mark.parametrize("kept", [0, 100, 0.5])
def test_a_file_cut_short_is_named(tiny_run: Path, name: str, kept: float) -> None:
    done("weights", "export", tiny_run, "--out", name, "--layout", "pesser")
    content = Path(name).read_bytes()
    Path(name).write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    assert name in mistake("weights", "inspect", name)


def test_a_bare_pickle_is_no_weights() -> None:
    Path("bare.pt").write_bytes(pickle.dumps([1, 2]))
    assert "bare.pt" in mistake("weights", "inspect", "bare.pt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "gone.pt"], "gone.pt: no such file"),
        (["inspect"], "Missing argument"),
        (["inspect", "gone.pt", "--wrong"], "No such option"),
        (["shrink"], "No such command 'shrink'"),
        (["export", "runs/gone", "--out", "x"], "run=runs/gone does not exist"),
        (
            ["import", "gone.pt", "--preset", "ddpm/cifar1", "--out", "x"],
            "--preset ddpm/cifar1 is not an experiment; did you mean ddpm/cifar10? (known: ddpm/",
        ),
        (["import", "gone.pt", "--preset", "ddpm/cifar10", "--out", "x"], "gone.pt: no such file"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str) -> None:
    assert message in mistake("weights", *arguments)
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layout", "keras"], "no layout is called 'keras'; there are pesser, diffusers"),
        (["--layout", "pesser"], "end the name in .safetensors or .pt"),
        (["--weights", "best"], "--weights best is not one of auto, ema, raw"),
    ],
)
def test_an_export_that_cannot_be_is_one_line(tiny_run: Path, options: list[str], message: str) -> None:
    assert message in mistake("weights", "export", tiny_run, "--out", "out", *options)
    assert not Path("out").exists()


def test_without_a_command_the_help_is_shown() -> None:
    ended = difflab("weights")
    assert ended.status == 2
    for command in ("inspect", "import", "export"):
        assert command in ended.out + ended.err


@pytest.mark.slow
def test_the_released_cifar10_model_comes_in_and_draws(tmp_path: Path) -> None:
    keymap = LAYOUTS["pesser"].keymap(PRESETS["ddpm/cifar10"].target())
    official = {key: torch.from_numpy(draw(0, key, shape)) for key, shape in keymap.official_shapes.items()}
    torch.save(official, "ema_diffusion_cifar10_model-790000.ckpt")
    found = done("weights", "inspect", "ema_diffusion_cifar10_model-790000.ckpt").out
    assert "fits     ddpm/cifar10" in found
    assert "35,746,307 parameters" in found
    arguments = ("ema_diffusion_cifar10_model-790000.ckpt", "--preset", "ddpm/cifar10", "--out", "weights/cifar10")
    done("weights", "import", *arguments)
    done("sample", "run=weights/cifar10", "n=2", "sampler=ancestral", "sampler.steps=2", *ON_CPU)
    done("weights", "export", "weights/cifar10", "--out", "back.safetensors", "--layout", "pesser")
    assert same(load_file(tmp_path / "back.safetensors"), official)
    message = mistake("weights", "import", "back.safetensors", "--preset", "ddpm/lsun_church", "--out", "wrong")
    assert message.endswith("(they fit ddpm/cifar10)")


def test_whether_a_path_may_be_read_is_left_to_reading_it(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what the machine refuses is called a mistake of the user's, with its own status and without advice."""
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    done("weights", "inspect", tiny_run)
    done("weights", "export", tiny_run, "--out", "folder")
