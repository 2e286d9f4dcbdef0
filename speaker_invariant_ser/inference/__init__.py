"""Inference: predictions of a trained run for audio files."""
