"""Where things are: outputs are written where the user said, or refused; what changed after the opening is named."""

import os
import shutil
import time
from pathlib import Path

import click
import dask.array as da
import numpy as np
import pytest
import zarr
from sklearn.pipeline import make_pipeline

import imgstack_ml as im
from imgstack_ml.cli import main
from imgstack_ml.cli.lib.options import OutputPath
from imgstack_ml.datasets import write_sample
from imgstack_ml.errors import BadImageError, StoreError
from imgstack_ml.files.locks import lock_output
from tests.lib.arrays import write_hdf5, write_npy, write_zarr
from tests.lib.commands import run
from tests.lib.images import pack, random_pixels, write_folder, write_image


def unreadable():
    """Images that nobody may compute."""
    return da.map_blocks(lambda block: 1 / 0, da.zeros((6, 4, 4), chunks=(3, -1, -1)), meta=np.empty((0, 0, 0)))


WRITERS = {
    "save_stack": lambda url: im.save_stack(unreadable(), url, overwrite=True, resume=True),
    "write_images": lambda url: im.write_images(unreadable(), url, format="tiff"),
    "save_model": lambda url: im.save_model(im.StackCenterer(), url),
    "report": lambda url: im.Report({}, "<p>").save_as_html(url, overwrite=True),
    "checkpoint": lambda url: im.ImagePCA(2, checkpoint=url).fit(unreadable()),
    "checkpoint, in memory": lambda url: im.ImagePCA(2, checkpoint=url).fit(np.ones((4, 3, 3))),
    "sample": lambda url: write_sample("faces", url, n=2),
    "lock": lambda url: lock_output(url).__enter__(),
}
URLS = ("s3://bucket/out.zarr", "file:///tmp/out", "memory://x", "simplecache::gs://b/o", Path("s3://bucket/out"))


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("url", URLS, ids=str)
def test_writers_refuse_urls(writer, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="is a URL, and outputs are written to paths only") as caught:
        WRITERS[writer](url)
    assert str(url) in str(caught.value)
    assert "makedirs" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_commands_refuse_urls(tmp_path, monkeypatch):
    """Every parameter that is a path, and does not have to exist, is the input or is checked."""
    monkeypatch.chdir(tmp_path)
    for name, command in main.commands.items():
        paths = [param for param in command.params if isinstance(param.type, click.Path)]
        outputs = [param for param in paths if param.name not in ("source", "model", "mask", "leave_out")]
        assert all(isinstance(param.type, OutputPath) for param in outputs), name
        for param in outputs:
            given = {"source": "photos", "model": ".", "name": "faces"}
            arguments = [given[p.name] for p in command.params if isinstance(p, click.Argument) and p.name in given]
            place = ["-o"] if isinstance(param, click.Option) else []
            result = run(name, *arguments, *place, "s3://bucket/out.csv")
            assert result.exit_code == 2
            assert "'s3://bucket/out.csv' is a URL" in result.stderr
        assert outputs or name == "scan"
    assert os.listdir(tmp_path) == []


# Changes ------------------------------------------------------------------------------------------------


def sharded(folder, pixels):
    path = folder / "sharded.zarr"
    zarr.create_array(path, data=pixels, chunks=(2, *pixels.shape[1:]), shards=(4, *pixels.shape[1:]))
    return str(path)


def tiff_pages(folder, pixels):
    return write_image(folder / "pages.tif", pixels, photometric="minisblack")


SOURCES = {
    "files": lambda folder, pixels: [
        write_image(folder / f"{i}.tif", image, photometric="minisblack") for i, image in enumerate(pixels)
    ],
    "pages": tiff_pages,
    "zip": lambda folder, pixels: (tiff_pages(folder / "in", pixels), pack(folder / "in", folder / "x.zip"))[1],
    "tar": lambda folder, pixels: (tiff_pages(folder / "in", pixels), pack(folder / "in", folder / "x.tar"))[1],
    "npy": lambda folder, pixels: write_npy(folder, pixels, "C"),
    "hdf5": lambda folder, pixels: write_hdf5(folder, pixels, True),
    "zarr 2": lambda folder, pixels: write_zarr(folder, pixels, 2),
    "zarr 3": lambda folder, pixels: write_zarr(folder, pixels, 3),
    "sharded": sharded,
    "own": lambda folder, pixels: im.save_stack(pixels, folder / "own.zarr", overwrite=True),
}


def remove(path):
    for found in sorted(Path(path).rglob("*"), reverse=True) if os.path.isdir(path) else [Path(path)]:
        found.rmdir() if found.is_dir() else found.unlink()


@pytest.mark.parametrize("kind", SOURCES)
def test_what_was_replaced_is_named(kind, tmp_path):
    pixels = random_pixels((9, 6, 5))
    source = SOURCES[kind](tmp_path, pixels)
    stack = im.open_stack(source, chunks=2)
    converted = im.open_stack(source, chunks=2, dtype="float32")
    np.testing.assert_array_equal(stack.data.compute(), pixels)
    before = stack.data.name
    for new in (
        pixels[::-1],
        random_pixels((9, 5, 6)),
        random_pixels((12, 6, 5)),
    ):  # of equal size, and of other shapes
        time.sleep(0.01)  # as long as the clock of a file system may stand still
        if kind != "own":
            [remove(path) for path in stack.inputs]
        SOURCES[kind](tmp_path, new)
        for each in (stack, converted, stack[::-1], stack[3:4]):
            with pytest.raises((BadImageError, StoreError), match="changed since the stack was opened") as caught:
                each.data.compute()
            assert any(path in str(caught.value) for path in stack.inputs)
    assert im.open_stack(source, chunks=2).data.name != before


@pytest.mark.parametrize("kind", ["zarr 2", "zarr 3", "sharded", "own"])
@pytest.mark.parametrize("change", ["write", "remove", "damage", "backup"])
def test_chunks_that_changed_are_named(kind, change, tmp_path):
    pixels = random_pixels((900, 40, 50)) if kind == "own" else random_pixels((9, 4, 5))
    path = SOURCES[kind](tmp_path, pixels)
    stack = im.open_stack(path)
    last = {"zarr 2": "2.0.0"}.get(kind, f"c/{1 if kind == 'own' else 2}/0/0")
    time.sleep(0.01)
    chunk = Path(path, last)
    assert chunk.exists()
    if change == "write":
        zarr.open_array(path, mode="r+")[-1] = 7
    elif change == "remove":
        chunk.unlink()
    elif change == "backup":  # a file that keeps its old time, as rsync and cp -p put it back
        copy = Path(shutil.copy(chunk, tmp_path))
        os.utime(copy, ns=(0, 0))
        copy.replace(chunk)
    else:
        content = bytearray(chunk.read_bytes())
        content[len(content) // 2] ^= 255
        chunk.write_bytes(content)
    for lost in (stack, stack[-1:]):
        with pytest.raises((BadImageError, StoreError), match=f"{last}.*changed since|has lost its chunk '{last}'"):
            lost.data.compute()
    np.testing.assert_array_equal(stack[:2].data.compute(), pixels[:2])  # other chunks are as they were


def test_a_chunk_damaged_before_the_opening_is_named(tmp_path):
    path = im.save_stack(random_pixels((9, 4, 5)), tmp_path / "own.zarr")
    chunk = Path(path, "c/0/0/0")
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 255
    chunk.write_bytes(content)
    with pytest.raises(StoreError, match=r"own\.zarr' is damaged: its chunk 'c/0/0/0' cannot be decoded"):
        im.open_stack(path).data.compute()


def test_a_file_that_changes_between_two_reads_of_a_fit_is_named(tmp_path):
    write_folder(tmp_path, 8, (6, 5))
    changed, reads = tmp_path / "img3.png", []

    def read(path):
        reads.append(path)
        if len(reads) == 9:  # one read at the opening, and then a pass
            write_image(changed, random_pixels((6, 5), seed=9))
        return im.open_stack(path).data[0].compute(scheduler="synchronous")

    stack = im.imread(str(tmp_path / "*.png"), imread=read)
    with pytest.raises(BadImageError, match=r"img3\.png.*changed since"):
        make_pipeline(im.StackCenterer(), im.ImagePCA(2)).fit(stack)
    assert len(reads) > 9


def test_fits_and_transforms_name_changed_files(tmp_path):
    write_folder(tmp_path, 8, (6, 5))
    stack = im.open_stack(tmp_path, chunks=2)
    pca = im.ImagePCA(2).fit(stack)
    time.sleep(0.01)
    os.utime(tmp_path / "img3.png")
    for work in (im.ImagePCA(2).fit, im.StackCenterer().fit, lambda X: pca.transform(X).compute()):
        with pytest.raises(BadImageError, match=r"img3\.png.*changed since"):
            work(stack)
    with pytest.warns(UserWarning, match="1 of 8 images"):
        assert len(stack.verify()) == 7
