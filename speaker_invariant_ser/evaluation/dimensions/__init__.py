"""Arousal, valence and dominance: results on unseen speakers, and cells of emotion and ratings that chance is conditioned on."""
