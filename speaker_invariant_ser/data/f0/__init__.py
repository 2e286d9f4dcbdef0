"""Fundamental frequency (F0) of utterances."""
