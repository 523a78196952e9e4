"""The questions of a page and its results: every key of the JSON, torch-free."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from difflab.config.base import Config

Task = Literal[1, 2]
Role = Literal["model", "original", "bicubic"]
Side = Literal["left", "right"]
Kind = Literal["practice", "rated", "check"]

QUESTIONS: dict[Task, str] = {
    1: "Which of the two images is a better high quality version of the low resolution image in the middle?",
    2: "Which image would you guess is from a camera?",
}
"""The questions to a rater (SR3, human evaluation). The low-resolution image is shown in task 1 only."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Protocol(Config):
    """The protocol of a page. It is the same for every rater, and its digest is part of the page's.

    difflab: the version that wrote the page.
    seed: of the choice of pairs, their order and their sides.
    seconds: how long the pictures of a pair are shown; 0 = until the answer. An answer may come after that.
    practice, rated, checks: how many pairs of each kind; practice comes first and counts for nothing.
    """

    difflab: str
    task: Task
    question: str
    seed: int = Field(ge=0)
    seconds: float = Field(ge=0)
    practice: int = Field(ge=0)
    rated: int = Field(ge=1)
    checks: int = Field(ge=0)

    @property
    def shown(self) -> int:
        """How many pairs a rater sees."""
        return self.practice + self.rated + self.checks


class Pair(Config):
    """What stands on the two sides of one trial.

    model: whose output it is, None for a check, which sets the original against its bicubic enlargement.
    pair: the name of the picture.
    """

    kind: Kind
    model: str | None
    pair: str
    left: Role
    right: Role

    @model_validator(mode="after")
    def _the_original_is_one_of_them(self) -> Self:
        other: Role = "bicubic" if self.kind == "check" else "model"
        if {self.left, self.right} != {"original", other}:
            raise ValueError(
                f"left={self.left}, right={self.right}: one side of {self.kind} is original, the other {other}"
            )
        if (self.model is None) != (self.kind == "check"):
            raise ValueError(f"model={self.model}: a check has none, and every other trial has one")
        return self


class Answer(Pair):
    """A trial with the rater's choice.

    reaction_ms: from when the pair was seen to the choice, pauses left out.
    timed_out: whether the choice came when the pictures were gone.
    """

    trial: int = Field(ge=0)
    choice: Side
    reaction_ms: float = Field(ge=0)
    timed_out: bool

    @property
    def picked(self) -> Role:
        return self.left if self.choice == "left" else self.right


class Results(Config):
    """What one rater leaves, after the last pair.

    page: the digest of the page. sitting: drawn anew by the page for each rater, so that no file counts twice.
    rater: what somebody chose to write there; nothing else says who it was.
    """

    format: Literal["difflab-fool-rate-1"]
    page: Digest
    protocol: Protocol
    rater: str = Field(max_length=80)
    sitting: str = Field(pattern=r"^[0-9a-f]{32}$")
    trials: list[Answer]

    @model_validator(mode="after")
    def _every_trial_is_there_once(self) -> Self:
        protocol = self.protocol
        if [answer.trial for answer in self.trials] != list(range(protocol.shown)):
            raise ValueError(
                f"trials are not 0..{protocol.shown - 1}, each once and in order: it is not all of a sitting"
            )
        requested = {"practice": protocol.practice, "rated": protocol.rated, "check": protocol.checks}
        for kind, count in requested.items():
            there = sum(answer.kind == kind for answer in self.trials)
            if there != count:
                raise ValueError(f"{there} trials are {kind}, the protocol says {count}")
        if protocol.seconds == 0 and any(answer.timed_out for answer in self.trials):
            raise ValueError("a choice is timed_out, but seconds=0 shows the pictures until the answer")
        return self

    def answers(self, kind: Kind) -> list[Answer]:
        """Those of one kind."""
        return [answer for answer in self.trials if answer.kind == kind]

    def pairs(self) -> list[Pair]:
        """What the rater was shown, without the answers."""
        return [Pair(**answer.model_dump(include=set(Pair.model_fields))) for answer in self.trials]
