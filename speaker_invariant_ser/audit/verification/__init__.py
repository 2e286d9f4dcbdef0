"""Verification of unseen speakers: trials between embeddings, their scores and error rates."""
