"""Averages of weights over training: power-function profiles, their snapshots, and other profiles made from them."""
