"""Pipelines over networks with drawn weights, for requests that they follow."""

from pipelines.conftest import pipeline_of, stage_of

__all__ = ["pipeline_of", "stage_of"]
