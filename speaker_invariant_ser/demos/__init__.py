"""Demos that need no download: synthesised speech, and images of digits."""
