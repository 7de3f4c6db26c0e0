"""How fast are models and stacks saved and loaded, and does what is loaded equal what was saved?

The references are NumPy's ``.npz`` for the arrays of a model, and Dask's `to_zarr` for a stack. The model is a Pipeline
with a mean image and ten components. Models are saved as safetensors, stacks as one zarr or as image files.
"""

import os
import shutil
from collections.abc import Callable

import dask.array as da
import numpy as np
from sklearn.pipeline import Pipeline, make_pipeline

from benchmarks.lib.measure import seconds_of
from benchmarks.lib.suite import LARGE, Suite, open_cells, unit, write_cells_of_dtypes
from imgstack_ml import ImagePCA, StackCenterer, load_model, open_stack, save_model, save_stack, write_images

N_IMAGES, SIZE = (400, 256) if LARGE else (24, 32)
N_BLOCKS = 4
FILES = {"imgstack_ml": "model.safetensors", "numpy": "model.npz"}


class _Cells(Suite):
    def setup_cache(self) -> None:
        write_cells_of_dtypes(N_IMAGES, SIZE, N_BLOCKS, ["uint8"])

    def setup(self, way):
        super().setup()
        self.stack = open_cells("uint8")


class Models(_Cells):
    params = (["imgstack_ml", "numpy"],)
    param_names = ("implementation",)

    def setup(self, implementation):
        super().setup(implementation)
        self.model = make_pipeline(StackCenterer(), ImagePCA(10, random_state=0)).fit(self.stack)
        self.save, self.load = _MODELS[implementation]
        self.save(self.model)

    def time_save(self, implementation):
        self.save(self.model)

    def time_load(self, implementation):
        self.load()

    @unit("bytes")
    def track_file_size(self, implementation):
        return os.path.getsize(FILES[implementation])

    @unit("value")
    def track_difference(self, implementation):
        """Largest difference between loaded and saved components."""
        return float(np.abs(self.load() - self.model[-1].components_).max())


class Stacks(_Cells):
    params = (["save_stack", "dask to_zarr", "write_images"],)
    param_names = ("way",)

    def setup(self, way):
        super().setup(way)
        self.save, self.open = _STACKS[way]
        self.save(self.stack)

    def teardown(self, way):
        shutil.rmtree("out", ignore_errors=True)
        super().teardown(way)

    def time_save(self, way):
        self.save(self.stack)

    def time_read(self, way):
        self.open()[:, 0, 0].compute()

    @unit("MB of pixels/s")
    def track_speed(self, way):
        return self.stack.nbytes / 1e6 / seconds_of(lambda: self.save(self.stack))

    @unit("intensity")
    def track_difference(self, way):
        """Largest difference between a loaded and a saved pixel."""
        return int(np.abs(self.open().astype(int) - self.stack.astype(int)).max().compute())


def _save_package(model: Pipeline) -> None:
    save_model(model, FILES["imgstack_ml"], overwrite=True)


def _load_package() -> np.ndarray:
    return load_model(FILES["imgstack_ml"])[-1].components_


def _save_numpy(model: Pipeline) -> None:
    pca = model[-1]
    np.savez(FILES["numpy"], mean=model[0].mean_, components=pca.components_, variance=pca.explained_variance_)


def _load_numpy() -> np.ndarray:
    with np.load(FILES["numpy"]) as arrays:
        return {name: arrays[name] for name in arrays.files}["components"]


def _write_images(stack: da.Array) -> None:
    shutil.rmtree("out", ignore_errors=True)
    write_images(stack, "out")


_MODELS: dict[str, tuple[Callable[[Pipeline], None], Callable[[], np.ndarray]]] = {
    "imgstack_ml": (_save_package, _load_package),
    "numpy": (_save_numpy, _load_numpy),
}
_STACKS: dict[str, tuple[Callable[[da.Array], object], Callable[[], da.Array]]] = {
    "save_stack": (lambda stack: save_stack(stack, "out", overwrite=True), lambda: open_stack("out").data),
    "dask to_zarr": (lambda stack: stack.to_zarr("out", overwrite=True), lambda: da.from_zarr("out")),
    "write_images": (_write_images, lambda: open_stack("out").data),
}
