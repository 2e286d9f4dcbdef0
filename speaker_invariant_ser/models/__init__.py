"""Models: encoders, bottlenecks, erasers, releases, and how a trained model is saved, loaded and applied."""
