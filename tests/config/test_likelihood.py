from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from difflab.commands.composing import compose_and_validate
from difflab.conf_dir import conf_dir
from difflab.config.likelihood import LikelihoodConfig, MethodConfig
from difflab.errors import UserError

METHODS: TypeAdapter[Any] = TypeAdapter(MethodConfig)
FILES = sorted((conf_dir() / "method").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_method_shows_all_its_options_with_their_defaults(path: Any) -> None:
    data = yaml.safe_load(path.read_text())
    config = METHODS.validate_python(data)
    assert config.kind == path.stem
    assert set(data) == set(type(config).model_fields)
    assert config == type(config)(kind=path.stem)


def test_the_primary_configuration_shows_every_key() -> None:
    config, plain = compose_and_validate("likelihood", LikelihoodConfig, ["run=somewhere"])
    assert set(LikelihoodConfig.model_fields) - set(plain) <= {"data"}
    assert (config.method.kind, config.split, config.precision) == ("bound", "val", "32-true")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "run has no value: give one, as in run=..."),
        (["n=0"], "n=0: input should be greater than or equal to 1"),
        (["method=ode", "method.rtol=0"], "method.rtol=0"),
        (["method=ode", "method.probes=0"], "method.probes=0"),
        (["method=ode", "method.solver=euler"], "method.solver='euler'"),
        (["method=ode", "method.trace=exact"], "method.trace='exact'"),
        (["precision=auto"], "precision='auto'"),
    ],
)
def test_mistakes_are_refused(overrides: list[str], message: str) -> None:
    run = ["run=somewhere"] if overrides else []
    with pytest.raises(UserError) as refusal:
        compose_and_validate("likelihood", LikelihoodConfig, [*run, *overrides])
    assert message in str(refusal.value)
