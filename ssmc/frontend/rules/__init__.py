"""Rules that translate one ONNX node each, one file a subject."""
