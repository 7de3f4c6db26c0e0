"""Alerts on a fourth set, 10 ordinary stacks and 10 faults, of other sources, kinds and dtypes than the first three.

They were written down and committed before any was tried, after the causes of all false alarms on the first three sets
were mended, and were tried once. Then 1 of the 10 ordinary stacks raised a false alarm (radiographs of one view were
taken for copies), and 5 of the 10 faults were found, of one 2 of its 3 images. Six causes were mended since: copies
are alike by more than images that are alike anyway, a few images may make up a component, the background tells a light
that fades in a movie, too, images are compared with the typical one turned, a channel of one value is a fault, and so
is the largest value of the stack in many pixels of a few images. `KNOWN` is what still goes wrong. docs/robustness.md
has the result.
"""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom
from scipy.signal import stft
from skimage import data
from skimage.draw import line
from sklearn.datasets import load_digits

from tests.campaigns.test_believable_alerts import Case, as_bytes, patches_of, with_labels, wrong_among

KNOWN: dict[str, str] = {}


def rng(seed):
    return np.random.default_rng(seed)


def clouds(n=100, side=60):
    """A movie in colour: two layers of clouds that pass over a meadow at speeds of their own, uint8."""
    layers = [gaussian_filter(rng(200 + i).normal(size=(side, 4 * side)), 3 + 3 * i, mode="wrap") for i in range(2)]
    near, far = (layer / layer.std() for layer in layers)
    frames = np.empty((n, side, side, 3))
    for t, frame in enumerate(frames):
        cover = np.roll(near, -2 * t, axis=1)[:, :side] + np.roll(far, -t, axis=1)[:, :side]
        white = 1 / (1 + np.exp(-2 * cover))
        frame[:] = np.array([70, 110, 190]) * (1 - white[..., None]) + 225 * white[..., None]
    frames[:, 45:] = np.array([60, 120, 50]) + 4 * rng(202).normal(size=(1, 15, side, 1))
    return as_bytes(frames + rng(203).normal(0, 2, frames.shape))


def waves(n=130, shape=(50, 70)):
    """A movie: waves from three sources that meet, float32 around 0."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    places, speeds = [(5, 8), (40, 60), (30, 20)], (0.31, 0.37, 0.43)
    frames = [
        sum(
            np.sin(np.hypot(y - a, x - b) / 3 - speed * t) / np.sqrt(3 + np.hypot(y - a, x - b))
            for (a, b), speed in zip(places, speeds, strict=True)
        )
        for t in range(n)
    ]
    return (np.array(frames) + rng(204).normal(0, 0.03, (n, *shape))).astype(np.float32)


def neurons(n=160, side=56):
    """A movie of 25 neurons that flash at times of their own and fade within a few frames, uint16."""
    y, x = np.mgrid[:side, :side]
    own = rng(205)
    spots = [np.exp(-((y - a) ** 2 + (x - b) ** 2) / 8) for a, b in own.uniform(4, side - 4, (25, 2))]
    flashes = own.random((n + 20, 25)) < 0.05
    decay = np.exp(-np.arange(20) / 5)
    activity = np.stack([np.convolve(one, decay)[20 : n + 20] for one in flashes.T], axis=1)
    frames = 300 + np.tensordot(40 + 160 * activity, spots, 1)
    return own.poisson(frames).astype(np.uint16)


def moon_rocket_and_cameraman(side=36):
    """Grey patches of three photographs, in any order, uint8."""
    rocket = np.rint(data.rocket()[..., :3].mean(axis=2)).astype(np.uint8)
    images = patches_of([data.moon(), rocket, data.camera()], side)
    return images[rng(206).permutation(len(images))]


def bacteria(n=140, side=64):
    """Rods, dark with a bright rim, in phase contrast, uint8."""
    images = np.empty((n, side, side))
    for i, image in enumerate(images):
        own = rng(6000 + i)
        rods = np.zeros((side, side))
        for row, column, angle in own.uniform((8, 8, 0), (side - 8, side - 8, np.pi), (own.integers(6, 15), 3)):
            dy, dx = 5 * np.sin(angle), 5 * np.cos(angle)
            rods[line(*(round(one) for one in (row - dy, column - dx, row + dy, column + dx)))] = 1
        image[:] = 150 - 260 * gaussian_filter(rods, 1.5) + 160 * gaussian_filter(rods, 4)
    return as_bytes(images + rng(207).normal(0, 3, images.shape))


def masks(n=90, side=48):
    """Masks of blobs that fill from 20 to 60 % of the image, uint8 of 0 and 255."""
    fractions = rng(208).uniform(0.2, 0.6, n)
    return (
        np.stack(
            [
                data.binary_blobs(side, blob_size_fraction=0.2, volume_fraction=fraction, rng=7000 + i)
                for i, fraction in enumerate(fractions)
            ]
        ).astype(np.uint8)
        * 255
    )


def radiographs(n=110, shape=(72, 60)):
    """Chests of different widths, with ribs and a heart, uint16 of 12 bits: air is bright."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    images = np.empty((n, *shape))
    for i, image in enumerate(images):
        own = rng(8000 + i)
        width, height, sway = own.uniform(0.7, 0.9), own.uniform(0.8, 0.95), own.normal(0, 0.03)
        body = (((x - sway) / width) ** 2 + (y / height) ** 2 < 1) * 1.0
        lungs = sum(((x - sway - side * 0.35) / 0.22) ** 2 + ((y + 0.1) / 0.5) ** 2 < 1 for side in (-1, 1)) * 1.0
        ribs = (np.sin(14 * (y + 0.3 * x**2) + own.uniform(0, 1)) > 0.6) * body
        heart = ((x - sway - 0.1) / own.uniform(0.2, 0.3)) ** 2 + ((y - 0.2) / 0.25) ** 2 < 1
        thickness = gaussian_filter(1.5 * body - 0.8 * lungs + 0.25 * ribs + 0.6 * heart, 1)
        image[:] = 3300 * np.exp(-thickness * own.uniform(0.9, 1.1))
    return rng(209).poisson(images).astype(np.uint16)


def coloured_digits(n=600):
    """Digits in a colour of their own on a paper of its own, uint8 of 24 x 24, in folders by label."""
    digits, labels = load_digits(return_X_y=True)
    own = rng(210)
    images = np.empty((n, 24, 24, 3))
    for image, digit in zip(images, digits, strict=False):
        ink = zoom(digit.reshape(8, 8) / 16, 3, order=1)[..., None]
        image[:] = own.uniform(170, 230, 3) * (1 - ink) + own.uniform(10, 110, 3) * ink
    return with_labels(as_bytes(images + own.normal(0, 2, images.shape)), labels[:n])


def galaxies(n=150, side=52):
    """Galaxies of very different brightness over a sky, with a few stars, float32."""
    y, x = np.mgrid[:side, :side] - side / 2
    images = np.empty((n, side, side), np.float32)
    for i, image in enumerate(images):
        own = rng(9000 + i)
        angle, flat, size = own.uniform(0, np.pi), own.uniform(0.3, 1), own.uniform(2.5, 6)
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        image[:] = 20 + 300 * np.exp(own.normal(0, 0.6)) * np.exp(-np.hypot(along, across / flat) / size)
        for a, b, height in own.uniform((-25, -25, 20), (25, 25, 200), (own.integers(1, 5), 3)):
            image += height * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 3)
        image[:] = own.poisson(image)
    return images


def spectrograms(n=120):
    """Spectrograms of two tones that rise or fall, in decibels, float32 below 0."""
    t = np.linspace(0, 1, 2048)
    images = []
    for i in range(n):
        own = rng(10000 + i)
        tones = [
            height * np.sin(2 * np.pi * (start * t + slope * t**2 / 2))
            for start, slope, height in zip(own.uniform(80, 500, 2), own.uniform(-150, 350, 2), (1, 0.4), strict=True)
        ]
        power = np.abs(stft(sum(tones) + own.normal(0, 0.1, t.size), nperseg=96, noverlap=56)[2])
        images.append(20 * np.log10(power[:, :48] + 1e-4))
    return np.array(images, np.float32)


def torn_frames():
    images = clouds()
    images[[22, 71], 1::2] = 0
    return Case(images, ("outliers", "leverage"), (22, 71))


def negatives():
    images = bacteria()
    images[[13, 90, 91]] = 255 - images[[13, 90, 91]]
    return Case(images, ("outliers", "range", "leverage"), (13, 90, 91))


def swapped_bytes():
    images = radiographs()
    images[[33, 80]] = images[[33, 80]].byteswap()
    return Case(images, ("outliers", "range", "clipped", "leverage"), (33, 80))


def upside_down():
    images = radiographs()
    images[[10, 55, 56]] = images[[10, 55, 56], ::-1]
    return Case(images, ("turned", "outliers", "leverage"), (10, 55, 56))


def burnt_in_labels():
    """White letters in a corner of five radiographs."""
    images = radiographs()
    letters = np.kron(rng(211).random((3, 6)) < 0.6, np.ones((3, 3))) > 0
    for i in (4, 30, 31, 77, 102):
        images[i, 3:12, 3:21][letters] = 4000
        images[i, 30:39, 20:38][letters] = 4000
    return Case(images, ("clipped", "outliers", "leverage"), (4, 30, 31, 77, 102))


def a_longer_exposure_from_the_middle_on():
    images = neurons().astype(float)
    images[95:] *= 3
    return Case(images.astype(np.uint16), ("range", "drift", "brightness", "flicker"))


def bleaching_dye():
    images = neurons()
    return Case((images * np.exp(-np.arange(160) / 250)[:, None, None]).astype(np.uint16), ("drift",))


def a_cluster_of_dead_pixels():
    images = galaxies()
    images[:, 14:16, 30:32] = 400
    return Case(images, ("pixels",))


def green_is_missing():
    images, names = coloured_digits()
    images[[50, 300, 301], ..., 1] = 0
    return Case(images, ("outliers", "channels", "leverage", "range"), (50, 300, 301), names)


def copies_of_low_resolution():
    images = moon_rocket_and_cameraman()
    for copy, source in ((60, 20), (200, 33)):
        images[copy] = np.kron(images[source].reshape(12, 3, 12, 3).mean(axis=(1, 3)), np.ones((3, 3)))
    return Case(images, ("duplicates", "sharpness"), (60, 200))


ORDINARY_FOURTH = {
    "movie: clouds over a meadow": lambda: Case(clouds()),
    "movie: waves that meet": lambda: Case(waves()),
    "movie: neurons that flash": lambda: Case(neurons()),
    "photographs: moon, rocket, cameraman": lambda: Case(moon_rocket_and_cameraman()),
    "microscopy: bacteria in phase contrast": lambda: Case(bacteria()),
    "masks of blobs": lambda: Case(masks()),
    "radiographs": lambda: Case(radiographs()),
    "coloured digits in folders": lambda: Case(coloured_digits()[0], names=coloured_digits()[1]),
    "galaxies": lambda: Case(galaxies()),
    "spectrograms": lambda: Case(spectrograms()),
}
FAULTS_FOURTH = {
    "torn frames": torn_frames,
    "negatives": negatives,
    "swapped bytes": swapped_bytes,
    "upside down": upside_down,
    "burnt-in labels": burnt_in_labels,
    "a longer exposure from the middle on": a_longer_exposure_from_the_middle_on,
    "a dye that bleaches": bleaching_dye,
    "a cluster of dead pixels": a_cluster_of_dead_pixels,
    "green is missing": green_is_missing,
    "copies of low resolution": copies_of_low_resolution,
}


@pytest.mark.slow
@pytest.mark.parametrize("cases", [ORDINARY_FOURTH, FAULTS_FOURTH])
def test_a_fourth_set(cases):
    assert wrong_among(cases) == KNOWN.keys() & cases.keys()
