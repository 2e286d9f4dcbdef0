"""Models as ONNX files: write them, and predict with them without torch."""
