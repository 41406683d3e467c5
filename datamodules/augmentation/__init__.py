"""Random views of images and masks as pure functions of seed, epoch and index."""
