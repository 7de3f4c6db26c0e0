"""Formats that others add: in this process, and by entry points of packages that are installed."""

import inspect
import subprocess
import sys
import zipfile
from textwrap import dedent

import numpy as np
import pytest

import imgstack_ml as im
from imgstack_ml.io import ImageFormat, ImageSeries
from tests.lib.images import random_pixels, write_image
from tests.lib.plugins import Dump, write_dump


def test_a_format_is_read_from_every_place(registered, tmp_path):
    images = random_pixels((3, 4, 4))
    for i, name in enumerate(("a/0.dump", "b/1.dump", "b/2.DUMP")):
        write_dump(tmp_path / "in" / name, images[i : i + 1].repeat(2, axis=0))
    expected = images.repeat(2, axis=0)
    with pytest.raises(FileNotFoundError, match="no images found"):
        im.open_stack(tmp_path / "in", recursive=True)
    registered(Dump)
    stack = im.open_stack(tmp_path / "in", recursive=True)
    assert stack.labels.tolist() == ["a", "a", "b", "b", "b", "b"]
    assert stack.summary().counts[0][0] == ((4, 4), "uint8", "dump", "L")
    assert stack.files[1].endswith("0.dump[1]")
    np.testing.assert_array_equal(stack[[5, 0, 3]].data, expected[[5, 0, 3]])
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in sorted((tmp_path / "in").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path / "in"))
    for source in (tmp_path / "in.zip", f"file://{tmp_path}/in/*/*", sorted((tmp_path / "in").rglob("*.*"))):
        np.testing.assert_array_equal(im.open_stack(source).data, expected)
    (tmp_path / "in/b/3.dump").write_bytes(b"\4\1short")
    with pytest.raises(im.BadImageError, match=r"3\.dump.*Dump cannot read it: ValueError: cannot reshape"):
        im.open_stack(tmp_path / "in", recursive=True).data.compute()
    with pytest.warns(UserWarning, match="1 of 7 images cannot be decoded"):
        im.open_stack(tmp_path / "in", recursive=True).verify()


def test_what_is_registered_is_checked(registered, tmp_path):
    class Half(ImageFormat):
        name, suffixes = "half", (".half",)

    class Other(Dump):
        name, suffixes = "other", (".png",)

        @classmethod
        def recognise(cls, head):
            return head.startswith(b"\x89PNG")

        def list_images(self):
            return [ImageSeries((1, 1), np.dtype("uint8"))]

        def read(self, key, out):
            out[...] = 7

    with pytest.raises(TypeError, match="lacks list_images, read"):
        registered(Half)
    with pytest.raises(TypeError, match="is no subclass of imgstack_ml"):
        registered(dict)
    with pytest.raises(TypeError, match=r"suffixes is '\.x'; give a tuple"):
        registered(type("Bad", (Dump,), {"suffixes": ".x"}))
    path = write_image(tmp_path / "a.png", random_pixels((5, 5)))
    with pytest.raises(ValueError, match=r"suffix '\.png' is that of .*Png; .*override=True"):
        registered(Other)
    assert im.open_stack(path).shape == (1, 5, 5)
    registered(Other, override=True)
    assert im.open_stack(path).data.compute().tolist() == [[[7]]]


def test_axes_that_do_not_count_the_images_are_refused(registered, tmp_path):
    path = write_dump(tmp_path / "a.dump", random_pixels((6, 4, 4)))
    for axes, sizes in (("t", (5,)), ("tz", (6,)), ("tz", (2, 4))):
        series = ImageSeries((4, 4), np.dtype("u1"), range(6), axes=axes, sizes=sizes, channel_names=("DAPI",))
        registered(type("Odd", (Dump,), {"list_images": lambda self, s=series: [s]}), override=True)
        with pytest.raises(im.BadImageError, match=r"its 6 images are not those of axes"):
            im.open_stack(path)
    series = series._replace(sizes=(2, 3))
    registered(type("Even", (Dump,), {"list_images": lambda self: [series]}), override=True)
    assert im.open_stack(path, select={"z": 2}).channel_names == ()


def test_shapes_that_are_no_images_are_refused(registered, tmp_path):
    path = write_dump(tmp_path / "a.dump", random_pixels((1, 4, 4)))
    for shape, dtype in (((4,), "u1"), ((4, 4, 4, 4), "u1"), ((4, 4), "complex64"), ((4, 4), "object"), ((0, 4), "u1")):
        kind = type("Odd", (Dump,), {"list_images": lambda self, s=shape, d=dtype: [ImageSeries(s, np.dtype(d))]})
        registered(kind, override=True)
        with pytest.raises(im.BadImageError, match=r"a\.dump"):
            im.open_stack(path)


def test_formats_of_installed_packages(tmp_path):
    """A wheel with one that works and one that is broken, put in place by pip."""
    pytest.importorskip("pip", reason="environments that uv makes have no pip")
    site, folder = tmp_path / "site", tmp_path / "in"
    wheel = tmp_path / "dumps-1.0-py3-none-any.whl"
    info = {
        "METADATA": "Metadata-Version: 2.1\nName: dumps\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": "[imgstack_ml.formats]\ndump = dumps:Dump\nlost = dumps_lost:Lost\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        imports = "import numpy as np\nfrom imgstack_ml.io import ImageFormat, ImageSeries\n"
        archive.writestr("dumps.py", imports + inspect.getsource(Dump))
        for name, text in info.items():
            archive.writestr(f"dumps-1.0.dist-info/{name}", text)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(pip, check=True, capture_output=True)
    write_image(folder / "plain" / "a.png", random_pixels((4, 4)))
    write_dump(folder / "dumps" / "a.dump", random_pixels((2, 4, 4)))
    (folder / "unknown.blob").write_bytes(b"what")
    code = f"""
        import sys
        sys.path.insert(0, {str(site)!r})
        import imgstack_ml as im
        im.open_stack({str(folder / "plain")!r})
        assert "dumps" not in sys.modules
        print(im.open_stack({str(folder / "dumps")!r}).shape)
        try:
            im.open_stack({str(folder / "unknown.blob")!r})
        except im.BadImageError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
    shape, error = done.stdout.splitlines()
    assert shape == "(2, 4, 4)"
    assert "the format 'lost' of another package is broken: ModuleNotFoundError" in error
