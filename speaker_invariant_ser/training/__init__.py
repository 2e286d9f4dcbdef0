"""Training: `trainer` has the loop and the training step, `launcher` starts it for every fold and seed of a run."""
