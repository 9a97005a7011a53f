"""The ONNX file as it is: read, listed, evaluated in float64; what it takes and gives, and at which sizes."""
