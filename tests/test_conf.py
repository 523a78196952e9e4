"""Every YAML is a test case: it composes, validates, and its experiment builds and takes a step."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from difflab.commands.composing import choices_of, compose, compose_and_validate
from difflab.conditioning.config import ConditionerBase
from difflab.conditioning.text.config import TextEncoderConditionerConfig
from difflab.conf_dir import conf_dir
from difflab.config.accuracy import AccuracyConfig
from difflab.config.axes import PERCEPTUAL, SIGMA_DISTRIBUTIONS
from difflab.config.base import Config
from difflab.config.groups import contents
from difflab.config.learning import TrainingTexts
from difflab.config.likelihood import LikelihoodConfig
from difflab.config.parts import FrozenConfig, with_frozen
from difflab.config.probe import ProbeConfig
from difflab.config.reconstructions import EvaluateReconstructionsConfig
from difflab.config.retrieval import RetrievalConfig
from difflab.config.sample import EvaluateConfig, EvaluateSamplesConfig, SampleConfig
from difflab.config.schedule import ScheduleConfig
from difflab.config.train import TrainConfig
from difflab.config.validate import validate
from difflab.config.zero_shot import ZeroShotConfig
from difflab.errors import UserError
from difflab.interop.native import save_export
from difflab.networks.autoencoder.config import AutoencoderConfig
from difflab.networks.text_encoders.config import TransformersCLIPArchitecture
from difflab.tasks.build import build_model, build_training_module
from difflab.tasks.denoising.config import DenoisingTrainConfig
from difflab.text.config import CLIPTokenizerConfig

ROOT = Path(__file__).parents[1]
EXPERIMENTS = choices_of("experiment")
SMALL = [name for name in EXPERIMENTS if "shapes" in name or "emoji" in name]
LARGE = [name for name in EXPERIMENTS if name not in SMALL]
PARAMETERS = {  # of the whole model, with its class embedding
    "adm/imagenet64": 295_904_454,
    "adm/imagenet128": 421_529_606,
    "adm/imagenet256": 553_838_086,
    "adm/imagenet256_uncond": 552_814_086,
    "adm/imagenet512": 558_997_638,
    "adm/lsun_bedroom": 552_814_086,
    "adm/lsun_cat": 552_814_086,
    "adm/lsun_horse": 552_814_086,
    "adm/lsun_horse_nodropout": 552_814_086,
    "adm/imagenet64_256_upsampler": 311_795_910,
    "adm/imagenet128_512_upsampler": 308_835_270,
    "adm/imagenet64_classifier": 65_438_568,
    "adm/imagenet128_classifier": 42_568_040,
    "adm/imagenet256_classifier": 54_096_360,
    "adm/imagenet512_classifier": 54_448_360,
    "cfg/imagenet64": 295_900_035,
    "cfg/imagenet128": 421_523_715,
    "ddpm/cifar10": 35_746_307,
    "ddpm/celebahq256": 113_673_219,
    "ddpm/lsun_bedroom": 113_673_219,
    "ddpm/lsun_cat": 113_673_219,
    "ddpm/lsun_church": 113_673_219,
    "edm/cifar10": 56_528_899,
    "edm/imagenet64": 295_899_267,  # of the official file too
    "improved/cifar10": 52_546_438,
    "improved/cifar10_simple": 52_542_979,
    "improved/cifar10_vlb": 52_546_438,
    "improved/imagenet64": 121_063_942,
    "improved/imagenet64_simple": 121_060_483,
    "improved/imagenet64_vlb": 121_063_942,
    "improved/imagenet64_cond": 273_049_350,
    "improved/imagenet64_256_upsampler": 279_792_390,
    "improved/lsun_bedroom_bs128": 113_676_678,
    "improved/lsun_bedroom_bs64": 113_676_678,
    "ldm/bsr_sr": 113_622_563,
    "ldm/inpainting_big": 387_245_827,  # of the released file too, as the next
    "ldm/semantic_256": 215_229_861,  # with 546 of the map's
    "ldm/layout_openimages256": 300_933_379,  # 246,277,379 of them the UNet's; no to_logits, which nothing reads
    "sr3/16_128": 560_719_107,  # the paper: 550 million
    "sr3/64_256": 617_118_467,  # 625
    "sr3/64_512": 609_802_371,  # 625
    "sr3/256_1024": 148_746_931,  # 150
    "sr3/128_1024": 148_746_931,
    "sr3/janspiry_16_128": 97_807_491,  # of the official code too
    "sr3/janspiry_64_512": 155_334_339,
    "clip/rn50": 102_007_137,
    "clip/rn101": 119_688_033,
    "clip/rn50x4": 178_300_601,
    "clip/rn50x16": 290_979_217,
    "clip/rn50x64": 623_258_305,
    "clip/vit_b32": 151_277_313,
    "clip/vit_b16": 149_620_737,
    "clip/vit_l14": 427_616_513,
    "clip/vit_l14_336": 427_944_193,
    "clip/vit_h14": 986_109_441,
    "clip/vit_g14": 1_366_678_273,
    "clip/vit_bigg14": 2_539_567_105,
    "glide/base64": 385_030_726,
    "autoencoder/kl_f2": 13_314_465,
    "autoencoder/kl_f4": 55_312_063,
    "autoencoder/kl_f8": 83_653_863,
    "autoencoder/sd_vae": 83_653_863,
    "autoencoder/sd_vae_ft_ema": 83_653_863,
    "autoencoder/sd_vae_ft_mse": 83_653_863,
    "autoencoder/sd_x4_vae": 55_325_927,
    "autoencoder/kl_f16": 69_610_963,
    "autoencoder/kl_f16_d8": 69_499_371,
    "autoencoder/kl_f32": 103_880_131,
    "autoencoder/kl_f32_d16": 103_197_139,
    "autoencoder/vq_f2": 13_313_937,
    "autoencoder/vq_f2_n64": 13_309_969,
    "autoencoder/vq_f4": 55_322_782,
    "autoencoder/vq_f4_n256": 55_298_974,
    "autoencoder/vq_f4_noattn": 53_219_486,
    "autoencoder/vq_f8": 67_717_295,
    "autoencoder/vq_f8_n256": 67_652_783,
    "autoencoder/vq_f16": 69_593_371,
    "autoencoder/vq_f32": 103_384_755,
    "autoencoder/vqgan_f16_1024": 72_141_699,
    "autoencoder/vqgan_f16_16384": 76_073_859,
    "ldm/celeba256": 274_056_163,
    "ldm/ffhq256": 274_056_163,
    "ldm/lsun_beds256": 274_056_163,
    "ldm/lsun_churches256": 294_966_916,
    "ldm/cin256_v2": 401_433_091,
    "ldm/text2img256": 570_214_019,
    "ldm/txt2img_large": 1_415_195_844,  # 1.45 billion with logits that nothing uses and the first stage
    "sd/v1_inpainting": 859_535_364,
    "sd/v2_inpainting": 865_925_124,
    "sd/v1": 859_520_964,  # of the official file too, without first stage and text encoder
    "sd/v2_base": 865_910_724,
    "sd/v2_768": 865_910_724,
    "sd/v2_zero_snr": 865_910_724,
}
NEEDED = {  # what a choice cannot do without
    ("init", "weights"): ["init.from=runs/somewhere"],
    ("data", "shards"): ["data.path=data/mine", "data.image_size=32", "data.batch_size=8"],
    # It ends in pure noise, where eps does not give x0.
    ("diffusion/schedule", "jsd"): ["diffusion.prediction=x0"],
    **{("diffusion/sigma_distribution", kind): ["diffusion=edm"] for kind in SIGMA_DISTRIBUTIONS},
    ("guidance", "classifier"): ["guidance.run=runs/somewhere"],
    ("first_stage", "autoencoder"): ["first_stage.weights.path=runs/somewhere"],
    ("metrics", "classes"): ["classifier=runs/somewhere"],
    ("metrics", "clip_score"): ["clip=runs/somewhere"],
    ("metrics", "prompts"): ["clip=runs/somewhere"],
    ("metrics", "variations"): ["clip=runs/somewhere"],
    ("guidance", "composed"): ["guidance.classifier.run=runs/somewhere"],
    ("guidance", "autoguidance"): ["guidance.reference.run=runs/somewhere"],
    ("conditioning", "text_transformer"): [
        "conditioning.caption.tokenizer.kind=byte_pairs",
        "network.context_channels=128",
    ],
    ("conditioning", "class_token"): ["network.context_channels=512"],
    ("conditioning", "spatial_rescaler"): ["network.concat_channels=3", "conditioning.segmentation.stages=0"],
    ("conditioning", "layout"): ["network.context_channels=128"],
    ("conditioning", "ldm_layout"): ["network.context_channels=512"],
    ("conditioning", "token_transformer"): ["network.context_channels=128"],
    ("conditioning", "ldm_text"): ["network.context_channels=1280"],
    ("conditioning", "text_encoder"): ["network.context_channels=128"],
    ("conditioning", "clip_image"): ["network.context_channels=128"],
    ("conditioning", "masked_image"): ["network.concat_channels=4"],
    ("conditioning", "text_masked_image"): [
        "conditioning.caption.tokenizer.kind=byte_pairs",
        "network.context_channels=128",
        "network.concat_channels=4",
    ],
    ("conditioning", "glide"): ["network.context_channels=512"],
    ("conditioning", "sd_v1_inpainting"): ["network.context_channels=768", "network.concat_channels=4"],
    ("conditioning", "sd_v2_inpainting"): ["network.context_channels=1024", "network.concat_channels=4"],
    ("conditioning", "sd_v1"): ["network.context_channels=768"],
    ("conditioning", "sd_v2"): ["network.context_channels=1024"],
    ("tokenizer", "clip"): ["task=contrastive"],
    ("tokenizer", "gpt2"): ["task=contrastive"],
    ("tokenizer", "byte_pairs"): ["task=contrastive"],
    ("tokenizer", "pretrained"): [
        "task=contrastive",
        "tokenizer.file={path: clip/tokenizer.json}",
        "tokenizer.vocabulary=49408",
        "tokenizer.padding=49407",
    ],
    **{("perceptual", kind): ["task=autoencoder"] for kind in PERCEPTUAL},
    ("callbacks", "autoencoder"): ["task=autoencoder"],
    ("callbacks", "large_autoencoder"): ["task=autoencoder"],
    ("conditioning", "low_res"): ["conditioning.low_res.size=16", "network.concat_channels=3"],
    ("conditioning", "class_low_res"): ["conditioning.low_res.size=16", "network.concat_channels=3"],
}
DRAWING_NOTHING = [("sampler", "ddim_inversion")]
NOT_OF_TRAINING = ("experiment", "pipeline", "method")
TEXTS = TrainingTexts(lambda: ["a red circle"], lambda: ["a red circle"])
"""Of a data set, from which vocabularies and categories are learned."""
NEEDED_BY = {
    "unet_encoder": ["task=noisy_classifier"],
    "clip": ["task=contrastive"],
    "autoencoder": ["task=autoencoder"],
}
NEEDED_BY_CONCATENATION = {
    3: ["conditioning=low_res", "conditioning.low_res.size=16"],
    "${data.channels}": ["conditioning=low_res", "conditioning.low_res.size=16"],
    4: ["conditioning=masked_image"],
}
GROUPS = sorted(
    str(path.parent.relative_to(conf_dir()))
    for path in conf_dir().rglob("*.yaml")
    if path.parent != conf_dir() and "hydra" not in path.parts
)
CHOICES = sorted({(group, name) for group in set(GROUPS) for name in choices_of(group) if "/" not in name})
OF_TRAINING = [c for c in CHOICES if not c[0].startswith(NOT_OF_TRAINING) and c not in DRAWING_NOTHING]


def test_there_are_experiments_of_both_sizes() -> None:
    assert SMALL
    assert set(PARAMETERS) == set(LARGE)


@cache
def composed(experiment: str) -> tuple[TrainConfig, dict[str, Any]]:
    """An experiment as it stands, composed once for all tests; nobody changes the dictionary."""
    return compose_and_validate("train", TrainConfig, [f"experiment={experiment}"])


@pytest.mark.parametrize(
    ("command", "model"),
    [
        ("train", TrainConfig),
        ("sample", SampleConfig),
        ("evaluate", EvaluateConfig),
        ("evaluate_reconstructions", EvaluateReconstructionsConfig),
        ("schedule", ScheduleConfig),
        ("likelihood", LikelihoodConfig),
        ("accuracy", AccuracyConfig),
        ("zero_shot", ZeroShotConfig),
        ("retrieval", RetrievalConfig),
        ("probe", ProbeConfig),
    ],
)
def test_a_command_shows_every_key_that_it_takes(command: str, model: type[Config]) -> None:
    # A group of which nothing is chosen is not shown: the data of a run is its own.
    # What packages of others a run was made with is recorded, not given.
    assert set(model.model_fields) <= {*compose(command, []), "data", "plugins"}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_composes_and_validates(experiment: str) -> None:
    config, plain = composed(experiment)
    assert config.experiment == experiment
    assert validate(TrainConfig, plain) == config


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_can_be_extended_by_another(experiment: str) -> None:
    """What it extends itself is named from the root: Hydra looks for other names below the folder of the experiment."""
    written = yaml.safe_load((conf_dir() / f"experiment/{experiment}.yaml").read_text())
    extended = [entry for entry in written["defaults"] if isinstance(entry, str) and entry != "_self_"]
    assert all(entry.startswith("/experiment/") for entry in extended)


@pytest.mark.parametrize(("group", "name"), OF_TRAINING)
def test_every_choice_of_every_group_validates(group: str, name: str) -> None:
    overrides = [f"{group}={name}", *NEEDED.get((group, name), [])]
    if group == "network":
        network = contents("network", name) or {}
        overrides += NEEDED_BY.get(network["kind"], [])
        width = network.get("context_channels")
        if "inpainting" in name and width:
            overrides += [f"conditioning={name}"]
        elif width:
            overrides += ["conditioning=text_encoder", f"conditioning.caption.width={width}"]
        else:
            overrides += NEEDED_BY_CONCATENATION.get(network.get("concat_channels", 0), [])
        if network["kind"] == "unet" and network.get("channels") == 4:
            overrides += ["first_stage=autoencoder", "first_stage.weights.path=runs/somewhere"]
        if network["kind"] == "clip":
            overrides += [] if name.endswith("small") else ["tokenizer=clip", "data.image_size=224", "data.crop=adm"]
    compose_and_validate("train", TrainConfig, overrides)


@pytest.mark.parametrize(("primary", "model"), [("sample", SampleConfig), ("evaluate", EvaluateConfig)])
@pytest.mark.parametrize("sampler", choices_of("sampler"))
def test_primary_configurations_validate(primary: str, model: type, sampler: str) -> None:
    compose_and_validate(primary, model, ["run=somewhere", f"sampler={sampler}"])


@pytest.mark.parametrize(("primary", "model"), [("sample", SampleConfig), ("evaluate", EvaluateConfig)])
@pytest.mark.parametrize("pipeline", choices_of("pipeline"))
def test_pipelines_validate(primary: str, model: type, pipeline: str) -> None:
    kind = yaml.safe_load((conf_dir() / "pipeline" / f"{pipeline}.yaml").read_text())["kind"]
    run = [] if kind == "cascade" else ["run=somewhere"]
    compose_and_validate(primary, model, [f"pipeline={pipeline}", *run])


@pytest.mark.parametrize("metrics", choices_of("metrics"))
def test_evaluations_of_given_samples_validate(metrics: str) -> None:
    compose_and_validate(
        "evaluate_samples",
        EvaluateSamplesConfig,
        ["samples=theirs", f"metrics={metrics}", *NEEDED.get(("metrics", metrics), [])],
    )


def test_the_file_of_given_samples_has_the_keys_of_its_model() -> None:
    composed = compose("evaluate_samples", ["samples=theirs", "data=shapes32"])
    assert composed.keys() == EvaluateSamplesConfig.model_fields.keys()


@pytest.mark.parametrize("method", choices_of("method"))
def test_methods_of_likelihood_validate(method: str) -> None:
    config, _ = compose_and_validate("likelihood", LikelihoodConfig, ["run=somewhere", f"method={method}"])
    assert config.method.kind == method


@pytest.mark.parametrize("experiment", SMALL)
def test_small_experiment_builds_on_the_meta_device(experiment: str) -> None:
    _on_meta(experiment)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", LARGE)
def test_large_experiment_builds_on_the_meta_device_with_the_published_size(experiment: str) -> None:
    assert _on_meta(experiment) == PARAMETERS[experiment]


def _described(experiment: str) -> TrainConfig:
    """The configuration as a run has it; the first stage and other frozen parts lie where the experiment looks."""

    def put(part: FrozenConfig) -> FrozenConfig:
        # runs/autoencoder/kl_f4_shapes64/demo is a run of autoencoder/kl_f4_shapes64.
        folder = Path(part.path or "")
        if folder.parts[:1] == ("runs",):
            model = build_model(_described(folder.parent.relative_to("runs").as_posix()).model())
            save_export(folder, model.as_module().state_dict(), model.config.plain())
        return part

    with_frozen(composed(experiment)[0], put)
    # Again, now that the channels of the latents are known.
    config, _ = compose_and_validate("train", TrainConfig, [f"experiment={experiment}"])
    return config.described().completed(TEXTS)


def _published(experiment: str) -> TrainConfig:
    """The configuration of a large experiment as a run has it, without the files of its frozen parts."""
    config, _ = composed(experiment)
    if getattr(config, "first_stage", None) is None:
        return _described(experiment)
    assert isinstance(config, DenoisingTrainConfig)
    of_stage, _ = composed(Path(config.first_stage.weights.path).parent.relative_to("runs").as_posix())
    stage = of_stage.network
    assert isinstance(stage, AutoencoderConfig)
    return config.model_copy(
        update={
            "first_stage": config.first_stage.model_copy(update={"architecture": stage}),
            "network": config.network.model_copy(update={"channels": stage.latent_channels}),
            "conditioning": {name: _without_files(one, config) for name, one in config.conditioning.items()},
        }
    ).completed(TEXTS)


def _without_files(conditioner: ConditionerBase, config: DenoisingTrainConfig) -> ConditionerBase:
    """A conditioner of captions with what its files would say; others as they are."""
    if not isinstance(conditioner, TextEncoderConditionerConfig):
        return conditioner
    architecture = TransformersCLIPArchitecture(hidden_size=config.network.context_channels)
    encoder = conditioner.encoder.model_copy(update={"architecture": architecture})
    tokenizer = CLIPTokenizerConfig(kind="clip", too_long=conditioner.too_long)
    return conditioner.model_copy(update={"encoder": encoder, "tokenizer": tokenizer})


def _on_meta(experiment: str) -> int:
    config = _described(experiment) if experiment in SMALL else _published(experiment)
    with torch.device("meta"):
        model = build_model(config.model())
    return sum(p.numel() for p in model.as_module().parameters())


@pytest.mark.parametrize("experiment", SMALL)
def test_small_experiment_is_about_as_large_as_it_says(experiment: str) -> None:
    module = build_training_module(_described(experiment))
    assert sum(p.numel() for p in module.parameters()) < 7_000_000


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["experiment=ddpm/shapes23"], "did you mean ddpm/shapes32?"),
        (["experiment=ddpm/shapes32", "trainer.max_step=3"], "trainer.max_step"),
        (["experiment=ddpm/shapes32", "+trainer.max_step=3"], "did you mean 'trainer.max_steps'?"),
        (["experiment=ddpm/shapes32", "+bogus=1"], "unknown key 'bogus'"),
        (["experiment=ddpm/shapes32", "seed=abc"], "seed='abc'"),
        (["experiment=ddpm/shapes32", "sampler=dimm"], "did you mean ddim?"),
        (["experiment=ddpm/shapes32", "diffusion.timesteps=None"], "diffusion.timesteps='None'"),
        (["experiment=ddpm/shapes32", "optimizer.lr=-1"], "optimizer.lr=-1"),
        (["experiment=ddpm/shapes32", "trainer.accumulate=5"], "data.batch_size=16 cannot be split"),
        (["experiment=ddpm/shapes32", "seed"], "seed"),
        (["conditioning=class", "conditioning.class_label.classes=7"], "conditioning.class_label.classes=7 but data."),
        (["conditioning=class", "data.classes=null"], "conditioning.class_label.classes: the data has no classes; set"),
        (["experiment=ddpm/shapes32", "seed=1,2"], "seed=1,2"),
        (["experiment=ddpm/shapes32", "guidance.scale=2", "guidance.paper_w=1"], "give one of them"),
        (["network=adm_classifier_64"], "choose one of kind unet, or set task=noisy_classifier"),
        (["experiment=adm/imagenet64_classifier", "callbacks=default"], "choose callbacks=classifier"),
        (["experiment=adm/imagenet64_classifier", "data.classes=null"], "network.classes: the data has no classes"),
        (["network=adm_64_256_upsampler"], "choose conditioning=low_res"),
        (["conditioning=low_res", "network.concat_channels=3"], "conditioning.low_res.size has no value: give one"),
        (["conditioning=spatial_rescaler", "network.concat_channels=3"], "set conditioning.segmentation.stages=0"),
        (["experiment=adm/imagenet64_256_upsampler", "conditioning.low_res.size=256"], "not below data.image_size=256"),
    ],
)
def test_mistakes_are_one_line(overrides: list[str], line: str) -> None:
    with pytest.raises(UserError) as error:
        compose_and_validate("train", TrainConfig, overrides)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_point_of_a_sweep_is_a_valid_command(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text())
    points: list[list[str]] = [[]]
    for name, parameter in sweep["parameters"].items():
        values = parameter.get("values", [parameter.get("value")])
        points = [[*point, f"{name}={value}"] for point in points for value in values]
    command = sweep["command"][2]
    model = {"train": TrainConfig, "evaluate": EvaluateConfig}[command]
    for point in points:
        compose_and_validate(command, model, point)


def test_a_class_conditioner_has_the_classes_of_the_data() -> None:
    _, plain = compose_and_validate("train", TrainConfig, ["conditioning=class", "data.classes=1000"])
    assert plain["conditioning"]["class_label"]["classes"] == 1000


def test_composing_leaves_no_trace() -> None:
    assert compose("train", ["experiment=ddpm/shapes32"]) == compose("train", ["experiment=ddpm/shapes32"])
