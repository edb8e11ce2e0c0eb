"""Write metrics: JSON lines, TensorBoard, Weights & Biases."""
