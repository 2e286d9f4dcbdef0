"""Recording conditions: what is measured of a clip, the range that a model was trained on, and a simulated telephone."""
