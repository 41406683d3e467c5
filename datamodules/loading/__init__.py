"""Arrays and files to batches: order, workers, devices."""
