from __future__ import annotations

import pytest

from difflab.conditioning.build import build_conditioners
from difflab.config.axes import CONDITIONERS
from difflab.config.model import ModelConfig
from difflab.config.validate import validate
from difflab.errors import UserError
from pipelines.conftest import configuration
from words import WordsConditioner, WordsConfig


def plain_model(**conditioning: object) -> dict[str, object]:
    model = configuration("conditioning=class").model().plain()
    return {**model, "conditioning": conditioning}


@pytest.mark.usefixtures("with_words")
def test_a_kind_that_is_put_into_the_table_is_validated_built_and_stored() -> None:
    model = validate(ModelConfig, plain_model(text={"kind": "words", "drop_rate": 0.2}))
    assert model.conditioning["text"] == WordsConfig(kind="words", drop_rate=0.2)
    assert validate(ModelConfig, model.plain()) == model
    assert model.model_dump(mode="json")["conditioning"]["text"]["length"] == 6
    built = build_conditioners(model.conditioning, embedding_dim=12, image_size=16)
    assert isinstance(built["text"], WordsConditioner)
    assert built["text"].embedding.weight.shape == (98, 12)


@pytest.mark.usefixtures("with_words")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"kind": "words", "lenght": 3},
            "unknown key 'conditioning.text.lenght'; did you mean 'conditioning.text.length'?",
        ),
        (
            {"kind": "words", "drop_rate": 2.0},
            "conditioning.text.drop_rate=2.0: input should be less than or equal to 1",
        ),
        (
            {"kind": "words", "classes": 3},
            "conditioning.text.kind=words has no 'classes': leave it out, or remove it",
        ),
        ({"kind": "class"}, "missing key 'conditioning.text.classes'"),
    ],
)
def test_a_mistake_in_it_is_one_line(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        validate(ModelConfig, plain_model(text=given))
    assert str(error.value).startswith(message)


def test_what_is_not_in_the_table_is_not_known() -> None:
    kinds = [
        "class",
        "class_token",
        "low_res",
        "augment",
        "text_transformer",
        "token_transformer",
        "text_encoder",
        "masked_image",
        "layout",
        "spatial_rescaler",
        "clip_image",
    ]
    assert list(CONDITIONERS) == kinds
    with pytest.raises(UserError) as error:
        validate(ModelConfig, plain_model(text={"kind": "words"}))
    known = f"choose one of {', '.join(map(repr, kinds))}"
    assert str(error.value) == f"conditioning.text.kind='words' is not known; {known}"
