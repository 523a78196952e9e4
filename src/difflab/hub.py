"""Files of the Hugging Face hub, from its local cache or downloaded into it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from difflab.console import printable
from difflab.errors import UserError, first_line


def hub_file(name: str) -> Path | None:
    """Returns a file of a model, `owner/model/file`, in the local cache of the hub; None if the model has no such file.

    The newest version that is in the cache is used; it is downloaded only if there is none.
    Raises UserError if it can be neither found nor downloaded.
    """
    try:
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ModuleNotFoundError:
        raise UserError(f"hub={printable(name)} needs huggingface_hub: pip install 'difflab[text]'") from None
    owner, model, file = name.split("/", 2)
    try:
        found = huggingface_hub.try_to_load_from_cache(f"{owner}/{model}", file)
        if isinstance(found, str):
            return Path(found)
        with _without_warnings():
            return Path(huggingface_hub.hf_hub_download(f"{owner}/{model}", file))
    except LocalEntryNotFoundError:
        raise UserError(
            f"hub={printable(name)} is not in the local cache and cannot be downloaded from here: run `hf download "
            f"{owner}/{model}` where there is a network and set HF_HOME to its cache, or give path= or package= instead"
        ) from None
    except EntryNotFoundError:
        return None
    except Exception as error:
        raise UserError(f"hub={printable(name)} cannot be had: {first_line(error)}") from error


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Without what the library logs of every attempt, of which the last error says enough."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
