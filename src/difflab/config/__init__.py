"""Typed models of the whole configuration. Pydantic only: validating needs no torch, Lightning or Hydra."""
