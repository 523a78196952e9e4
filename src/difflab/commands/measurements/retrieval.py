"""Retrieval: the captions of images, and the images of captions, by the similarity of their embeddings."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from difflab.commands.command import Machine
from difflab.commands.measurements.images import ImagesMeasurement
from difflab.commands.measurements.measuring import Measuring
from difflab.config.data import Captions, DataConfig
from difflab.config.retrieval import RetrievalConfig
from difflab.data.bad_samples import BadSample
from difflab.data.build import build_dataset, build_eval_loader, spread_evenly
from difflab.data.captions import captions_in, lines_of
from difflab.errors import UserError
from difflab.metrics.caption_choice import chance, choices, false_captions
from difflab.metrics.gather import gather_objects, gather_rows
from difflab.metrics.protocol import Result
from difflab.metrics.reference import in_order
from difflab.metrics.retrieval import numbered, padded, ranks, recall
from difflab.pipelines.embedding import EmbeddingPipeline
from difflab.progress import track
from difflab.text.templates import filled
from difflab.types import Batch

TOP = (1, 5, 10)


class RetrievalMeasurement(ImagesMeasurement[RetrievalConfig]):
    """`text-retrieval-r1`, `-r5`, `-r10`: among all captions, one of the image's own (or equal to it) is found.
    `image-retrieval-r1`, ...: among all images, one with that caption.
    `caption-choice-relation`, ...: the image is nearer to its (first) caption than to false ones, if there are any."""

    kind = "retrieval"
    what = "embedding"
    method = ("distinct", "template", "negatives", "too_long")

    captions_as: Captions
    chosen: list[int] | None = None
    found_captions: list[list[str]]

    def read_as(self, data: DataConfig) -> DataConfig:
        # The whole file is read: with data.captions=lines all of its lines are captions of the image.
        self.captions_as = data.captions
        if "lines" in self.config.negatives and data.captions != "first_line":
            raise UserError(
                f"negatives=lines takes the lines after the first for false captions, which data.captions="
                f"{data.captions} does not: set data.captions=first_line"
            )
        return data.model_copy(update={"fields": ["caption"], "captions": "whole"})

    def begin(self) -> None:
        self.pipeline = EmbeddingPipeline(self.model, autocast=self.autocast, too_long=self.config.too_long)
        self._indices: list[Tensor] = []
        self._images: list[Tensor] = []
        self._files: dict[int, str] = {}

    def reads(self) -> Sequence[str]:
        return ("caption",)

    def prepare(self) -> None:
        """Reads the captions, which takes no time beside the images: with `distinct` to find the images, and to refuse
        what could not be embedded."""
        self.chosen = self.processes.from_first(self._distinct) if self.config.distinct else None
        self.processes.from_first(self._refuse_captions)

    def batches(self) -> Iterator[Batch]:
        if self.chosen is None:
            return super().batches()
        size = self.config.batch_size * self.processes.world_size
        loader = build_eval_loader(
            self.data,
            split=self.config.split,
            batch_size=size,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
            chosen=self.chosen,
        )
        return self.batches_of(loader, len(self.chosen), self.what)

    def add(self, batch: Batch) -> None:
        with torch.no_grad():
            self._images.append(self.pipeline.images(batch["image"]).cpu())
        self._indices.append(batch["index"].cpu())
        self._files |= dict(zip(batch["index"].tolist(), batch["caption"], strict=True))

    def found(self) -> list[Result]:
        together = {index: text for of_rank in gather_objects(self._files) for index, text in of_rank.items()}
        files = [together[index] for index in sorted(together)]
        ordered = self.found_captions = [captions_in(text, self.captions_as) for text in files]
        if not ordered:
            raise UserError("no image was readable; repair the data set or choose another split")
        images = self._gathered_images()
        false = {
            kind: [false_captions(kind, own[0], lines_of(text)) for own, text in zip(ordered, files, strict=True)]
            for kind in self.config.negatives
        }
        # Equal captions share one embedding, so that rounding cannot put one of them ahead.
        texts, numbers = numbered([*ordered, *itertools.chain(*false.values())])
        embedded = self._embedded(texts)
        of_image, *of_false = (numbers[begin : begin + len(ordered)] for begin in range(0, len(numbers), len(ordered)))
        of_text = torch.tensor([number for numbers in of_image for number in numbers])
        groups = padded(of_image)
        candidates = embedded[of_text.to(self.device)]
        found = {
            "text": self._shared(images, candidates, groups, of_text[:, None]),
            "image": self._shared(candidates, images, of_text[:, None], groups),
        }
        parameters = {
            "captions": self.captions_as,
            "template": self.config.template,
            "images": "first with distinct captions" if self.config.distinct else "spread evenly",
        }
        details = {"captions": len(of_text), "distinct_captions": len(of_text.unique())}
        recalls = [
            self._result(f"{what}-retrieval-r{k}", recall(rank, k), len(ordered), parameters, details)
            for what, rank in found.items()
            for k in TOP
        ]
        own = embedded[torch.tensor([numbers[0] for numbers in of_image], device=self.device)]
        return recalls + [
            self._choice(kind, images, own, embedded, of_kind, parameters)
            for kind, of_kind in zip(false, of_false, strict=True)
        ]

    def _choice(
        self,
        kind: str,
        images: Tensor,
        captions: Tensor,
        texts: Tensor,
        false: Sequence[Sequence[int]],
        parameters: dict[str, Any],
    ) -> Result:
        """The choice between the caption of each image and its `false` ones among the texts, on the images that have
        some. All are embeddings."""
        having = [row for row, numbers in enumerate(false) if numbers]
        if not having:
            # The only images with some could not be read.
            raise _none_false(kind)
        rows = torch.tensor(having, device=self.device)
        of = torch.tensor([i for i, row in enumerate(having) for _ in false[row]])
        wrong = texts[torch.tensor([number for row in having for number in false[row]], device=self.device)]
        shown = images[rows]
        own = (shown * captions[rows]).sum(dim=1).cpu()
        others = (shown[of.to(self.device)] * wrong).sum(dim=1).cpu()
        details = {"false_captions": len(of), "images_with_some": len(having), "chance": chance(of, len(having))}
        return self._result(f"caption-choice-{kind}", choices(own, others, of), len(images), parameters, details)

    def _result(self, name: str, hits: Tensor, n: int, parameters: dict[str, Any], details: dict[str, Any]) -> Result:
        error = float(hits.std()) / math.sqrt(len(hits)) if len(hits) > 1 else None
        return self.result(name, float(hits.mean()), error, n, parameters, details)

    def _gathered_images(self) -> Tensor:
        index = torch.cat([torch.zeros(0, dtype=torch.int64), *self._indices])
        rows = torch.cat(self._images) if self._images else torch.zeros(0, 0)
        return in_order(gather_rows(index), gather_rows(rows))[1].to(self.device)

    def _embedded(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of all texts, split among the processes."""
        mine = self._share(len(texts))
        with self.processes.agreeing():
            found = self.pipeline.texts([filled(self.config.template, texts[number]) for number in mine.tolist()])
        return in_order(gather_rows(mine), gather_rows(found.cpu()))[1].to(self.device)

    def _shared(self, queries: Tensor, candidates: Tensor, of_query: Tensor, of_candidate: Tensor) -> Tensor:
        """`ranks`, with the queries split among the processes."""
        mine = self._share(len(queries))
        here = self.device
        found = ranks(queries[mine.to(here)], candidates, of_query[mine].to(here), of_candidate.to(here))
        return in_order(gather_rows(mine), gather_rows(found))[1]

    def _share(self, n: int) -> Tensor:
        return torch.arange(self.processes.rank, n, self.processes.world_size)

    def _refuse_captions(self) -> None:
        """Raises UserError for captions that are empty, or too long if those are refused, and if there are no false
        ones of a kind."""
        dataset, empty = build_dataset(self.data, split=self.config.split), []
        without = set(self.config.negatives)
        indices = spread_evenly(self.config.n, len(dataset)).tolist() if self.chosen is None else self.chosen
        for index in track(indices, len(indices), "checking captions"):
            try:
                file = dataset.sample(index, image=False)["caption"]
            except BadSample:
                continue
            texts = captions_in(file, self.captions_as)
            if not all(texts):
                empty.append(index)
            false = {kind: false_captions(kind, texts[0], lines_of(file)) for kind in self.config.negatives}
            without -= {kind for kind, made in false.items() if made}
            asked = itertools.chain(texts, *false.values())
            self.pipeline.tokenizer([filled(self.config.template, text) for text in asked])
        if empty:
            raise UserError(
                f"{len(empty)} of {len(indices)} images have an empty caption, such as number {empty[0]} of the split "
                f"{self.config.split}, which describes nothing: write one, or choose other data"
            )
        if kind := next((kind for kind in self.config.negatives if kind in without), None):
            raise _none_false(kind)

    def _distinct(self) -> list[int]:
        """The first n images without a caption that an earlier one of them has."""
        dataset = build_dataset(self.data, split=self.config.split)
        known: set[str] = set()
        chosen: list[int] = []
        for index in track(range(len(dataset)), len(dataset), "reading captions"):
            try:
                texts = captions_in(dataset.sample(index, image=False)["caption"], self.captions_as)
            except BadSample:
                # The loader reports unreadable samples, and how many may be.
                continue
            if known.isdisjoint(texts):
                known.update(texts)
                chosen.append(index)
                if len(chosen) == self.config.n:
                    return chosen
        raise UserError(
            f"n={self.config.n}, but the split {self.config.split} has {len(chosen)} images without a caption that an "
            f"earlier one has: give n={len(chosen)} or less, or distinct=false"
        )

    def remarks(self, results: Sequence[Result]) -> list[str]:
        copies = Counter(text for texts in self.found_captions for text in texts)
        having = Counter(text for texts in self.found_captions for text in set(texts))
        images, captions = len(self.found_captions), copies.total()
        alike = "all distinct"
        if len(copies) < captions:
            alike = f"{len(copies)} of them distinct; a caption that equals a right one is right"
        text = sum(sum(copies[one] for one in set(texts)) for texts in self.found_captions) / (captions * images)
        image = sum(copies[one] * having[one] for one in copies) / (captions * images)
        chosen = [one for one in results if "chance" in one.details]
        return [
            f"{images} images, {captions} captions, {alike}",
            f"guessing gives a text R@1 of {text:.3g} and an image R@1 of {image:.3g}",
            *(
                f"{one.protocol.metric}: on {one.details['images_with_some']} of the images; guessing gives "
                f"{one.details['chance']:.3g}"
                for one in chosen
            ),
        ]


def _none_false(kind: str) -> UserError:
    return UserError(f"negatives={kind}: no caption of these images has one: leave it out, or give other data")


def retrieval(config: RetrievalConfig, plain: dict[str, Any], overrides: list[str], machine: Machine) -> Measuring:
    """Retrieval among n images and their captions. Raises UserError for a model without texts, and for data without."""
    with machine.processes.agreeing():
        return Measuring(RetrievalMeasurement(config, machine), config, plain, overrides)
