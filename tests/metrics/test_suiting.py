from __future__ import annotations

import json
from pathlib import Path

import pytest

from difflab.config.data import DataConfig
from difflab.data.index import INDEX_NAME
from difflab.errors import UserError
from difflab.metrics.config import FDConfig, InceptionScoreConfig, KIDConfig, OracleConfig
from difflab.metrics.suiting import without_unsuited

METRICS = {"fd": FDConfig(), "oracle": OracleConfig(), "kid": None}


@pytest.fixture
def data_of(tiny_shapes: Path, tmp_path: Path):
    """data_of(source, classes) -> a data set whose index says that it was made so."""

    def make(source: str | None, classes: list[str] | None) -> DataConfig:
        index = json.loads((tiny_shapes / INDEX_NAME).read_text())
        index |= {"source": {} if source is None else {"name": source}, "classes": classes}
        folder = tmp_path / f"data-{source}"
        folder.mkdir(exist_ok=True)
        for path in tiny_shapes.iterdir():
            if not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
        (folder / INDEX_NAME).unlink()
        (folder / INDEX_NAME).write_text(json.dumps(index))
        return DataConfig(path=str(folder), image_size=16, batch_size=4)

    return make


def test_metrics_say_what_they_need() -> None:
    assert FDConfig.needs == KIDConfig.needs == ("reference",)
    assert OracleConfig.needs == InceptionScoreConfig.needs == ()
    assert OracleConfig.reads_classes
    assert not InceptionScoreConfig.reads_classes


@pytest.mark.parametrize(
    ("source", "classes", "suits"),
    [
        ("shapes", ["circle", "square"], True),
        ("shapes", None, True),
        (None, ["circle", "square"], True),
        (None, ["cat", "dog"], False),
        (None, None, False),
        ("folder", ["circle", "square"], False),
        ("coco", None, False),
    ],
)
def test_the_oracle_is_left_out_of_a_group_for_other_data(data_of, source, classes, suits: bool) -> None:
    data = data_of(source, classes)
    kept, said = without_unsuited(METRICS, data, ["metrics=guidance"], image_size=16)
    assert (kept["oracle"] is not None) is suits
    assert kept["fd"] is METRICS["fd"]
    assert len(said) == (0 if suits else 1)
    if not suits:
        assert said[0].startswith("metrics.oracle is left out: it judges shapes data alone, and ")
        assert data.path in said[0]


@pytest.mark.parametrize(
    "override",
    [
        "metrics.oracle.label=mine",
        "+metrics.oracle={kind:oracle}",
        "++metrics.oracle.kind=oracle",
        "+metrics={oracle:{kind:oracle}}",
    ],
)
def test_the_oracle_is_refused_where_the_user_names_it(data_of, override: str) -> None:
    with pytest.raises(UserError, match=r"metrics\.oracle judges shapes data alone, and .* leave metrics\.oracle out"):
        without_unsuited(METRICS, data_of("folder", None), ["metrics=lite0", override], image_size=16)


def test_naming_another_metric_is_not_naming_the_oracle(data_of) -> None:
    data = data_of("folder", None)
    kept, _ = without_unsuited(METRICS, data, ["metrics.fd.label=oracle", "metrics.oracles=null"], image_size=16)
    assert kept["oracle"] is None


def test_a_name_of_its_own_changes_nothing(data_of) -> None:
    with pytest.raises(UserError, match=r"metrics\.judge judges"):
        without_unsuited(
            {"judge": OracleConfig()}, data_of("folder", None), ["+metrics.judge.kind=oracle"], image_size=16
        )


def test_where_nothing_is_left_the_evaluation_is_refused(data_of, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose other metrics"):
        without_unsuited({"oracle": OracleConfig()}, data_of("folder", None), ["metrics=shapes"], image_size=16)
    gone = DataConfig(path=str(tmp_path / "gone"), image_size=16, batch_size=4)
    for data in (None, gone):
        kept, said = without_unsuited(METRICS, data, [], image_size=16)
        assert kept["oracle"] is None
        assert "no data set that says so" in said[0]


@pytest.mark.parametrize(("size", "suits"), [(8, False), (16, True), (1024, True), (2048, False)])
def test_the_oracle_reads_some_sizes_only(data_of, size: int, suits: bool) -> None:
    kept, _ = without_unsuited(METRICS, data_of("shapes", None), [], image_size=size)
    assert (kept["oracle"] is not None) is suits
