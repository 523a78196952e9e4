"""Templates of prompts: the published ones, those of a file, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from difflab.errors import UserError
from difflab.text.templates import filled, imagenet, read_templates


def test_there_are_the_eighty_of_imagenet() -> None:
    found = imagenet()
    assert len(set(found)) == 80
    assert (found[0], found[-1]) == ("a bad photo of a {}.", "a tattoo of the {}.")
    assert read_templates("imagenet") == found


def test_the_simple_one_is_the_papers() -> None:
    assert read_templates("simple") == ["a photo of a {}."]


def test_open_clip_has_the_same_eighty() -> None:
    metadata = pytest.importorskip("open_clip.zero_shot_metadata")
    assert imagenet() == [template("{}") for template in metadata.OPENAI_IMAGENET_TEMPLATES]


def test_a_file_has_one_per_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("\ufeffa {}\n\n  the {} in {Z}ürich \n", encoding="utf-8")
    assert read_templates(str(path)) == ["a {}", "the {} in {Z}ürich"]


def test_lines_end_as_on_any_system_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes("a {}\r\nthe {}\rone\u2028{}\n".encode())
    assert read_templates(str(path)) == ["a {}", "the {}", "one\u2028{}"]


def test_braces_of_a_name_are_left_alone() -> None:
    assert filled("a {} of {x}", "{}{0}") == "a {}{0} of {x}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no template: write one per line"),
        (b"a {}\na dog\n", "template 2, 'a dog', has no {}; it needs exactly one"),
        (b"{} and {}\n", "template 1, '{} and {}', has 2 {}; it needs exactly one"),
        (b"a {0}\n", "has no {}"),
        (b"caf\xe9 {}\n", "is not UTF-8 text"),
        ("a {}\n".encode("utf-16-le"), "is not UTF-8 text"),
    ],
)
def test_files_that_cannot_be_used(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_templates(str(tmp_path / "mine.txt"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_names_that_are_neither_a_choice_nor_a_file() -> None:
    with pytest.raises(UserError, match="templates=imagnet is no file, and none of imagenet, simple"):
        read_templates("imagnet")


def test_a_list_is_checked_too() -> None:
    assert read_templates(["a {}"]) == ["a {}"]
    with pytest.raises(UserError, match="template 1, 'a dog', has no"):
        read_templates(["a dog"])
    with pytest.raises(UserError, match="has no template"):
        read_templates([])
