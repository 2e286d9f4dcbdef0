"""From corpora to utterances: list, decode, check and store audio, map labels, and divide speakers into folds."""
