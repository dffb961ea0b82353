"""What instructions compute: a family of operations a file."""
