from __future__ import annotations

import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest

from difflab.commands import doctor
from difflab.config import plugins
from plugin_packages import Packages, packages  # noqa: F401 - a fixture
from tiny_runs import difflab, done, mistake


def found(topic: str) -> list[doctor.Finding]:
    return [finding for finding in doctor.examine() if finding.topic == topic]


def pretend_versions(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Installed versions as given; None is not installed."""
    real = metadata.version

    def version(name: str) -> str:
        if name not in versions:
            return real(name)
        if versions[name] is None:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)


def test_a_good_machine_needs_no_mending() -> None:
    ended = done("doctor")
    for topic in ("python", "torch", "lightning", "cpu", "conf", "cache", "inception", "wandb"):
        assert topic in ended.out
    assert "problem" not in ended.out


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_malicious_releases_of_lightning_are_named(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_versions(monkeypatch, lightning=version)
    ended = difflab("doctor")
    assert ended.status == 1
    assert f"{version} was a malicious release" in ended.out
    assert "Traceback" not in ended.err


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_versions(monkeypatch, wandb=None)
    assert difflab("doctor").status == 1
    (problem,) = [finding for finding in doctor.examine() if finding.status == "problem"]
    assert (problem.topic, problem.text.split(":")[0]) == ("wandb", "is not installed")


def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**9))
    assert "only 1.0 GB free" in found("this directory")[0].text
    assert difflab("doctor").status == 1


def test_a_directory_without_permission_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert found("this directory")[0].status == "problem"


def test_the_cache_is_where_the_environment_says_and_is_not_made(tmp_path: Path) -> None:
    assert str(tmp_path / "cache") in found("cache")[0].text
    assert not (tmp_path / "cache").exists()


def test_the_folders_of_frozen_parts_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFFLAB_WEIGHTS", raising=False)
    assert found("frozen parts") == []
    monkeypatch.setenv("DIFFLAB_WEIGHTS", f"{tmp_path}:{tmp_path / 'gone'}")
    there, gone = found("frozen parts")
    assert (there.status, gone.status) == ("ok", "problem")
    assert str(tmp_path / "gone") in gone.text


def test_fid_weights_are_looked_for_and_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object) -> None:
        raise AssertionError("the doctor must not download")

    monkeypatch.setattr("difflab.metrics.extractors.inception._download", download)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert found("inception")[0].status == "note"
    weights = tmp_path / "cache" / "weights" / "weights-inception-2015-12-05-6726825d.pth"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"")
    assert found("inception") == [doctor.Finding("inception", str(weights))]


def test_tracking_says_the_mode_and_never_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "s3cret-of-mine")
    ended = done("doctor")
    assert "offline" in found("wandb")[-1].text
    assert "an API key is set" in found("wandb")[-1].text
    assert "WANDB_API_KEY" in found("wandb")[-1].text
    assert "s3cret" not in ended.out + ended.err


def test_tracking_says_what_the_environment_chose_and_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HOME": str(tmp_path), "WANDB_MODE": "online", "NETRC": str(tmp_path / "netrc")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    finding = found("wandb")[-1]
    assert finding.status == "problem"
    assert "mode online (WANDB_MODE); no API key for" in finding.text
    assert "`wandb login`" in finding.text
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {'s3cret' * 8}\n")
    finding = found("wandb")[-1]
    assert finding.status == "ok"
    assert finding.text.endswith(f"in {tmp_path / 'netrc'}")
    assert "s3cret" not in finding.text
    monkeypatch.setenv("WANDB_DISABLED", "true")
    assert "mode disabled (WANDB_DISABLED)" in found("wandb")[-1].text
    monkeypatch.delenv("WANDB_DISABLED")
    monkeypatch.setenv("WANDB_MODE", "cloud")
    assert found("wandb")[-1].status == "problem"
    assert "WANDB_MODE=cloud is not a mode" in found("wandb")[-1].text


def test_help_and_a_word_too_many() -> None:
    assert "Usage: difflab doctor" in done("doctor", "--help").out
    assert "(see `difflab doctor --help`)" in mistake("doctor", "now")


def test_plugins_are_listed_with_what_they_bring(packages: Packages) -> None:  # noqa: F811
    packages.install_tone()
    (listed,) = found("plugin")
    assert listed.status == "ok"
    assert listed.text.startswith("tone-pack 1.0: conditioning=tone; conf in ")


def test_a_broken_plugin_has_to_be_mended(packages: Packages) -> None:  # noqa: F811
    packages.install("broken-pack", {"broken_pack.py": "import not_there_at_all"})
    (problem,) = found("plugins")
    assert problem.status == "problem"
    assert "broken-pack 1.0 cannot be loaded" in problem.text


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ("", "'tone_pack.parts:build' names nothing to build with: tone_pack.parts has no build"),
        ("import not_there_at_all", "cannot be imported (ModuleNotFoundError: No module named 'not_there_at_all')"),
        ("def build(:", "cannot be imported (SyntaxError: invalid syntax (parts.py, line 1))"),
        (
            "from abc import ABC, abstractmethod\nclass Base(ABC):\n    @abstractmethod\n    def make(self): ...\n"
            "    @classmethod\n    def of(cls, config): return cls()\nbuild = Base.of",
            "'tone_pack.parts:build' cannot be instantiated: Base must define make",
        ),
    ],
)
def test_what_the_choices_of_a_plugin_are_built_by_is_looked_at(
    packages: Packages,  # noqa: F811
    parts: str,
    told: str,
) -> None:
    packages.install_tone()
    (packages.folder / "tone_pack/parts.py").write_text(parts)
    listed, problem = found("plugin")
    assert (listed.status, problem.status) == ("ok", "problem")
    assert problem.text.startswith("tone-pack 1.0: conditioning=tone: ")
    assert problem.text.endswith(told)


def test_a_broken_plugin_is_listed_once(packages: Packages) -> None:  # noqa: F811
    packages.install("one", {"one.py": "1 / 0"})
    packages.install("two", {"two.py": "raise SystemExit"})
    packages.install_tone()
    assert ["plugin one 1.0 cannot be loaded" in problem.text for problem in found("plugins")] == [True]
    assert [(finding.text, finding.status) for finding in found("plugin")] == [
        (f"tone-pack 1.0: no choices; conf in {packages.folder / 'tone_pack' / 'conf'}", "ok"),
        ("two 1.0 cannot be loaded (SystemExit: SystemExit)", "problem"),
    ]


def test_files_of_a_plugin_that_cannot_be_read_are_told_of(packages: Packages) -> None:  # noqa: F811
    packages.install_tone(**{"metrics/a.yaml": "[1\n", "metrics/b.yaml": "- 1\n", "metrics/c.yaml": ""})
    (packages.folder / "tone_pack/conf/metrics/d.yaml").write_bytes(b"a: \xff\n")
    conf = packages.folder / "tone_pack" / "conf" / "metrics"
    listed, *problems = found("plugin")
    assert listed.status == "ok"
    assert [finding.status for finding in problems] == ["problem"] * 3
    said = [finding.text.removeprefix(f"tone-pack 1.0: {conf}/") for finding in problems]
    assert said[0].startswith("a.yaml, line 2: invalid YAML (")
    assert said[1:] == ["b.yaml: write keys and their values, as in `steps: 10`", "d.yaml: not UTF-8 text"]


def test_a_plugin_that_imports_torch_is_told_of(packages: Packages, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    packages.install("slow-pack", {"slow_pack.py": "import sys\nsys.modules.setdefault('torch', sys)\n"})
    with monkeypatch.context() as patched:
        patched.delitem(sys.modules, "torch")
        assert [plugin.imports_torch for plugin in plugins.find()] == [True]
    listed, note = found("plugin")
    assert (listed.status, note.status) == ("ok", "note")
    assert "importing slow_pack imports torch" in note.text
