import contextlib
import json
import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from command_line import start_difflab, wait_until
from difflab.cli import main
from difflab.commands.data_make import MakeConfig
from difflab.config.axes import SOURCES
from difflab.data.unfinished import kept_shards


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def make(*arguments):
    return main(["data", "make", *arguments])


def complaint(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_shapes_are_made_inspected_and_listed(capsys):
    assert make("source=shapes", "out=data/shapes16", "resolution=16", "n=20", "val=5", "seed=0", "objects=1") == 0
    assert "data/shapes16: train 20, val 5 samples in 2 shards" in capsys.readouterr().out
    assert main(["data", "inspect", "data/shapes16"]) == 0
    assert "16x16" in capsys.readouterr().out
    assert main(["data", "inspect", "data/shapes16", "--json", "--decode", "all"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["splits"][0]["decoded"]) == (True, 20)
    assert main(["data", "list"]) == 0
    listed = capsys.readouterr().out
    assert "data/shapes16" in listed
    assert "folder" in listed
    assert main(["data", "list", "data", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["data"]
    assert [(entry["path"], entry["splits"]) for entry in found] == [("data/shapes16", {"train": 20, "val": 5})]


def test_options_may_be_written_with_dashes(capsys):
    assert make("shapes", "--out", "data/s", "--resolution", "16", "--n=4", "--val=0", "--shard-size", "3") == 0
    assert "train 4 samples in 2 shards" in capsys.readouterr().out


def test_a_folder_is_made(tmp_path, capsys):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.new("RGB", (20, 30), (i, i, i)).save(tmp_path / f"photos/{i}.png")
    assert make("source=folder", "path=photos", "out=out", "resolution=8", "crop=edm", "val=1", "format=jpg") == 0
    assert "train 2, val 1" in capsys.readouterr().out
    assert main(["data", "inspect", "out"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["source=shapes", "out=o", "resolutin=32"], "unknown key 'resolutin' for source=shapes; known: classes,"),
        (["source=shapes", "out=o", "resolution=8"], "resolution=8: input should be greater than or equal to 16"),
        (["source=shapes", "out=o", "n=many"], "n='many': input should be a valid integer"),
        (["source=shapes", "out=o", "format=bmp"], "format='bmp': input should be 'png', 'jpg' or 'webp'"),
        (["source=shapes"], "missing key 'out'"),
        (["source=coco", "out=o"], "source=coco is not known; choose one of folder, openmoji, shapes"),
        (["out=o"], "which source? write source=... with one of folder, openmoji, shapes"),
        ([], "which source?"),
        (["source=folder", "out=o"], "missing key 'path'"),
        (["source=folder", "path=nowhere", "out=o"], "image directory nowhere does not exist"),
        (["source=shapes", "out=o", "n=1", "n=2"], "n is given twice"),
        (["source=shapes", "out=o", "large"], "'large' is not key=value"),
        (["source=shapes", "out=o", "n=[1"], "n=[1 cannot be parsed as a value"),
        (["source=shapes", "out=o", "n=2020-13-45"], "n=2020-13-45 cannot be parsed as a value"),
        (["source=shapes", "out=o", "n=" + "[" * 5000], "n=[[["),
        (["source=shapes", "out=o", "n=0", "val=0"], "nothing to write"),
        (["source=shapes", "out=o", "workers=100000"], "workers may share; use workers="),
    ],
)
def test_mistakes_are_one_line_and_status_2(capsys, tmp_path, arguments, message):
    assert make(*arguments) == 2
    assert message in complaint(capsys)
    assert not (tmp_path / "o").exists()


def test_an_existing_data_set_is_kept(capsys):
    assert make("source=shapes", "out=s", "resolution=16", "n=4", "val=0") == 0
    capsys.readouterr()
    assert make("source=shapes", "out=s", "resolution=16", "n=4", "val=0") == 2
    assert "overwrite=true" in complaint(capsys)
    assert make("source=shapes", "out=s", "resolution=16", "n=6", "val=0", "overwrite=true") == 0
    assert "train 6" in capsys.readouterr().out


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_every_key_of_a_source_is_described_with_its_default(capsys, source):
    assert make(f"source={source}", "help=true") == 0
    lines = capsys.readouterr().out.splitlines()
    for model in (SOURCES[source].config, MakeConfig):
        for key in model.model_fields.keys() - {"kind", "source"}:
            (line,) = [line for line in lines if line.startswith(f"  {key}=")]
            default, _, meaning = line.strip().partition("  ")
            assert default.partition("=")[2]
            assert len(meaning.strip()) > 10, line
    if source == "folder":
        shown = "\n".join(lines)
        assert "path=... " in shown
        assert "crop=adm " in shown


def test_the_contents_of_a_data_set_are_shown(capsys):
    assert make("shapes", "out=s", "n=40", "val=0", "classes=shape_colour", "holdout=[red circle]", "holdout_n=3") == 0
    capsys.readouterr()
    assert main(["data", "inspect", "s"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "train: of 40 decoded: 40 in colour (3 channels)" in shown
    assert "train: 48 classes: " in shown
    assert " and 36 more" in shown
    assert "train: captions: all, as 'a " in shown
    assert "kept out of training: red circle" in shown
    assert main(["data", "inspect", "s", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["holdout"] == ["red circle"]
    train, held_out = report["splits"]
    assert (train["class_counts"]["red circle"], sum(train["class_counts"].values())) == (0, 40)
    assert held_out["class_counts"]["red circle"] > 0


def test_a_contact_sheet_is_written(tmp_path, capsys):
    assert make("shapes", "out=s", "n=10", "val=4", "holdout=red", "holdout_n=2") == 0
    capsys.readouterr()
    assert main(["data", "preview", "s", "--n", "4"]) == 0
    assert capsys.readouterr().out == "contact.png: 4 of 10 samples of train\n"
    assert Image.open(tmp_path / "contact.png").format == "PNG"
    assert main(["data", "preview", "s", "--split", "holdout", "--out", "new/h.jpg", "--columns", "1"]) == 0
    assert capsys.readouterr().out == "new/h.jpg: 2 of 2 samples of holdout\n"
    assert Image.open(tmp_path / "new/h.jpg").format == "JPEG"
    plain_tar(tmp_path / "theirs/0.tar", "22.05.png", "b.png")
    assert main(["data", "preview", "theirs", "--keys", "last_dot"]) == 0
    assert "contact.png: 2 of 2 samples" in capsys.readouterr().out
    damaged = tmp_path / "theirs/0.tar"
    damaged.write_bytes(damaged.read_bytes().replace(b"IDAT", b"XXXX"))
    assert main(["data", "preview", "theirs"]) == 0
    assert "1 of them cannot be read, such as 0.tar/b: the .png is damaged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "data directory nowhere does not exist"),
        (["s", "--n", "0"], "--n 0 is not between 1 and 1000"),
        (["s", "--columns", "0"], "--columns 0 is less than one"),
        (["s", "--out", "sheet.pdf"], "--out sheet.pdf is not an image file; give a name that ends in .png"),
        (["s", "--out", "s/0.tar/x.png"], "s/0.tar is a file, not a directory; give another place"),
        (["s", "--out", "s"], "--out s is not an image file"),
        (["s", "--split", "test"], "s has no split 'test' (it has: train)"),
        (["s", "--keys", "dot"], "choose one of first_dot, last_dot"),
    ],
)
def test_what_cannot_be_previewed_is_one_line(tmp_path, capsys, arguments, message):
    plain_tar(tmp_path / "s/0.tar", "a.png")
    assert main(["data", "preview", *arguments]) == 2
    assert message in complaint(capsys)


def test_a_damaged_data_set_ends_with_status_2(tmp_path, capsys):
    make("source=shapes", "out=s", "resolution=16", "n=4", "val=0")
    tar = tmp_path / "s/train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-1000])
    capsys.readouterr()
    assert main(["data", "inspect", "s"]) == 2
    assert "difflab data: s has 1 problem(s): shard train-000000.tar has" in capsys.readouterr().err
    assert main(["data", "inspect", "nowhere"]) == 2
    assert "data directory nowhere does not exist" in capsys.readouterr().err
    assert main(["data", "inspect", "s", "--decode", "few"]) == 2


def test_help_is_shown(capsys):
    assert main(["data", "make", "--help"]) == 0
    assert "source=shapes" in capsys.readouterr().out


def plain_tar(path, *names):
    import io
    import tarfile

    from PIL import Image

    image = io.BytesIO()
    Image.new("RGB", (16, 16)).save(image, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(image.getvalue())
            tar.addfile(info, io.BytesIO(image.getvalue()))


def test_inspecting_other_peoples_tars_says_what_is_left_out(tmp_path, capsys):
    plain_tar(tmp_path / "dots/0.tar", "22.05.png", "a.png")
    assert main(["data", "inspect", "dots"]) == 0
    assert "1 images with further dots in their names" in " ".join(capsys.readouterr().out.split())
    assert main(["data", "inspect", "dots", "--keys", "last_dot", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["keys"], report["splits"][0]["samples"], report["left_out"]) == ("last_dot", 2, [])
    assert main(["data", "inspect", "dots", "--keys", "dot"]) == 2
    assert "choose one of first_dot, last_dot" in complaint(capsys)
    assert main(["data", "list", "."]) == 0
    assert ".last_dot" not in capsys.readouterr().out


def test_inspecting_a_set_without_samples_is_an_error(tmp_path, capsys):
    plain_tar(tmp_path / "none/0.tar", "22.05.png")
    plain_tar(tmp_path / "empty/0.tar")
    for path, why in (("none", "last_dot"), ("empty", "its tars are empty")):
        assert main(["data", "inspect", path, "--json"]) == 2
        shown = capsys.readouterr()
        assert json.loads(shown.out)["ok"] is False
        assert f"{path} has 1 problem(s): split train holds no samples" in shown.err
        assert why in shown.err


def test_the_splits_of_a_set_are_not_listed_as_sets(tmp_path, capsys):
    for tar in ("photos/train/0.tar", "photos/val/a/0.tar", "loose/0.tar", "val/0.tar", "two/train/0.tar"):
        plain_tar(tmp_path / tar, "a.png", "b.png")
    # A set of its own, whatever it is called.
    assert make("source=shapes", "out=two/test", "resolution=16", "n=2", "val=0") == 0

    def listed():
        capsys.readouterr()
        assert main(["data", "list", ".", "--json"]) == 0
        return {entry["path"]: entry for entry in json.loads(capsys.readouterr().out)["data"]}

    found = listed()
    assert sorted(found) == ["loose", "photos", "two", "two/test", "val"]
    tars = [tmp_path / "photos/train/0.tar", tmp_path / "photos/val/a/0.tar"]
    assert found["photos"]["bytes"] == sum(tar.stat().st_size for tar in tars)
    assert found["photos"]["splits"] is None
    assert main(["data", "inspect", "photos"]) == 0
    found = listed()
    assert sorted(found) == ["loose", "photos", "two", "two/test", "val"]
    assert found["photos"]["splits"] == {"train": 2, "val": 2}


def test_shards_are_not_put_among_the_pictures(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos/a.png")
    assert make("folder", "path=photos", "out=photos/", "resolution=8") == 2
    assert "out=photos/ is the directory of the images: give another one" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.png"]


def test_another_tools_index_does_not_hide_the_other_data_sets(tmp_path, capsys):
    plain_tar(tmp_path / "wids/0.tar", "a.png")
    (tmp_path / "wids/index.json").write_text('{"wids_version": 1}')
    plain_tar(tmp_path / "x/0.tar", "a.png")
    assert main(["data", "list", ".", "--json"]) == 0
    assert [entry["path"] for entry in json.loads(capsys.readouterr().out)["data"]] == ["wids", "x"]


def test_a_hidden_directory_is_listed_only_where_it_is_asked_for(tmp_path, capsys):
    plain_tar(tmp_path / ".kept/0.tar", "a.png")
    plain_tar(tmp_path / "x/0.tar", "a.png")
    for place, found in ((".", ["x"]), (".kept", [".kept"])):
        assert main(["data", "list", place, "--json"]) == 0
        assert [entry["path"] for entry in json.loads(capsys.readouterr().out)["data"]] == found


def test_no_sample_is_decoded_where_none_is_asked_for(tmp_path, capsys, monkeypatch):
    from difflab.data import inspecting

    assert make("shapes", "out=o", "n=4", "resolution=16", "val=0") == 0
    asked = []
    real = inspecting.inspect_data
    monkeypatch.setattr(inspecting, "inspect_data", lambda *a, **how: asked.append(how["decode"]) or real(*a, **how))
    for given in ("0", "3", "all"):
        assert main(["data", "inspect", "o", "--decode", given]) == 0
    assert asked == [0, 3, None]


def test_one_data_set_that_cannot_be_read_does_not_hide_the_others(tmp_path, capsys, caplog, monkeypatch):
    def refused(path):
        if path.parent.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    for name in ("closed", "damaged", "x"):
        plain_tar(tmp_path / name / "0.tar", "a.png")
    (tmp_path / "damaged/index.json").write_text("{")
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", refused)
    assert main(["data", "list", ".", "--json"]) == 0
    assert [entry["path"] for entry in json.loads(capsys.readouterr().out)["data"]] == ["x"]
    assert "closed is not listed: [Errno 13] Permission denied" in caplog.text
    assert "damaged is not listed: damaged/index.json is not valid JSON" in caplog.text


@pytest.fixture
def photos(tmp_path):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for i in range(6):
        Image.new("RGB", (20, 30), (i, i, i)).save(tmp_path / f"photos/{i}.png")
    return tmp_path / "photos"


def test_what_a_folder_leaves_out_is_said_in_the_closing_line(photos, capsys):
    (photos / ".DS_Store").write_text("")
    (photos / "notes.md").write_text("")
    (photos / "5.png").write_text("words")
    assert make("source=folder", "path=photos", "out=o", "n=2", "val=1", "bad=skip", "seed=1") == 0
    line = capsys.readouterr().out
    assert line.startswith("o: train ")
    assert "hidden: 1 (.DS_Store)" in line
    assert "not read as images: 1 (notes.md)" in line
    assert "not requested by n and val: 3 (" in line


def test_bad_files_are_all_named_or_skipped_and_counted(photos, capsys):
    for name in ("1.png", "4.png"):
        (photos / name).write_bytes((photos / name).read_bytes()[:40])
    assert make("source=folder", "path=photos", "out=o") == 2
    said = complaint(capsys)
    assert "2 of 6 files are bad: photos/" in said
    assert said.count("repair or remove") == 1
    assert "photos/1.png" in said
    assert "photos/4.png" in said
    assert make("source=folder", "path=photos", "out=o", "bad=skip", "max_bad_fraction=0.3") == 2
    assert "2 of 6 files are bad, 1 allowed" in complaint(capsys)
    assert make("source=folder", "path=photos", "out=o", "bad=skip") == 0
    said = capsys.readouterr().out
    assert "train 4 samples in 1 shards; left out 2 files: bad: 2 (photos/1.png cannot" in said
    assert {line.split()[1] for line in said.splitlines()[1:]} == {"photos/1.png", "photos/4.png"}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("captions=all", "captions='all'"),
        ("bad=perhaps", "bad='perhaps'"),
        ("max_bad_fraction=0.1", "set bad=skip too"),
    ],
)
def test_misused_keys_of_a_folder_are_one_line(photos, capsys, key, message):
    assert make("source=folder", "path=photos", "out=o", key) == 2
    assert message in complaint(capsys)


def test_the_index_of_a_folder_says_how_it_was_made(photos, tmp_path):
    assert make("source=folder", "path=photos", "out=o") == 0
    said = json.loads((tmp_path / "o/index.json").read_text())["source"]
    assert (said["name"], said["path"], said["captions"], said["bad"]) == ("folder", "photos", "whole", "stop")
    assert not {"crop", "alpha", "max_bad_fraction"} & set(said)
    assert make("source=folder", "path=photos", "out=p", "resolution=8", "crop=pad", "bad=skip") == 0
    said = json.loads((tmp_path / "p/index.json").read_text())["source"]
    assert (said["crop"], said["alpha"], said["max_bad_fraction"]) == ("pad", "white", 0.5)


def test_paths_are_printed_as_they_are(photos, capsys):
    assert make("source=folder", "path=photos", "out=o ü[red] '%s'") == 0
    assert capsys.readouterr().out.startswith("o ü[red] '%s': train 6 samples")


def test_a_stopped_command_says_what_it_keeps(photos, capsys, monkeypatch):
    from difflab.data.sources.folder.source import FolderSource

    sample = FolderSource.sample
    with monkeypatch.context() as stopped:

        def interrupted(self, index):
            if index == 5:
                raise KeyboardInterrupt
            return sample(self, index)

        stopped.setattr(FolderSource, "sample", interrupted)
        assert make("source=folder", "path=photos", "out=o", "shard_size=2") == 130
    assert "o: stopped; shards: 2 finished and kept; the same command" in capsys.readouterr().err
    assert make("source=folder", "path=photos", "out=o", "shard_size=2") == 0
    assert "o: continuing after 2 finished shards (4 samples)" in capsys.readouterr().err
    assert make("source=folder", "path=photos", "out=p", "shard_size=2") == 0
    for name in ("train-000000.tar", "train-000001.tar", "train-000002.tar", "index.json"):
        assert Path("o", name).read_bytes() == Path("p", name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "workers"), [(signal.SIGINT, 2), (signal.SIGKILL, 2), (signal.SIGINT, 0)])
def test_a_command_ended_by_a_signal_leaves_no_process_and_goes_on(tmp_path, kind, workers):
    command = ["data", "make", "source=shapes", "out=o", "resolution=64", "n=100000", "val=0", "shard_size=64"]
    process = start_difflab([*command, f"workers={workers}"], tmp_path)
    try:
        wait_until(lambda: kept_shards(tmp_path / "o") >= 2, process)
        # As a terminal does, to all processes; a kill reaches one.
        os.kill(process.pid, kind) if kind == signal.SIGKILL else os.killpg(process.pid, kind)
        _, err = process.communicate(timeout=120)
        wait_until(lambda: not group_is_there(process.pid), None)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if kind == signal.SIGINT:
        assert process.returncode == 130
        assert "Traceback" not in err
        assert "finished and kept; the same command" in err
    kept = kept_shards(tmp_path / "o")
    assert kept >= 2
    assert not list(tmp_path.glob("o/*.tar"))


def group_is_there(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
