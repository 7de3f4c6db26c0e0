"""Writing images: stacks in one zarr array, and one file an image."""
