"""Alerts on a sixth set, 10 ordinary stacks and 10 faults, of other generators and kinds than the first five.

They were written down and committed after the thresholds of the alert about sharpness were, before any was tried, and
were tried once. Then 0 of the 10 ordinary stacks raised a false alarm, and 8 of the 10 faults were found with their
images and nothing else. Of the 6 faults of sharpness among these, the alert about sharpness found 3, the alert about
outliers one (frames of a movie), one was found in part, and one was missed. Nothing was mended since. `KNOWN` is what
goes wrong. docs/robustness.md has the result.
"""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter1d, zoom

from tests.campaigns.test_believable_alerts import Case, as_bytes, with_labels, wrong_among

KNOWN = {
    "soft images in the sharp folder": "one of the two is missed: its coarse detail is nearly as weak as the fine one",
    "a camera that moved": "missed: the blur takes the contrast of the rings as well as their detail",
}


def rng(seed):
    return np.random.default_rng(seed)


def waves_of(own, shape, size):
    """Smooth noise of standard deviation 1."""
    field = gaussian_filter(own.normal(size=shape), size, mode="wrap")
    return field / field.std()


def rising_bubbles(n=120, side=64):
    """A movie: bubbles that rise through a liquid, uint8."""
    own, (y, x) = rng(400), np.mgrid[:side, :side]
    columns, speeds, starts = own.uniform(4, side - 4, 14), own.uniform(0.4, 1.2, 14), own.uniform(0, side, 14)
    frames = np.full((n, side, side), 110.0) + 6 * waves_of(own, (side, side), 6)
    for t, frame in enumerate(frames):
        for column, speed, start in zip(columns, speeds, starts, strict=True):
            distance = np.hypot(y - (side - (start + speed * t) % (side + 12) + 6), x - column - np.sin(t / 5 + start))
            frame += 70 * np.exp(-((distance - 3.5) ** 2)) - 15 * (distance < 3)
    return as_bytes(frames + own.normal(0, 3, frames.shape))


def pendulum(n=140, shape=(60, 72)):
    """A movie in colour: a pendulum before a wall of bricks, uint8."""
    own, (y, x) = rng(401), np.mgrid[: shape[0], : shape[1]]
    mortar = (y % 10 < 2) | ((x + 6 * (y // 10 % 2)) % 14 < 2)
    wall = np.where(mortar, 170, 105) + 8 * waves_of(own, shape, 0.8)
    frames = np.repeat(wall[None, ..., None] * [1, 0.75, 0.65], n, axis=0)
    for t, frame in enumerate(frames):
        angle = 0.6 * np.sin(t / 6)
        frame[np.hypot(y - 44 * np.cos(angle), x - 36 - 44 * np.sin(angle)) < 6] = [40, 60, 150]
    return as_bytes(frames + own.normal(0, 2.5, frames.shape))


def flowers(n=150, side=64):
    """Flowers before ground that is out of focus, some near and some far, in colour, uint8."""
    y, x = np.mgrid[:side, :side]
    images = np.empty((n, side, side, 3))
    for i, image in enumerate(images):
        own = rng(20000 + i)
        image[:] = [70, 110, 50] + 20 * np.stack([waves_of(own, (side, side), own.uniform(3, 8))] * 3, axis=2)
        for _ in range(own.integers(1, 5)):
            row, column, size = own.uniform(12, side - 12), own.uniform(12, side - 12), own.uniform(5, 14)
            angle, distance = np.arctan2(y - row, x - column), np.hypot(y - row, x - column)
            petals = distance < size * (0.7 + 0.3 * np.cos(own.integers(4, 8) * angle + own.uniform(0, 6)))
            image[petals] = np.array([[200, 60, 90], [220, 200, 60], [170, 90, 190]])[own.integers(3)]
            image[distance < size / 4] = [150, 110, 20]
        image[:] = gaussian_filter(image, (0.5, 0.5, 0)) * own.uniform(0.8, 1.1)
    return as_bytes(images + rng(402).normal(0, 2, images.shape))


def fibres(n=130, side=72):
    """Fibres under an electron microscope, uint8."""
    y, x = np.mgrid[:side, :side]
    images = np.empty((n, side, side))
    for i, image in enumerate(images):
        own = rng(21000 + i)
        image[:] = 45
        for _ in range(own.integers(9, 16)):
            angle, offset, wide = own.uniform(0, np.pi), own.uniform(-side / 2, side / 2), own.uniform(1.2, 3)
            across = (y - side / 2) * np.cos(angle) + (x - side / 2) * np.sin(angle) - offset
            inside = np.abs(across) < wide
            image[inside] = (own.uniform(110, 170) + 40 * (np.abs(across) / wide) ** 3)[inside]
    return as_bytes(gaussian_filter(images, (0, 0.6, 0.6)) + rng(403).normal(0, 6, images.shape))


def warm_houses(n=110, shape=(48, 64)):
    """Houses on an infrared camera: windows warmer than walls, float32 in degrees Celsius."""
    images = np.empty((n, *shape))
    for i, image in enumerate(images):
        own = rng(22000 + i)
        image[:] = own.normal(2, 1)
        top, left = own.integers(8, 16), own.integers(4, 14)
        image[top:44, left : left + own.integers(36, 46)] = own.normal(8, 1)
        for row in range(top + 4, 38, 10):
            for column in range(left + 4, left + 30, 9):
                image[row : row + 6, column : column + 5] += own.uniform(2, 6)
    return (gaussian_filter(images, (0, 0.8, 0.8)) + rng(404).normal(0, 0.15, images.shape)).astype(np.float32)


def codes(n=100, modules=21):
    """Square codes of black and white modules of 3 pixels, with three marks, uint8."""
    images = rng(405).integers(0, 2, (n, modules, modules))
    mark = np.ones((7, 7), int)
    mark[1:-1, 1:-1], mark[2:-2, 2:-2] = 0, 1
    images[:, :8, :8], images[:, :8, -8:], images[:, -8:, :8] = 0, 0, 0
    images[:, :7, :7], images[:, :7, -7:], images[:, -7:, :7] = mark, mark, mark
    images = np.repeat(np.repeat(225 - 190 * images, 3, axis=1), 3, axis=2)
    return as_bytes(images + rng(406).normal(0, 3, images.shape))


def lights_at_night(n=120, side=56):
    """Lights of towns from above at night, few and many, int16."""
    images = np.empty((n, side, side))
    for i, image in enumerate(images):
        own = rng(23000 + i)
        image[:] = 20
        for _ in range(own.integers(1, 5)):
            places = own.normal(own.uniform(5, side - 5, 2), own.uniform(3, 9), (own.integers(10, 50), 2))
            rows, columns = places.round().astype(int).clip(0, side - 1).T
            np.add.at(image, (rows, columns), own.lognormal(4.5, 0.7, len(rows)))
    return (gaussian_filter(images, (0, 0.7, 0.7)) + rng(407).normal(0, 3, images.shape)).astype(np.int16)


def two_microscopes(n=160, side=56):
    """Grains of pollen under a sharp and under a soft microscope, uint16, in folders."""
    y, x = np.mgrid[:side, :side]
    images, labels = np.empty((n, side, side)), np.array(["sharp", "soft"])[np.arange(n) % 2]
    for i, image in enumerate(images):
        own = rng(24000 + i)
        image[:] = 400
        for row, column in own.uniform(8, side - 8, (own.integers(3, 7), 2)):
            distance, angle = np.hypot(y - row, x - column), np.arctan2(y - row, x - column)
            grain = distance < 7 + 0.8 * np.cos(12 * angle)
            image[grain] = (1800 + 400 * np.cos(3 * distance) * np.cos(12 * angle))[grain]
        image[:] = gaussian_filter(image, 0.6 if labels[i] == "sharp" else 2.2)
    images = rng(408).poisson(images) + rng(409).normal(0, 8, images.shape)
    return with_labels(np.rint(images).astype(np.uint16), labels)


def wood(n=120, side=80):
    """Boards: rings of growth, pores and knots, uint16."""
    y, x = np.mgrid[:side, :side]
    images = np.empty((n, side, side))
    for i, image in enumerate(images):
        own = rng(25000 + i)
        bent = x + 5 * waves_of(own, (side, side), 12) + own.uniform(0, 60)
        image[:] = 9000 + 1800 * np.sin(2 * np.pi * bent / own.uniform(6, 11))
        pores = gaussian_filter((own.random((side, side)) < 0.01).astype(float), (3, 0.5))
        image -= 1500 * pores / pores.std() * 0.4
        if i % 4 == 0:
            image -= 4000 * np.exp(-(np.hypot(y - own.uniform(15, 65), x - own.uniform(15, 65)) ** 2) / 60)
    return (images + rng(410).normal(0, 250, images.shape)).clip(100, 60000).astype(np.uint16)


def rain(n=110, side=64):
    """Rain on a radar: showers of any size, nothing elsewhere, uint8."""
    images = np.empty((n, side, side))
    for i, image in enumerate(images):
        own = rng(26000 + i)
        heavy = waves_of(own, (side, side), own.uniform(3, 9)) + 0.4 * waves_of(own, (side, side), 1) - 0.4
        image[:] = np.where(heavy > 0, 20 + 45 * heavy, 0)
    return as_bytes(images)


# Faults -----------------------------------------------------------------------------------------------------------

UNSHARP = ("sharpness", "outliers", "leverage")


def fibres_out_of_focus():
    images = fibres()
    images[[8, 70, 71, 110]] = as_bytes(
        gaussian_filter(images[[8, 70, 71, 110]].astype(float), (0, 2, 2)) + rng(420).normal(0, 3, (4, 72, 72))
    )
    return Case(images, UNSHARP, (8, 70, 71, 110))


def boards_compressed_too_much():
    images = wood()
    for i in (15, 90):
        file = io.BytesIO()
        Image.fromarray((images[i] // 64).clip(0, 255).astype(np.uint8)).save(file, format="JPEG", quality=5)
        images[i] = np.asarray(Image.open(file)).astype(np.uint16) * 64
    return Case(images, UNSHARP, (15, 90))


def flowers_of_low_resolution():
    images = flowers()
    for i in (21, 60, 61):
        small = images[i].reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
        images[i] = as_bytes(zoom(small, (4, 4, 1), order=1))
    return Case(images, UNSHARP, (21, 60, 61))


def frames_out_of_focus():
    images = pendulum()
    frames = gaussian_filter(images[80:83].astype(float), (0, 2.5, 2.5, 0))
    images[80:83] = as_bytes(frames + rng(421).normal(0, 2.5, frames.shape))
    return Case(images, UNSHARP, (80, 81, 82))


def soft_images_in_the_sharp_folder():
    images, names = two_microscopes()
    images[[10, 44]] = np.rint(gaussian_filter(images[[10, 44]].astype(float), (0, 2.2, 2.2)))
    images[[10, 44]] = rng(422).poisson(images[[10, 44]])
    return Case(images, UNSHARP, (10, 44), names)


def a_camera_that_moved():
    images = wood()
    for i in (33, 34, 77):
        images[i] = uniform_filter1d(images[i].astype(float), 11, axis=1) + rng(423).normal(0, 100, (80, 80))
    return Case(images, UNSHARP, (33, 34, 77))


def houses_in_hundredths_of_degrees():
    images = warm_houses()
    images[[3, 55, 90]] *= 100
    return Case(images, ("range", "leverage"), (3, 55, 90))


def overexposed_fibres():
    images = fibres()
    images[[12, 40]] = as_bytes(images[[12, 40]] * 2.4)
    return Case(images, ("clipped", "outliers", "leverage"), (12, 40))


def flowers_in_blue_green_red():
    images = flowers()
    images[[5, 50, 51, 120]] = images[[5, 50, 51, 120], ..., ::-1]
    return Case(images, ("channels", "outliers"), (5, 50, 51, 120))


def half_written_boards():
    images = wood()
    images[[18, 100], 52:] = 0
    return Case(images, ("blank", "outliers", "leverage", "range"), (18, 100))


ORDINARY_SIXTH = {
    "movie: bubbles that rise": lambda: Case(rising_bubbles()),
    "movie: a pendulum": lambda: Case(pendulum()),
    "photographs: flowers before blurred ground": lambda: Case(flowers()),
    "microscopy: fibres": lambda: Case(fibres()),
    "infrared: houses": lambda: Case(warm_houses()),
    "square codes": lambda: Case(codes()),
    "lights at night": lambda: Case(lights_at_night()),
    "microscopy: a sharp and a soft microscope, in folders": lambda: Case(
        two_microscopes()[0], names=two_microscopes()[1]
    ),
    "boards of wood": lambda: Case(wood()),
    "radar: rain": lambda: Case(rain()),
}
FAULTS_SIXTH = {
    "fibres out of focus": fibres_out_of_focus,
    "boards compressed too much": boards_compressed_too_much,
    "flowers of low resolution": flowers_of_low_resolution,
    "frames out of focus": frames_out_of_focus,
    "soft images in the sharp folder": soft_images_in_the_sharp_folder,
    "a camera that moved": a_camera_that_moved,
    "houses in hundredths of degrees": houses_in_hundredths_of_degrees,
    "overexposed fibres": overexposed_fibres,
    "flowers in blue, green, red": flowers_in_blue_green_red,
    "half-written boards": half_written_boards,
}


@pytest.mark.slow
@pytest.mark.parametrize("cases", [ORDINARY_SIXTH, FAULTS_SIXTH])
def test_a_sixth_set(cases):
    assert wrong_among(cases) == KNOWN.keys() & cases.keys()
