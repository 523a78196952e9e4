"""Modules that only some texts need."""

from __future__ import annotations

import importlib
from typing import Any

from difflab.errors import UserError


def needed(module: str, what: str) -> Any:
    """Imports a module. Raises UserError, which says what needs it, if it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"{what} need {error.name}, which is not installed: pip install 'difflab[text]'") from error
