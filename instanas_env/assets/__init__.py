"""Files that come with the package: images, weights, the latency table."""
