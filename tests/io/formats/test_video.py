"""Video: every frame equal to sequential decoding in any order, and what is cut, damaged or too large is named."""

import random

import numpy as np
import pytest

from imgstack_ml import open_stack
from imgstack_ml.errors import BadImageError
from imgstack_ml.io.formats import video

av = pytest.importorskip("av")
pytestmark = pytest.mark.extras

N = 40
KINDS = {
    "b_frames.mp4": ("libx264", "yuv420p", {"g": "15", "bf": "3"}),
    "open_gop.mkv": ("libx264", "yuv420p", {"g": "10", "x264-params": "open-gop=1:bframes=3"}),
    "refresh.mkv": ("libx264", "yuv420p", {"g": "10", "x264-params": "intra-refresh=1:bframes=0"}),
    "vp8.webm": ("libvpx", "yuv420p", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "10"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"g": "8", "bf": "2"}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {"g": "9", "bf": "2"}),
    "motion.mov": ("mjpeg", "yuvj420p", {}),
    "windows.wmv": ("wmv2", "yuv420p", {"g": "10"}),
    "grey.avi": ("rawvideo", "gray", {}),
    "grey.mkv": ("ffv1", "gray16le", {}),
}


def write(path, codec, pixel_format, options, *, n=N, container=None, times=None):
    """A film of a square that moves over noise."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w", options=container or {}) as film:
        stream = film.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        stream.codec_context.thread_count = 1
        for i in range(n):
            pixels = noise.copy()
            pixels[10:20, i % 50 : i % 50 + 10] = (255, 3 * i, 0)
            frame = av.VideoFrame.from_ndarray(pixels).reformat(format=pixel_format)
            frame.pts = times[i] if times else i
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    return str(path)


def in_order(path):
    with av.open(path) as film:
        frames = list(film.decode(video=0))
        kept = frames[0].format.name if "gray" in frames[0].format.name else "rgb24"
        return np.stack([frame.to_ndarray(format=kept) for frame in frames])


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_those_of_sequential_decoding(tmp_path, name):
    path = write(tmp_path / name, *KINDS[name])
    expected = in_order(path)
    stack = open_stack(path, chunks=7)
    assert (len(stack), stack.files[3]) == (N, f"{path}[3]")
    np.testing.assert_array_equal(stack.data.compute(), expected)
    order = random.Random(0).sample(range(N), 12)
    np.testing.assert_array_equal(stack[order].data.compute(), expected[order])


@pytest.mark.parametrize("way", ["forward", "backward", "synchronous", "threads"])
@pytest.mark.parametrize("name", ["b_frames.mp4", "mpeg2.mpg"])  # keyframes every 15 frames; from the first one on only
def test_frames_are_decoded_once(tmp_path, monkeypatch, name, way):
    decoded, decode = [], video._Film._decode

    def noting(self):
        for number, frame in decode(self):
            decoded.append(number)
            yield number, frame

    path = write(tmp_path / name, *KINDS[name])
    expected = in_order(path)
    stack = open_stack(path, chunks=5)
    assert open_stack(path).data.chunks[0] == ((30, 10) if name == "b_frames.mp4" else (40,))
    monkeypatch.setattr(video._Film, "_decode", noting)
    if way in ("synchronous", "threads"):
        np.testing.assert_array_equal(stack.data.compute(scheduler=way, num_workers=3), expected)
    else:
        blocks = list(enumerate(stack.data.blocks))
        for i, block in blocks[:: 1 if way == "forward" else -1]:
            np.testing.assert_array_equal(block.compute(), expected[5 * i : 5 * i + 5])
    assert len(decoded) <= N + 2  # the first frame of a run is decoded again, where decoding begins there


def test_frames_at_uneven_times(tmp_path):
    path = write(tmp_path / "film.mp4", *KINDS["b_frames.mp4"], times=np.cumsum([1 + i % 3 for i in range(N)]).tolist())
    expected = in_order(path)
    assert open_stack(path, select={"t": slice(0, None, 10)}).shape == (4, 48, 64, 3)
    assert open_stack(path, mode="L").shape == (N, 48, 64)
    np.testing.assert_array_equal(open_stack(path)[[31, 2]].data.compute(), expected[[31, 2]])


def test_an_old_pyav_is_refused(tmp_path, monkeypatch):
    """Before 18 it ends the process where it opens some of these files."""
    write(tmp_path / "film.mp4", *KINDS["b_frames.mp4"], n=2)
    monkeypatch.setattr(av, "__version__", "17.0.0")
    with pytest.raises(BadImageError, match=r"film\.mp4'.*PyAV 17\.0\.0 is too old: pip install --upgrade"):
        open_stack(tmp_path / "film.mp4")


def test_turned_films_are_upright(tmp_path):
    path = tmp_path / "film.mp4"
    write(path, "mpeg4", "yuv420p", {})
    expected = in_order(str(path))
    for degrees, turns in ((90, 1), (180, 2), (-90, 3)):
        turned = str(tmp_path / f"{turns}.mp4")
        with av.open(str(path)) as old, av.open(turned, "w") as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            stream.set_display_rotation(degrees)
            for packet in old.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    new.mux(packet)
        with av.open(turned) as film:
            assert next(film.decode(video=0)).rotation % 360 == degrees % 360
        np.testing.assert_array_equal(open_stack(turned).data.compute(), np.rot90(expected, turns, axes=(1, 2)))


@pytest.mark.parametrize("name", ["b_frames.mp4", "front.mp4", "open_gop.mkv", "mpeg4.avi"])
def test_cut_films_are_named(tmp_path, name):
    container = {"movflags": "faststart"} if name == "front.mp4" else None
    path = write(tmp_path / name, *KINDS.get(name, KINDS["b_frames.mp4"]), container=container, n=80)
    content = (tmp_path / name).read_bytes()
    for part in (0.3, 0.6, 0.85):
        (tmp_path / name).write_bytes(content[: int(len(content) * part)])
        with pytest.raises(BadImageError, match=r"cut.*ffmpeg -i film"):
            open_stack(path).data.compute()


def test_a_damaged_frame_is_named_and_others_are_read(tmp_path):
    path = write(tmp_path / "film.mkv", *KINDS["b_frames.mp4"])
    expected = in_order(path)
    content = bytearray((tmp_path / "film.mkv").read_bytes())
    place = len(content) // 2
    content[place : place + 80] = bytes(80)
    (tmp_path / "film.mkv").write_bytes(content)
    with pytest.raises(BadImageError, match=r"frame \d+ "):
        open_stack(path).data.compute()
    with pytest.warns(UserWarning, match="images cannot be decoded"):
        stack = open_stack(path, chunks=10).verify()
    kept = [int(file.rpartition("[")[2][:-1]) for file in stack.files]
    assert 20 < len(kept) < N
    np.testing.assert_array_equal(stack.data.compute(), expected[kept])


def test_bombs_and_what_is_no_film(tmp_path):
    path = write(tmp_path / "film.avi", *KINDS["grey.avi"])
    with pytest.raises(BadImageError, match="more than 100 pixels"):
        open_stack(path, max_pixels=100)
    size, huge = (int.to_bytes(64, 4, "little") + int.to_bytes(48, 4, "little"), int.to_bytes(60000, 4, "little") * 2)
    (tmp_path / "bomb.avi").write_bytes((tmp_path / "film.avi").read_bytes().replace(size, huge))
    with pytest.raises(BadImageError, match="more than 178,956,970 pixels"):
        open_stack(tmp_path / "bomb.avi")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n/etc/passwd")
    with pytest.raises(BadImageError, match=r"its name says that it is a video"):
        open_stack(tmp_path / "list.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as film:
        stream = film.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        film.mux(stream.encode(frame))
        film.mux(stream.encode())
    with pytest.raises(BadImageError, match="it holds no films"):
        open_stack(tmp_path / "sound.mp4")
