"""Passes: everything that a fit learns by reading a stack of images."""
