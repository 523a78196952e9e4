"""`difflab data make` stopped at any moment goes on, to the same bytes."""

import hashlib
import os
import sys

import pytest

from data.conftest import TinySource
from difflab.data import placing
from difflab.data.bad_files import BadFile, BadFiles
from difflab.data.opening import open_data
from difflab.data.unfinished import FOLDER_NAME, kept_shards, unfinished
from difflab.data.writing import write_dataset
from difflab.errors import UserError

CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")


class KnownSource(TinySource):
    """One that can tell itself from others; counts what is asked of it, and may be stopped, or hold bad files."""

    def __init__(self, n, *, stop=None, bad=(), error=KeyboardInterrupt, name="a", **options):
        super().__init__(n, **options)
        self.stop = stop
        self.bad = bad
        self.error = error
        self.name = name
        self.asked = []

    def fingerprint(self):
        return self.name

    def sample(self, index):
        self.asked.append(index)
        if index == self.stop:
            raise self.error
        if index in self.bad:
            raise BadFile(f"file {index} is bad")
        return super().sample(index)


def content(folder):
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def splits(**options):
    return {"train": KnownSource(23, **options), "val": KnownSource(7)}


@pytest.fixture(autouse=True)
def _no_syncing(monkeypatch):
    """A killed process, unlike a machine without power, loses nothing that it wrote."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def whole(tmp_path):
    write_dataset(splits(), tmp_path / "whole", shard_size=10)
    return content(tmp_path / "whole")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), RuntimeError])
def test_finished_shards_are_kept_and_not_made_again(tmp_path, whole, capsys, error):
    with pytest.raises(error if isinstance(error, type) else OSError):
        write_dataset(splits(stop=15, error=error), tmp_path / "d", shard_size=10)
    assert kept_shards(tmp_path / "d") == 1
    assert {path.name for path in (tmp_path / "d" / FOLDER_NAME).iterdir()} == {
        "identity.txt",
        "train-000000.offsets.npy",
        "train-000000.tar",
        "train-000000.tar.done.json",
    }
    with pytest.raises(UserError, match=r"is unfinished .*run it again"):
        open_data(tmp_path / "d")
    again = splits()
    write_dataset(again, tmp_path / "d", shard_size=10)
    assert again["train"].asked == list(range(10, 23))
    assert content(tmp_path / "d") == whole
    assert f"{tmp_path}/d: continuing after 1 finished shards (10 samples)" in capsys.readouterr().err


def test_a_command_stopped_before_its_first_shard_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_dataset(splits(stop=9), tmp_path / "d", shard_size=10)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("change", ["options", "samples", "size", "description"])
def test_another_configuration_starts_over_and_says_so(tmp_path, capsys, change):
    with pytest.raises(KeyboardInterrupt):
        write_dataset(splits(stop=15), tmp_path / "d", shard_size=10)
    sources = {
        "options": splits(),
        "samples": splits(name="b"),
        "size": {"train": KnownSource(22), "val": KnownSource(7)},
        "description": splits(),
    }[change]
    options = {"shard_size": 9 if change == "options" else 10}
    options |= {"description": {"seed": 1}} if change == "description" else {}
    write_dataset(sources, tmp_path / "d", **options)
    assert sources["train"].asked[0] == 0
    assert "of another configuration; starting over" in capsys.readouterr().err
    write_dataset(sources, tmp_path / "fresh", **options)
    assert content(tmp_path / "d") == content(tmp_path / "fresh")


def test_a_finished_shard_that_was_damaged_is_made_again(tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        write_dataset(splits(stop=22), tmp_path / "d", shard_size=10)
    shard = tmp_path / "d" / FOLDER_NAME / "train-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    again = splits()
    write_dataset(again, tmp_path / "d", shard_size=10)
    assert again["train"].asked[0] == 10
    assert content(tmp_path / "d") == whole


def _killed_at_change(number, call, root):
    """Run `call` in a process of its own, killed before its `number`-th change below `root`; whether it was."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = number

    def hook(event, arguments):
        nonlocal left
        if event not in CHANGES or not str(arguments[0]).startswith(str(root)):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        left -= 1
        if left < 0:
            os._exit(9)

    try:
        sys.addaudithook(hook)
        call()
        os._exit(0)
    finally:
        os._exit(1)


def _after_each_kill(call, root, check):
    number = 0
    while _killed_at_change(number, call, root):
        check(number)
        number += 1
    return number


def test_killed_at_any_moment_the_same_command_goes_on_to_the_same_bytes(tmp_path):
    small = {"train": KnownSource(5), "val": KnownSource(2)}
    write_dataset(small, tmp_path / "whole", shard_size=2)
    whole = content(tmp_path / "whole")

    def make():
        write_dataset(small, tmp_path / "d", shard_size=2)

    def check(number):
        place = tmp_path / "d"
        if (place / "index.json").exists():
            # What readers are given is whole at every moment.
            assert open_data(place).index.splits["train"].samples == 5
        left = sorted(path.name for path in place.glob(f"{FOLDER_NAME}/*"))
        if (place / "index.json").exists() and left == []:
            # All was done but taking the empty folder away.
            with pytest.raises(UserError, match="already has a split"):
                make()
        else:
            make()
        assert content(place) == whole, f"killed at change {number}"
        assert not (place / FOLDER_NAME).exists()
        for path in place.iterdir():
            path.unlink()
        place.rmdir()

    assert _after_each_kill(make, tmp_path / "d", check) > 40


@pytest.mark.slow
def test_killed_at_any_moment_a_replaced_split_is_the_old_one_or_the_new_one(tmp_path):
    place, old = tmp_path / "d", {"train": KnownSource(5, name="old"), "val": KnownSource(2)}
    write_dataset({"train": KnownSource(4)}, tmp_path / "new", shard_size=2)
    new = {name: digest for name, digest in content(tmp_path / "new").items() if name != "index.json"}

    def prepare():
        write_dataset(old, place, shard_size=2, overwrite=True)

    def make():
        write_dataset({"train": KnownSource(4)}, place, shard_size=2, overwrite=True)

    def check(number):
        index = open_data(place).index
        assert index.splits["val"].samples == 2
        for shard in (shard for entry in index.splits.values() for shard in entry.shards):
            assert hashlib.sha256((place / shard.name).read_bytes()).hexdigest() == shard.sha256
        make()
        assert open_data(place).index.splits["train"].samples == 4
        found = content(place)
        assert {name: digest for name, digest in found.items() if name.startswith("train")} == new, f"change {number}"
        prepare()

    prepare()
    assert _after_each_kill(make, place, check) > 40


@pytest.mark.slow
def test_killed_at_any_moment_another_command_is_not_mixed_with_it(tmp_path):
    place = tmp_path / "d"
    small = {"train": KnownSource(5), "val": KnownSource(2)}
    other = {"train": KnownSource(3, name="other")}
    write_dataset(other, tmp_path / "other", shard_size=2)

    def check(number):
        finished = (place / "index.json").exists()
        if finished:
            with pytest.raises(UserError, match="already has a split"):
                write_dataset(other, place, shard_size=2)
        write_dataset(other, place, shard_size=2, overwrite=finished)
        if not finished:
            assert content(place) == content(tmp_path / "other"), f"killed at change {number}"
        for path in place.iterdir():
            path.unlink()
        place.rmdir()

    assert _after_each_kill(lambda: write_dataset(small, place, shard_size=2), place, check) > 40


def test_two_commands_do_not_write_to_one_folder(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_dataset(splits(stop=15), tmp_path / "d", shard_size=10)
    message = rf"{tmp_path}/d is being written by `difflab data make` already \(process \d+ on .*wait"
    with unfinished(tmp_path / "d"), pytest.raises(UserError, match=message):
        write_dataset(splits(), tmp_path / "d", shard_size=10)
    assert kept_shards(tmp_path / "d") == 1
    write_dataset(splits(), tmp_path / "d", shard_size=10)


def test_a_wrong_command_in_between_loses_nothing(tmp_path):
    write_dataset({"val": KnownSource(4)}, tmp_path / "d", shard_size=10)
    with pytest.raises(KeyboardInterrupt):
        write_dataset({"train": KnownSource(23, stop=15)}, tmp_path / "d", shard_size=10)
    with pytest.raises(UserError, match="already has a split 'val'"):
        write_dataset({"val": KnownSource(4)}, tmp_path / "d", shard_size=10)
    assert kept_shards(tmp_path / "d") == 1


def test_skipped_files_are_counted_over_all_attempts(tmp_path):
    bad = (3, 12, 22)
    for stop in (15, None):
        sources, met = {"train": KnownSource(23, bad=bad, stop=stop)}, BadFiles(skip=True)
        try:
            write_dataset(sources, tmp_path / "d", shard_size=10, bad=met)
        except KeyboardInterrupt:
            assert stop == 15
    assert sources["train"].asked[0] == 11
    assert met.found == ["file 3 is bad", "file 12 is bad", "file 22 is bad"]
    assert open_data(tmp_path / "d").split("train").samples == 20


def test_a_full_disk_while_moving_is_gone_on_from(tmp_path, whole, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(placing, "write_index", full)
        with pytest.raises(OSError, match="No space"):
            write_dataset(splits(), tmp_path / "d", shard_size=10)
    again = splits()
    write_dataset(again, tmp_path / "d", shard_size=10)
    assert again["train"].asked == []
    assert content(tmp_path / "d") == whole
