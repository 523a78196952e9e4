import pytest

from difflab.config.data import DataConfig
from difflab.data.build import build_dataset, build_eval_loader, build_train_loader, class_names_of
from difflab.data.writing import write_shards
from difflab.errors import UserError


def config(path, **changes):
    return DataConfig(path=str(path), **({"image_size": 8, "batch_size": 4, "classes": 2} | changes))


def test_missing_data_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(UserError, match=r"does not exist; make it with `difflab data make source=shapes out="):
        build_train_loader(config(tmp_path / "nowhere"), seed=0, total_batches=1)


def test_images_of_another_size_are_refused_before_the_first_batch(tiny_data):
    with pytest.raises(
        UserError, match=r"holds 8 px images, data.image_size=16: set data.image_size=8, or choose a crop"
    ):
        build_dataset(config(tiny_data, image_size=16), split="train")
    assert build_dataset(config(tiny_data, image_size=16, crop="edm"), split="train")[0]["image"].shape == (3, 16, 16)


def test_another_number_of_classes_is_refused(tiny_data):
    with pytest.raises(UserError, match=r"has 2 classes, data.classes=10: set data.classes=2"):
        build_dataset(config(tiny_data, classes=10, fields=["label"]), split="train")


def test_class_names_are_those_of_the_index(tiny_data, tiny_source, tmp_path):
    assert class_names_of(config(tiny_data)) == ["cat", "dog"]
    write_shards(tiny_source(3, classes=None), tmp_path / "nameless")
    assert class_names_of(config(tmp_path / "nameless")) is None
    with pytest.raises(UserError, match="does not exist"):
        class_names_of(config(tmp_path / "nowhere"))


def test_a_missing_split_is_named(tiny_data):
    with pytest.raises(UserError, match="no split 'test'"):
        build_eval_loader(config(tiny_data), split="test", batch_size=4)


def test_a_truncated_shard_is_counted_before_training(tiny_data):
    path = tiny_data / "train-000002.tar"
    path.write_bytes(path.read_bytes()[:-12_000])
    with pytest.raises(
        UserError, match=r"bad of 23 samples, 0 allowed: train-000002.tar/0000002\d: the shard is truncated"
    ):
        build_train_loader(config(tiny_data), seed=0, total_batches=1)
    loader = build_train_loader(config(tiny_data, max_bad_fraction=0.5), seed=0, total_batches=6)
    lost = set(loader.bad.found)
    assert lost
    for batch in loader:
        assert not lost & set(batch["index"].tolist())
