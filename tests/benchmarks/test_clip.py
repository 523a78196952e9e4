"""The benchmark of CLIP: both sides do the same work, and a report comes out. Nothing here looks at a time."""

import json

import pytest
import torch
from benchmarks.clip_peer import Recipe, steps_of

from benchmarks import captions, clip
from difflab.config.optimizer import OptimizerConfig
from difflab.errors import UserError
from difflab.text.cleaning import is_plain

SMALL = {
    "vit": clip.Towers({"kind": "vit", "patch_size": 8, "width": 64, "layers": 1, "heads": 1}, 16, width=64, layers=1),
    "resnet": clip.Towers({"kind": "resnet", "depths": [1, 1, 1, 1], "width": 4, "heads": 2}, 32, width=64, layers=1),
}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(clip, "TOWERS", SMALL)
    monkeypatch.setattr(clip, "MET", 1)


def test_both_tables_are_printed(capsys):
    clip.main(["--rounds", "2", "--warmup", "1", "--batch", "2", "--captions", "5", "--json"])
    out = capsys.readouterr().out
    content = json.loads(out.splitlines()[-1])
    for label in ("vit, difflab / open_clip: ", "resnet, difflab / open_clip: ", "plain ASCII, difflab / open_clip: "):
        assert label in out
    for part in (*SMALL, *clip.TOKENIZING):
        assert content[part]["ratios"]["difflab / open_clip"]["n"] == 2
        assert content[part]["seconds"].keys() == {"difflab", "open_clip"}


@pytest.mark.parametrize("name", SMALL)
def test_both_take_the_same_steps(name):
    towers, tokenizer = SMALL[name], clip.make_tokenizer()
    recipe = Recipe(OptimizerConfig.model_validate({**clip.RECIPE, "decayed": "matrices"}), None)
    batches = clip.batches_of(tokenizer, towers.size, 3)
    steps = steps_of(towers.config(), towers.size, tokenizer, batches, recipe)
    for _ in range(3):
        ours, theirs = (float(step.loss(batches[0]).detach()) for step in steps.values())
        assert ours == pytest.approx(theirs, rel=1e-3)
        for step in steps.values():
            step()
    assert steps["difflab"].module.train_step == 3
    after = float(steps["difflab"].loss(batches[0]).detach())
    assert after != pytest.approx(float(ours), rel=1e-3), "it trains"


def test_captions_are_what_they_are_called():
    plain, mixed = captions.plain(50, 0), captions.mixed(50, 0)
    assert plain == captions.plain(50, 0) != captions.plain(50, 1)
    assert all(map(is_plain, plain))
    assert not any(map(is_plain, mixed))
    assert all(text.isascii() for text in plain)


def test_other_ids_are_reported():
    ids = torch.zeros(2, 3, dtype=torch.int64)
    other = ids.clone()
    other[1, 2] = 1
    with pytest.raises(UserError, match="the ids of 'b' differ from open_clip's"):
        clip.require_equal_ids(["a", "b"], ids, other)
