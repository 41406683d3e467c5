"""Mirrors of the records: Weights & Biases, MLflow, TensorBoard, Trackio and CSV files."""
