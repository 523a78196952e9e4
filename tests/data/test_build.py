import pytest

from difflab.config.data import DataConfig
from difflab.data.build import (
    build_dataset,
    build_eval_loader,
    build_train_loader,
    class_names_of,
    source_of,
    with_class_names,
)
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


def test_the_source_is_asked_of_the_index_that_training_reads(tmp_path, write_tar, encoded):
    write_tar(tmp_path / "d/0.tar", {"1.5.png": encoded()})
    assert source_of(config(tmp_path / "d", keys="last_dot")) is None
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == [".last_dot", "0.tar"]


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


def plain_config(path, **changes):
    return config(path, classes=None, batch_size=1, **changes)


def test_what_is_left_out_of_the_tars_is_said(tmp_path, write_tar, encoded, caplog):
    write_tar(tmp_path / "d/0.tar", {"22.05.png": encoded(), "22.06.png": encoded(), "a.png": encoded()})
    build_train_loader(plain_config(tmp_path / "d"), seed=0, total_batches=1)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith(
        f"{tmp_path / 'd'}: of the files in the tars, 2 are not read: 2 images with further dots"
    )
    caplog.clear()
    dataset = build_dataset(plain_config(tmp_path / "d", keys="last_dot"), split="train")
    assert [dataset.key(i) for i in range(3)] == ["22.05", "22.06", "a"]
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({}, "its tars are empty"),
        ({"2.5.png": b"x"}, "1 images with further dots .*last_dot"),
        ({"README": b""}, "README"),
    ],
)
def test_a_split_without_samples_says_why(tmp_path, write_tar, members, why):
    write_tar(tmp_path / "d/0.tar", members)
    for build in (
        lambda: build_dataset(plain_config(tmp_path / "d"), split="train"),
        lambda: build_eval_loader(plain_config(tmp_path / "d"), split="train", batch_size=1),
    ):
        with pytest.raises(UserError, match=rf"the split 'train' holds no samples: .*{why}"):
            build()


def test_globs_for_training_and_validation_may_not_share_a_shard(tmp_path, write_tar, encoded):
    for name in ("a-0.tar", "a-1.tar", "b-0.tar"):
        write_tar(tmp_path / "d" / name, {f"{name[:3]}.png": encoded()})
    for train, val in (("*.tar", "b-*.tar"), ("a-*.tar", "*-0.tar"), ("train", "a-1.tar"), ("b-0.tar", "*")):
        with pytest.raises(
            UserError, match=rf"data.train_split='{train}' and data.val_split='{val}' share".replace("*", r"\*")
        ):
            build_dataset(plain_config(tmp_path / "d", train_split=train, val_split=val), split=train)
    cfg = plain_config(tmp_path / "d", train_split="a-*.tar", val_split="b-*.tar")
    assert len(build_dataset(cfg, split=cfg.train_split)) == 2
    assert len(build_eval_loader(cfg, split=cfg.val_split, batch_size=1)) == 1
    # A validation split that does not exist is asked for by nobody yet.
    assert len(build_dataset(plain_config(tmp_path / "d", train_split="a-*.tar"), split="a-*.tar")) == 2


def test_a_configuration_takes_over_the_names_of_the_index(tiny_data):
    asked = config(tiny_data, classes=2)
    assert with_class_names(asked).class_names == ["cat", "dog"]
    assert with_class_names(with_class_names(asked)).class_names == ["cat", "dog"]
    assert with_class_names(config(tiny_data, classes=None)).class_names is None, "unlabelled"
    assert with_class_names(config(tiny_data, classes=3)).class_names is None, "of another number"
    with pytest.raises(
        UserError, match=r"^data\.class_names calls class 1 'cow', the index of .* calls it 'dog': leave"
    ):
        with_class_names(config(tiny_data, classes=2, class_names=["cat", "cow"]))


def test_names_are_as_many_as_classes(tiny_data):
    with pytest.raises(ValueError, match="class_names has 1 names, classes=2: name each class once"):
        config(tiny_data, classes=2, class_names=["cat"])
    with pytest.raises(ValueError, match="class_names has 1 names, classes=null"):
        config(tiny_data, classes=None, class_names=["cat"])
