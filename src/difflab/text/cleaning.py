"""How CLIP cleans a text before it is tokenized (openai/CLIP, simple_tokenizer.py)."""

from __future__ import annotations

import functools
import html
import re
from typing import Any

_PLAIN = re.compile(r"[ -%'-~\t\n\r]*\Z")
"""ASCII that ftfy leaves as it is: no entity (which begins with &), no control character but the usual white space."""


def is_plain(text: str) -> bool:
    """Whether ftfy and the entities of HTML leave a text as it is."""
    return _PLAIN.match(text) is not None


def clean(text: str) -> str:
    """Repaired by ftfy, without HTML entities (unescaped twice), one space between words, in lower case."""
    if is_plain(text):
        return " ".join(text.split()).lower()
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return _white_space().sub(" ", text.strip()).strip().lower()


@functools.cache
def _white_space() -> Any:
    import regex

    return regex.compile(r"\s+")
