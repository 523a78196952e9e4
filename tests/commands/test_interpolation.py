"""Nothing of the environment gets into a configuration, and so into the files of a run, but places."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import run_difflab
from difflab.commands.composing import compose
from difflab.errors import UserError

SECRET = "0123secret4567"
SMALL = ["experiment=ddpm/shapes32"]


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.setenv("PLACE", "/scratch/data")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("logger.wandb.notes=${oc.env:TOKEN}", "logger.wandb.notes"),
        ("logger.wandb.notes=a-${oc.env:TOKEN}-b", "logger.wandb.notes"),
        ("logger.wandb.tags=[a,'${oc.env:TOKEN}']", "logger.wandb.tags"),
        ("logger.wandb={notes: '${oc.env:TOKEN}'}", "logger.wandb.notes"),
        ("name=${oc.env:TOKEN}", "name"),
        ("name=${oc.env:TOKEN,plain}", "name"),
        ('name="${oc.decode:${oc.env:TOKEN}}"', "name"),
        ('name="${oc.select:nothing,${oc.env:TOKEN}}"', "name"),
        ('name="${oc.${seed}:TOKEN}"', "name"),
        ("name=${now:%Y}", "name"),
        ("name=${hydra:job.name}", "name"),
        ("name=${my_resolver:1}", "name"),
        ("+anything=${oc.env:TOKEN}", "anything"),
        # A key that only begins or ends like a place.
        ("+outsider=${oc.env:TOKEN}", "outsider"),
        ("+run_token=${oc.env:TOKEN}", "run_token"),
        ("+data.searchpath=${oc.env:TOKEN}", "data.searchpath"),
        ("guidance.scale=${oc.env:TOKEN}", "guidance.scale"),
    ],
)
def test_a_value_from_elsewhere_is_refused_by_its_key(override: str, key: str) -> None:
    with pytest.raises(UserError) as error:
        compose("train", [*SMALL, override])
    said = str(error.value)
    assert said.startswith(f"{key}=")
    assert "give the value itself" in said
    assert SECRET not in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        (["output_root=${oc.env:PLACE}/runs"], ("output_root",), "/scratch/data/runs"),
        (["data.path=${oc.env:PLACE}"], ("data", "path"), "/scratch/data"),
        (["init=weights", "init.from=${oc.env:PLACE}"], ("init", "from"), "/scratch/data"),
        (["resume=${oc.env:PLACE}"], ("resume",), "/scratch/data"),
        (["seed=${data.image_size}"], ("seed",), 32),
        (["name=${sampler.kind}"], ("name",), "ddim"),
        (["name=\\${oc.env:TOKEN}"], ("name",), "${oc.env:TOKEN}"),
    ],
)
def test_places_and_other_keys_are_resolved(overrides: list[str], key: tuple[str, ...], value: object) -> None:
    node = compose("train", [*SMALL, *overrides])
    for part in key:
        node = node[part]
    assert node == value


def test_it_is_refused_where_a_configuration_is_only_shown(tmp_path: Path) -> None:
    for flags in (["--cfg", "job", "--resolve"], ["--cfg", "job"], ["--resolve", "--cfg=job"]):
        done = run_difflab(["train", *SMALL, *flags, "logger.wandb.notes=${oc.env:TOKEN}"], tmp_path)
        assert done.status == 2
        assert done.err.startswith("difflab train: logger.wandb.notes=")
        assert SECRET not in done.out + done.err


def test_it_is_refused_in_the_machines_own_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from difflab.conf_dir import conf_dir
    from difflab.config import groups

    own = Path(shutil.copytree(conf_dir(), tmp_path / "conf"))
    (own / "local").mkdir()
    (own / "local" / "default.yaml").write_text(
        "# @package _global_\ndata: { path: '${oc.env:PLACE}' }\nlogger: { wandb: { entity: '${oc.env:TOKEN}' } }\n"
    )
    monkeypatch.setattr(groups, "conf_dir", lambda: own)
    with pytest.raises(UserError, match=r"^logger\.wandb\.entity="):
        compose("train", SMALL)
