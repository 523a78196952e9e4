from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import pytest
import yaml

from difflab.errors import UserError
from difflab.tracking.rundir import RunDirectory, describe_environment, describe_git, run_name


def test_records_describe_the_newest_start_and_keep_the_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "very-secret")
    run = RunDirectory.of_run(tmp_path, "ddpm/shapes32", "first", identity={})
    run.write_records({"seed": 0, "name": "größe"}, ["experiment=ddpm/shapes32"])
    run.write_records({"seed": 0, "name": "größe"}, ["experiment=ddpm/shapes32"])
    run.write_records({"seed": 0, "name": "größe", "max_steps": 9}, ["experiment=ddpm/shapes32", "trainer.max_steps=9"])
    assert run.path == tmp_path / "ddpm" / "shapes32" / "first"
    assert run.read_config()["max_steps"] == 9
    assert yaml.safe_load((run.path / "config.1.yaml").read_text()) == {"seed": 0, "name": "größe"}
    assert not (run.path / "config.2.yaml").exists()
    assert (run.path / "overrides.txt").read_text() == "experiment=ddpm/shapes32\ntrainer.max_steps=9\n"
    everything = "".join(p.read_text() for p in run.path.iterdir())
    assert "very-secret" not in everything


def test_environment_names_python_packages_and_devices() -> None:
    text = describe_environment()
    assert text.startswith("python: 3.")
    assert "cpu: " in text
    assert "\ntorch==" in text


def test_git_outside_and_inside_a_checkout(tmp_path: Path) -> None:
    assert describe_git(tmp_path) == "not a git checkout\n"

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "a.py").write_text("x = 1\n")
    git("add", "a.py")
    git("commit", "-m", "first")
    assert describe_git(tmp_path).endswith("clean\n")
    (tmp_path / "a.py").write_text("x = 2\n")
    text = describe_git(tmp_path)
    assert "uncommitted changes:\n M a.py" in text
    assert "1 insertion(+), 1 deletion(-)" in text


def test_paths_that_lead_out_are_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    assert run.inside("samples/a.png") == (tmp_path / "run" / "samples" / "a.png").resolve()
    for bad in ("../other", "/etc/passwd", "samples/../../x"):
        with pytest.raises(UserError, match="outside the run directory"):
            run.inside(bad)


def test_a_given_name_is_taken_and_checked() -> None:
    assert run_name("lr1e-4_a.b", {"seed": 0}) == "lr1e-4_a.b"
    for bad in ("a/b", "..", "a b", "-x", "step=100"):
        with pytest.raises(UserError, match="cannot name a folder"):
            run_name(bad, {})


def test_a_made_name_belongs_to_the_configuration() -> None:
    made = run_name(None, {"seed": 0, "network": {"channels": 32}})
    assert made == run_name(None, {"network": {"channels": 32}, "seed": 0}), "whatever the order of the keys"
    assert made != run_name(None, {"seed": 1, "network": {"channels": 32}})
    assert run_name(made, {}) == made, "it can be given back"


def test_what_training_resumes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path)
    assert run.checkpoint_to_resume("auto") is None
    assert run.checkpoint_to_resume("never") is None
    with pytest.raises(UserError, match="resume=must"):
        run.checkpoint_to_resume("must")
    run.checkpoints.mkdir()
    run.last_checkpoint.write_bytes(b"x")
    other = tmp_path / "other.ckpt"
    other.write_bytes(b"x")
    assert run.checkpoint_to_resume("auto") == run.last_checkpoint
    assert run.checkpoint_to_resume("must") == run.last_checkpoint
    assert run.checkpoint_to_resume(str(other)) == other
    with monkeypatch.context() as home:
        home.setenv("HOME", str(tmp_path))
        assert run.checkpoint_to_resume("~/other.ckpt") == other
    with pytest.raises(UserError, match="resume=never, but"):
        run.checkpoint_to_resume("never")
    with pytest.raises(UserError, match="does not exist"):
        run.checkpoint_to_resume(str(tmp_path / "missing.ckpt"))


def test_a_folder_without_a_configuration_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.yaml"):
        RunDirectory(tmp_path).read_config()


def test_the_log_is_appended_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path)
    for text in ("first start", "second start"):
        monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", text == "second start")
        with run.log_to_file():
            logging.getLogger("difflab.anything").info(text)
            logging.getLogger("lightning.pytorch").warning("from Lightning, %s", text)
    logging.getLogger("difflab.anything").info("afterwards")
    lines = run.log.read_text().splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == [
        "first start",
        "from Lightning, first start",
        "second start",
        "from Lightning, second start",
    ]


def test_what_lightning_says_of_itself_is_left_out(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with run.log_to_file():
        for line in ("a Tip: for you", "`weights_only` was not set, defaulting to `False`.", "GPU available: True"):
            logging.getLogger("lightning.pytorch").warning(line)
            logging.getLogger("difflab.anything").info(line)
    lines = [line.split(" ", 3)[3] for line in run.log.read_text().splitlines()]
    assert [line.partition(": ")[0] for line in lines] == ["difflab.anything"] * 2 + [
        "lightning.pytorch",
        "difflab.anything",
    ]


def test_a_kill_before_last_was_made_leaves_the_newest_checkpoint(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    for step in (2, 10):
        (run.checkpoints / f"step-{step:06d}.ckpt").touch()
    assert run.checkpoint_to_resume("auto") == run.checkpoints / "step-000010.ckpt"


def test_a_checkpoint_is_its_own_by_whatever_path(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    run.last_checkpoint.touch()
    (tmp_path / "link").symlink_to(run.path, target_is_directory=True)
    assert run.owns(tmp_path / "link/checkpoints/last.ckpt")
    assert run.owns(tmp_path / "run/../run/checkpoints/last.ckpt")
    assert RunDirectory(tmp_path / "link").owns(run.last_checkpoint)
    assert not run.owns(run.path / "last.ckpt")


@pytest.mark.parametrize("level", [logging.NOTSET, logging.DEBUG, logging.ERROR])
def test_afterwards_the_program_logs_as_before(level: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = logging.getLogger("difflab")
    monkeypatch.setattr(ours, "level", level)
    before = [*logging.getLogger().handlers]
    with RunDirectory(tmp_path).log_to_file():
        assert ours.level == (logging.DEBUG if level == logging.DEBUG else logging.INFO)
    assert ours.level == level
    assert logging.getLogger().handlers == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_that_cannot_be_written_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDirectory(tmp_path)
    run.log.symlink_to("/dev/full")
    with run.log_to_file():
        for _ in range(3):
            logging.getLogger("difflab.anything").warning("a line")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("difflab:")]
    assert "log.txt cannot be written" in line
