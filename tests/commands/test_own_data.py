"""`data.path=...` is enough: what a training reads from its data, and what it refuses."""

from __future__ import annotations

import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from command_line import run_difflab
from difflab.commands.composing import compose
from difflab.commands.sweep_checking import folder_of
from difflab.data.facts import facts_of
from difflab.data.index import INDEX_NAME
from difflab.errors import UserError
from own_images import write_drawings, write_scans
from tiny_runs import done, mistake

QUICK = ("logger=csv", "trainer.accelerator=cpu", "trainer.precision=32-true", "callbacks.sample_grid=null")
DDPM, CFG, SR3 = ("experiment=ddpm/shapes32", "experiment=cfg/shapes32", "experiment=sr3/shapes32")
JUDGE, ADM = "experiment=adm/shapes32_classifier", "experiment=adm/shapes32"
CLEAN_JUDGE = "experiment=classifier/shapes32"


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey, 28 px, ten classes; 100 images to train on and 20 to validate."""
    root = tmp_path_factory.mktemp("scans")
    done(
        "data",
        "make",
        "source=folder",
        f"path={write_scans(root / 'pictures', each=12)}",
        f"out={root / 'mine'}",
        "val=20",
    )
    return root / "mine"


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RGBA, 48 px, three classes; 66 images to train on alone."""
    root = tmp_path_factory.mktemp("drawings")
    done("data", "make", "source=folder", f"path={write_drawings(root / 'pictures', each=22)}", f"out={root / 'mine'}")
    return root / "mine"


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    write_scans(tmp_path / "pictures", each=1, classes=["all"])
    source = f"path={tmp_path / 'pictures' / 'all'}"
    done("data", "make", "source=folder", source, f"out={tmp_path / 'mine'}")
    return tmp_path / "mine"


def tar_of(path: Path, pictures: list[Image.Image], labels: list[int] | None = None) -> Path:
    """A plain tar of another tool."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, picture in enumerate(pictures):
            content = BytesIO()
            picture.save(content, "PNG")
            files = {"png": content.getvalue()}
            if labels is not None:
                files["cls"] = str(labels[number]).encode()
            for ending, data in files.items():
                entry = tarfile.TarInfo(f"{number:04d}.{ending}")
                entry.size = len(data)
                tar.addfile(entry, BytesIO(data))
    return path.parent


def facts(content: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(content["data"][key] for key in ("image_size", "channels", "classes"))


def test_the_index_says_what_the_images_are(scans: Path, drawings: Path) -> None:
    assert json.loads((scans / INDEX_NAME).read_text())["channels"] == 1
    assert json.loads((drawings / INDEX_NAME).read_text())["channels"] == 3


@pytest.mark.parametrize("experiment", [DDPM, CFG, ADM, "experiment=edm/shapes32", "experiment=p2/shapes32"])
def test_everything_follows_the_data(scans: Path, drawings: Path, experiment: str) -> None:
    grey, drawn = (compose("train", [experiment, f"data.path={path}"]) for path in (scans, drawings))
    assert (facts(grey), facts(drawn)) == ((28, 1, 10), (48, 3, 3))
    assert (grey["data"]["class_names"], drawn["data"]["class_names"]) == (list("0123456789"), ["cat", "house", "tree"])
    assert (grey["data"]["val_split"], drawn["data"]["val_split"]) == ("val", None)
    for content, channels, patch, grid in ((grey, 1, 2, 7), (drawn, 3, 3, 8)):
        network = content["network"]
        assert (network["channels"], network["patch_size"], network["pad"]) == (channels, patch, False)
        assert (network["channel_mult"], network["attention_resolutions"]) == ([1, 1.5], [grid])
    if "class_label" in grey["conditioning"]:
        assert grey["conditioning"]["class_label"]["classes"] == 10
    assert grey.said == (f"{scans / INDEX_NAME}: 28 pixels, 1 channel, 10 classes",)
    assert drawn.said[0] == f"{drawings / INDEX_NAME}: 48 pixels, 3 channels, 3 classes"


def test_upsamplers_enlarge_a_share_of_it(scans: Path, drawings: Path) -> None:
    assert compose("train", [SR3])["conditioning"]["low_res"]["size"] == 8
    grey = compose("train", [SR3, f"data.path={scans}"])
    assert (grey["conditioning"]["low_res"]["size"], grey["network"]["concat_channels"]) == (7, 1)
    assert compose("train", [SR3, f"data.path={drawings}"])["conditioning"]["low_res"]["size"] == 12
    half = compose("train", ["experiment=adm/shapes32_upsampler", f"data.path={drawings}"])
    assert half["conditioning"]["low_res"]["size"] == 24
    given = compose("train", [SR3, f"data.path={scans}", "conditioning.low_res.size=14"])
    assert given["conditioning"]["low_res"]["size"] == 14
    # With a first stage, too, it is the images that are made smaller, and not their latents.
    latents = compose("train", ["experiment=ldm/shapes64_sr", f"data.path={drawings}"])
    assert latents["conditioning"]["low_res"]["size"] == 12


def test_any_choice_of_data_follows_the_data_too(scans: Path) -> None:
    content = compose("train", ["data=shards", f"data.path={scans}", "data.batch_size=4"])
    assert facts(content) == (28, 1, 10)
    published = compose("train", ["experiment=ddpm/cifar10", f"data.path={scans}"])
    assert (facts(published), published["network"]["channels"]) == ((28, 1, 10), 1)


def test_what_images_are_cut_to_stays(scans: Path) -> None:
    content = compose("train", ["experiment=adm/imagenet64", f"data.path={scans}"])
    assert facts(content) == (64, 1, 10)
    content = compose("train", [DDPM, f"data.path={scans}", "data.crop=edm", "data.image_size=16"])
    assert facts(content) == (16, 1, 10)
    assert facts(compose("train", [DDPM, f"data.path={scans}", "data.crop=edm"])) == (28, 1, 10)


def test_overrides_stay_and_the_rest_fits_around_them(scans: Path) -> None:
    network = compose("train", [DDPM, f"data.path={scans}", "network.patch_size=1"])["network"]
    assert (network["patch_size"], network["channel_mult"], network["attention_resolutions"]) == (1, [0.5, 1, 1.5], [7])
    network = compose("train", [DDPM, f"data.path={scans}", "network.base_channels=20"])["network"]
    assert network["norm_groups"] == 5
    agreeing = ["data.image_size=28", "data.channels=1", "data.classes=10"]
    assert facts(compose("train", [DDPM, f"data.path={scans}", *agreeing])) == (28, 1, 10)
    assert facts(compose("train", [DDPM, f"data.path={scans}", "data.classes=null"])) == (28, 1, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("data.image_size=32", "{index} says 28 px images, data.image_size=32: set data.image_size=28 or leave it out"),
        (
            "data.channels=3",
            "data.channels=3, but {index} says 1: leave data.channels out, and network.channels=1 follows",
        ),
        ("data.classes=6", "data.classes=6, but {index} says 10: leave data.classes out"),
        ("+data.classes=6", "already exists"),
        ("data.class_names=[a,b]", "class_names has 2 names, classes=10"),
    ],
)
def test_what_is_given_has_to_agree(scans: Path, given: str, message: str) -> None:
    assert message.format(index=scans / INDEX_NAME) in mistake("train", DDPM, f"data.path={scans}", given, *QUICK)


def test_names_that_are_given_have_to_agree(scans: Path) -> None:
    names = "data.class_names=[zero,'1','2','3','4','5','6','7','8','9']"
    line = mistake("train", DDPM, f"data.path={scans}", names, *QUICK)
    assert "data.class_names calls class 0 'zero'" in line
    assert "calls it '0'" in line


@pytest.mark.parametrize("experiment", [CFG, ADM, JUDGE, CLEAN_JUDGE])
def test_classes_have_to_be_there_where_they_are_learned(unlabelled: Path, experiment: str) -> None:
    line = mistake("train", experiment, f"data.path={unlabelled}", *QUICK)
    assert "the data has no classes" in line
    assert "classes=top" in line


def test_data_without_classes_is_what_it_is(unlabelled: Path) -> None:
    assert facts(compose("train", [DDPM, f"data.path={unlabelled}"])) == (28, 1, None)
    line = mistake("train", DDPM, f"data.path={unlabelled}", "data.classes=3", *QUICK)
    assert f"data.classes=3, but {unlabelled} has no label (.cls files) in split 'train'" in line


def test_images_of_several_sizes_need_a_size_and_a_crop(tmp_path: Path) -> None:
    write_scans(tmp_path / "pictures" / "a", each=1)
    write_scans(tmp_path / "pictures" / "b", side=20, each=1)
    done("data", "make", "source=folder", f"path={tmp_path / 'pictures'}", f"out={tmp_path / 'mine'}")
    path = f"data.path={tmp_path / 'mine'}"
    line = mistake("train", DDPM, path, *QUICK)
    assert "that are not square: set data.image_size=... and data.crop=adm, edm or resize_short" in line
    assert "that are not square: set data.image_size=...," in mistake("train", DDPM, path, "data.crop=adm", *QUICK)
    assert facts(compose("train", [DDPM, path, "data.crop=adm", "data.image_size=16"]))[:2] == (16, 1)


@pytest.mark.parametrize("name", ["${oc.env:HOME}", "a\\${data.path}b", "${", "k=v", "x,y", "null", "1"])
def test_a_class_is_called_what_its_folder_is_called(tmp_path: Path, name: str) -> None:
    write_scans(tmp_path / "pictures", each=1, classes=["0", name])
    done("data", "make", "source=folder", f"path={tmp_path / 'pictures'}", f"out={tmp_path / 'mine'}")
    assert set(compose("train", [CFG, f"data.path={tmp_path / 'mine'}"])["data"]["class_names"]) == {"0", name}


def test_one_picture_in_colour_makes_all_of_them_pictures_in_colour(tmp_path: Path) -> None:
    folder = write_scans(tmp_path / "pictures", each=2)
    Image.new("RGB", (28, 28), (200, 10, 10)).save(folder / "9" / "9.png")
    done("data", "make", "source=folder", f"path={folder}", f"out={tmp_path / 'mine'}")
    assert facts(compose("train", [DDPM, f"data.path={tmp_path / 'mine'}"])) == (28, 3, 10)


def test_tars_of_other_tools_are_looked_at(tmp_path: Path) -> None:
    pictures = [Image.new("L", (25, 25), 20 * number) for number in range(6)]
    root = tar_of(tmp_path / "theirs" / "train-000.tar", pictures, labels=[0, 3, 6, 1, 1, 2])
    content = compose("train", [CFG, f"data.path={root}"])
    assert facts(content) == (25, 1, 7)
    assert content["data"]["class_names"] is None
    assert (content["network"]["patch_size"], content["network"]["pad"]) == (2, True)
    # The same again, from the index that was written.
    assert compose("train", [CFG, f"data.path={root}"]) == content


def test_tars_without_labels_or_of_several_sizes(tmp_path: Path) -> None:
    bare = tar_of(tmp_path / "bare" / "train-000.tar", [Image.new("RGB", (33, 33))] * 3)
    assert facts(compose("train", [DDPM, f"data.path={bare}"])) == (33, 3, None)
    mixed = tar_of(tmp_path / "mixed" / "train-000.tar", [Image.new("RGB", (33, 33)), Image.new("L", (20, 30))])
    with pytest.raises(UserError, match="several sizes"):
        compose("train", [DDPM, f"data.path={mixed}"])


def test_one_picture_in_colour_in_tars_makes_all_of_them_so(tmp_path: Path) -> None:
    root = tar_of(tmp_path / "train-0.tar", [Image.new(mode, (24, 24)) for mode in ("L", "RGB", "L")])
    assert facts(compose("train", [DDPM, f"data.path={root}"])) == (24, 3, None)


def test_tars_whose_names_tell_no_split_have_none_known(tmp_path: Path) -> None:
    for name in ("train-0.tar", "other-0.tar"):
        tar_of(tmp_path / name, [Image.new("L", (24, 24))])
    assert facts_of(str(tmp_path), "first_dot").splits is None
    (tmp_path / "other-0.tar").unlink()
    assert facts_of(str(tmp_path), "first_dot").splits == ["train"]


def test_labels_that_are_left_unused_have_no_names(scans: Path) -> None:
    data = compose("train", [DDPM, f"data.path={scans}", "data.classes=null"])["data"]
    assert (data["classes"], data["class_names"]) == (None, None)


def test_where_no_image_tells_the_channels_colour_is_assumed(tmp_path: Path) -> None:
    (tmp_path / "junk").mkdir()
    with tarfile.open(tmp_path / "junk" / "train-0.tar", "w") as tar:
        entry = tarfile.TarInfo("0.png")
        entry.size = 4
        tar.addfile(entry, BytesIO(b"junk"))
    assert facts(compose("train", [DDPM, f"data.path={tmp_path / 'junk'}", "data.image_size=16"])) == (16, 3, None)


@pytest.mark.parametrize("ending", ["png", "txt"])
def test_tars_without_a_readable_image_are_not_called_mixed(tmp_path: Path, ending: str) -> None:
    (tmp_path / "junk").mkdir()
    with tarfile.open(tmp_path / "junk" / "train-0.tar", "w") as tar:
        entry = tarfile.TarInfo(f"0.{ending}")
        entry.size = 4
        tar.addfile(entry, BytesIO(b"junk"))
    with pytest.raises(UserError, match="junk holds no image that can be read: `difflab data inspect "):
        compose("train", [DDPM, f"data.path={tmp_path / 'junk'}"])


def test_without_the_data_what_the_file_says_is_shown(tmp_path: Path) -> None:
    shown = run_difflab(["train", CFG, "data.path=absent", "--cfg", "job", "--resolve"], tmp_path)
    assert shown.status == 0, shown
    content = yaml.safe_load(shown.out)
    assert facts(content) == (32, 3, 6)
    assert content["network"]["patch_size"] == 2
    shown = run_difflab(["train", "data=shards", "data.path=absent", "--cfg", "job"], tmp_path)
    assert yaml.safe_load(shown.out)["data"]["image_size"] == "???"


@pytest.mark.slow
def test_help_needs_no_data(tmp_path: Path) -> None:
    assert run_difflab(["train", "data=shards", "data.path=absent", "--help"], tmp_path).status == 0


def test_the_data_is_shown_where_it_is(scans: Path, tmp_path: Path) -> None:
    shown = run_difflab(["train", CFG, f"data.path={scans}", "-c", "job"], tmp_path)
    assert facts(yaml.safe_load(shown.out)) == (28, 1, 10)


@pytest.mark.parametrize("data", [["data.path=absent"], ["data=shards", "data.path=absent", "data.batch_size=4"]])
def test_a_sweep_is_checked_before_its_data_is_there(data: list[str]) -> None:
    assert folder_of("train", [DDPM, *data, "name=point"]).name == "point"


def test_a_training_says_that_its_data_is_missing() -> None:
    for data in (["data.path=absent"], ["data=shards", "data.path=absent", "data.batch_size=4"]):
        assert "data directory absent does not exist; make it with" in mistake("train", DDPM, *data, *QUICK)


def test_a_file_that_states_facts_for_its_own_path_is_held_to_them(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10").symlink_to(scans)
    line = mistake("train", "experiment=ddpm/cifar10", *QUICK)
    assert "data/cifar10 holds 28 px images, data.image_size=32" in line


def test_a_split_to_validate_on_is_missed_where_it_is_asked_for(drawings: Path) -> None:
    content = compose("train", [JUDGE, f"data.path={drawings}"])
    assert (content["data"]["val_split"], content["trainer"]["val_every_steps"]) == (None, 0)
    assert content.said[1].endswith("no split 'val', so there is no validation")
    line = mistake("train", JUDGE, f"data.path={drawings}", "trainer.val_every_steps=1", *QUICK)
    assert "has no split 'val'" in line


@pytest.mark.slow
@pytest.mark.parametrize("experiment", [DDPM, CFG, SR3, JUDGE, CLEAN_JUDGE])
@pytest.mark.parametrize("kind", ["scans", "drawings"])
def test_own_data_is_trained_on_and_the_run_goes_on(
    experiment: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path = request.getfixturevalue(kind)
    first = done("train", experiment, f"data.path={path}", *QUICK, "trainer.max_steps=1")
    assert f"{path / INDEX_NAME}: " in first.err
    (config,) = tmp_path.glob("runs/*/*/*/config.yaml")
    stored = yaml.safe_load(config.read_text())
    assert facts(stored) == ((28, 1, 10) if kind == "scans" else (48, 3, 3))
    again = done("train", experiment, f"data.path={path}", *QUICK, "trainer.max_steps=2")
    assert "trained 2 steps" in again.out
    assert list(tmp_path.glob("runs/*/*/*/config.yaml")) == [config]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scans", "drawings"])
def test_runs_on_own_data_are_sampled_and_evaluated(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    done("train", CFG, f"data.path={path}", *QUICK, "trainer.max_steps=1", "name=mine")
    run = "run=runs/cfg/shapes32/mine"
    done("sample", run, "n=2", "sampler.steps=2", "accelerator=cpu", "out=drawn")
    with Image.open("drawn/000000.png") as picture:
        assert picture.size == ((28, 28) if kind == "scans" else (48, 48))
    lite = ["n=8", "sampler.steps=2", "accelerator=cpu", "metrics.kid.subset_size=8"]
    judged = done("evaluate", run, *lite)
    assert "metrics.oracle is left out: it judges shapes data alone" in judged.err
    assert "fd-lite0" in judged.out
    assert "judges shapes data alone" in mistake("evaluate", run, *lite, "metrics.oracle.label=mine")


@pytest.mark.slow
def test_a_run_whose_data_was_made_anew_with_other_facts_does_not_go_on(scans: Path, tmp_path: Path) -> None:
    folder = write_scans(tmp_path / "pictures", each=3, classes=["a", "b"])
    make = ("data", "make", "source=folder", f"path={folder}", f"out={tmp_path / 'mine'}")
    done(*make)
    training = ("train", CFG, f"data.path={tmp_path / 'mine'}", *QUICK, "data.batch_size=4", "name=mine")
    done(*training, "trainer.max_steps=1")
    write_scans(tmp_path / "pictures", each=3, classes=["a", "b", "c"])
    done(*make, "overwrite=true")
    line = mistake(*training, "trainer.max_steps=2")
    assert "contains a run with another configuration" in line
    assert "data.classes was 2, is 3" in line
