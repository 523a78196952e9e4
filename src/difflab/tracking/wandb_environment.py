"""The Weights & Biases settings in the environment: the mode, the agent of a sweep, the server and the key."""

from __future__ import annotations

import configparser
import netrc
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from difflab.config.logger import LoggerConfig
from difflab.errors import UserError
from difflab.tracking.config import Mode, WandbConfig

MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "shared": "shared",
    "disabled": "disabled",
}
"""The values of WANDB_MODE; `run` and `dryrun` are W&B's old names."""
BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
HOSTED = "https://api.wandb.ai"
"""One address of W&B's own server; newer releases use another one, and keys are valid for both."""


@dataclass(frozen=True)
class ChosenMode:
    """The mode of a run, and what determined it."""

    mode: Mode
    chosen_by: str

    @property
    def needs_server(self) -> bool:
        return self.mode in ("online", "shared")


def chosen_mode(config: WandbConfig | None, environ: Mapping[str, str] = os.environ) -> ChosenMode:
    """The first setting found: the configuration, WANDB_DISABLED, WANDB_MODE, an agent (online); else offline.

    Raises UserError for a value of these variables that W&B does not know.
    """
    if config is None:
        return ChosenMode("disabled", "logger.wandb=null")
    if config.mode is not None:
        return ChosenMode(config.mode, "logger.wandb.mode")
    if _is_disabled(environ.get("WANDB_DISABLED", "")):
        return ChosenMode("disabled", "WANDB_DISABLED")
    if given := environ.get("WANDB_MODE", ""):
        if given not in MODES:
            raise UserError(
                f"WANDB_MODE={given} is not a mode of W&B: set it to one of {', '.join(MODES)}, or unset it"
            )
        return ChosenMode(MODES[given], "WANDB_MODE")
    if in_agent(environ):
        return ChosenMode("online", "the agent of a W&B sweep")
    return ChosenMode("offline", "the default; logger.wandb.mode=online or WANDB_MODE changes it")


def in_agent(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `wandb agent` started this process, as a point of a sweep whose run it has named."""
    return bool(environ.get("WANDB_SWEEP_ID"))


def wandb_of(config: LoggerConfig) -> WandbConfig | None:
    """The W&B configuration, None if nothing is logged there."""
    return next((options for _, options in config.active if isinstance(options, WandbConfig)), None)


def refuse_unusable(config: WandbConfig, environ: Mapping[str, str] = os.environ) -> None:
    """Raises UserError if W&B cannot log as configured, before anything is written; the network is not tried."""
    chosen = chosen_mode(config, environ)
    if chosen.needs_server and key_source(environ) is None:
        raise UserError(
            f"W&B is {chosen.mode} ({chosen.chosen_by}), but there is no API key for {server(environ)}: "
            "run `wandb login`, set WANDB_API_KEY, or give logger.wandb.mode=offline"
        )


def unseen_by_sweep(config: LoggerConfig, environ: Mapping[str, str] = os.environ) -> str | None:
    """A warning for a point of a W&B sweep whose server will not see its metrics; None for all other runs."""
    chosen = chosen_mode(wandb_of(config), environ)
    if not in_agent(environ) or chosen.needs_server:
        return None
    return f"W&B is {chosen.mode} ({chosen.chosen_by}): the server of sweep {environ['WANDB_SWEEP_ID']} gets no metrics"


def server(environ: Mapping[str, str] = os.environ) -> str:
    """The address of the W&B server, without a user name and password that it may contain."""
    address = urlsplit(environ.get("WANDB_BASE_URL") or _setting("base_url", environ) or _hosted())
    return urlunsplit(address._replace(netloc=address.netloc.rpartition("@")[2])).rstrip("/")


def key_source(environ: Mapping[str, str] = os.environ) -> str | None:
    """Where the server's API key comes from, in W&B's own order; None if there is none. The key is not returned."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        if environ.get(name):
            return name
    path, address = _netrc_file(environ), server(environ)
    addresses = {address, HOSTED, _hosted()} if address in (HOSTED, _hosted()) else {address}
    if any(_has_netrc_entry(path, urlsplit(each).netloc) for each in addresses):
        return str(path)
    return str(_settings_file(environ)) if _setting("api_key", environ) else None


def _hosted() -> str:
    import wandb

    return wandb.Settings.model_fields["base_url"].default


def _is_disabled(text: str) -> bool:
    if not text:
        return False
    if text.lower() not in BOOLEANS:
        raise UserError(f"WANDB_DISABLED={text} is neither true nor false: set it to one of them, or unset it")
    return BOOLEANS[text.lower()]


def _netrc_file(environ: Mapping[str, str]) -> Path:
    if given := environ.get("NETRC"):
        return Path(given).expanduser()
    usual, windows = Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()
    return windows if windows.exists() and not usual.exists() else usual


def _has_netrc_entry(path: Path, host: str) -> bool:
    try:
        entry = netrc.netrc(path).authenticators(host)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return False
    return bool(entry and entry[2])


def _settings_file(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser() / "settings"


def _setting(name: str, environ: Mapping[str, str]) -> str | None:
    """A setting of the user's file, which `wandb login` writes."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(_settings_file(environ), encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return None
    return parser.get("default", name, fallback=None)
