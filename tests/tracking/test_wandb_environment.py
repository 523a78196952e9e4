from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from difflab.config.logger import LoggerConfig
from difflab.errors import UserError
from difflab.tracking import wandb_environment
from difflab.tracking.config import WandbConfig
from difflab.tracking.wandb_environment import (
    chosen_mode,
    key_source,
    refuse_unusable,
    server,
    unseen_by_sweep,
)

KEY = "0123456789abcdef0123456789abcdef01234567"
AGENT = {"WANDB_SWEEP_ID": "abc123", "WANDB_RUN_ID": "run1"}
NULL, OFFLINE, ONLINE = WandbConfig(), WandbConfig(mode="offline"), WandbConfig(mode="online")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("NETRC", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_CONFIG_DIR", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("config", "environ", "mode", "chosen_by"),
    [
        (NULL, {}, "offline", "the default"),
        (NULL, {"WANDB_MODE": ""}, "offline", "the default"),
        (NULL, {"WANDB_MODE": "online"}, "online", "WANDB_MODE"),
        (NULL, {"WANDB_MODE": "run"}, "online", "WANDB_MODE"),
        (NULL, {"WANDB_MODE": "offline"}, "offline", "WANDB_MODE"),
        (NULL, {"WANDB_MODE": "dryrun"}, "offline", "WANDB_MODE"),
        (NULL, {"WANDB_MODE": "shared"}, "shared", "WANDB_MODE"),
        (NULL, {"WANDB_MODE": "disabled"}, "disabled", "WANDB_MODE"),
        (NULL, {"WANDB_DISABLED": "true"}, "disabled", "WANDB_DISABLED"),
        (NULL, {"WANDB_DISABLED": "1", "WANDB_MODE": "online"}, "disabled", "WANDB_DISABLED"),
        (NULL, {"WANDB_DISABLED": "False", "WANDB_MODE": "online"}, "online", "WANDB_MODE"),
        (NULL, {"WANDB_DISABLED": ""}, "offline", "the default"),
        (NULL, AGENT, "online", "the agent"),
        (NULL, {"WANDB_SWEEP_ID": ""}, "offline", "the default"),
        (NULL, {**AGENT, "WANDB_MODE": "offline"}, "offline", "WANDB_MODE"),
        (OFFLINE, {**AGENT, "WANDB_MODE": "online"}, "offline", "logger.wandb.mode"),
        (ONLINE, {"WANDB_MODE": "offline", "WANDB_DISABLED": "true"}, "online", "logger.wandb.mode"),
        (None, AGENT, "disabled", "logger.wandb=null"),
    ],
)
def test_the_first_that_says_something_chooses_the_mode(
    config: WandbConfig | None, environ: dict[str, str], mode: str, chosen_by: str
) -> None:
    chosen = chosen_mode(config, environ)
    assert chosen.mode == mode
    assert chosen.chosen_by.startswith(chosen_by)
    assert chosen.needs_server == (mode in ("online", "shared"))


@pytest.mark.parametrize("environ", [{"WANDB_MODE": "Offline"}, {"WANDB_MODE": "cloud"}, {"WANDB_DISABLED": "maybe"}])
def test_a_value_that_is_not_known_is_refused_and_named(environ: dict[str, str]) -> None:
    ((name, value),) = environ.items()
    with pytest.raises(UserError, match=f"^{name}={value} is "):
        chosen_mode(NULL, environ)
    assert chosen_mode(OFFLINE, environ).mode == "offline", "nobody asked the environment"


def test_w_and_b_itself_knows_the_same_modes() -> None:
    import typing

    import wandb

    from difflab.tracking.wandb_environment import MODES

    assert set(MODES) == set(typing.get_args(wandb.Settings.model_fields["mode"].annotation))


def netrc(home: Path, host: str = "api.wandb.ai", key: str = KEY, name: str = ".netrc") -> Path:
    path = home / name
    path.write_text(f"machine {host}\n  login user\n  password {key}\n")
    path.chmod(0o600)
    return path


def test_where_the_key_is(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_source({}) is None
    assert key_source({"WANDB_API_KEY": ""}) is None
    settings = home / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"[default]\napi_key = {KEY}\n")
    assert key_source({}) == str(settings)
    path = netrc(home)
    assert key_source({}) == str(path)
    assert key_source({"NETRC": str(tmp_path / "other")}) == str(settings)
    assert key_source({"NETRC": str(netrc(tmp_path, name="other"))}) == str(tmp_path / "other")
    assert key_source({"WANDB_API_KEY": KEY}) == "WANDB_API_KEY"
    assert key_source({"WANDB_IDENTITY_TOKEN_FILE": "token"}) == "WANDB_IDENTITY_TOKEN_FILE"
    assert key_source({"WANDB_CONFIG_DIR": str(tmp_path), "NETRC": "nowhere"}) is None


def test_a_key_is_for_one_server(home: Path) -> None:
    netrc(home)
    assert key_source({"WANDB_BASE_URL": "https://wandb.example.org"}) is None
    netrc(home, host="wandb.example.org:8080")
    assert key_source({"WANDB_BASE_URL": "https://wandb.example.org:8080/"}) == str(home / ".netrc")
    assert key_source({}) is None
    settings = home / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nbase_url = https://wandb.example.org:8080\n")
    assert server({}) == "https://wandb.example.org:8080"
    assert key_source({}) == str(home / ".netrc")
    assert server({"WANDB_BASE_URL": "http://localhost:9/"}) == "http://localhost:9"
    assert server({"WANDB_BASE_URL": "https://me:s3cret@host:9/w/"}) == "https://host:9/w"
    assert server({"WANDB_BASE_URL": "nonsense"}) == "nonsense"


@pytest.mark.parametrize(
    "content", [b"machine api.wandb.ai login", b"\xff\xfe", b"machine api.wandb.ai login a password"]
)
def test_files_that_cannot_be_read_hold_no_key(home: Path, content: bytes) -> None:
    (home / ".netrc").write_bytes(content)
    settings = home / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_bytes(content)
    assert key_source({}) is None


@pytest.mark.parametrize("where", ["WANDB_API_KEY", "api.wandb.ai", "the default host", "settings"])
def test_w_and_b_finds_the_key_there_too(home: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb
    from wandb.sdk.lib import wbauth

    if where == "WANDB_API_KEY":
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    elif where == "api.wandb.ai":
        netrc(home)
    elif where == "the default host":
        netrc(home, host=urlsplit(server({})).netloc)
    else:
        settings = home / ".config" / "wandb" / "settings"
        settings.parent.mkdir(parents=True)
        settings.write_text(f"[default]\napi_key = {KEY}\n")
    assert key_source() is not None
    wandb.teardown()  # its settings are read once
    try:
        found = wbauth.authenticate_session(host=server(), source="test", prompt=False, update_session=False)
    finally:
        wandb.teardown()
    assert found is not None


@pytest.mark.parametrize("environ", [{}, {"WANDB_MODE": "offline"}, {"WANDB_DISABLED": "true"}])
def test_offline_and_disabled_need_no_key(environ: dict[str, str]) -> None:
    refuse_unusable(WandbConfig(), environ)


def test_who_logs_nowhere_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    LoggerConfig(wandb=None).refuse_unusable()
    monkeypatch.setattr(wandb_environment, "key_source", lambda _: None)
    with pytest.raises(UserError, match="there is no API key"):
        LoggerConfig().refuse_unusable()


@pytest.mark.parametrize(
    ("config", "environ", "who"),
    [(ONLINE, {}, "logger.wandb.mode"), (NULL, {"WANDB_MODE": "online"}, "WANDB_MODE"), (NULL, AGENT, "the agent")],
)
def test_online_without_a_key_names_the_ways_out(config: WandbConfig, environ: dict[str, str], who: str) -> None:
    with pytest.raises(UserError) as caught:
        refuse_unusable(config, environ)
    assert who in str(caught.value)
    for way in ("wandb login", "WANDB_API_KEY", "logger.wandb.mode=offline"):
        assert way in str(caught.value)
    refuse_unusable(config, {**environ, "WANDB_API_KEY": KEY})


def test_online_the_users_own_settings_stay(tmp_path: Path) -> None:
    from difflab.tracking.wandb import _folders

    assert "WANDB_CONFIG_DIR" in _folders(tmp_path / "wandb", chosen_mode(OFFLINE, {}))
    online = _folders(tmp_path / "wandb", chosen_mode(ONLINE, {}))
    assert online["WANDB_DIR"] == str(tmp_path)
    assert "WANDB_CONFIG_DIR" not in online


def test_a_point_that_the_sweep_does_not_see_is_said() -> None:
    assert unseen_by_sweep(LoggerConfig(), {}) is None
    assert unseen_by_sweep(LoggerConfig(), AGENT) is None
    for config in (LoggerConfig(wandb=None), LoggerConfig(wandb=OFFLINE)):
        line = unseen_by_sweep(config, AGENT)
        assert line is not None
        assert "the server of sweep abc123 gets no metrics" in line
