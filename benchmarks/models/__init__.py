"""Large ONNX files in the patterns of the exporters, weights at random, made with numpy and onnx.helper alone."""
