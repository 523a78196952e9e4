"""Two processes have the loss and the gradients of one with the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from difflab.tasks.contrastive.loss import InfoNCE, SigLIP
from golden_fixtures import load
from tasks.contrastive.small_clips import TOWERS, gradients, pairs, small_clip
from two_processes import reports_of, run_two_processes

pytestmark = pytest.mark.slow

EXACT = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("contrastive")
    run_two_processes(Path(__file__).with_name("two_ranks.py"), folder)
    return reports_of(folder, folder / "errors.txt")


@pytest.mark.parametrize("name", ["infonce", "local", "siglip"])
@pytest.mark.parametrize("tower", TOWERS)
def test_gradients_are_those_of_one_process(tower: str, name: str, reports: list[dict[str, Any]]) -> None:
    network = small_clip(tower, bias=-1.0 if name == "siglip" else None)
    alone = (SigLIP() if name == "siglip" else InfoNCE())(network(*pairs(tower)), None)
    alone.minimized.backward()
    first, second = (report[f"{tower}-{name}"] for report in reports)
    expected = gradients(network)
    assert first["gradients"].keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(first["gradients"][key], gradient, **EXACT)
        assert torch.equal(first["gradients"][key], second["gradients"][key])
    for key, value in alone.values.items():
        both = torch.cat([first["values"][key], second["values"][key]])
        torch.testing.assert_close(both, value, **EXACT)


def test_running_statistics_are_those_of_one_process(reports: list[dict[str, Any]]) -> None:
    network = small_clip("resnet")
    network(*pairs("resnet"))
    running = {name: value for name, value in network.named_buffers() if "running" in name}
    for report in reports:
        found = report["resnet-infonce"]["buffers"]
        assert found.keys() == running.keys() != set()
        for name, value in running.items():
            torch.testing.assert_close(found[name], value, **EXACT)


@pytest.mark.parametrize("name", ["clip_infonce", "clip_infonce_hot"])
def test_loss_and_gradients_of_each_process_are_open_clip_s(name: str, reports: list[dict[str, Any]]) -> None:
    fixture = load("multimodal", name)
    for rank, report in enumerate(reports):
        for local in (False, True):
            found, prefix = report[name][local], f"rank{rank}.local{int(local)}_gather1"
            fixture.check_close(f"{prefix}.loss", found["loss"])
            fixture.check_close(f"{prefix}.grad_image", found["image"], "gradients")
            fixture.check_close(f"{prefix}.grad_text", found["text"], "gradients")
            fixture.check_close(f"{prefix}.grad_log_scale", found["scale"], "gradients")
