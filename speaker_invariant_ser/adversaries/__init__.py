"""Adversaries: what removes speaker information from the embedding during training. They are never saved with the model.

`discriminators` holds adversaries that train a classifier of the speaker, `matching` those that compare the embeddings of
speakers directly. What an adversary reports about itself is no evidence of invariance: fresh attackers decide that.
"""
