"""Arousal, valence and dominance: results on unseen speakers, and what the audit is given of them."""
