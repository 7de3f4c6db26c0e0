"""DICOM, read by pydicom (the extra ``medical``): pixel values after the rescaling that the file asks for."""

import functools
from typing import Any, BinaryIO, cast

import numpy as np

from ..locations.base import Bounded
from .advice import import_package
from .base import ImageFormat, ImageSeries, OpenFile, check_size

__all__ = ["Dicom"]


class Dicom(ImageFormat):
    """DICOM: each frame is an image.

    Grey is what the file's rescaling makes of the stored numbers, as float64: Hounsfield units, activities, doses; the
    stored numbers where it asks for none. MONOCHROME1, where low values are bright, is not inverted: values keep their
    meaning. Windows and overlays are not applied. Colour is RGB.
    """

    name, suffixes = "DICOM", (".dcm", ".dicom")

    def __init__(self, source: OpenFile):
        super().__init__(source)
        self._dcmread = import_package("pydicom", "dcm").dcmread
        self._pixels = import_package("pydicom.pixels", "dcm")
        self._file = cast(BinaryIO, Bounded(source.file, source.n_bytes))
        self._data = data = self._dcmread(self._file, stop_before_pixels=True)
        if not (data.get("Rows") and data.get("Columns") and data.get("BitsAllocated")):
            raise ValueError(f"it holds no image: its modality is {data.get('Modality', 'not said')}")
        check_size(data.Rows, data.Columns, max_pixels=source.max_pixels)
        self._channels = (data.SamplesPerPixel,) if data.get("SamplesPerPixel", 1) > 1 else ()
        self._n_frames = int(data.get("NumberOfFrames") or 1)

    @classmethod
    def recognise(cls, head: bytes) -> bool | None:
        """Tell whether a file begins like DICOM."""
        return head[128:132] == b"DICM"

    def list_images(self) -> list[ImageSeries]:
        """List the frames of the file."""
        # One pixel tells the dtype and channels of all.
        pixel = self._rescale(np.zeros((1, 1, *self._channels), self._stored_dtype()), 0)
        shape = (self._data.Rows, self._data.Columns, *pixel.shape[2:])
        if self._n_frames == 1:
            return [ImageSeries(shape, pixel.dtype)]
        return [ImageSeries(shape, pixel.dtype, range(self._n_frames), "", "t", (self._n_frames,))]

    def read(self, key: int | None, out: np.ndarray) -> None:
        """Decode a frame into `out`."""
        pixels = self._rescale(self._pixels.pixel_array(self._whole, index=key or 0, raw=False), key or 0)
        if pixels.shape != out.shape or not np.can_cast(pixels.dtype, out.dtype, "equiv"):
            raise ValueError(f"pydicom reads {pixels.shape}, {pixels.dtype} where its header says {out.shape}")
        out[...] = pixels

    @functools.cached_property
    def _whole(self) -> Any:
        self._file.seek(0)
        return self._dcmread(self._file)

    def _stored_dtype(self) -> np.dtype:
        bits = self._data.BitsAllocated
        kind = "ui"[self._data.get("PixelRepresentation", 0)]
        return np.dtype("u1") if bits == 1 else np.dtype(f"{kind}{bits // 8}")

    def _rescale(self, stored: np.ndarray, frame: int) -> np.ndarray:
        data = self._data
        if data.get("PhotometricInterpretation") == "PALETTE COLOR":
            return self._pixels.apply_color_lut(stored, data)
        if "DoseGridScaling" in data:
            return stored * float(data.DoseGridScaling)
        for groups, place in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
            if groups in data and "PixelValueTransformationSequence" in data[groups][place]:
                return self._pixels.apply_rescale(stored, data[groups][place].PixelValueTransformationSequence[0])
        return self._pixels.apply_rescale(stored, data)
