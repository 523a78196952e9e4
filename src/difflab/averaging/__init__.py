"""Averages of weights over training: power-function profiles, their snapshots, and any other profile made of those."""
