"""Features: log-mel front ends, normalisation, datasets and augmentation."""
