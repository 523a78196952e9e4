"""A run that begins with another's weights and trains a part of them: everything it leaves agrees on what that was."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from command_line import Done, run_difflab, tiny_training
from difflab.pipelines.stored import load_stored
from difflab.types import Conditioning
from run_files import assert_same_run, checkpoint, differing, exported, find_run, rows
from warm_python import spawn_warm_difflab

HALF = ["init.freeze=[network.encoder.*,network.time_embed.*,network.conv_in.*]"]
FROZEN = ("network.encoder.", "network.time_embed.", "network.conv_in.")
UPSAMPLER = ["conditioning=low_res", "conditioning.low_res.size=8", "network.concat_channels=3"]
Tune = Callable[..., Path]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, tiny_shapes: Path) -> Path:
    """A run of two steps to begin from."""
    root = tmp_path_factory.mktemp("source")
    done = run_difflab(tiny_training(tiny_shapes, "trainer.max_steps=2"), root)
    assert done.status == 0, done.err
    return find_run(root)


@pytest.fixture
def started(source: Path, tiny_shapes: Path) -> Callable[..., Done]:
    """started(root, *overrides): how a training that begins from `source` ended."""

    def start(root: Path, *overrides: str, spawned: bool = False) -> Done:
        root.mkdir(exist_ok=True)
        arguments = tiny_training(tiny_shapes, "init=weights", f"init.from={source}", *overrides)
        return (spawn_warm_difflab if spawned else run_difflab)(arguments, root)

    return start


@pytest.fixture
def tune(started: Callable[..., Done]) -> Tune:
    """The same, of one that succeeds: its run directory."""

    def train(root: Path, *overrides: str, **how: Any) -> Path:
        done = started(root, *overrides, **how)
        assert done.status == 0, done.err
        return find_run(root)

    return train


def is_frozen(name: str) -> bool:
    return name.startswith(FROZEN)


def test_half_a_network_is_frozen_everywhere(tune: Tune, source: Path, tmp_path: Path) -> None:
    run = tune(tmp_path, *HALF, "trainer.max_steps=3", "callbacks.power_ema={snapshot_every_steps: 3}")
    begun, saved = exported(source), checkpoint(run)
    weights = exported(run)
    begun.pop("metadata")
    weights.pop("metadata")
    names = set(begun)
    frozen = {name for name in names if is_frozen(name)}
    assert frozen
    assert names - frozen
    # Written whole, frozen as they came, the rest trained.
    assert saved["state_dict"].keys() == weights.keys() == names
    for state in (saved["state_dict"], weights):
        assert {name for name in names if torch.equal(state[name], begun[name])} == frozen
    # Neither optimizer nor averages hold anything of them.
    (optimizer,) = saved["optimizer_states"]
    assert len(optimizer["param_groups"][0]["params"]) == len(optimizer["state"]) == len(names - frozen)
    assert saved["callbacks"]["EMA"]["averages"].keys() == names - frozen
    for averages in saved["callbacks"]["PowerEMA"]["averages"]:
        assert averages.keys() == names - frozen
    total, trained = (sum(weights[name].numel() for name in some) for some in (names, names - frozen))
    assert f"init: {trained} of {total} parameters are trained" in (run / "log.txt").read_text()
    # Loaded as any other.
    model, _ = load_stored(run)
    assert differing(model.as_module().state_dict(), weights) == []
    done = run_difflab(["weights", "export", str(run), "--out", str(tmp_path / "export")], tmp_path)
    assert done.status == 0, done.err
    assert differing(load_stored(tmp_path / "export")[0].as_module().state_dict(), weights) == []
    done = run_difflab(["weights", "ema", str(run), "--sigma-rel", "0.07", "--out", str(tmp_path / "ema")], tmp_path)
    assert done.status == 0, done.err
    made = load_stored(tmp_path / "ema")[0].as_module().state_dict()
    assert {name for name in names if torch.equal(made[name], begun[name])} == frozen


@pytest.mark.slow
def test_a_run_with_frozen_parameters_goes_on_bit_for_bit(tune: Tune, tmp_path: Path) -> None:
    straight = tune(tmp_path / "straight", *HALF)
    for steps in (2, 6):
        stopped = tune(tmp_path / "stopped", *HALF, f"trainer.max_steps={steps}")
    assert_same_run(stopped, straight)


@pytest.mark.slow
def test_the_gradient_norm_is_that_of_what_is_trained(tune: Tune, tmp_path: Path) -> None:
    def first_norm(run: Path) -> float:
        return float(rows(run)[0]["train/grad_norm"])

    some = tune(tmp_path / "some", *HALF, "trainer.max_steps=1")
    rest = tune(tmp_path / "rest", f"init.train={HALF[0].split('=', 1)[1]}", "trainer.max_steps=1")
    everything = tune(tmp_path / "all", "trainer.max_steps=1")
    assert first_norm(some) ** 2 + first_norm(rest) ** 2 == pytest.approx(first_norm(everything) ** 2, rel=1e-4)


@pytest.mark.slow
def test_two_processes_train_half_a_network(tune: Tune, tmp_path: Path) -> None:
    one = tune(tmp_path / "one", *HALF, "trainer.max_steps=2")
    two = tune(
        tmp_path / "two", *HALF, "trainer.max_steps=2", "trainer.devices=2", "trainer.strategy=ddp", spawned=True
    )
    ours, theirs = checkpoint(two)["state_dict"], checkpoint(one)["state_dict"]
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4)
        assert not is_frozen(name) or torch.equal(ours[name], tensor)


def test_an_upsampler_begins_as_the_model_it_extends(
    started: Callable[..., Done], source: Path, tmp_path: Path
) -> None:
    done = started(tmp_path, *UPSAMPLER, "init.extend_input=zero", "trainer.max_steps=1", "optimizer.lr=1e-30")
    assert done.status == 0, done.err
    assert done.err.splitlines()[0] == (
        f"init: network.conv_in.weight has more input channels than {source}; the new ones begin at zero"
    )
    ours, theirs = load_stored(find_run(tmp_path))[0].network, load_stored(source)[0].network
    x, low = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16)
    time = torch.tensor([3.0, 40.0])
    # After a step with next to no learning rate; nothing but the new channels has moved.
    conditioning = Conditioning(concat=low)
    torch.testing.assert_close(ours(x, time, conditioning), theirs(x, time), rtol=1e-5, atol=1e-6)


def test_what_fits_is_taken_and_listed(started: Callable[..., Done], source: Path, tmp_path: Path) -> None:
    options = ["init.partial=true", "network.channel_mult=[1,3]", "network.norm_groups=8", "trainer.max_steps=1"]
    done = started(tmp_path, *options)
    assert done.status == 0, done.err
    line = done.err.splitlines()[0]
    assert line.startswith("init: ")
    assert f"tensors from {source} (network.time_embed." in line
    assert "more, listed in log.txt" in line
    log = (find_run(tmp_path) / "log.txt").read_text()
    assert log.count(f"taken from {source}: ") == len(
        checkpoint(find_run(tmp_path))["state_dict"].keys() | exported(source).keys() - {"metadata"}
    )


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["init.freeze=[network.encodr.*]"], ["init.freeze: 'network.encodr.*'", "network.encoder.*"]),
        (["init.train=[nothing]"], ["init.train: 'nothing' matches no parameter"]),
        (["init.freeze=[network.*]"], ["leaves nothing to train"]),
        (["init.freeze=network.*"], ["init.freeze='network.*'", "write a list"]),
        (["init.extend_input=zero"], ["there is nothing to extend"]),
        (["init.extend_input=one"], ["init.extend_input='one'"]),
        (
            [*UPSAMPLER],
            ["another architecture", "network.conv_in.weight", "init.extend_input=zero begins"],
        ),
        ([*UPSAMPLER, "init.extend_input=zero", *HALF], ["network.conv_in.weight is frozen"]),
        (["init.path=x"], ["init.path"]),
        (["+init.form=x"], ["did you mean 'init.from'?"]),
        (
            ["init=scratch", "+init.freeze=[a]"],
            ["init.kind=scratch has no 'freeze': leave it out, or remove it with ~init.freeze; weights has it"],
        ),
        (["init.partial=maybe"], ["init.partial='maybe'"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(
    source: Path, tiny_shapes: Path, tmp_path: Path, overrides: list[str], parts: list[str]
) -> None:
    given = [] if overrides[0] == "init=scratch" else ["init=weights", f"init.from={source}"]
    done = run_difflab(tiny_training(tiny_shapes, *given, *overrides), tmp_path)
    assert done.status == 2, done
    assert all(part in done.err for part in parts), done.err
    assert done.err.count("\n") == 1, done.err


def test_another_choice_of_what_is_trained_is_another_run(
    started: Callable[..., Done], tune: Tune, tiny_shapes: Path, tmp_path: Path
) -> None:
    run = tune(tmp_path, *HALF, "trainer.max_steps=1", "name=half")
    done = started(tmp_path, "init.freeze=[network.encoder.*]", "trainer.max_steps=2", "name=half")
    assert done.status == 2
    assert "init.freeze was" in done.last_error
    last = run / "checkpoints" / "last.ckpt"
    done = run_difflab(tiny_training(tiny_shapes, f"resume={last}", "trainer.max_steps=2", "name=all"), tmp_path)
    assert done.status == 2
    assert f"start from its weights instead, as in init=weights init.from={last}" in done.last_error
    assert done.err.count("\n") == 1, done.err
    # As many, but others.
    one, other = (f"init.freeze=[network.encoder.0.block.0.conv{n}.*]" for n in (1, 2))
    assert started(tmp_path, one, "trainer.max_steps=1", "name=one").status == 0
    last = tmp_path / "runs/ddpm/shapes32/one/checkpoints/last.ckpt"
    done = started(tmp_path, other, f"resume={last}", "trainer.max_steps=2", "name=other")
    assert done.status == 2
    assert "and not the same (init.freeze, init.train)" in done.last_error


PAGE = Path(__file__).parents[2] / "docs" / "fine_tuning.md"


@pytest.mark.slow
def test_the_commands_of_the_page_work(tiny_shapes: Path, tmp_path: Path) -> None:
    text = PAGE.read_text().replace("\\\n", " ")
    commands = [shlex.split(line) for line in re.findall(r"^    difflab (train .*)$", text, re.MULTILINE)]
    assert len(commands) == 6
    for command in commands:
        tiny = [option for option in tiny_training(tiny_shapes, "trainer.max_steps=1")[2:] if "=class" not in option]
        # Of images of 16 px.
        given = [option.replace("low_res.size=16", "low_res.size=8") for option in command]
        done = run_difflab([*given[:2], *tiny, *given[2:]], tmp_path)
        assert done.status == 0, (command, done.err)
    assert {run.name for run in (tmp_path / "runs" / "ddpm" / "shapes32").iterdir()} == {
        next(option.removeprefix("name=") for option in command if option.startswith("name=")) for command in commands
    }
