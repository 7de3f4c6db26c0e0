"""What Pillow reads: a class for each format that is allowed, with the decoder that is called for it."""

import io
import re
import struct
from collections.abc import Sequence
from typing import ClassVar

from PIL import ImagePalette

from .picture import Picture

__all__ = ["PILLOW_FORMATS"]


class Gif(Picture):
    """GIF, animations included."""

    name, suffixes, _decoder = "GIF", (".gif",), "GifImagePlugin.GifImageFile"
    _signatures, _is_animated = (b"GIF87a", b"GIF89a"), True

    def _check_file(self) -> None:
        content = self._file.read()
        self._file = io.BytesIO(content)  # it is read in parts of at most 255 bytes
        self._boxes, self._has_colour = _gif_frames(content)
        if not self._boxes:
            raise ValueError("it holds no image")
        self._check_size(self._canvas(self._boxes))

    def _canvas(self, boxes: list[tuple[int, ...]]) -> tuple[int, int]:
        width, height = struct.unpack("<HH", self.source.head[6:10])
        return max(width, *(x + w for x, _, w, _ in boxes)), max(height, *(y + h for _, y, _, h in boxes))

    def _frames(self) -> Sequence[int]:
        if self._canvas(self._boxes) != self._canvas(self._boxes[:1]):
            raise ValueError("a later image of the animation reaches beyond the first one")
        if self._picture.mode == "L" and any(self._has_colour[1:]):
            raise ValueError("its first image is grey and a later one has colours, which Pillow does not compose")
        return range(len(self._boxes))


def _gif_frames(content: bytes) -> tuple[list[tuple[int, ...]], list[bool]]:
    """List left, top, width and height of each image of a GIF, and whether it has a palette of its own."""
    boxes: list[tuple[int, ...]] = []
    own_palette = []
    at = 13 + _palette_size(content[10:11])
    try:
        while (kind := content[at]) != ord(";"):
            at += 1
            if kind not in b"!,":
                continue  # padding, which viewers pass over
            if kind == ord(","):
                *box, flags = struct.unpack("<HHHHc", content[at : at + 9].ljust(9, b"\0"))
                boxes.append(tuple(box))
                own_palette.append(bool(_palette_size(flags)))
                at += 9 + _palette_size(flags)
            at += 1  # the kind of the extension, or the size of the first code
            while n_bytes := content[at]:
                at += 1 + n_bytes
            at += 1
    except IndexError:
        raise ValueError(f"the GIF has no end: it was cut behind image {len(boxes) - 1}") from None
    return boxes, own_palette


def _palette_size(flags: bytes) -> int:
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 128 else 0


class WebP(Picture):
    """WebP, animations included."""

    name, suffixes, _decoder = "WebP", (".webp",), "WebPImagePlugin.WebPImageFile"
    _feature, _is_animated, _passes_fast = "webp", True, True

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like a WebP."""
        return head[:4] == b"RIFF" and head[8:12] == b"WEBP"

    def _check_file(self) -> None:
        # The decoder makes room for two canvases when it opens a file.
        head, kind = self.source.head.ljust(30, b"\0"), self.source.head[12:16]
        if kind == b"VP8X":
            size = 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
        elif kind == b"VP8L":
            bits = int.from_bytes(head[21:25], "little")
            size = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        else:
            size = int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
        self._check_size(size)
        if self.source.n_bytes < 8 + int.from_bytes(head[4:8], "little"):
            raise ValueError("the WebP was cut")


class Avif(Picture):
    """AVIF, sequences included."""

    name, suffixes, _decoder = "AVIF", (".avif", ".avifs"), "AvifImagePlugin.AvifImageFile"
    _feature, _is_animated, _passes_fast, _deep_decoder = "avif", True, True, "avif_decode"

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like an AVIF."""
        return head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis")

    def _has_deep_colour(self) -> bool:
        # The third byte of the codec's configuration has a bit for more than 8 bits a channel.
        self._file.seek(0)
        configuration = re.search(rb"av1C\x81.(.)", self._file.read(1 << 20), re.DOTALL)
        return configuration is not None and bool(configuration[1][0] & 0x40)


class Jpeg2000(Picture):
    """JPEG 2000."""

    name, suffixes = "JPEG 2000", (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c")
    _decoder, _feature, _deep_decoder = "Jpeg2KImagePlugin.Jpeg2KImageFile", "jpg_2000", "jpeg2k_decode"
    _signatures = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")

    def _has_deep_colour(self) -> bool:
        self._file.seek(0)
        # SIZ, the first marker of the code stream, has the bits of each channel.
        start = self._file.read(1 << 16)
        at = start.find(b"\xff\x4f\xff\x51")
        if at < 0:
            raise ValueError("it has no code stream in its first 65,536 bytes")
        n_channels = int.from_bytes(start[at + 40 : at + 42], "big")
        kinds = start[at + 42 : at + 42 + 3 * n_channels : 3]
        if not kinds or max(kinds) > 127:  # Pillow adds half of the range
            raise ValueError("its values are signed, which is not read; save it as TIFF")
        bits = [kind + 1 for kind in kinds]
        return n_channels > 1 and max(bits) > 8


class Bmp(Picture):
    """Windows bitmaps."""

    name, suffixes, _decoder, _signatures = "BMP", (".bmp", ".dib"), "BmpImagePlugin.BmpImageFile", (b"BM",)


class Ppm(Picture):
    """Netpbm: PBM, PGM, PPM and PFM."""

    name, suffixes, _decoder = "PPM", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), "PpmImagePlugin.PpmImageFile"

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like a PBM, PGM, PPM or PFM."""
        return re.match(rb"P[1-6f]\s", head) is not None

    def _has_deep_colour(self) -> bool:
        arguments = self._picture.tile[0][3]  # the last one is the largest value
        return self._picture.mode == "RGB" and isinstance(arguments, tuple) and arguments[-1] > 255


class Tga(Picture):
    """Truevision TGA, which has no signature."""

    name, suffixes, _decoder = "TGA", (".tga",), "TgaImagePlugin.TgaImageFile"


class Ico(Picture):
    """Windows icons: the largest one of a file."""

    beside_pictures = False  # of a web site

    name, suffixes, _decoder = "ICO", (".ico",), "IcoImagePlugin.IcoImageFile"
    _signatures: ClassVar[tuple[bytes, ...]] = (b"\0\0\1\0",)

    def _check_file(self) -> None:
        # The decoder decodes when it opens a file.
        n_images = int.from_bytes(self._file.read(6)[4:], "little")
        entries = self._file.read(16 * n_images)
        with self._naming_damage():
            for (offset,) in struct.iter_unpack("<12xI", entries):
                self._file.seek(offset)
                head = self._file.read(24)
                order, at = (">II", 16) if head.startswith(b"\x89PNG") else ("<II", 4)
                self._check_size(struct.unpack(order, head[at : at + 8]))


class Cur(Ico):
    """Windows cursors: icons with a hot spot. They begin like some TGA, so that the suffix tells them."""

    name, suffixes, _signatures = "CUR", (".cur",), ()

    def _check_file(self) -> None:
        super()._check_file()
        self._file.seek(0)
        content = bytearray(self._file.read())
        if content[:4] != b"\0\0\2\0":
            raise ValueError("it is no cursor: it is damaged")
        content[2] = 1
        for entry in range(6, 6 + 16 * content[4], 16):  # the hot spot is where icons keep their planes and bits
            bitmap = int.from_bytes(content[entry + 12 : entry + 16], "little")
            content[entry + 4 : entry + 8] = b"\1\0" + content[bitmap + 14 : bitmap + 16].ljust(2, b"\0")
        self._file = io.BytesIO(content)


class Dds(Picture):
    """DirectDraw surfaces."""

    name, suffixes, _decoder, _signatures = "DDS", (".dds",), "DdsImagePlugin.DdsImageFile", (b"DDS ",)

    def _check_file(self) -> None:
        # Pillow before version 11 fills pixels that are not compressed with zeros where they end.
        head = self.source.head.ljust(128, b"\0")
        height, width, kind, n_bits = (int.from_bytes(head[at : at + 4], "little") for at in (12, 16, 80, 88))
        is_plain = kind & 0x20040 and not kind & 0x20  # RGB or grey, without a palette
        if is_plain and self.source.n_bytes < 128 + height * width * n_bits // 8:
            raise ValueError("the DDS was cut")

    def _shown_mode(self) -> str:
        # Its flags say whether the palette has alpha.
        return "RGB" if self._picture.mode == "P" and not self.source.head[80] & 1 else super()._shown_mode()


class Pcx(Picture):
    """PC Paintbrush."""

    name, suffixes, _decoder = "PCX", (".pcx",), "PcxImagePlugin.PcxImageFile"


class Sgi(Picture):
    """Images of SGI."""

    name, suffixes, _decoder = "SGI", (".sgi",), "SgiImagePlugin.SgiImageFile"
    _signatures = (b"\x01\xda",)


class Psd(Picture):
    """Photoshop: all layers as one image, as the file holds it."""

    beside_pictures = False  # the pictures are often made of it

    name, suffixes, _decoder, _signatures = "PSD", (".psd",), "PsdImagePlugin.PsdImageFile", (b"8BPS",)


class Qoi(Picture):
    """QOI."""

    name, suffixes, _decoder, _signatures = "QOI", (".qoi",), "QoiImagePlugin.QoiImageFile", (b"qoif",)


class Fli(Picture):
    """Animations of Autodesk: FLI and FLC."""

    name, suffixes, _decoder = "FLI", (".fli", ".flc"), "FliImagePlugin.FliImageFile"
    beside_pictures, _is_animated = False, True

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like an FLI or FLC."""
        return head[4:6] in (b"\x11\xaf", b"\x12\xaf") and head[88:128] == bytes(40)

    def _check_file(self) -> None:
        start, palette = 128, bytes(i for i in range(256) for _ in range(3))
        self._palettes = []
        for frame in range(int.from_bytes(self.source.head[6:8], "little")):
            self._file.seek(start)
            n_bytes, kind = struct.unpack("<IH", self._file.read(6).ljust(6, b"\0"))
            end = start + n_bytes
            if kind != 0xF1FA or n_bytes < 16 or end > self.source.n_bytes + 1:  # a byte may pad it
                raise ValueError(f"its image {frame} is missing: it was cut, or is damaged")
            start += 16
            while start < end:
                self._file.seek(start)
                n_bytes, kind = struct.unpack("<IH", self._file.read(6).ljust(6, b"\0"))
                if kind in (4, 11):
                    changes = self._file.read(max(0, n_bytes - 6))
                    with self._naming_damage():
                        palette = _changed_palette(palette, changes, 4 if kind == 11 else 1)
                start += max(6, n_bytes)
            self._palettes.append(palette)
            start = end

    def _seek(self, frame: int) -> None:
        super()._seek(frame)
        self._picture.palette = ImagePalette.raw("RGB", self._palettes[frame])  # Pillow reads the first one only


def _changed_palette(palette: bytes, changes: bytes, factor: int) -> bytes:
    """Return a palette of an FLI with other colours: packets of how many to pass over, how many follow, and these."""
    colours, place, at = bytearray(palette), 0, 2
    for _ in range(int.from_bytes(changes[:2], "little")):
        place += 3 * changes[at]
        n_bytes = 3 * (changes[at + 1] or 256)
        new = changes[at + 2 : at + 2 + n_bytes]
        if len(new) < n_bytes or place + n_bytes > len(colours) or factor * max(new) > 255:
            raise ValueError("its palette is damaged")
        colours[place : place + n_bytes] = bytes(factor * value for value in new)
        place, at = place + n_bytes, at + 2 + n_bytes
    return bytes(colours)


class Sun(Picture):
    """Sun raster."""

    name, suffixes, _decoder = "Sun raster", (".ras", ".sun"), "SunImagePlugin.SunImageFile"
    _signatures, beside_pictures = (b"\x59\xa6\x6a\x95",), False

    def _check_file(self) -> None:
        width, _, depth, _, kind, _, palette = struct.unpack(">7I", self.source.head[4:32].ljust(28, b"\0"))
        # Pillow takes other bytes for colours, leaves out the palette, or does not expect that rows are padded.
        if depth == 32 or (depth == 1 and palette) or (kind == 2 and -(-width * depth // 8) % 2):
            raise ValueError("it is a Sun raster of a kind that Pillow reads wrongly; save it as PNG")


class Xbm(Picture):
    """Bitmaps of X11, which are text."""

    name, suffixes, _decoder, beside_pictures = "XBM", (".xbm",), "XbmImagePlugin.XbmImageFile", False


class XvThumbnail(Picture):
    """Thumbnails of xv."""

    name, suffixes, _decoder = "XV thumbnail", (".p7",), "XVThumbImagePlugin.XVThumbImageFile"
    beside_pictures = False

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins with a whole header of a thumbnail."""
        return re.match(rb"P7 332\s(#.*\n)*\d+ +\d+ ", head) is not None


class Pixar(Picture):
    """Images of Pixar."""

    name, suffixes, _decoder = "Pixar", (".pxr",), "PixarImagePlugin.PixarImageFile"
    _signatures, beside_pictures = (b"\x80\xe8\0\0",), False


class Ftex(Picture):
    """Textures of Independence War 2."""

    name, suffixes, _decoder = "FTEX", (".ftc", ".ftu"), "FtexImagePlugin.FtexImageFile"
    _signatures, beside_pictures = (b"FTEX",), False


#: PostScript, metafiles and formats that Pillow gives to other programs are not among them; nor are those that it does
#: not read rightly in all versions: BLP and XPM, which have readers of their own.
PILLOW_FORMATS: tuple[type[Picture], ...] = (
    *(Gif, WebP, Avif, Jpeg2000, Bmp, Ppm, Psd, Dds, Sgi, Qoi, Ico, Fli, Sun, XvThumbnail, Pixar, Ftex),
    *(Tga, Pcx, Xbm, Cur),  # without a signature: the suffix tells them
)
