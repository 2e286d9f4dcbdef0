"""Pre-trained speech encoders: checkpoints, their layers, and the cache of these in a prepared corpus."""
