"""InstaNAS as a Gymnasium environment: observe an image, choose its network."""
