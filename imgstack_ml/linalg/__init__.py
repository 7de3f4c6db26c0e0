"""The mathematics, on NumPy blocks: no Dask, no scikit-learn."""
