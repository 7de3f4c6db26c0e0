"""Video, a frame an image, decoded by PyAV (the extra ``video``).

The packets of a film are listed without decoding, once in a process: their times say how many frames there are, and
which of them are keyframes. To read a frame, the decoder goes on from where it is, or starts at a keyframe in front of
it. Each frame is found by its own time, so a seek that ends elsewhere is noticed, and no frame is taken for another.

The blocks of a stack begin at keyframes where memory allows. Else the decoder goes on from block to block, as of an
animation; see `waiting`.
"""

import bisect
import contextlib
import functools
import re
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..locations.base import Bounded
from .advice import import_package
from .base import Header, ImageFormat, ImageSeries, OpenFile, check_size
from .waiting import MOST_BYTES, Turn, filling, keep_decoder, keep_frames, take_decoder, take_frame

__all__ = ["Video"]

# The demuxer by the first bytes. FFmpeg is not asked to guess: it knows texts that name other files and URLs to read.
_CONTAINERS = {
    "mov": rb".{4}ftyp(?!avi[fs]|hei[cxsm]|hev[cx]|mif1|msf1|crx |jp[2xm] |jxl |mjp2)|.{4}(moov|mdat|wide)",
    "avi": rb"RIFF.{4}AVI ",
    "matroska": rb"\x1aE\xdf\xa3",
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    "mpeg": rb"\x00\x00\x01\xba",
    "mpegts": rb"\x47.{187}\x47.{187}\x47",
}
_CONTENT = re.compile(b"|".join(b"(?P<%b>%b)" % (k.encode(), v) for k, v in _CONTAINERS.items()), re.DOTALL)
_MOST_KNOWN = 1000  # lists of frames, of 8 bytes a frame
_TRIES = 4  # keyframes from which a frame is tried to be reached, beside the first one
_ENDS_EARLY = 0.25  # seconds by which a film may end before its header says, and not count as cut
_REPAIR = "To repair it as far as that goes: ffmpeg -i film -c copy repaired.mkv"


class _Frames(NamedTuple):
    """Times of the frames of a film in the order in which they are shown, and the numbers of its keyframes.

    Decoding begins at `starts`: these, where the film can be read from them on, or else the first frame.
    """

    times: np.ndarray
    keyframes: list[int]
    starts: list[int]

    def start_of(self, number: int) -> int:
        """Return the frame at which decoding begins for a frame."""
        return self.starts[bisect.bisect_right(self.starts, number) - 1]

    def keyframes_before(self, number: int) -> list[int]:
        """Return the keyframes up to a frame, the nearest one first, of which some are worth a try."""
        stop = bisect.bisect_right(self.keyframes, number)
        return list(dict.fromkeys([*self.keyframes[max(0, stop - _TRIES) : stop][::-1], 0]))


class _Handle(Bounded):
    """The file of a film. FFmpeg keeps its methods, which lead to whichever handle of the file is open."""

    def attach(self, file: BinaryIO) -> None:
        """Read from another handle of the file, since the one before was closed."""
        self._file = file

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move the position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()


_known: dict[tuple[str, int, int, int], _Frames] = {}


def _identity(source: OpenFile) -> tuple[str, int, int, int]:
    return source.name, source.n_bytes, source.modified, source.max_pixels


class _Film:
    """The decoder of a film, at the frame that it decoded last.

    Parameters
    ----------
    av : module
    source : OpenFile
    """

    def __init__(self, av: Any, source: OpenFile):
        self._av = av
        container = _CONTENT.match(source.head)
        if container is None:
            raise ValueError(f"it ends like a video, and begins with {source.head[:8]!r}, like none that is read")
        # FFmpeg stops a codec that needs memory for more pixels.
        options = {"fflags": "+genpts", "max_pixels": str(source.max_pixels)}
        with self._errors("its header cannot be read"):
            self.handle = _Handle(source.file, source.n_bytes)
            self._container = av.open(self.handle, format=container.lastgroup, options=options)
        # After a seek, MPEG's streams begin within a frame, and the next one may get its time: read from the beginning.
        self._can_seek = container.lastgroup not in ("mpeg", "mpegts")
        cover = av.stream.Disposition.attached_pic
        films = [stream for stream in self._container.streams.video if not stream.disposition & cover]
        if len(films) != 1:
            raise ValueError(
                f"it holds {len(films) or 'no'} films, and one is read. To choose one: "
                "ffmpeg -i film -map 0:v:0 -c copy one.mkv"
            )
        self._stream, codec = films[0], films[0].codec_context
        if not codec.height:
            raise ValueError(
                f"its frames are of more than {source.max_pixels:,} pixels, or damaged. If it is right: "
                "open_stack(..., max_pixels=...)"
            )
        check_size(codec.height, codec.width, max_pixels=source.max_pixels)
        codec.thread_count = 1  # the blocks of a stack are decoded by as many threads as there are
        codec.options = {"max_pixels": str(source.max_pixels), "err_detect": "crccheck+explode"}
        self._decoded: Iterator[tuple[int, Any]] = iter(())
        self.at, self._frame = -1, None  # the frame that was decoded last
        # Frames become pixels by one converter: those of the frames themselves are made anew for each.
        self._converter = av.video.reformatter.VideoReformatter()
        self.position = 0  # of the file, while the decoder waits
        identity = _identity(source)
        self.frames = _known.get(identity) or self._list_frames()
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[identity] = self.frames

    def close(self) -> None:
        """Close the decoder; the file is closed by others."""
        self._container.close()

    @property
    def frame_bytes(self) -> int:
        """Bytes of a decoded frame, as far as is known."""
        codec = self._stream.codec_context
        bits = codec.format.padded_bits_per_pixel if codec.format else 48
        return max(1, int(codec.height * codec.width * bits // 8))

    def pixels(self, frame: Any) -> np.ndarray:
        """Return the pixels of a frame, upright."""
        shown = self._converter.reformat(frame, format=_shown_format(frame))
        return _upright(shown.to_ndarray(), _turn(frame))

    def frame(self, number: int, passed: deque[Any] | None = None) -> Any:
        """Decode up to a frame: from here on, or from a keyframe in front of it; note the frames that are passed."""
        if number == self.at:
            return self._frame
        keyframes = self.frames.keyframes_before(number) if self._can_seek else [0]
        if keyframes[0] <= self.at < number:
            with contextlib.suppress(self._av.FFmpegError):
                if self._advance(number, passed):
                    return self._frame
        # Some formats seek to a place that is too late, and some keyframes do not suffice: those before are tried.
        problem: Exception | None = None
        for keyframe in keyframes:
            time = int(self.frames.times[keyframe])
            try:
                self._container.seek(time if keyframe else min(time, 0), stream=self._stream, backward=True)
                self._decoded = self._decode()
                if self._advance(number, passed):
                    return self._frame
            except self._av.FFmpegError as error:
                problem = error
        with self._errors(f"frame {number} cannot be decoded"):
            if problem:
                raise problem
        raise ValueError(f"frame {number} cannot be decoded. {_REPAIR}")

    def _advance(self, number: int, passed: deque[Any] | None) -> bool:
        """Decode on to a frame; tell whether it was found."""
        self.at, self._frame = -1, None
        if passed is not None:
            passed.clear()
        for at, frame in self._decoded:
            if at >= number:
                self.at, self._frame = at, frame
                return at == number
            if passed is not None:
                passed.append(frame)
        return False

    def _decode(self) -> Iterator[tuple[int, Any]]:
        """Decode from the keyframe that comes next, and number the frames by their times; end where one is missing."""
        times, first, number = self.frames.times, None, 0
        for packet in self._container.demux(self._stream):
            if first is None:
                if not packet.is_keyframe:
                    continue
                first = packet.pts
                number = int(np.searchsorted(times, first))
            # Frames that follow a keyframe and are shown before it are made from others that are not decoded here.
            if packet.size and packet.pts < first and first > times[0]:
                continue
            for frame in packet.decode():
                if number == len(times) or frame.pts != times[number]:
                    return
                if frame.is_corrupt:
                    raise ValueError(f"frame {number} is damaged. {_REPAIR}")
                yield number, frame
                number += 1

    def _list_frames(self) -> _Frames:
        times: list[int | None] = []
        key_times, ends, n_packets = [], [0.0], 0
        with self._errors("its frames cannot be counted"):
            for packet in self._container.demux():
                if packet.stream is self._stream and packet.size:
                    n_packets += 1
                    if packet.is_corrupt:
                        raise ValueError(f"it was cut within frame {len(times)}. {_REPAIR}")
                    if packet.is_discard or not self._is_shown(packet):
                        continue
                    times.append(packet.pts)
                    if packet.is_keyframe:
                        key_times.append(packet.pts)
                if packet.pts is not None and packet.time_base:
                    ends.append(float((packet.pts + (packet.duration or 0)) * packet.time_base))
        self._check_whole(n_packets, max(ends))
        if not times:
            raise ValueError("it holds no frame")
        if None in times or len(set(times)) < len(times):
            raise ValueError(
                f"some of its {len(times)} frames have no time of their own, by which they would be found. Write it "
                "anew: ffmpeg -i film -c:v ffv1 new.mkv"
            )
        in_order = np.sort(np.array(times, np.int64))
        keyframes = np.searchsorted(in_order, np.sort(np.array(key_times, np.int64))).tolist()
        return _Frames(in_order, keyframes, sorted({0, *keyframes}) if self._can_seek else [0])

    def _is_shown(self, packet: Any) -> bool:
        # VP8 has frames that others are made from, and that are not shown.
        return self._stream.codec_context.name != "vp8" or bool(bytes(packet)[0] & 0x10)

    def _check_whole(self, n_packets: int, end: float) -> None:
        """Raise if the header says that the film is longer: FFmpeg takes the end of the file for that of the film."""
        says = self._stream.frames
        if n_packets < says:
            raise ValueError(f"it holds {n_packets} of the {says} frames that its header says: it was cut. {_REPAIR}")
        start, duration = ((of or 0) / 1e6 for of in (self._container.start_time, self._container.duration))
        missing = duration - (end - min(start, 0.0))
        if missing > _ENDS_EARLY:
            raise ValueError(f"it ends {missing:.1f} seconds before its header says: it was cut. {_REPAIR}")

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._av.FFmpegError as error:
            raise ValueError(f"{what}: {error.strerror.lower()}. It may be cut or damaged. {_REPAIR}") from error


class Video(ImageFormat):
    """Video in MP4, MOV, AVI, Matroska, WebM, MPEG and Windows Media, decoded by PyAV.

    Images are (height, width, 3) as 8-bit RGB, or (height, width) where the film is grey, with the rotation that the
    film asks for. Keys are the numbers of the frames. MPEG program and transport streams are decoded from their
    beginning for each block; to make them faster: ``ffmpeg -i film.mpg -c copy film.mkv``.
    """

    name, beside_pictures = "video", False
    suffixes = (".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".m2ts", ".wmv", ".asf")

    def __init__(self, source: OpenFile):
        super().__init__(source)
        self._av, self._turn, self._has_passed = import_package("av", "mp4"), Turn(), False
        if int(self._av.__version__.partition(".")[0]) < 18:  # 15 to 17 end the process at some files
            raise ValueError(
                f"PyAV {self._av.__version__} is too old: pip install --upgrade 'imgstack_ml[video]' (18 or newer)"
            )
        self._identity = _identity(source)
        self._last: tuple[int, Any] = -1, None  # the frame that was asked for last

    @functools.cached_property
    def _film(self) -> _Film:
        """The decoder: one that waits at the end of a run of frames, or a new one."""
        film: _Film | None = take_decoder(self._identity, 0, sys.maxsize)
        return self._attached(film) if film else _Film(self._av, self.source)

    def _attached(self, film: _Film) -> _Film:
        film.handle.attach(self.source.file)
        film.handle.seek(film.position)
        return film

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like a video."""
        return _CONTENT.match(head) is not None

    def list_images(self) -> list[ImageSeries]:
        """List the frames. The packets are counted; the first frame is decoded for its shape."""
        shape, dtype = _layout(self._film.frame(0))
        n_frames, starts = len(self._film.frames.times), self._film.frames.starts
        return [ImageSeries(shape, dtype, range(n_frames), "", "t", (n_frames,), starts=starts)]

    def header(self, key: int) -> Header:
        """Return the header of a frame."""
        return self.header_of(ImageSeries(*_layout(self._frame(key))))

    def read(self, key: int, out: np.ndarray) -> None:
        """Decode a frame into `out`."""
        out[...] = self._film.pixels(self._frame(key))

    def _frame(self, key: int) -> Any:
        if key != self._last[0]:
            self._last = key, self._find_frame(key)
        return self._last[1]

    def _find_frame(self, key: int) -> Any:
        """Decode a frame, or take it from those that another block passed."""
        start = (_known.get(self._identity) or self._film.frames).start_of(key)
        run = (*self._identity, start)
        if (kept := take_frame(run, key)) is not None:
            return kept
        if not self._turn.is_of(run):
            self._turn.begin(run, key)
            if (kept := take_frame(run, key)) is not None:  # another block may have passed it meanwhile
                return kept
            # Another block may have left a decoder nearer to the frame.
            if film := take_decoder(run, start, key):
                self._leave()
                self._film = self._attached(film)
        first, self._has_passed = not self._has_passed, True
        if not first or key in (start, self._film.at + 1):
            return self._film.frame(key)
        return self._frame_and_those_before(run, key)

    def _frame_and_those_before(self, run: tuple[Any, ...], key: int) -> Any:
        """Decode a frame, and keep those in front of it for the blocks that are read after this one."""
        with filling() as alone:
            n_bytes = self._film.frame_bytes
            passed: deque[Any] | None = deque(maxlen=MOST_BYTES // n_bytes) if alone else None
            frame = self._film.frame(key, passed)
            if passed:
                keep_frames(run, key - len(passed), passed, n_bytes)
        return frame

    def _leave(self) -> None:
        film = vars(self).get("_film")
        if film is None:
            return
        if 0 <= film.at < len(film.frames.times) - 1:
            film.position = film.handle.tell()
            start, following = film.frames.start_of(film.at), film.frames.start_of(film.at + 1)
            identity = self._identity if start < following else (*self._identity, start)  # any block may take the first
            keep_decoder(identity, film.at, 16 * film.frame_bytes, film)  # those that others are made from
        else:
            film.close()

    def close(self) -> None:
        """Leave the decoder to the block that follows."""
        self._leave()
        self._turn.end()


def _layout(frame: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and dtype of the image that a frame is."""
    format, turn = _shown_format(frame), _turn(frame)
    swapped = turn is not None and turn[0, 0] == 0
    shape = (frame.width, frame.height) if swapped else (frame.height, frame.width)
    if format == "rgb24":
        return (*shape, 3), np.dtype(np.uint8)
    return shape, np.dtype(np.uint8 if format == "gray" else np.uint16)


def _shown_format(frame: Any) -> str:
    """Return the format of pixels in which a frame is read: grey as it is, all else as RGB."""
    format = frame.format
    if len(format.components) > 1 or format.has_palette or format.is_bayer or "f" in format.name:
        return "rgb24"
    if format.bits_per_pixel <= 8:
        return "gray"
    return f"{format.name.removesuffix('le').removesuffix('be')}{'le' if sys.byteorder == 'little' else 'be'}"


def _turn(frame: Any) -> np.ndarray | None:
    """Return the four numbers by which x and y are turned and mirrored when the frame is shown."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    signs = np.sign(np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2])
    if (np.abs(signs).sum(axis=0) != 1).any() or (np.abs(signs).sum(axis=1) != 1).any():
        raise ValueError(f"it is shown turned by {frame.rotation} degrees; multiples of 90 are read")
    return signs


def _upright(pixels: np.ndarray, turn: np.ndarray | None) -> np.ndarray:
    if turn is None:
        return pixels
    # x' = turn[0, 0] x + turn[1, 0] y, and y' = turn[0, 1] x + turn[1, 1] y.
    if turn[0, 0] == 0:
        pixels = np.swapaxes(pixels, 0, 1)
    if turn[:, 0].sum() < 0:
        pixels = pixels[:, ::-1]
    return pixels[::-1] if turn[:, 1].sum() < 0 else pixels
