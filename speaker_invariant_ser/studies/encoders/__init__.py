"""Encoders compared: what each says about emotion on unseen speakers, and about the speaker."""
