from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from command_line import run_difflab
from commands.test_train_classifier import trained as trained_classifier
from difflab.commands.command import Machine
from difflab.commands.composing import compose_and_validate
from difflab.commands.drawing import models_on
from difflab.commands.likelihood import LIKELIHOOD
from difflab.commands.processes import Processes
from difflab.config.likelihood import LikelihoodConfig, ODEConfig
from difflab.errors import UserError
from difflab.metrics.protocol import Result, compare
from difflab.pipelines import likelihood
from difflab.pipelines.likelihood import LikelihoodPipeline
from difflab.pipelines.measuring import refuse_other_images
from difflab.pipelines.stored import load_stored
from difflab.tracking.runs import read_offline_run
from tiny_runs import ON_CPU, done, mistake
from warm_python import spawn_warm_difflab

ODE = ("method=ode", "method.rtol=1e-3", "method.atol=1e-3")
QUIET = ("logger=none", *ON_CPU)


def rows(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]


def only_folder(run: Path, pattern: str = "*") -> Path:
    (folder,) = (run / "evaluations").glob(f"likelihood-{pattern}")
    return folder


def result_of(folder: Path) -> Result:
    return Result.from_json((folder / "evaluations.jsonl").read_text().splitlines()[-1])


def edited(run: Path, **changes: Any) -> Path:
    """The run as if its diffusion had been configured otherwise."""
    stored = yaml.safe_load((run / "config.yaml").read_text())
    stored["diffusion"] |= changes
    (run / "config.yaml").write_text(yaml.safe_dump(stored))
    return run


def test_the_bound_is_said_and_kept_with_its_terms(own_run: Path) -> None:
    ended = done("likelihood", f"run={own_run}", "n=3", "batch_size=2", *ON_CPU)
    folder = only_folder(own_run, "bound-val-n3-*")
    result = result_of(folder)
    assert f"bpd@bound-val-3 │ {result.value:.5g} │ {result.spread:.2g}" in ended.out
    assert "bits per dimension, of which the prior 0.3" in ended.out
    assert "; 50 network evaluations per image" in ended.out
    assert ended.out.splitlines()[-1] == f"records in {folder}"
    assert ended.err.endswith("likelihood of 3 images, batches of 2: 2 done\n")
    names = {path.name for path in folder.iterdir()}
    assert names >= {"evaluations.jsonl", "images.csv", "terms.csv", "terms.svg", "terms.png", "config.yaml"}
    assert (own_run / "evaluations.jsonl").read_text() == (folder / "evaluations.jsonl").read_text()
    terms, images = rows(folder / "terms.csv"), rows(folder / "images.csv")
    assert [row["t"] for row in terms] == list(range(50))
    sigmas = [row["sigma"] for row in terms]
    assert sigmas == sorted(sigmas)
    assert all(0 < row["x0_mse"] < 4 for row in terms)
    prior = sum(row["prior"] for row in images) / 3
    assert sum(row["vb"] for row in terms) + prior == pytest.approx(result.value, abs=1e-4)
    assert sum(row["bpd"] for row in images) / 3 == pytest.approx(result.value, abs=1e-6)
    totals = torch.tensor([row["bpd"] for row in images], dtype=torch.float64)
    assert result.spread == pytest.approx(float(totals.std()) / 3**0.5)
    assert result.details["prior"] == pytest.approx(prior)
    logged = read_offline_run(folder)
    assert logged.summary["eval/bpd@bound-val-3"] == pytest.approx(result.value)
    assert len(logged.media["eval/bpd_terms"]) == 1


def test_the_protocol_says_what_changes_the_number(own_run: Path) -> None:
    done("likelihood", f"run={own_run}", "n=2", *ODE, "method.probes=2", *QUIET)
    protocol = result_of(only_folder(own_run)).protocol
    assert protocol.parameters["method"] == {
        "kind": "ode",
        "solver": "dopri5",
        "rtol": 1e-3,
        "atol": 1e-3,
        "trace": "rademacher",
        "probes": 2,
        "sigma_min": pytest.approx(0.01, rel=1e-3),
        "sigma_max": pytest.approx(0.811, rel=1e-3),
    }
    assert protocol.parameters["dequantisation"] == "uniform"
    assert protocol.reference is not None
    assert (protocol.reference.split, protocol.reference.n) == ("val", 2)
    assert len(protocol.reference.content_hash) == 64
    known = {name: protocol.parameters[name] for name in ("seed", "weights", "precision", "device", "conditioning")}
    assert known == {"seed": 0, "weights": "ema", "precision": "float32", "device": "cpu", "conditioning": []}


def test_the_ode_agrees_with_the_bound_and_counts_evaluations(own_run: Path) -> None:
    """Hardly trained, the network says next to nothing, and neither has much to lose on the other."""
    ended = done("likelihood", f"run={own_run}", "n=3", *ODE, "method.probes=2", *QUIET)
    done("likelihood", f"run={own_run}", "n=3", *QUIET)
    ode, bound = (result_of(only_folder(own_run, f"{kind}-*")) for kind in ("ode", "bound"))
    assert ode.value == pytest.approx(bound.value, abs=0.2)
    images = rows(only_folder(own_run, "ode-*") / "images.csv")
    counts = [row["evaluations"] for row in images]
    assert all(count > 20 and count % 6 == 1 for count in counts)
    assert ode.details["evaluations"] == {"mean": sum(counts) / 3, "min": min(counts), "max": max(counts)}
    assert f"{sum(counts) / 3:.4g} network evaluations per image" in ended.out
    assert ode.spread is not None
    assert 0 < float(str(ode.details["probe_standard_error"])) < ode.spread
    assert not (only_folder(own_run, "ode-*") / "terms.csv").exists()


@pytest.mark.parametrize("method", [("method=bound",), ("method=ode", "method.solver=heun", "method.steps=6")])
def test_an_image_knows_nothing_of_its_batch(own_run: Path, method: tuple[str, ...]) -> None:
    found = []
    for size in (1, 3):
        done("likelihood", f"run={own_run}", "n=3", f"batch_size={size}", f"out=by-{size}", *method, *QUIET)
        found.append(rows(Path(f"by-{size}") / "images.csv"))
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_every_image_of_a_split_counts_once(own_run: Path) -> None:
    done("likelihood", f"run={own_run}", "n=12", "method=ode", "method.solver=heun", "method.steps=2", *QUIET)
    images = rows(only_folder(own_run) / "images.csv")
    assert [row["index"] for row in images] == list(range(12))
    assert [row["evaluations"] for row in images] == [4] * 12


def test_what_changes_the_number_has_a_folder_of_its_own(own_run: Path) -> None:
    quick = ("n=1", "method=ode", "method.solver=heun", "method.steps=2", *QUIET)
    values = []
    for change in ((), ("weights=raw",), ("seed=1",), ("method.steps=3",), ("batch_size=1",)):
        done("likelihood", f"run={own_run}", *quick, *change)
    for folder in (own_run / "evaluations").glob("likelihood-*"):
        values.append(result_of(folder).value)
        assert result_of(folder).spread is None
    assert len(set(values)) == 4


@pytest.mark.parametrize(
    "change", ["precision=bf16-mixed", "seed=1", "weights=raw", "split=train", "n=2", "split=val-*"]
)
def test_no_two_likelihoods_share_a_folder(tiny_run: Path, change: str) -> None:
    models = models_on("cpu")

    def folder(run: Path, *overrides: str) -> str:
        argv = LIKELIHOOD.complete([f"run={run}", "n=1", *ODE, *QUIET, *overrides])
        config, plain = compose_and_validate("likelihood", LikelihoodConfig, argv)
        return LIKELIHOOD.work(config, plain, argv, Machine(Processes(), models)).kept.name

    assert folder(tiny_run, change) != folder(tiny_run)
    assert folder(tiny_run, "split=val-*") != folder(tiny_run, "split=val-?00000.tar")
    assert folder(tiny_run, "split=val-*.tar") != folder(tiny_run, "split=val-?????0.tar")
    assert folder(tiny_run, "batch_size=3", "devices=auto") == folder(tiny_run)
    checkpoints = [tiny_run / "checkpoints" / name for name in ("last.ckpt", "step-000003.ckpt")]
    assert len({folder(tiny_run), *map(folder, checkpoints)}) == 3


def test_several_probes_give_the_error_of_their_mean(tiny_run: Path) -> None:
    model = load_stored(tiny_run)[0]
    method = ODEConfig(kind="ode", solver="heun", steps=2, probes=4)
    image = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    batch = {"image": image, "index": torch.tensor([0, 1])}
    pipeline = LikelihoodPipeline(model, method)
    singles = []
    real = likelihood.ode_bits_per_dim

    def noting(*arguments: Any, **options: Any) -> Any:
        singles.append(real(*arguments, **options))
        return singles[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "ode_bits_per_dim", noting)
        found = pipeline(batch, 0)
    (one,) = singles
    assert one.total.shape == (2, 4)
    torch.testing.assert_close(found.total, one.total.mean(1))
    torch.testing.assert_close(found.probe_variance, one.total.var(1) / 4)


def test_data_without_classes_does_not_fit_a_model_that_has_some(class_run: Path) -> None:
    model, stored = load_stored(class_run)
    assert stored.train is not None
    refuse_other_images(model, stored.train.data)
    with pytest.raises(UserError, match=r"the model has 6 classes, the data has data\.classes=null"):
        refuse_other_images(model, stored.train.data.model_copy(update={"classes": None}))
    for change in ({"channels": 1}, {"image_size": 8}):
        with pytest.raises(UserError, match="the model takes 3x16x16 images"):
            refuse_other_images(model, stored.train.data.model_copy(update=change))


def test_a_model_is_told_the_classes_of_the_images(class_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(class_run, tmp_path / "classes"))
    done("likelihood", f"run={run}", "n=3", *ODE, *QUIET)
    assert result_of(only_folder(run)).protocol.parameters["conditioning"] == ["class_label"]
    message = mistake("likelihood", f"run={run}", "n=3", "data.classes=5", *ODE, *QUIET)
    assert "the model has 6 classes, the data has data.classes=5" in message


def test_a_model_in_continuous_time_has_an_ode_and_no_bound(own_run: Path) -> None:
    stored = yaml.safe_load((own_run / "config.yaml").read_text())
    distribution = {"kind": "cosine", "log_snr_min": -8.0, "log_snr_max": 8.0}
    stored["diffusion"] = {
        "kind": "continuous",
        "sigma_distribution": distribution,
        "prediction": "v",
        "time_input": "log_snr",
        "loss": "mse",
        "variance": "fixed_large",
    }
    (own_run / "config.yaml").write_text(yaml.safe_dump(stored))
    message = mistake("likelihood", f"run={own_run}", "n=2", *QUIET)
    assert "method=bound adds up the steps of a table, and this model was trained in continuous time" in message
    assert "use method=ode" in message
    done("likelihood", f"run={own_run}", "n=2", *ODE, *QUIET)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": "prev"}, "prediction=prev is the mean of a step and defines no ODE between steps"),
        (
            {"prediction": "v", "schedule": {"kind": "linear", "zero_terminal_snr": True}},
            "the schedule ends in pure noise (zero terminal SNR)",
        ),
    ],
)
def test_what_has_no_ode_still_has_a_bound(own_run: Path, changes: dict[str, Any], message: str) -> None:
    run = edited(own_run, **changes)
    said = mistake("likelihood", f"run={run}", "n=1", "method=ode", *QUIET)
    assert message in said
    assert "use method=bound" in said
    done("likelihood", f"run={run}", "n=1", "method=bound", *QUIET)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["n=13"], "n=13, but the split val of tiny has 12 images: give n=12 or less, or another split"),
        (["n=2", "split=test"], "has no split 'test' (it has: train, val)"),
        (["n=2", "data.image_size=32", "data.crop=adm"], "the model takes 3x16x16 images, the data has 3x32x32"),
        (["n=2", "guidance.scale=2"], "guidance.scale=2: likelihood is measured on the model alone, without guidance"),
        (["n=2", "guidance=classifier_free"], "leave guidance out"),
        (["n=2", "sampler=ddim"], "leave sampler out"),
        (["n=2", "diffusion=ddpm"], "the model comes from the run"),
        (["n=2", "method=odes"], "method=odes: no such choice; did you mean ode?"),
        (["n=2", "method.rtol=1"], "method, as chosen here, has no 'rtol'; method=ode has it"),
        (["n=2", "method=ode", "method.sigma_max=1e4"], "sigma_max=10000 must be"),
        (["n=2", "method=ode", "method.sigma_min=2", "method.sigma_max=1"], "method: sigma_min=2 and sigma_max=1"),
        (["n=2", "run=nowhere"], "run=nowhere does not exist"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(own_run: Path, arguments: list[str], message: str) -> None:
    assert message in mistake("likelihood", f"run={own_run}", *arguments, *ON_CPU)
    assert not (own_run / "evaluations").exists()
    assert not (own_run / "evaluations.jsonl").exists()


def test_a_run_has_to_be_named() -> None:
    assert "run has no value: give one, as in run=..." in mistake("likelihood")


def test_a_noisy_classifier_has_none(tiny_shapes: Path, tmp_path: Path) -> None:
    run = trained_classifier(tiny_shapes, tmp_path / "runs", "trainer.max_steps=1", "trainer.val_every_steps=0")
    ended = run_difflab(["likelihood", f"run={run}", "n=2", *QUIET], tmp_path)
    assert ended.status == 2
    assert ended.err.count("\n") == 1
    assert "is a noisy classifier and has no likelihood of images: give run= a diffusion model" in ended.err


def test_an_exported_folder_is_given_data(own_run: Path, tiny_shapes: Path) -> None:
    done("weights", "export", own_run, "--out", "exported")
    quick = ("n=2", "method=ode", "method.solver=heun", "method.steps=2", *QUIET)
    message = mistake("likelihood", "run=exported", *quick)
    assert "run=exported does not record its training data: give a data set, as in data.path=..." in message
    # The size of the images is known from the model.
    done("likelihood", "run=exported", *quick, f"data.path={tiny_shapes}", "data.workers=0")
    done("likelihood", f"run={own_run}", *quick)
    of_export, of_run = (result_of(only_folder(place)) for place in (Path("exported"), own_run))
    assert compare(of_export, of_run) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(own_run: Path, tmp_path: Path) -> None:
    arguments = ["likelihood", f"run={own_run}", "n=5", "batch_size=2", *QUIET]
    for devices in (1, 2):
        ended = spawn_warm_difflab([*arguments, f"devices={devices}", f"out=on-{devices}"], tmp_path)
        assert ended.status == 0, ended.err
        assert ended.out.count("records in") == 1
    one, two = (json.loads((tmp_path / f"on-{n}" / "evaluations.jsonl").read_text()) for n in (1, 2))
    assert one["value"] == pytest.approx(two["value"], abs=1e-4)
    assert one["protocol_hash"] == two["protocol_hash"]
    for name in ("terms.csv", "images.csv"):
        for ours, theirs in zip(*(rows(tmp_path / f"on-{n}" / name) for n in (1, 2)), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    assert len((own_run / "evaluations.jsonl").read_text().splitlines()) == 2


def test_several_seeds_and_methods_are_points_of_one_table(own_run: Path) -> None:
    quick = ("n=2", "method=ode", "method.solver=heun", "method.steps=2", *QUIET)
    ended = done("likelihood", f"run={own_run}", *quick, "seed=0,1", "weights=ema,raw")
    assert "4 of 4 done" in ended.err
    (folder,) = (own_run / "evaluations").glob("sweep-*")
    with (folder / "table.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["seed"], row["weights"]) for row in table] == [(s, w) for s in "01" for w in ("ema", "raw")]
    assert len({row["eval/bpd@ode-val-2"] for row in table}) == 4
    # They are what is studied, and averaged over seeds.
    assert "cannot be compared" not in ended.err
    again = done("likelihood", f"run={own_run}", *quick, "seed=0,1", "weights=ema,raw")
    assert "4 of 4 points are done already" in again.err
    line = mistake("likelihood", f"run={own_run}", *quick, "batch_size=1,2")
    assert "several may be given for method, split, n, seed, weights, precision" in line
