"""Weights that others trained: their files, and how they become a network of this project."""
