import json

import pytest

from difflab.cli import main
from difflab.commands.data import parse_arguments
from difflab.errors import UserError


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
        (["source=coco", "out=o"], "source=coco is not known; choose one of shapes, folder"),
        (["out=o"], "which source? write source=... with one of shapes, folder"),
        ([], "which source?"),
        (["source=folder", "out=o"], "missing key 'path'"),
        (["source=folder", "path=nowhere", "out=o"], "image directory nowhere does not exist"),
        (["source=shapes", "out=o", "n=1", "n=2"], "n is given twice"),
        (["source=shapes", "out=o", "large"], "'large' is not key=value"),
        (["source=shapes", "out=o", "n=[1"], "n=[1 cannot be read as a value"),
        (["source=shapes", "out=o", "n=0", "val=0"], "nothing to write"),
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


def test_the_keys_of_a_source_are_shown(capsys):
    assert make("source=folder", "help=true") == 0
    shown = capsys.readouterr().out
    assert "path=..." in shown
    assert 'crop="adm"' in shown


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


def test_values_are_read_as_yaml_except_paths():
    assert parse_arguments(["shapes", "out=1", "n=3", "objects=1-3", "--overwrite", "--seed", "4"]) == {
        "source": "shapes",
        "out": "1",
        "n": 3,
        "objects": "1-3",
        "overwrite": True,
        "seed": 4,
    }
    with pytest.raises(UserError, match="given twice"):
        parse_arguments(["--n", "1", "n=1"])


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


def test_another_tools_index_does_not_hide_the_other_data_sets(tmp_path, capsys):
    plain_tar(tmp_path / "wids/0.tar", "a.png")
    (tmp_path / "wids/index.json").write_text('{"wids_version": 1}')
    plain_tar(tmp_path / "x/0.tar", "a.png")
    assert main(["data", "list", ".", "--json"]) == 0
    assert [entry["path"] for entry in json.loads(capsys.readouterr().out)["data"]] == ["wids", "x"]
