import pytest
import torch

from difflab.config.metrics import known_metric
from difflab.data.shapes import ShapesSource, class_names
from difflab.errors import UserError
from difflab.metrics import evaluator as module
from difflab.metrics.config import (
    FDConfig,
    FIDConfig,
    InceptionScoreConfig,
    KIDConfig,
    OracleConfig,
    PrecisionRecallConfig,
)
from difflab.metrics.evaluator import Evaluator
from difflab.metrics.extractors.loading import get_extractor
from difflab.metrics.frechet import frechet_distance
from difflab.metrics.gaussian import GaussianStatistics
from difflab.metrics.kid import kernel_distance
from difflab.metrics.precision_recall import precision_recall
from difflab.metrics.protocol import Result, SamplingRecord, compare
from difflab.metrics.reference import ReferenceStatistics

METRICS = {
    "fd": FDConfig(extractor="random"),
    "kid": KIDConfig(extractor="random", subsets=4, subset_size=10),
    "pr": PrecisionRecallConfig(extractor="random", k=2),
    "is": InceptionScoreConfig(extractor="random", splits=2),
    "none": None,
}
SAMPLING = SamplingRecord(
    class_balance="none",
    seed=3,
    guidance={"kind": "none"},
    sampler={"kind": "ddim", "steps": 5},
    weights="ema",
    rounding="truncate",
    precision="32-true",
    device="cpu",
)


@pytest.fixture
def reference(reference_of, noise_images):
    return reference_of(noise_images(40, seed=9))


def evaluate(images, order=None, batch_size=8, **options):
    evaluator = Evaluator(METRICS, n=len(images), **options)
    order = torch.arange(len(images)) if order is None else order
    for rows in order.split(batch_size):
        evaluator.update(images[rows], rows)
    return {result.metric: result for result in evaluator.compute()}


def test_the_numbers_are_those_of_the_functions(reference, noise_images):
    images = noise_images(30)
    results = evaluate(images, reference=reference, sampling=SAMPLING)
    extractor = get_extractor("random")
    ours, theirs = extractor(images).pool, extractor(noise_images(40, seed=9)).pool
    distance = frechet_distance(GaussianStatistics.of(ours), GaussianStatistics.of(theirs))
    assert set(results) == {"fd-random", "kid-random", "precision-random", "recall-random", "is-random"}
    assert results["fd-random"].value == pytest.approx(distance, rel=1e-6)
    kid = kernel_distance(ours, theirs, METRICS["kid"])
    assert (results["kid-random"].value, results["kid-random"].spread) == pytest.approx(kid, rel=1e-4)
    found = (results["precision-random"].value, results["recall-random"].value)
    assert found == precision_recall(ours, theirs, 2)
    assert found[0] != found[1]
    assert results["is-random"].value >= 1.0


def test_every_result_goes_by_a_name_of_its_kind(reference, noise_images):
    images, (pictures, labels) = noise_images(30), shapes(24)
    for name, config in METRICS.items():
        if config is not None:
            evaluator = Evaluator({name: config}, n=30, reference=reference)
            evaluator.update(images, torch.arange(30))
            assert {known_metric(result.metric)[0] for result in evaluator.compute()} == {config.kind}
    judged = judge(pictures, labels, class_names())
    assert {known_metric(metric)[0] for metric in judged} == {"oracle"}


def test_order_and_batch_size_do_not_matter(reference, noise_images):
    images = noise_images(30)
    first = evaluate(images, reference=reference)
    shuffled = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    second = evaluate(images, shuffled, batch_size=7, reference=reference)
    for metric, result in first.items():
        assert second[metric].value == pytest.approx(result.value, rel=1e-5, abs=1e-6)
        assert second[metric].protocol == result.protocol


def test_padding_does_not_count(reference, noise_images):
    images = noise_images(30)
    plain = evaluate(images, reference=reference)
    evaluator = Evaluator(METRICS, n=30, reference=reference)
    evaluator.update(images, torch.arange(30))
    evaluator.update(noise_images(4, seed=5), torch.tensor([0, 1, 2, 3]), torch.zeros(4))
    for result in evaluator.compute():
        assert result.value == pytest.approx(plain[result.metric].value, rel=1e-5, abs=1e-6)


def test_the_record_says_how_it_was_measured(reference, noise_images):
    results = evaluate(noise_images(30), reference=reference, sampling=SAMPLING)
    protocol = results["kid-random"].protocol
    assert results["kid-random"].key == "eval/kid-random@30"
    assert protocol.extractor == get_extractor("random").record
    assert protocol.reference.n == 40
    assert protocol.reference.content_hash == "feed"
    assert protocol.sampling == SAMPLING
    assert protocol.parameters == {
        "subsets": 4,
        "subset_size": 10,
        "degree": 3,
        "gamma": None,
        "coef": 1.0,
        "seed": 2020,
        "reference_features": 40,
    }
    for metric in ("precision-random", "recall-random"):
        protocol = results[metric].protocol
        assert results[metric].key == f"eval/{metric}@30"
        assert protocol.parameters == {"k": 2, "reference_features": 40}
        assert protocol.reference.n == 40
    assert "torch" in protocol.versions
    for result in results.values():
        assert Result.from_json(result.to_json()) == result


def test_two_sample_counts_are_not_compared(reference, noise_images):
    first = evaluate(noise_images(30), reference=reference)["fd-random"]
    second = evaluate(noise_images(20), reference=reference)["fd-random"]
    with pytest.raises(UserError, match=r"different protocols .*: n \(30 and 20\)"):
        compare(first, second)


def test_the_bias_of_few_samples_is_in_the_record(reference, noise_images):
    results = evaluate(noise_images(30), reference=reference)
    assert "biased upwards" in results["fd-random"].warnings[0]
    assert results["kid-random"].warnings == []


@pytest.mark.parametrize("indices", [range(29), range(1, 31), [*range(29), 28]])
def test_missing_or_repeated_samples_are_noticed(reference, noise_images, indices):
    evaluator = Evaluator(METRICS, n=30, reference=reference)
    index = torch.tensor(list(indices))
    evaluator.update(noise_images(len(index)), index)
    with pytest.raises(ValueError, match=r"expected 0\.\.29, each once"):
        evaluator.compute()


@pytest.mark.parametrize(
    ("config", "n", "told"),
    [
        (FDConfig(), 1, "metrics.m needs at least n=2"),
        (KIDConfig(subset_size=100), 64, "metrics.m.subset_size=100 exceeds n=64"),
        (PrecisionRecallConfig(), 3, "metrics.m.k=3 needs at least n=4 samples, not n=3"),
        (InceptionScoreConfig(extractor="lite0"), 9, "metrics.m.splits=10 exceeds n=9"),
        (FIDConfig(n=50_000), 2000, "metrics.m is defined at n=50000, not n=2000"),
    ],
)
def test_too_few_samples_are_refused_before_sampling(reference, config, n, told):
    with pytest.raises(UserError) as caught:
        Evaluator({"m": config}, n=n, reference=reference)
    assert told in str(caught.value)


def test_a_distance_needs_a_reference():
    with pytest.raises(UserError, match=r"metrics\.fd compares with a data set"):
        Evaluator({"fd": FDConfig()}, n=10)
    Evaluator({"is": InceptionScoreConfig(extractor="random")}, n=10)


def test_a_reference_smaller_than_a_subset(reference_of, noise_images):
    evaluator = Evaluator(
        {"kid": KIDConfig(subset_size=20, extractor="random")}, n=30, reference=reference_of(noise_images(15))
    )
    with pytest.raises(UserError, match=r"metrics\.kid\.subset_size=20 exceeds the 15 reference images"):
        evaluator.prepare()


def test_a_reference_smaller_than_a_neighbourhood(reference_of, noise_images):
    metrics = {"pr": PrecisionRecallConfig(extractor="random")}
    evaluator = Evaluator(metrics, n=30, reference=reference_of(noise_images(3)))
    with pytest.raises(UserError, match=r"metrics\.pr\.k=3 needs at least 4 reference images, there are 3"):
        evaluator.prepare()


@pytest.mark.parametrize("name", ["kid", "pr"])
def test_a_reference_of_statistics_alone_serves_fd_and_nothing_else(reference, noise_images, name):
    class Bare:
        def statistics(self, extractor, n=None):
            made = reference.statistics(extractor, n)
            return ReferenceStatistics(made.record, made.gaussian, None)

    evaluator = Evaluator({"fd": METRICS["fd"]}, n=30, reference=Bare())
    evaluator.update(noise_images(30), torch.arange(30))
    assert evaluator.compute()[0].value > 0
    with pytest.raises(UserError, match="only its statistics are known"):
        Evaluator({name: METRICS[name]}, n=30, reference=Bare()).prepare()


def test_fid_without_weights_fails_before_sampling(reference, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(UserError, match="Inception weights are missing"):
        Evaluator({"fid": FIDConfig()}, n=10, reference=reference).prepare()


def shapes(n):
    source = ShapesSource(resolution=32, n=n, split="test")
    samples = [source.sample(i) for i in range(n)]
    images = torch.stack([torch.from_numpy(sample["image"]) for sample in samples]).permute(0, 3, 1, 2)
    return images, torch.tensor([sample["label"] for sample in samples])


def judge(images, labels, names, rows=None):
    """The oracle's results by name; labels None, or int64 [n] of which only the batches `rows` are told."""
    evaluator = Evaluator({"oracle": OracleConfig()}, n=len(images), class_names=names)
    for number, chosen in enumerate(torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).split(10)):
        told = labels is not None and (rows is None or number in rows)
        evaluator.update(images[chosen], chosen, label=labels[chosen] if told else None)
    return {result.metric: result for result in evaluator.compute()}


def test_the_oracle_tells_how_many_show_the_class_asked_for():
    images, labels = shapes(24)
    wrong = labels.clone()
    wrong[:6] = (wrong[:6] + 1) % 6
    results = judge(images, wrong, class_names())
    accuracy = results["oracle-class-accuracy"]
    assert accuracy.value == 0.75
    assert accuracy.protocol.parameters["class_names"] == class_names()
    by_class = results["oracle-well-formed-rate"].details["class_accuracies"]
    asked = [class_names()[i] for i in wrong.tolist()]
    assert sum(asked.count(name) * share for name, share in by_class.items()) == pytest.approx(18)
    assert Result.from_json(accuracy.to_json()) == accuracy
    assert judge(images, labels, class_names())["oracle-class-accuracy"].value == 1


def test_class_accuracy_needs_the_class_of_every_sample_and_names_the_oracle_knows():
    images, labels = shapes(24)
    plain = judge(images, None, class_names())
    assert "oracle-class-accuracy" not in plain
    assert "class_accuracies" not in plain["oracle-well-formed-rate"].details
    for others in (judge(images, labels, None), judge(images, labels, list("abcdef"))):
        assert others == plain
    assert judge(images, labels, class_names(), rows={0, 2}) == plain
    assert judge(images, labels, class_names()).keys() - plain.keys() == {"oracle-class-accuracy"}


def test_the_label_of_padding_does_not_count():
    images, labels = shapes(12)
    evaluator = Evaluator({"oracle": OracleConfig()}, n=12, class_names=class_names())
    again = torch.cat([torch.arange(12), torch.zeros(3, dtype=torch.int64)])
    weight = torch.cat([torch.ones(12), torch.zeros(3)])
    evaluator.update(images[again], again, weight, torch.cat([labels, torch.full((3,), 99)]))
    assert {r.metric: r.value for r in evaluator.compute()}["oracle-class-accuracy"] == 1


def test_a_class_without_a_name_is_one_line():
    images, labels = shapes(4)
    with pytest.raises(UserError, match=r"oracle cannot judge these samples: label \d is none of the 1 classes"):
        judge(images, labels, ["circle"])


def test_the_oracle_judges_all_images_at_once():
    images, _ = shapes(24)
    images[:6] = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    evaluator = Evaluator({"oracle": OracleConfig(label="test")}, n=24)
    for rows in torch.arange(24).split(10):
        evaluator.update(images[rows], rows)
    results = {result.metric: result for result in evaluator.compute()}
    first = results["oracle-well-formed-rate"]
    assert first.value == 0.75
    assert first.key == "eval/oracle-well-formed-rate@test-24"
    assert first.details["n"] == 24
    assert set(first.details["shapes"])
    assert "oracle-mean-objects" in results
    assert Result.from_json(first.to_json()) == first


def test_the_oracle_cannot_judge_tiny_images(noise_images):
    evaluator = Evaluator({"oracle": OracleConfig()}, n=4)
    evaluator.update(noise_images(4, size=8), torch.arange(4))
    with pytest.raises(UserError, match=r"oracle cannot judge these samples: .*set metrics\.oracle=null"):
        evaluator.compute()


def test_one_extractor_serves_all_metrics_in_one_pass(reference, noise_images, monkeypatch):
    evaluator = Evaluator(METRICS, n=30, reference=reference)
    evaluator.prepare()
    calls = []
    forward = type(get_extractor("random"))._features
    monkeypatch.setattr(
        type(get_extractor("random")),
        "_features",
        lambda self, images: (calls.append(len(images)), forward(self, images))[1],
    )
    evaluator.update(noise_images(30), torch.arange(30))
    assert calls == [30]


def test_no_metrics_no_results(noise_images):
    evaluator = module.Evaluator({}, n=4)
    evaluator.update(noise_images(4), torch.arange(4))
    assert evaluator.compute() == []


def test_the_labels_of_padding_are_left_out_with_it():
    images, labels = shapes(6)
    report = {}
    for padded in (False, True):
        evaluator = Evaluator({"oracle": OracleConfig()}, n=6, class_names=class_names())
        if padded:
            # Padding in front, so that labels which stay behind would be those of other images.
            index = torch.tensor([0, 0, 1, 2, 3, 4, 5])
            weight = torch.tensor([0.0, *[1.0] * 6])
            evaluator.update(images[index], index, weight, labels[index])
        else:
            evaluator.update(images, torch.arange(6), label=labels)
        report[padded] = {result.metric: result.value for result in evaluator.compute()}
    assert report[True] == report[False]
    assert report[True]["oracle-class-accuracy"] == 1.0
