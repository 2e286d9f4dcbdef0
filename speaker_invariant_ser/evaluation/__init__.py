"""Evaluation of a run: emotion on unseen speakers, the audit of its embeddings, and the typed report."""
