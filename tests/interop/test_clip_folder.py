"""CLIPs in folders of transformers and open_clip: what is beside the weights counts, and both programs read what is
written."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextModel, CLIPVisionModelWithProjection

from difflab.errors import UserError
from difflab.interop.clip_folder import OWN, clip_of_folder
from difflab.interop.clip_model import stored_clip
from difflab.interop.identifying import identify
from difflab.interop.layout import Target
from difflab.interop.registry import check_export, export_model, export_weights, import_weights, model_of_weights
from difflab.interop.transformers_config import to_transformers_config
from difflab.tasks.contrastive.config import ContrastiveModelConfig
from difflab.text.config import BytePairsTokenizerConfig
from golden_fixtures import load
from interop.clip_files import RESNET, VISION, inputs, logits, normalized, official, open_clip_config, written
from interop.test_clip_layout import our_logits
from networks.towers.clip_fixtures import clip_config, official_state

ON = ["quick_gelu", "gelu"]


def theirs(folder: Path, activation: str = "quick_gelu", **vision: object) -> CLIPModel:
    """A folder as transformers writes it, with a vocabulary of CLIP's size and heads of 16 channels."""
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**text, "max_position_embeddings": 16, "hidden_act": activation},
        vision_config={**text, "image_size": 32, "patch_size": 8, "hidden_act": activation, **vision},
        projection_dim=16,
    )
    torch.manual_seed(0)
    network = CLIPModel(config).eval()
    for parameter in network.parameters():
        if parameter.ndim:
            parameter.data.normal_(std=0.2)
    network.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    return network


def changed(path: Path, **values: Any) -> None:
    """Changes a JSON file; a key may be `section__key`, and None removes it."""
    content = json.loads(path.read_text())
    for key, value in values.items():
        section, _, inner = key.rpartition("__")
        where = content[section] if section else content
        where[inner] = value
        if value is None:
            del where[inner]
    path.write_text(json.dumps(content))


def open_clip_folder(folder: Path, activation: str = "quick_gelu", **preprocess: object) -> Path:
    folder.mkdir()
    save_file(official(activation).state_dict(), folder / "open_clip_model.safetensors")
    written(folder / "open_clip_config.json", open_clip_config(activation, **preprocess))
    return folder


@pytest.mark.parametrize("activation", ON)
@pytest.mark.parametrize("sharded", [False, True])
def test_a_folder_of_transformers_is_read_as_it_computes(tmp_path: Path, activation: str, sharded: bool) -> None:
    network = theirs(tmp_path, activation)
    if sharded:
        (tmp_path / "model.safetensors").unlink()
        network.save_pretrained(tmp_path, max_shard_size="500KB")
        assert (tmp_path / "model.safetensors.index.json").is_file()
    described = clip_of_folder(tmp_path)
    assert described is not None
    config = described.config
    assert (config.network.activation, config.image_size, config.tokenizer.kind) == (activation, 32, "clip")
    imported = import_weights(tmp_path)
    assert imported.layout == "transformers_clip"
    images, ids = inputs()
    with torch.no_grad():
        expected = network(input_ids=ids, pixel_values=normalized(images)).logits_per_image
    found = our_logits(Target.of(config), imported.state, images, ids)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert identify(tmp_path).facts[-1] == f"activation {activation}"


@pytest.mark.parametrize("activation", ON)
@pytest.mark.parametrize("layout", ["openai_clip", "open_clip_custom", "transformers_clip"])
@pytest.mark.parametrize("bits", ["weights", "model"])
def test_what_is_written_is_loaded_by_the_other_program(
    tmp_path: Path, layout: str, activation: str, bits: str
) -> None:
    network = official(activation)
    torch.save(network.state_dict(), tmp_path / "official.pt")
    config = model_of_weights(tmp_path / "official.pt", activation=activation).config
    ours = import_weights(tmp_path / "official.pt", Target.of(config)).state
    out = tmp_path / "out"
    if bits == "model":
        assert check_export(out, config, layout) == []
        export_model(out, ours, config, layout)
    else:
        export_weights(out, ours, Target.of(config), layout)
    images, ids = inputs()
    expected = logits(network, normalized(images), ids)
    if layout == "transformers_clip":
        loaded, info = CLIPModel.from_pretrained(out, output_loading_info=True)
        assert not any(info.values())
        with torch.no_grad():
            found = loaded.eval()(input_ids=ids, pixel_values=normalized(images)).logits_per_image
        processor = CLIPImageProcessor.from_pretrained(out)
        assert [*processor.image_mean, *processor.image_std] == [*config.network.mean, *config.network.std]
        assert (processor.resample, dict(processor.crop_size)["height"]) == (3, 32)
    else:
        loaded = open_clip.create_model(f"local-dir:{out}")
        assert isinstance(loaded, open_clip.CustomTextCLIP) == (layout == "open_clip_custom")
        assert loaded.visual.preprocess_cfg["mean"] == config.network.mean
        found = logits(loaded.eval(), normalized(images), ids)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    described = clip_of_folder(out)
    assert described is not None
    assert Target.of(described.config).architecture() == Target.of(config).architecture()
    assert (described.config == config) == (bits == "model")
    back = import_weights(out)
    assert back.layout == layout
    assert all(torch.equal(back.state[key], value) for key, value in ours.items())


@pytest.mark.parametrize("layout", ["openai_clip", "open_clip_custom"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_one_file_is_loaded_strictly_by_open_clip(tmp_path: Path, layout: str, suffix: str) -> None:
    custom = layout == "open_clip_custom"
    network = official("gelu", custom=custom, vision=RESNET, bias=-10.0)
    torch.save(network.state_dict(), tmp_path / "official.pt")
    config = model_of_weights(tmp_path / "official.pt", activation="gelu").config
    ours = import_weights(tmp_path / "official.pt", Target.of(config)).state
    out = tmp_path / f"out{suffix}"
    (note,) = check_export(out, config, layout)
    assert note.startswith("the file says neither the activation (gelu) nor how images are normalized (mean [0.48")
    export_model(out, ours, config, layout)
    other = official("gelu", custom=custom, vision=RESNET, bias=-10.0)
    for parameter in other.parameters():
        parameter.data.zero_()
    state = open_clip.factory.load_state_dict(str(out))
    other.load_state_dict(state, strict=True)
    images, ids = inputs(64)
    assert torch.equal(logits(other, normalized(images), ids), logits(network, normalized(images), ids))
    assert state.keys() == network.state_dict().keys()


def test_transformers_has_no_bias_and_no_resnet(tmp_path: Path) -> None:
    for options, message in (
        ({"vision": RESNET}, "transformers has no CLIP with a ResNet; use another layout"),
        ({"bias": -10.0}, "transformers' CLIPModel has no bias of the logits; use another layout"),
    ):
        torch.save(official(**options).state_dict(), tmp_path / "official.pt")
        config = model_of_weights(tmp_path / "official.pt", activation="gelu").config
        with pytest.raises(UserError, match=message):
            check_export(tmp_path / "out", config, "transformers_clip")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "gelu"}, 'its activation is "quick_gelu", but the requested model has "gelu"'),
        ({"mean": [0.5] * 3}, r"its mean is \[0.481455, .*\], but the requested model has \[0.5, 0.5, 0.5\]"),
        ({"std": [0.5] * 3}, r"its std is \[0.26863, .*\], but the requested model has"),
    ],
)
@pytest.mark.parametrize("code", ["transformers", "open_clip", "a file of open_clip", "a file of transformers"])
def test_what_is_beside_the_weights_has_to_agree_with_the_model_asked_for(
    tmp_path: Path, change: dict[str, Any], message: str, code: str
) -> None:
    path = tmp_path / "folder"
    if "transformers" in code:
        theirs(path)
        path = path / "model.safetensors" if "file" in code else path
    else:
        path = open_clip_folder(path)
        path = path / "open_clip_model.safetensors" if "file" in code else path
    described = clip_of_folder(path)
    assert described is not None
    target = Target.of(described.config)
    other = Target(target.network.model_copy(update=change), target.image_size)
    with pytest.raises(UserError, match=f"{tmp_path / 'folder'}: {message}"):
        import_weights(path, other)
    import_weights(path, target)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        (
            "config",
            {"text_config__hidden_act": "gelu"},
            r"text_config.hidden_act='gelu' but vision_config.hidden_act='q",
        ),
        ("config", {"vision_config__hidden_act": "gelu_new"}, r"vision_config.hidden_act='gelu_new' is not supported"),
        ("config", {"text_config__layer_norm_eps": 1e-6}, r"text_config.layer_norm_eps=1e-06 is not supported"),
        (
            "config",
            {"text_config__eos_token_id": 7},
            r"text_config.eos_token_id=7 is not supported: a text",
        ),
        ("config", {"text_config__hidden_size": "wide"}, r"text_config.hidden_size='wide': input should be"),
        ("config", {"text_config__num_attention_heads": 3}, r"text: width=32 is not a multiple of heads=3"),
        ("config", {"model_type": "clip_text_model"}, r"is the text half of a CLIP, which has no image tower"),
        ("config", {"model_type": "clip_vision_model"}, r"is the image half of a CLIP, which has no text tower"),
        ("config", {"model_type": "clipseg"}, r"model_type='clipseg' is not supported \(only clip\)"),
        ("preprocessor_config", {"crop_size": {"height": 24, "width": 24}}, r"its images are of 24 pixels, but config"),
        ("preprocessor_config", {"crop_size": 64}, r"its images are of 64 pixels, but config.json has vision_config"),
        ("preprocessor_config", {"image_mean": [0.5]}, r"mean has 1 numbers for channels=3"),
        ("preprocessor_config", {"image_std": "none"}, r"image_std='none': "),
    ],
)
def test_what_transformers_has_and_we_do_not_is_named(
    tmp_path: Path, file: str, values: dict[str, Any], message: str
) -> None:
    theirs(tmp_path)
    changed(tmp_path / f"{file}.json", **values)
    with pytest.raises(UserError, match=message) as error:
        clip_of_folder(tmp_path)
    assert str(error.value).startswith(str(tmp_path))
    assert "\n" not in str(error.value)


def test_halves_that_transformers_writes_are_refused(tmp_path: Path) -> None:
    whole = theirs(tmp_path / "whole")
    CLIPTextModel(whole.config.text_config).save_pretrained(tmp_path / "text")
    CLIPVisionModelWithProjection(whole.config.vision_config).save_pretrained(tmp_path / "image")
    for half, lacks in (("text", "image"), ("image", "text")):
        with pytest.raises(UserError, match=rf"is the {half} half of a CLIP, which has no {lacks} tower"):
            import_weights(tmp_path / half)
        (tmp_path / half / "config.json").unlink()
        with pytest.raises(UserError, match=rf"the {half} half of a CLIP .* which has no {lacks} tower"):
            import_weights(tmp_path / half, "clip/vit_b32")
        assert f"no {lacks} tower" in identify(tmp_path / half).facts[0]


def test_older_descriptions_of_transformers_are_taken(tmp_path: Path) -> None:
    """Keys that a file leaves out have the library's defaults; the second of two sections counts; end 2 is the highest
    id; constants were stored."""
    theirs(tmp_path)
    expected = clip_of_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config_dict"] = {**config["text_config"], "eos_token_id": 2}
    config["text_config"] = {**config["text_config"], "hidden_size": 1}
    for key in ("hidden_act", "layer_norm_eps", "num_channels"):
        del config["vision_config"][key]
    (tmp_path / "config.json").write_text(json.dumps(config))
    changed(tmp_path / "preprocessor_config.json", size=32, crop_size=32)
    assert clip_of_folder(tmp_path) == expected
    state = load_file(tmp_path / "model.safetensors")
    constants = {f"{half}_model.embeddings.position_ids": torch.arange(16)[None] for half in ("text", "vision")}
    before = import_weights(tmp_path)
    torch.save(state | constants, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    found = import_weights(tmp_path)
    assert all(torch.equal(found.state[key], value) for key, value in before.state.items())
    assert any("left out constants that are no weights: text_model.embeddings.position_ids" in n for n in found.notes)


def test_normalization_travels_and_its_absence_is_said(tmp_path: Path) -> None:
    theirs(tmp_path)
    changed(tmp_path / "preprocessor_config.json", image_mean=[0.4, 0.5, 0.6], image_std=[0.1, 0.2, 0.3])
    described = clip_of_folder(tmp_path)
    assert (described.config.network.mean, described.config.network.std) == ([0.4, 0.5, 0.6], [0.1, 0.2, 0.3])
    inner = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": inner}))
    assert clip_of_folder(tmp_path) == described
    changed(tmp_path / "processor_config.json", image_processor__do_normalize=False)
    assert clip_of_folder(tmp_path).config.network.mean == [0.0] * 3
    (tmp_path / "processor_config.json").unlink()
    described = clip_of_folder(tmp_path)
    assert described.config.network.mean[0] == 0.48145466
    assert described.notes == (
        "took the mean and std of OpenAI's images: there is no preprocessor_config.json beside config.json",
    )


@pytest.mark.parametrize("activation", ON)
def test_a_folder_of_open_clip_is_read_as_it_computes(tmp_path: Path, activation: str) -> None:
    folder = open_clip_folder(tmp_path / "oc", activation, mean=[0.5] * 3, std=[0.25] * 3)
    described = clip_of_folder(folder)
    network = described.config.network
    assert (network.activation, network.mean, network.std) == (activation, [0.5] * 3, [0.25] * 3)
    images, ids = inputs()
    found = our_logits(Target.of(described.config), import_weights(folder).state, images, ids)
    expected = logits(official(activation), ((images + 1) / 2 - 0.5) / 0.25, ids)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    # The same beside a file of any name.
    (folder / "open_clip_model.safetensors").rename(folder / "epoch_32.safetensors")
    assert clip_of_folder(folder / "epoch_32.safetensors") == described


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (
            "vision_cfg",
            {"timm_model_name": "vit_small"},
            r"model_cfg.vision_cfg.timm_model_name='vit_small' is not",
        ),
        ("vision_cfg", {"pool_type": "avg"}, r"model_cfg.vision_cfg.pool_type='avg' is not supported \(only 'tok'\)"),
        ("vision_cfg", {"no_ln_pre": True}, r"no_ln_pre=True is not supported"),
        ("vision_cfg", {"qk_norm": True}, r"qk_norm=True is not supported"),
        ("vision_cfg", {"patch_size": "8"}, r"model_cfg.vision_cfg.patch_size"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, r"hf_model_name='roberta-base' is not supported"),
        ("text_cfg", {"hf_tokenizer_name": "bert"}, r"hf_tokenizer_name='bert' is not supported"),
        ("text_cfg", {"vocab_size": 32000}, r"these weights are for 32,000 token ids, CLIP's tokenizer has 49,408"),
        ("text_cfg", {"act_kwargs": {"approximate": "tanh"}}, r"act_kwargs=.* is not supported"),
    ],
)
def test_what_open_clip_has_and_we_do_not_is_named(
    tmp_path: Path, section: str, values: dict[str, Any], message: str
) -> None:
    content = copy.deepcopy(open_clip_config("gelu"))
    content["model_cfg"][section] = {**content["model_cfg"][section], **values}
    path = written(tmp_path / "open_clip_config.json", content)
    with pytest.raises(UserError, match=message) as error:
        clip_of_folder(tmp_path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_preprocessing_of_another_kind_is_told_or_refused(tmp_path: Path) -> None:
    content = copy.deepcopy(open_clip_config("gelu"))
    content["preprocess_cfg"] = {"interpolation": "bilinear", "resize_mode": "squash"}
    path = written(tmp_path / "open_clip_config.json", content)
    described = clip_of_folder(tmp_path)
    assert described is not None
    assert described.notes[1:] == (
        "open_clip_config.json has interpolation=bilinear: images are resized bicubically here",
        "open_clip_config.json has resize_mode=squash: of images that are not square the centre is taken here",
    )
    content["preprocess_cfg"] = {"mean": [0.5, 0.5], "std": [0.5] * 3}
    written(path, content)
    with pytest.raises(UserError) as error:
        clip_of_folder(tmp_path)
    assert str(error.value) == f"{path}: mean has 2 numbers for channels=3; give one per channel"


def test_the_size_of_images_is_one(tmp_path: Path) -> None:
    written(tmp_path / "open_clip_config.json", open_clip_config("gelu", size=[24, 24]))
    with pytest.raises(UserError, match=r"preprocess_cfg.size=\[24, 24\] but model_cfg.vision_cfg.image_size=32"):
        clip_of_folder(tmp_path)
    written(tmp_path / "open_clip_config.json", open_clip_config("gelu", size=32))
    assert clip_of_folder(tmp_path).config.image_size == VISION["image_size"]


def test_two_descriptions_in_one_folder_have_to_agree(tmp_path: Path) -> None:
    """As in the published folders that are for both programs."""
    torch.save(official("gelu").state_dict(), tmp_path / "official.pt")
    config = model_of_weights(tmp_path / "official.pt", activation="gelu").config
    ours = import_weights(tmp_path / "official.pt", Target.of(config)).state
    export_weights(tmp_path / "both", ours, Target.of(config), "transformers_clip")
    written(tmp_path / "both" / "open_clip_config.json", open_clip_config("gelu"))
    (tmp_path / "both" / "open_clip_pytorch_model.bin").touch()
    imported = import_weights(tmp_path / "both")
    assert imported.layout == "transformers_clip"
    said = "took model.safetensors; beside it lie weights for other programs, open_clip_pytorch_model.bin"
    assert said in imported.notes
    written(tmp_path / "both" / "open_clip_config.json", open_clip_config("quick_gelu"))
    with pytest.raises(
        UserError,
        match=r'config\.json: its activation is "gelu", but open_clip_config\.json beside it has "quick_gelu": remove',
    ):
        import_weights(tmp_path / "both")


def own_clip(tmp_path: Path) -> tuple[ContrastiveModelConfig, dict[str, Tensor]]:
    """A CLIP with a vocabulary of 514 ids, and its weights."""
    fixture = load("multimodal", "clip_vit_tiny")
    network, size = clip_config(fixture)
    torch.save(official_state(fixture), tmp_path / "official.pt")
    state = import_weights(tmp_path / "official.pt", Target(network, size)).state
    text = network.text.model_copy(update={"vocabulary": 514})
    state["network.text.tokens.weight"] = torch.randn(514, text.width)
    tokenizer = BytePairsTokenizerConfig(
        kind="byte_pairs", vocabulary=514, context_length=text.context_length, merges=""
    )
    config = ContrastiveModelConfig(
        experiment="clip/own",
        image_size=size,
        channels=3,
        network=network.model_copy(update={"text": text}),
        tokenizer=tokenizer,
    )
    return config, state


@pytest.mark.parametrize("layout", ["openai_clip", "transformers_clip"])
def test_an_own_tokenizer_travels_in_a_folder(tmp_path: Path, layout: str) -> None:
    config, state = own_clip(tmp_path)
    export_model(tmp_path / "out", state, config, layout)
    assert clip_of_folder(tmp_path / "out").config == config
    back = import_weights(tmp_path / "out")
    assert all(torch.equal(back.state[key], value) for key, value in state.items())
    name = "config.json" if layout == "transformers_clip" else "open_clip_config.json"
    changed(tmp_path / "out" / name, **{OWN: None})
    with pytest.raises(UserError, match="these weights are for 514 token ids"):
        clip_of_folder(tmp_path / "out")


def test_a_description_that_was_changed_counts_more_than_ours(tmp_path: Path) -> None:
    torch.save(official().state_dict(), tmp_path / "official.pt")
    config = model_of_weights(tmp_path / "official.pt", activation="quick_gelu").config
    state = import_weights(tmp_path / "official.pt", Target.of(config)).state
    export_model(tmp_path / "out", state, config, "openai_clip")
    changed(tmp_path / "out" / "open_clip_config.json", model_cfg__quick_gelu=False)
    described = clip_of_folder(tmp_path / "out")
    assert described.config.network.activation == "gelu"
    assert described.notes[0].endswith("its _difflab is of another model than the rest says, and was not used")


@pytest.mark.parametrize("layout", ["openai_clip", "open_clip_custom", "transformers_clip", "difflab"])
def test_an_export_writes_over_nothing_of_others(tmp_path: Path, layout: str) -> None:
    config, state = own_clip(tmp_path)
    name = {"transformers_clip": "config.json", "difflab": "config.json"}.get(layout, "open_clip_config.json")
    for there, message in (
        ("config.yaml", "holds config.yaml, a run"),
        ("model_index.json", "holds model_index.json, a model in another layout"),
        (name, f"holds a {name} that difflab did not write"),
    ):
        out = tmp_path / there.replace(".", "_")
        out.mkdir()
        (out / there).write_text('{"mine": 1}')
        with pytest.raises(UserError, match=message):
            export_model(out, state, config, layout)
        assert [path.read_text() for path in out.iterdir()] == ['{"mine": 1}']
    for _ in range(2):
        export_model(tmp_path / "out", state, config, layout)
    other = "difflab" if layout != "difflab" else "transformers_clip"
    with pytest.raises(UserError, match="give another folder"):
        export_model(tmp_path / "out", state, config, other)


def test_the_vocabulary_of_another_tokenizer_is_refused() -> None:
    network, size = clip_config(load("multimodal", "clip_vit_tiny"))
    with pytest.raises(UserError, match="these weights are for 64 token ids"):
        stored_clip(network, size, "name")


@pytest.mark.parametrize("name", ["clip_vit_tiny", "clip_vit_tiny_p16"])
def test_the_configuration_for_transformers_is_the_golden_one(name: str) -> None:
    fixture = load("multimodal", name)
    network, size = clip_config(fixture)
    ours, golden = to_transformers_config(network, size), fixture.spec["transformers_config"]
    for section, expected in golden.items():
        if isinstance(expected, dict):
            assert {key: ours[section][key] for key in expected} == expected
        else:
            assert ours[section] == pytest.approx(expected, abs=2e-4)
