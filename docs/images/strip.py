"""Draw the strip of the README: ``imgstack-ml demo; python docs/images/strip.py imgstack-demo docs/images/strip.png``.

It needs Chromium for the picture of the report.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.gridspec import GridSpecFromSubplotSpec
from PIL import Image

TOP, HEIGHT = 3355, 640  # of the plot of scores on the page


def page(report, width=1100, height=4200):
    """Picture of the page of a report."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder, "page.png")
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={folder}/profile", f"--window-size={width},{height}", f"--screenshot={shot}"]
        subprocess.run([*command, report.resolve().as_uri()], check=True, capture_output=True)
        return Image.open(shot).convert("RGB")


def mosaic(figure, place, files, rows, columns, title):
    """Draw images side by side below a title."""
    grid = GridSpecFromSubplotSpec(rows, columns, place, hspace=0.06, wspace=0.06)
    for cell, file in zip(grid, files, strict=False):
        ax = figure.add_subplot(cell)
        ax.imshow(Image.open(file).convert("RGB"))
        ax.set_axis_off()
    figure.text(place.get_position(figure).x0, 0.93, title, fontsize=13)


def main(demo, out):
    """Draw a folder, its components and its report."""
    demo = Path(demo)
    figure = plt.figure(figsize=(12, 3.9))
    places = figure.add_gridspec(
        1, 3, width_ratios=[1, 1, 1.25], left=0.01, right=0.99, bottom=0.02, top=0.9, wspace=0.06
    )
    faces = sorted(demo.glob("images/*/*.png"))
    mosaic(figure, places[0], faces[::8], 5, 5, "200 images in a folder")
    components = [demo / "mean.png", *sorted(demo.glob("eigenimages/*.png"))]
    mosaic(figure, places[1], components, 4, 4, "mean and components")
    ax = figure.add_subplot(places[2])
    ax.imshow(page(demo / "report.html").crop((60, TOP, 812, TOP + HEIGHT)))
    ax.set_axis_off()
    figure.text(places[2].get_position(figure).x0, 0.93, "a report that answers questions", fontsize=13)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
