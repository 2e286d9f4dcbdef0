"""Recording conditions: what is measured of an utterance, the range that a model was trained on, and a simulated telephone."""
