import pytest
import torch

from difflab.conditioning.build import build_conditioners
from difflab.conditioning.class_label import ClassConditioner, ClassTokenConditioner, LabelConditioner
from difflab.conditioning.config import ClassConditionerConfig, ClassTokenConditionerConfig
from golden_fixtures import load


def test_a_class_is_its_row_of_the_embedding() -> None:
    conditioner = ClassConditioner(5, 8)
    made = conditioner({"label": torch.tensor([4, 0, 4])})
    assert torch.equal(made.vector, conditioner.embedding.weight[[4, 0, 4]])
    assert made.fields().keys() == {"vector"}


def test_a_drop_rate_makes_a_null_class_which_dropped_rows_get() -> None:
    conditioner = ClassConditioner(5, 8, drop_rate=0.1)
    assert conditioner.embedding.num_embeddings == 6
    made = conditioner({"label": torch.tensor([1, 2, 3])}, torch.tensor([False, True, False]))
    assert torch.equal(made.vector, conditioner.embedding.weight[[1, 5, 3]])


KINDS = pytest.mark.parametrize("kind", [ClassConditioner, ClassTokenConditioner])


@KINDS
def test_a_model_without_a_null_class_has_no_row_for_it_and_refuses_to_drop(kind: type[LabelConditioner]) -> None:
    conditioner = kind(5, 8)
    assert conditioner.embedding.num_embeddings == 5
    with pytest.raises(ValueError, match="null class"):
        conditioner({"label": torch.tensor([1])}, torch.tensor([True]))


@KINDS
@pytest.mark.parametrize("label", [-1, 5, 6])
def test_a_class_out_of_range_is_refused_also_where_it_would_be_the_null_class(
    kind: type[LabelConditioner], label: int
) -> None:
    conditioner = kind(5, 8, drop_rate=0.1)
    with pytest.raises(ValueError, match=rf"class {label} is not in 0\.\.4"):
        conditioner({"label": torch.tensor([0, label])})


def test_the_configuration_builds_them_under_their_names() -> None:
    built = build_conditioners(
        {"shape": ClassConditionerConfig(kind="class", classes=6, drop_rate=0.2)}, embedding_dim=12, image_size=16
    )
    (name, conditioner), *rest = built.named()
    assert (name, rest) == ("shape", [])
    assert isinstance(conditioner, ClassConditioner)
    assert (conditioner.classes, conditioner.drop_rate) == (6, 0.2)
    assert conditioner.embedding.weight.shape == (7, 12)
    assert built.reads == ("label",)
    assert built.classes == 6


def test_a_class_token_is_latent_diffusion_s() -> None:
    fixture = load("latent", "ldm_class_embedder")
    args = fixture.spec["args"]
    # Its last class is the null class.
    conditioner = ClassTokenConditioner(args["n_classes"] - 1, args["embed_dim"], drop_rate=0.1)
    conditioner.load_state_dict(fixture.state_dict())
    labels = fixture.input("labels")
    null = labels == args["n_classes"] - 1
    assert null.any()
    made = conditioner({"label": torch.where(null, 0, labels)}, null)
    assert made.fields().keys() == {"tokens"}
    fixture.check_close("out", made.tokens)


def test_a_class_token_has_the_width_of_its_configuration() -> None:
    config = ClassTokenConditionerConfig(kind="class_token", classes=1000, width=512, drop_rate=0.1)
    built = build_conditioners({"class_label": config}, embedding_dim=12, image_size=16)
    assert {key: tuple(t.shape) for key, t in built.state_dict().items()} == {
        "class_label.embedding.weight": (1001, 512)
    }
    assert (built.classes, config.num_classes) == (1000, 1000)
