"""A format of one's own: files of square images of bytes."""

import numpy as np

from imgstack_ml.io import ImageFormat, ImageSeries


class Dump(ImageFormat):
    """Two bytes, side and number of images, and then the pixels."""

    name, suffixes = "dump", (".dump",)

    def list_images(self):
        side, n_images = np.frombuffer(self.source.file.read(2), np.uint8).tolist()
        return [ImageSeries((side, side), np.dtype("uint8"), range(n_images), axes="t", sizes=(n_images,))]

    def read(self, key, out):
        self.source.file.seek(2 + key * out.size)
        out[...] = np.frombuffer(self.source.file.read(out.size), np.uint8).reshape(out.shape)


def write_dump(path, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([images.shape[1], len(images)]) + images.tobytes())
    return path
