"""Writing of stacks, into one zarr array or into one file for each image."""
