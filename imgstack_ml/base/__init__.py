"""What every estimator stands on: checks of input, lazy maps over images, the transformers' base class."""
