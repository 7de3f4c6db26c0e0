"""Alerts that one can believe: 20 ordinary stacks raise none, and 20 planted faults are found, each with its images.

``pytest -n0 -m slow -s tests/campaigns/test_believable_alerts.py`` prints what each case raises. The first half of both
lists set the thresholds of `imgstack_ml.report`. The second half were written down before, and were tried once, when
the thresholds stood; docs/robustness.md has both results. Both halves are regression tests now.

Cases of the first half changed while thresholds were set: photographs lost nearly black patches, and faults that
nothing can tell from ordinary images became others. Two rules were written with faults of the second half in mind,
before any of it was tried: a hot column is not overexposed, and an overexposed image has no odd range.

Not in the lists, because nothing here tells it from blurred backgrounds: an image out of focus in a collection of sharp
and of blurred ones.
"""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data
from sklearn.datasets import load_sample_image

from imgstack_ml import ImagePCA, generate_report
from imgstack_ml.datasets import load_digits, load_faces, load_textures, load_tissue

# What goes wrong. The second half was tried once when the thresholds of the first stood: 2 of its 10 ordinary stacks
# raised false alarms, and 2 of its 10 faults were missed. The causes were mended since, so it is no test of the rules
# any more. What is left: among photographs that are as dark, nothing that is read of an image tells a short exposure.
KNOWN = {"short exposures": "missed"}
# Faults of the faces and other patches as they come: two before a white wall are overexposed, one patch is black.
OVEREXPOSED, BLACK = [77, 177], 152


class Case(NamedTuple):
    """Images, and what an alert should say about them.

    `kinds` are the alerts that name the fault, of which one is enough; `images` are those it should name, or None for
    the stack as a whole. `names` of images have folders where there are labels.
    """

    images: np.ndarray
    kinds: tuple[str, ...] = ()
    positions: tuple[int, ...] | None = None
    names: list[str] | None = None


# What the images are of -------------------------------------------------------------------------------------------


def blobs(places, sizes, heights, side):
    """Draw spots (m, 2) of some sizes and heights into a square image."""
    y, x = np.mgrid[:side, :side]
    image = np.zeros((side, side))
    for (row, column), size, height in zip(places, sizes, heights, strict=True):
        image += height * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * size**2))
    return image


def as_bytes(images):
    return np.rint(np.clip(images, 0, 255)).astype(np.uint8)


def swimming_cells(rng, n=120, side=64):
    """A movie: cells that swim to and fro over a background that rests."""
    background = 40 + data.grass()[:side, :side] / 6
    start, speed = rng.uniform(8, side - 8, (10, 2)), rng.uniform(0.05, 0.3, (10, 2))
    frames = [
        background + blobs(start + 12 * np.sin(speed * t), np.full(10, 3.0), np.full(10, 90.0), side) for t in range(n)
    ]
    return as_bytes(np.array(frames) + rng.normal(0, 3, (n, side, side)))


def resting_scene(rng, n=100, side=64):
    """A movie in which only the noise of the camera changes."""
    return as_bytes(0.8 * data.coins()[60 : 60 + side, 40 : 40 + side] + rng.normal(0, 3, (n, side, side)))


def growing_colony(rng, n=150, side=64):
    """A movie of a colony that grows from a few pixels to half of the image."""
    y, x = np.mgrid[:side, :side]
    distance = np.hypot(y - 30, x - 34) + gaussian_filter(rng.normal(0, 12, (side, side)), 4)
    radius = np.linspace(3, 25, n)[:, None, None]
    return as_bytes(60 + 80 / (1 + np.exp(distance - radius)) + rng.normal(0, 4, (n, side, side)))


def panning_camera(rng, n=120, side=64):
    """A movie: a camera that pans over a photograph, two pixels from frame to frame."""
    photograph = data.astronaut()
    frames = [photograph[100 : 100 + side, 100 + 2 * t : 100 + 2 * t + side] for t in range(n)]
    return as_bytes(np.array(frames) + rng.normal(0, 2, (n, side, side, 3)))


def beating_heart(rng, n=160, side=48):
    """A movie of a ring that contracts and widens, about every 14th frame."""
    y, x = np.mgrid[:side, :side]
    radius = 12 + 4 * np.sin(np.arange(n) * 0.45 + 0.3 * np.sin(np.arange(n) / 9))
    wall = np.exp(-((np.hypot(y - 24, x - 24) - radius[:, None, None]) ** 2) / 12)
    return as_bytes(50 + 120 * wall + rng.normal(0, 6, (n, side, side)))


def person_who_walks(rng, n=90, side=72):
    """A movie in colour: a figure crosses the scene once."""
    scene = data.coffee()[:side, 200 : 200 + side].astype(float)
    frames = np.repeat(scene[None], n, axis=0)
    for t in range(n):
        left = int(t * (side - 10) / n)
        frames[t, 20:60, left : left + 10] = [170, 60, 50]
    return as_bytes(frames + rng.normal(0, 3, frames.shape))


def patches_of(photographs, side):
    """Cut photographs into squares that do not overlap, without those of one value and those that are overexposed."""
    found = []
    for photograph in photographs:
        rows, columns = photograph.shape[0] // side, photograph.shape[1] // side
        squares = [
            photograph[i * side : (i + 1) * side, j * side : (j + 1) * side]
            for i in range(rows)
            for j in range(columns)
        ]
        found += [one for one in squares if one.std() > 1 and (one == 255).mean(axis=(0, 1)).max() < 0.01]
    return np.array(found)


def photographs(rng, side=64):
    """Patches of photographs in colour, in any order, without those that are nearly black."""
    images = patches_of([data.astronaut()[:, :, :3], data.chelsea(), data.coffee()], side)
    images = images[images.max(axis=(1, 2, 3)) > 64]
    return images[rng.permutation(len(images))]


def textures(rng):
    images = load_textures()[0]
    return images[rng.permutation(len(images))]


def nuclei(rng, n=120, side=64, channels=4, light=0.15):
    """Cells under a microscope, 16 bits: channels of their own, light that differs from image to image."""
    images = np.empty((n, side, side, channels))
    for image in images:
        m = rng.integers(6, 14)
        places, sizes = rng.uniform(4, side - 4, (m, 2)), rng.uniform(2, 4, m)
        for c, (height, floor) in enumerate([(900, 120), (300, 200), (1500, 90), (500, 400)][:channels]):
            image[..., c] = floor + blobs(places, sizes * (1 + c / 4), rng.uniform(0.5, 1.2, m) * height, side)
        image *= np.exp(rng.normal(0, light))
    return rng.poisson(images).astype(np.uint16)


def focus_series(rng, n_places=12, n_levels=9, side=64):
    """Stacks through the focus at several places, one after the other."""
    images = []
    for _ in range(n_places):
        sharp = gaussian_filter(rng.normal(0, 1, (side, side)), 1.2)
        images += [gaussian_filter(sharp, 0.4 + abs(z - n_levels // 2) / 2) for z in range(n_levels)]
    images = np.array(images)
    return as_bytes(100 + 140 * images + rng.normal(0, 3, images.shape))


def counted_photons(rng, n=150, side=48):
    """Few photons a pixel, from spots over darkness."""
    images = [
        0.3 + blobs(rng.uniform(0, side, (8, 2)), rng.uniform(1, 3, 8), rng.uniform(3, 9, 8), side) for _ in range(n)
    ]
    return rng.poisson(images).astype(np.uint16)


def plate_of_wells(rng, n_wells=6, n=30):
    """Wells that were treated differently: brighter from well to well. Sorted by well, which the names tell."""
    images = np.concatenate([nuclei(rng, n, 48, 1, 0.1)[..., 0] * (1 + w / 4) for w in range(n_wells)])
    return images.astype(np.uint16), [f"B{w + 2:02}/{i:03}.tif" for w in range(n_wells) for i in range(n)]


def with_labels(images, labels):
    order = np.argsort(labels, kind="stable")
    return images[order], [f"{labels[i]}/{i:04}.png" for i in order]


def faces():
    return np.delete(load_faces()[0], OVEREXPOSED, axis=0)[:99]


def night_sky(rng, side=48):
    images = patches_of([data.hubble_deep_field()[:768, :768]], side)
    return images[rng.permutation(len(images))]


def pages(rng, side=48):
    """Patches of scanned pages."""
    images = patches_of([data.page(), data.text()], side // 2)
    return images[rng.permutation(len(images))]


def named(images, names):
    return Case(images, names=names)


# Ordinary ---------------------------------------------------------------------------------------------------------


def rng(seed):
    return np.random.default_rng(seed)


ORDINARY_FIRST: dict[str, Callable[[], Case]] = {
    "movie: cells that swim": lambda: Case(swimming_cells(rng(1))),
    "movie: a scene at rest": lambda: Case(resting_scene(rng(2))),
    "movie: a colony that grows": lambda: Case(growing_colony(rng(3))),
    "photographs in colour": lambda: Case(photographs(rng(4))),
    "photographs of textures": lambda: Case(textures(rng(5))),
    "microscopy: stained tissue": lambda: Case(load_tissue()),
    "microscopy: nuclei in four channels": lambda: Case(nuclei(rng(6))),
    "microscopy: through the focus": lambda: Case(focus_series(rng(7))),
    "digits, sorted by label": lambda: named(*with_labels(*load_digits())),
    "faces": lambda: Case(faces()),
}
ORDINARY_SECOND: dict[str, Callable[[], Case]] = {
    "movie: a camera that pans": lambda: Case(panning_camera(rng(11))),
    "movie: a heart that beats": lambda: Case(beating_heart(rng(12))),
    "movie: a person who walks": lambda: Case(person_who_walks(rng(13))),
    "photographs: a palace and a flower": lambda: Case(
        patches_of([load_sample_image("china.jpg"), load_sample_image("flower.jpg")], 53)
    ),
    "photographs of pages": lambda: Case(pages(rng(14))),
    "photographs of the night sky": lambda: Case(night_sky(rng(15))),
    "microscopy: counted photons": lambda: Case(counted_photons(rng(16))),
    "microscopy: a plate of wells": lambda: named(*plate_of_wells(rng(17))),
    "digits in black and white": lambda: Case(
        (load_digits()[0] > 100).astype(np.uint8)[rng(18).permutation(1797)] * 255
    ),
    "faces and other patches, by label": lambda: named(
        *with_labels(*(np.delete(part, [*OVEREXPOSED, BLACK], axis=0) for part in load_faces()))
    ),
}


# Planted ----------------------------------------------------------------------------------------------------------


def closed_shutter():
    images = swimming_cells(rng(21))
    images[[30, 31, 90]] = 16
    return Case(images, ("constant",), (30, 31, 90))


def overexposed_tissue():
    images = load_tissue()
    for i in (3, 20, 41):
        images[i] = as_bytes(images[i] * (255 / np.percentile(images[i], 80)))
    return Case(images, ("clipped",), (3, 20, 41))


def two_units():
    """Half of the images as the camera gave them, the other half stretched to 16 bits by other software."""
    images = nuclei(rng(22), channels=1)[..., 0]
    scaled = np.flatnonzero(rng(23).random(len(images)) < 0.5)
    images[scaled] *= 16
    return Case(images, ("range", "units"), tuple(scaled.tolist()))


def equal_photographs():
    images = photographs(rng(24))
    images[50], images[80] = images[7], images[11]
    return Case(images, ("duplicates",), (50, 80))


def frames_written_twice():
    images = swimming_cells(rng(25))
    images[41], images[42], images[88] = images[40], images[40], images[87]
    return Case(images, ("duplicates",), (41, 42, 88))


def red_for_blue():
    """Four of the images that are brown; of grey ones nobody could tell."""
    images = load_tissue()[rng(26).permutation(64)]
    means = images.mean(axis=(1, 2))
    exchanged = np.flatnonzero(means[:, 0] > 1.6 * means[:, 2])[:4]
    images[exchanged] = images[exchanged, :, :, ::-1]
    return Case(images, ("channels",), tuple(exchanged.tolist()))


def dead_pixels():
    images = textures(rng(27))
    images[:, [5, 17, 40, 50], [9, 60, 22, 41]] = 0
    return Case(images, ("pixels",))


def darker_at_the_edges():
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    return Case(as_bytes(textures(rng(28)) * (1 - 0.3 * (x**2 + y**2))), ("illumination",))


def flickering_lamp():
    images = swimming_cells(rng(29))
    lamp = 1 + 0.12 * rng(30).standard_normal(len(images))
    return Case(as_bytes(images * lamp[:, None, None]), ("brightness", "flicker"))


def frames_of_another_film():
    images = swimming_cells(rng(31))
    images[[40, 97]] = resting_scene(rng(39), 2)
    return Case(images, ("outliers", "leverage"), (40, 97))


def short_exposures():
    images = patches_of([load_sample_image("china.jpg"), load_sample_image("flower.jpg")], 53)
    images[[4, 70, 120]] = (images[[4, 70, 120]] * 0.15).astype(np.uint8)
    return Case(images, ("range",), (4, 70, 120))


def overexposed_camera_of_12_bits():
    images = nuclei(rng(32), channels=1)[..., 0].astype(float)
    for i in (9, 77):
        images[i] *= 4095 / np.percentile(images[i], 85)
    return Case(np.minimum(images, 4095).astype(np.uint16), ("clipped",), (9, 77))


def compressed_and_brighter_faces():
    images = faces()
    file = io.BytesIO()
    Image.fromarray(images[12]).save(file, format="JPEG", quality=75)
    images[60] = np.asarray(Image.open(file))
    images[71] = as_bytes(images[30] * 0.8 + 10)
    return Case(images, ("duplicates",), (60, 71))


def repeated_part_of_a_movie():
    images = panning_camera(rng(33))
    images[80:90] = images[20:30]
    return Case(images, ("duplicates",), tuple(range(80, 90)))


def channels_in_another_order():
    images = nuclei(rng(34))
    images[[8, 50, 51]] = images[[8, 50, 51]][..., [2, 1, 0, 3]]
    return Case(images, ("channels",), (8, 50, 51))


def hot_column():
    images = nuclei(rng(35), channels=1)[..., 0]
    images[:, :, 33] = 4095
    return Case(images, ("pixels",))


def light_from_one_side():
    ramp = np.linspace(1, 0.45, 64)[None, :, None]
    return Case(as_bytes(photographs(rng(36)) * ramp), ("illumination",))


def fading_lamp():
    images = beating_heart(rng(37))
    return Case(as_bytes(images * np.exp(-np.arange(len(images)) / 200)[:, None, None]), ("drift",))


def fading_within_wells():
    images, names = plate_of_wells(rng(38))
    lamp = np.tile(np.linspace(1, 0.7, 30), 6)
    return Case((images * lamp[:, None, None]).astype(np.uint16), ("drift",), names=names)


def half_written_files():
    images = faces()
    images[[15, 44], 13:] = 128
    return Case(images, ("outliers", "blank"), (15, 44))


FAULTS_FIRST: dict[str, Callable[[], Case]] = {
    "frames of a closed shutter": closed_shutter,
    "overexposed tissue": overexposed_tissue,
    "two units, half of each": two_units,
    "equal photographs": equal_photographs,
    "frames of a movie written twice": frames_written_twice,
    "red for blue": red_for_blue,
    "dead pixels": dead_pixels,
    "darker at the edges": darker_at_the_edges,
    "a lamp that flickers": flickering_lamp,
    "frames of another film": frames_of_another_film,
}
FAULTS_SECOND: dict[str, Callable[[], Case]] = {
    "short exposures": short_exposures,
    "overexposed in 12 bits": overexposed_camera_of_12_bits,
    "faces compressed and brightened": compressed_and_brighter_faces,
    "a part of a movie twice": repeated_part_of_a_movie,
    "channels in another order": channels_in_another_order,
    "a hot column": hot_column,
    "light from one side": light_from_one_side,
    "a lamp that fades in a movie": fading_lamp,
    "a lamp that fades within wells": fading_within_wells,
    "half-written files": half_written_files,
}


def alerts_about(case):
    pca = ImagePCA(12, random_state=0).fit(case.images)
    return generate_report(pca, case.images, names=case.names).alerts


def verdict(case, alerts):
    """What is wrong with the alerts about a case; empty if nothing is."""
    expected = [kind for kind in case.kinds if kind in alerts]
    wrong = [f"false {kind}: {alert.images.tolist()[:9]}" for kind, alert in alerts.items() if kind not in case.kinds]
    if case.kinds and not expected:
        wrong.append(f"missed {case.kinds}")
    if case.positions is not None and expected:
        found = set(np.concatenate([alerts[kind].images for kind in expected]).tolist())
        if found != set(case.positions):
            wrong.append(f"missed images {set(case.positions) - found}, false images {found - set(case.positions)}")
    return "; ".join(wrong)


def wrong_among(cases):
    """Names of the cases whose alerts are wrong; what is wrong is printed."""
    wrong = {}
    for name, make in cases.items():
        case = make()
        wrong[name] = verdict(case, alerts_about(case))
        print(f"{name:<40} {wrong[name] or 'right'}")
    return {name for name, what in wrong.items() if what}


@pytest.mark.slow
@pytest.mark.parametrize("cases", [ORDINARY_FIRST, FAULTS_FIRST, ORDINARY_SECOND, FAULTS_SECOND])
def test_ordinary_stacks_raise_no_alert_and_faults_are_found(cases):
    assert wrong_among(cases) == KNOWN.keys() & cases.keys()
