from pathlib import Path

import pytest
import yaml

from difflab.config.data import DataConfig
from difflab.config.validate import validate
from difflab.data.sources.folder.config import FolderSourceConfig
from difflab.errors import UserError

CONF = Path(__file__).parents[2] / "conf" / "data"
BASE = {"path": "data/x", "image_size": 32, "batch_size": 8}


def written_in(path):
    """The keys of a file, over those of the files that it builds on."""
    values = yaml.safe_load(path.read_text())
    bases = [written_in(CONF / f"{name}.yaml") for name in values.pop("defaults", []) if name != "_self_"]
    return {key: value for keys in (*bases, values) for key, value in keys.items()}


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_choice_shows_every_key_and_is_valid(path):
    values = written_in(path)
    filled = {key: BASE[key] if value == "???" else value for key, value in values.items()}
    assert set(values) == set(DataConfig.model_fields)
    validate(DataConfig, filled)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fields": ["label"]}, "fields contains label but classes is null"),
        ({"fields": ["caption", "caption"]}, "names a field twice"),
        ({"val_split": "train"}, "val_split='train' is the training split"),
        ({"crop": "centre"}, "crop='centre'"),
        ({"channels": 4}, "channels=4"),
        ({"max_bad_fraction": 2.0}, "max_bad_fraction=2.0"),
        ({"made_with": "source=shapes out=data/x"}, "should be options of `difflab data make`: .*, without out="),
        ({"made_with": "resolution=32"}, "should be options of `difflab data make`: source=..."),
        ({"made_with": "source=shapes 'sizes=[large]"}, "has a quote that does not end"),
        ({"worker": 2}, "unknown key 'worker'; did you mean 'workers'"),
    ],
)
def test_impossible_values_are_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        validate(DataConfig, BASE | changes)


def test_only_training_draws_its_cuts():
    assert validate(DataConfig, BASE | {"crop": "adm_random"}).fixed_crop == "adm"
    assert validate(DataConfig, BASE | {"crop": "area_random"}).fixed_crop == "area"
    assert validate(DataConfig, BASE | {"crop": "edm"}).fixed_crop == "edm"
    with pytest.raises(UserError, match="crop='adm_random'"):
        validate(FolderSourceConfig, {"path": "x", "crop": "adm_random", "resolution": 8})


def test_cutting_a_folder_needs_a_size():
    with pytest.raises(UserError, match="set resolution too"):
        validate(FolderSourceConfig, {"path": "x", "crop": "edm"})
    assert validate(FolderSourceConfig, {"path": "x", "crop": "edm", "resolution": 8}).crop == "edm"


def test_globs_are_what_commands_call_train_and_val():
    named = DataConfig(path="d", image_size=8, batch_size=1)
    assert [named.split_called(name) for name in ("train", "val", "test", "x-*")] == ["train", "val", "test", "x-*"]
    globs = DataConfig(path="d", image_size=8, batch_size=1, train_split="a-*.tar", val_split="b.tar")
    assert [globs.split_called(name) for name in ("train", "val", "test")] == ["a-*.tar", "b.tar", "test"]
    alone = DataConfig(path="d", image_size=8, batch_size=1, train_split="a-*.tar", val_split=None)
    assert alone.split_called("val") == "val"
