"""Speech emotion recognition for speakers a model has never heard, and an audit of how much of the speaker it still carries.

A module imports only from packages to its left, or from its own, without a circle:

    common <- data <- features <- models, adversaries <- runs, audit <- training, evaluation, inference <- report <- demos <- cli

Common are the modules beside the packages (errors, config, files, metrics, processes, distributed), apart from `runs`.
Shape letters: B batch, S samples, M mel bands, T frames, D embedding, C emotions, K speakers, N utterances.
"""
