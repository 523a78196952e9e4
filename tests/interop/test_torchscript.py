"""TorchScript archives: the tensors as torch itself would load them, and nothing else."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from difflab.errors import UserError
from difflab.interop.unpickle import read_content
from difflab.interop.unwrapping import read_weights
from interop.clip_files import as_openai, official, script_of


class Typed(nn.Module):
    """Attributes of many types besides the tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.turned = nn.Parameter(torch.arange(6.0).half().reshape(2, 3).T)
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("empty", torch.empty(0, 3))
        self.sizes: list[int] = [1, 2]
        self.names: dict[str, float] = {"a": 0.5}
        self.text = "text"

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.names["a"] + self.sizes[0]


def scripted(module: nn.Module, *, traced: bool = False) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.jit.trace(module, torch.ones(2, 3)) if traced else torch.jit.script(module)
        torch.jit.save(made, file)
    return file.getvalue()


def rewritten(content: bytes, name: str, change) -> bytes:
    """The archive with one member changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(out, "w") as after:
        for member in before.infolist():
            data = before.read(member)
            after.writestr(member.filename, change(data) if member.filename.endswith(name) else data)
    return out.getvalue()


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_tensors_are_those_that_torch_loads(tmp_path: Path, traced: bool, suffix: str) -> None:
    module = Typed().eval()
    path = tmp_path / f"file{suffix}"
    path.write_bytes(scripted(module, traced=traced))
    kind, content = read_content(path)
    assert kind == "torchscript"
    expected = module.state_dict()
    assert {key: content[key].dtype for key in expected} == {key: value.dtype for key, value in expected.items()}
    assert all(torch.equal(content[key], value) for key, value in expected.items())


def test_a_clip_as_openai_published_it(tmp_path: Path) -> None:
    state = as_openai(official().state_dict())
    path = tmp_path / "ViT-B-32.pt"
    path.write_bytes(script_of(state, input_resolution=32))
    found = read_weights(path)
    assert found.notes[0] == "a TorchScript archive, of which the tensors were read and the code was not"
    assert found.state.keys() == state.keys() | {"input_resolution"}
    assert all(torch.equal(found.state[key], value) for key, value in state.items())
    assert all(found.state[key].dtype == value.dtype for key, value in state.items())


def test_neither_code_nor_classes_of_an_archive_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken code is no hindrance, and torch.jit.load is not asked."""
    path = tmp_path / "file.pt"
    path.write_bytes(rewritten(scripted(nn.Linear(3, 2)), ".py", lambda _: b"raise SystemExit"))
    monkeypatch.setattr(torch.jit, "load", None)
    assert read_weights(path).state.keys() == {"weight", "bias"}


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "torch.hub.load", "torch._utils._rebuild_parameter"])
def test_a_pickle_that_asks_for_more_is_refused_by_name(tmp_path: Path, name: str) -> None:
    module, _, function = name.rpartition(".")
    trace = tmp_path / "trace"
    asks = b"\x80\x02c" + f"{module}\n{function}\n".encode() + pickle.dumps((f"touch {trace}",), 2)[2:-1] + b"R."
    path = tmp_path / "file.pt"
    path.write_bytes(rewritten(scripted(nn.Linear(3, 2)), "/data.pkl", lambda _: asks))
    with pytest.raises(UserError, match=rf"file.pt: refused, because reading it would run {name};"):
        read_weights(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("/data.pkl", lambda data: data[:-20]),
        ("/data.pkl", lambda _: b""),
        ("/data.pkl", lambda data: data.replace(b"FloatStorage", b"OddlyStorage")),
        ("/data/0", lambda data: data[:-4]),
        ("/data/0", lambda _: b""),
    ],
)
def test_damage_is_one_line(tmp_path: Path, member: str, change) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(rewritten(scripted(nn.Linear(3, 2)), member, change))
    with pytest.raises(UserError) as error:
        read_weights(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_members_that_would_unpack_to_more_are_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(scripted(nn.Linear(3, 2)))) as before, zipfile.ZipFile(out, "w") as after:
        for member in before.infolist():
            data = b"\0" * 10_000_000 if member.filename.endswith("/data/0") else before.read(member)
            after.writestr(member.filename, data, zipfile.ZIP_DEFLATED)
    (tmp_path / "file.pt").write_bytes(out.getvalue())
    with pytest.raises(UserError, match=r"refused, because it is no archive that torch\.save writes"):
        read_weights(tmp_path / "file.pt")


def test_a_module_inside_itself_ends(tmp_path: Path) -> None:
    """A module whose two attributes are itself has 2^n paths of n parts."""
    loop = b"\x80\x02c__torch__\nM\n)\x81q\x00}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00ub."
    path = tmp_path / "file.pt"
    path.write_bytes(rewritten(scripted(nn.Linear(3, 2)), "/data.pkl", lambda _: loop))
    with pytest.raises(UserError, match="no weights in it"):
        read_weights(path)
