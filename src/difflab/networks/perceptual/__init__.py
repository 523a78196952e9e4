"""Distances between images that resemble human judgement: of the features of networks trained on ImageNet."""
