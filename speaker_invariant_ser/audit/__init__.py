"""Audit of embeddings for speaker information: attackers, chance levels, tests, and the verdict in words."""
