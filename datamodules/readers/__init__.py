"""File formats to arrays: images, splits, hub files, instances."""
