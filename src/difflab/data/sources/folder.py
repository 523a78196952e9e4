"""A directory of image files as a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from difflab.config.data import Alpha, Crop
from difflab.config.folder import FolderSourceConfig
from difflab.data.decode import BadImage, decode_image
from difflab.data.hashing import permutation
from difflab.data.sources.base import Source
from difflab.data.transforms import fit
from difflab.errors import UserError
from difflab.seeding import stream_seed

STORED_AS_THEY_ARE = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png", ".webp": "webp"}
RE_ENCODED = (".bmp", ".gif", ".tif", ".tiff", ".ppm")


class FolderSource:
    """The images below `path` (all of them, or the relative `files`), sorted by path.

    The first directory below `path` is the class, if there are directories; `name.txt` beside an image is its
    caption. With a resolution every image is cut to that square by `crop`; without one, files are stored as they are.

    Raises UserError when the directory is missing or holds no images, and, from `sample`, when a file is no image.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        files: list[str] | None = None,
        resolution: int | None = None,
        crop: Crop = "adm",
        alpha: Alpha = "white",
    ) -> None:
        self.path = Path(path)
        all_files = list_images(self.path)
        self.files = all_files if files is None else files
        self.resolution = resolution
        self.crop: Crop = crop
        self.alpha: Alpha = alpha
        names = sorted({file.split("/")[0] for file in all_files if "/" in file})
        loose = sum("/" not in file for file in all_files)
        if names and loose:
            raise UserError(
                f"{self.path} has images in sub-directories (classes) and {loose} beside them; "
                "move those into a class, or keep all of them in one place"
            )
        self.class_names: list[str] | None = names or None

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int) -> dict[str, Any]:
        """One image with its class, caption and relative path; see `difflab.data.sources.base.Source`."""
        name = self.files[index]
        path = self.path / name
        content = path.read_bytes()
        try:
            pixels = decode_image(content, alpha=self.alpha)
            if self.resolution is not None:
                pixels = fit(pixels, self.resolution, self.crop)
        except BadImage as error:
            raise UserError(f"{path} cannot be used: {error}; mend or remove it") from None
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None
        sample: dict[str, Any] = {"json": {"file": name}}
        extension = STORED_AS_THEY_ARE.get(path.suffix.lower())
        if self.resolution is None and extension is not None:
            sample |= {"file": (extension, content), "size": tuple(pixels.shape[-2:])}
        else:
            sample["image"] = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        if self.class_names:
            sample["label"] = self.class_names.index(name.split("/")[0])
        caption = path.with_suffix(".txt")
        if caption.is_file():
            sample["caption"] = _read_caption(caption)
        return sample


def list_images(path: Path) -> list[str]:
    """Relative paths ("class/name.png") of the image files below a directory, sorted; hidden files are left out.

    Raises UserError when the directory is missing or holds none.
    """
    if not path.is_dir():
        what = "is a file, not a directory" if path.exists() else "does not exist"
        raise UserError(f"image directory {path} {what}; give the path of a directory of images")
    suffixes = (*STORED_AS_THEY_ARE, *RE_ENCODED)
    relative = (
        file.relative_to(path) for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file()
    )
    found = sorted(file.as_posix() for file in relative if not any(part.startswith(".") for part in file.parts))
    if not found:
        raise UserError(f"image directory {path} holds no images ({', '.join(sorted(suffixes))})")
    return found


def folder_splits(config: FolderSourceConfig) -> dict[str, Source]:
    """The validation images, then the training images, in one order shuffled by the seed.

    Raises UserError when the directory holds too few.
    """
    path = Path(config.path)
    files = list_images(path)
    if config.val + (config.n or 1) > len(files):
        raise UserError(
            f"{path} holds {len(files)} images, fewer than val={config.val} and n={config.n or 1}; ask for less"
        )
    shuffled = [files[i] for i in permutation(len(files), stream_seed(config.seed, "folder"))]
    chosen = {"train": shuffled[config.val :][: config.n], "val": shuffled[: config.val]}
    return {
        split: FolderSource(path, files=names, resolution=config.resolution, crop=config.crop, alpha=config.alpha)
        for split, names in chosen.items()
        if names
    }


def _read_caption(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8") from None
