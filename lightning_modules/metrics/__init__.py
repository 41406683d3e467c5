"""What torchmetrics lacks: sums without waiting for a GPU, and the scores of U-Net's two tables."""
