"""`difflab zero-shot`: found, kept and shown like any other measurement, clean, corrupted and attacked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import difflab
from clip_runs import QUIET, records, table
from difflab.data.shapes import ShapesSource, class_names
from difflab.data.writing import write_dataset
from difflab.errors import UserError
from difflab.pipelines.embedding import EmbeddingPipeline, class_vectors
from difflab.pipelines.stored import load_stored
from difflab.tracking.runs import read_offline_run
from tiny_runs import ON_CPU, done, mistake
from warm_python import spawn_warm_difflab

NAMES = class_names("shape")


def test_what_is_found_kept_and_shown(small_clip: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_clip, tmp_path / "run"))
    ended = done("zero-shot", f"run={run}", "n=12", "templates=shapes", "batch_size=5", *ON_CPU)
    (folder,) = (run / "evaluations").glob("zero-shot-val-n12-*")
    found = records(folder)
    assert list(found) == [
        "zero-shot-top1@val-12",
        "zero-shot-top5@val-12",
        "zero-shot-mean-per-class@val-12",
        "expected-calibration-error@val-12",
    ]
    top1 = found["zero-shot-top1@val-12"]
    assert top1.protocol.parameters["classes"] == 6
    assert top1.protocol.parameters["templates"] == 24
    assert top1.details["templates"] == "shapes"
    p = top1.value
    assert top1.spread == pytest.approx((p * (1 - p) / 11) ** 0.5)
    by_class = table(folder / "classes.csv")
    assert [row["name"] for row in by_class] == NAMES
    hits = sum(int(row["images"]) * float(row["top1"] or 0) for row in by_class)
    assert hits / 12 == pytest.approx(p)
    confusion = table(folder / "confusion.csv")
    assert [row["true"] for row in confusion] == NAMES
    assert sum(int(row[name]) for row in confusion for name in NAMES) == 12
    assert sum(int(row[row["true"]]) for row in confusion) == round(12 * p)
    assert len(table(folder / "calibration.csv")) == 15
    assert {"confusion.svg", "confusion.png", "calibration.svg", "calibration.png"} <= {
        path.name for path in folder.iterdir()
    }
    assert "6 classes, 24 prompts of each; guessing gives 0.167" in ended.out
    assert "by class, best first: " in ended.out
    assert ended.out.splitlines()[-1] == f"records in {folder}"
    assert (run / "evaluations.jsonl").read_text() == (folder / "evaluations.jsonl").read_text()
    logged = read_offline_run(folder)
    assert logged.summary["eval/zero-shot-top1@val-12"] == pytest.approx(p)
    assert (logged.job_type, len(logged.media["eval/zero_shot_confusion"])) == ("zero-shot", 1)


def test_a_class_is_the_mean_of_its_prompts(small_clip: Path) -> None:
    pipeline = EmbeddingPipeline(load_stored(small_clip, "auto")[0])
    prompts = [["a red circle", "a blue circle"], ["a ring"]]
    found = class_vectors(pipeline, prompts)
    each = pipeline.texts(prompts[0])
    assert each.norm(dim=1).tolist() == pytest.approx([1, 1])
    torch.testing.assert_close(found[0], (each[0] + each[1]) / (each[0] + each[1]).norm())
    torch.testing.assert_close(found[1], pipeline.texts(["a ring"])[0])


def test_a_batch_changes_nothing(small_clip: Path) -> None:
    for size in (1, 12):
        done("zero-shot", f"run={small_clip}", "n=12", f"batch_size={size}", f"out=by-{size}", *QUIET)
    one, other = records("by-1"), records("by-12")
    assert {name: found.value for name, found in one.items()} == {
        name: pytest.approx(found.value) for name, found in other.items()
    }


def test_names_can_be_given_in_every_form(small_clip: Path, tmp_path: Path) -> None:
    theirs = ["disc", *NAMES[1:]]
    (tmp_path / "names.txt").write_text("\n".join(theirs) + "\n")
    (tmp_path / "names.json").write_text(json.dumps({"circle": "disc"}))
    forms = {
        "list": f"class_names=[{','.join(theirs)}]",
        "mapping": "class_names={circle:disc}",
        "lines": "class_names=names.txt",
        "json": "class_names=names.json",
    }
    for form, argument in forms.items():
        done("zero-shot", f"run={small_clip}", "n=4", argument, f"out={form}", *QUIET)
    hashes = {form: {name: one.protocol.hash for name, one in records(form).items()} for form in forms}
    assert all(each == hashes["list"] for each in hashes.values())
    assert [row["name"] for row in table(Path("json/classes.csv"))] == theirs


def test_a_repeated_template_is_told(small_clip: Path) -> None:
    arguments = ("zero-shot", f"run={small_clip}", "n=2", *QUIET)
    ended = done(*arguments, "templates=['a {}','the {}','a {}']", "out=twice")
    assert "1 of the prompts stand there repeatedly, as 'a {}', and count for more" in ended.out
    assert "repeatedly" not in done(*arguments, "templates=['a {}','the {}']", "out=once").out


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("network.logit_scale", "the factor on the cosines (logit_scale) is not finite: take another checkpoint"),
        ("network.image.projection", "the image embeddings are not finite"),
        ("network.text.projection", "the text embeddings are not finite"),
    ],
)
def test_weights_that_are_not_finite_are_one_line(small_clip: Path, key: str, message: str, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_clip, tmp_path / "run"))
    file = run / "weights" / "raw.safetensors"
    with safe_open(file, "pt") as opened:
        written = opened.metadata()
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
    save_file({**state, key: torch.full_like(state[key], torch.inf)}, file, metadata=written)
    assert message in mistake("zero-shot", f"run={run}", "weights=raw", "n=2", *QUIET)


def test_templates_from_python_are_text_too(small_clip: Path) -> None:
    with pytest.raises(UserError, match="template 2 is not UTF-8 text"):
        difflab.load(small_clip, accelerator="cpu").zero_shot(n=2, templates=["a {}", "a \0 {}"])


def test_attributes_of_the_shapes_data_are_classes(small_clip: Path) -> None:
    for label, count in (("colour", 8), ("shape_colour", 48)):
        done("zero-shot", f"run={small_clip}", "n=12", f"label={label}", "templates=shapes", f"out={label}", *QUIET)
        rows = table(Path(label) / "classes.csv")
        assert [row["name"] for row in rows] == class_names(label)
        assert len(rows) == count
        assert sum(int(row["images"]) for row in rows) == 12


def test_other_data_has_its_own_classes(small_clip: Path) -> None:
    done("data", "make", "source=shapes", "out=more", "resolution=16", "n=4", "val=8", "classes=shape_colour")
    ended = done("zero-shot", f"run={small_clip}", "data.path=more", "n=8", "out=found", *QUIET)
    assert "48 classes, 1 prompts of each" in ended.out
    assert "of the classes have no image here" in ended.out


def test_held_out_combinations_are_measured(small_clip: Path) -> None:
    made = ("holdout=[red circle,blue square]", "objects=1", "holdout_n=6")
    done("data", "make", "source=shapes", "out=held", "resolution=16", "n=4", "val=4", "classes=shape_colour", *made)
    chosen = ("data.path=held", "split=holdout", "n=6", "templates=shapes")
    done("zero-shot", f"run={small_clip}", *chosen, "out=found", *QUIET)
    there = {row["name"]: int(row["images"]) for row in table(Path("found/classes.csv")) if row["images"] != "0"}
    assert there == {"red circle": 3, "blue square": 3}


def test_corruptions_and_attacks_are_points_of_a_sweep(small_clip: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_clip, tmp_path / "run"))
    ended = done("zero-shot", f"run={run}", "n=6", "corruption=gaussian_noise,jpeg", "severity=5", *QUIET)
    assert "2 of 2 done" in ended.err
    assert "cannot be compared" not in ended.err
    again = done("zero-shot", f"run={run}", "n=6", "corruption=gaussian_noise,jpeg", "severity=5", *QUIET)
    assert "starts" not in again.err
    folders = sorted((run / "evaluations").glob("zero-shot-*"))
    found = [records(folder)["zero-shot-top1@val-6"] for folder in folders]
    asked = {(one.protocol.parameters["corruption"], one.protocol.parameters["severity"]) for one in found}
    assert asked == {("gaussian_noise", 5), ("jpeg", 5)}
    clean = {one.details["top1_unchanged"] for one in found}
    assert len(clean) == 1


def test_what_has_no_effect_makes_no_other_measurement(small_clip: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_clip, tmp_path / "run"))
    arguments = ("zero-shot", f"run={run}", "n=2,3", *QUIET)
    done(*arguments, "severity=5", "epsilon=1/255", "steps=2")
    assert "starts" not in done(*arguments).err
    assert len(list((run / "evaluations").glob("zero-shot-*"))) == 2
    line = mistake("zero-shot", f"run={run}", "n=2", "severity=1,5", *QUIET)
    assert "severity=1 and severity=5 are the same; give each value once" in line
    assert "steps=2 and steps=3 are the same" in mistake(
        "zero-shot", f"run={run}", "n=2", "attack=fgsm", "steps=2,3", *QUIET
    )
    done("zero-shot", f"run={run}", "n=2", "corruption=jpeg", "severity=1,5", *QUIET)
    assert len(list((run / "evaluations").glob("zero-shot-*"))) == 4


def test_a_changed_file_of_templates_is_measured_again(small_clip: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_clip, tmp_path / "run"))
    command = ("zero-shot", f"run={run}", "n=2,3", "templates=mine.txt", *QUIET)
    Path("mine.txt").write_text("a {}\n")
    done(*command)
    assert "starts" not in done(*command).err
    Path("mine.txt").write_text("the {}\n")
    assert "2 of 2 done" in done(*command).err


def test_an_attack_never_helps(small_clip: Path) -> None:
    arguments = ("zero-shot", f"run={small_clip}", "n=12", "templates=shapes", *QUIET)
    done(*arguments, "out=clean")
    ended = done(*arguments, "attack=pgd", "epsilon=16/255", "steps=5", "batch_size=5", "out=pgd")
    assert "under pgd within 16/255; the same images unchanged: top1 " in ended.out
    clean, attacked = (records(name)["zero-shot-top1@val-12"] for name in ("clean", "pgd"))
    assert attacked.details["top1_unchanged"] == clean.value
    assert attacked.value <= clean.value
    assert float(attacked.details["cross_entropy"]) > float(clean.details["cross_entropy"])
    assert attacked.protocol.parameters["epsilon"] == pytest.approx(16 / 255)
    done(*arguments, "attack=pgd", "epsilon=16/255", "steps=5", "batch_size=12", "out=again")
    again = records("again")["zero-shot-top1@val-12"]
    assert float(again.details["cross_entropy"]) == pytest.approx(float(attacked.details["cross_entropy"]), rel=1e-4)


@pytest.mark.slow
def test_two_processes_find_what_one_does(small_clip: Path, tmp_path: Path) -> None:
    arguments = ["zero-shot", f"run={small_clip}", "n=11", "templates=shapes", "batch_size=2", *QUIET]
    done(*arguments, "out=on-1")
    ended = spawn_warm_difflab([*arguments, "devices=2", "out=on-2"], tmp_path)
    assert ended.status == 0, ended.err
    one, two = records(tmp_path / "on-1"), records(tmp_path / "on-2")
    assert {name: found.value for name, found in two.items()} == {
        name: pytest.approx(found.value) for name, found in one.items()
    }
    assert (tmp_path / "on-1" / "confusion.csv").read_text() == (tmp_path / "on-2" / "confusion.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["templates=imagnet"], "templates=imagnet is no file, and none of imagenet, simple, shapes"),
        (["templates=[a dog]"], "template 1, 'a dog', has no {}"),
        (["templates=['{} {}']"], "has 2 {}; it needs exactly one"),
        (["class_names=[a,b]"], "class_names has 2 names, the data has 6 classes"),
        (["class_names={circel:disc}"], "the data has no class 'circel'; did you mean 'circle'?"),
        (["class_names={circle:'  '}"], "class_names: the name of class 0 is empty"),
        (["class_names=surrogate.json"], r"class_names=surrogate.json: the name of class 0 is not UTF-8 text"),
        (["templates=zero.txt"], "templates=zero.txt is not UTF-8 text: save it as UTF-8"),
        (["class_names={circle:null}"], "class_names.circle=None: input should be a valid string"),
        (["class_names=nowhere.txt"], "class_names=nowhere.txt does not exist"),
        (["class_names=[a,b,c,d,e,'']"], "the name of class 5 is empty"),
        (["templates=shapes", "class_names=[a,b,c,d,e,f]"], "not 'a': give templates=simple, or a file"),
        (["corruption=jpeg", "attack=fgsm"], "corruption=jpeg and attack=fgsm: give one of them"),
        (["corruption=fog"], "corruption='fog'"),
        (["severity=6"], "severity=6"),
        (["attack=pgd", "epsilon=4/0"], "'4/0' is no number; write 4/255 or 0.0157"),
        (["attack=pgd", "epsilon=0"], "epsilon=0"),
        (["n=13"], "has 12 images: give n=12 or less"),
        (
            ["compile=true"],
            "compile: torch.compile is for networks that run many times per image, and a tower",
        ),
        (["sampler=ddim"], "images are classified by the model alone, without guidance or a sampler"),
        (["batch_size=1,2"], "several may be given for templates, label, corruption"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(small_clip: Path, arguments: list[str], message: str) -> None:
    before = sorted(small_clip.rglob("*"))
    Path("surrogate.json").write_text(json.dumps(["\ud800", *"bcdef"]))
    Path("zero.txt").write_text("a \0{}")
    assert message in mistake("zero-shot", f"run={small_clip}", "n=2", *arguments, "out=found", *QUIET)
    assert sorted(small_clip.rglob("*")) == before
    assert not Path("found").exists()


def test_a_prompt_that_is_too_long_is_refused(small_clip: Path) -> None:
    long = f"templates=['{'a ' * 60}{{}}']"
    message = mistake("zero-shot", f"run={small_clip}", "n=2", long, "out=found", *QUIET)
    assert "tokens, more than context_length=48" in message
    assert not Path("found").exists()


def test_data_without_labels_is_refused(small_clip: Path) -> None:
    class Unlabelled(ShapesSource):
        def sample(self, index: int) -> dict[str, object]:
            return {"image": super().sample(index)["image"]}

    write_dataset({"val": Unlabelled(resolution=16, n=4, split="val")}, Path("bare"), shard_size=40)
    index = Path("bare/index.json")
    index.write_text(json.dumps({**json.loads(index.read_text()), "classes": None}))
    arguments = ("zero-shot", f"run={small_clip}", "data.path=bare", "n=2", *QUIET)
    assert "the data does not name its classes: give class_names=[...]" in mistake(*arguments, "data.classes=null")
    message = mistake(*arguments, "class_names=[a,b,c,d,e,f]")
    assert "has no label (.cls files) in split 'val', which `difflab zero-shot` needs" in message


@pytest.mark.parametrize("command", ["zero-shot", "retrieval"])
def test_what_embeds_no_texts_is_refused(command: str, own_run: Path) -> None:
    message = mistake(command, f"run={own_run}", "n=2", *QUIET)
    assert "is a diffusion model and embeds no texts: give run= a CLIP (task=contrastive)" in message


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("likelihood", "is a CLIP and has no likelihood of images"),
        ("accuracy", "is a CLIP and does not classify: give run= a classifier"),
        ("evaluate", "draws no images: give run= a diffusion model; of this one `difflab zero-shot run="),
    ],
)
def test_what_a_clip_cannot_do(small_clip: Path, command: str, message: str) -> None:
    assert message in mistake(command, f"run={small_clip}", "n=2", *QUIET)


def test_from_python_it_is_what_the_command_finds(small_clip: Path) -> None:
    done("zero-shot", f"run={small_clip}", "n=4", "class_names={circle:disc}", "templates=['a {}']", "out=f", *QUIET)
    rows = difflab.load(small_clip, accelerator="cpu").zero_shot(
        n=4, templates=["a {}"], class_names={"circle": "disc"}
    )
    assert {row.name: row.value for row in rows} == {name: one.value for name, one in records("f").items()}
