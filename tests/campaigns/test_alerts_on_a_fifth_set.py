"""Alerts on a fifth set, 10 ordinary stacks and 10 faults, of other sources, kinds and dtypes than the first four.

They were written down and committed before any was tried, and were tried once; a rule for images that are turned was
written in between. Then 1 of the 10 ordinary stacks raised a false alarm (an embryo that grows was taken for a lamp), 4
of the 10 faults were found with their images and nothing else, 3 of that movie with that false alarm beside (of these,
2 with a second alert about the same images), and 3 were missed. Two causes were mended since: what grows leaves the
background of a movie as it is, and images of one view may differ as much as people do. A second alert about the same
images counts as right now, and an alert about sharpness finds the two images of the other misses. `KNOWN` is what still
goes wrong. docs/robustness.md has the result.
"""

import io

import matplotlib.cbook
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom
from skimage import data
from sklearn.datasets import load_digits

from tests.campaigns.test_believable_alerts import Case, as_bytes, patches_of, with_labels, wrong_among

KNOWN: dict[str, str] = {}


def rng(seed):
    return np.random.default_rng(seed)


def dividing_embryo(n=120, side=60):
    """A movie: an embryo of 4 cells, of which one divides every sixth frame, uint16 of 12 bits."""
    y, x = np.mgrid[:side, :side]
    own, places, frames = rng(301), rng(300).uniform(23, 37, (4, 2)), []
    for t in range(n):
        if t % 6 == 5:
            places = np.vstack([places, places[own.integers(len(places))] + own.normal(0, 2, 2)])
        apart = places[:, None] - places
        distance = np.linalg.norm(apart, axis=2, keepdims=True)
        places = places + (apart * np.exp(-distance / 4) / (distance + 0.5)).sum(axis=1)
        places += 0.03 * (side / 2 - places) + own.normal(0, 0.15, places.shape)
        frame = 180 + 90 / (1 + np.exp(np.hypot(y - side / 2, x - side / 2) - 24))
        for a, b in places:
            frame = frame + 700 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 12)
        frames.append(2 * own.poisson(frame / 2) + own.normal(0, 4, frame.shape))
    return np.rint(frames).clip(0, 4095).astype(np.uint16)


def traffic(n=130, shape=(48, 80)):
    """A movie in colour: cars that pass a resting camera, under clouds that come and go, uint8."""
    scene = data.stereo_motorcycle()[0][::6, ::6][: shape[0], : shape[1]].astype(float)
    own, frames = rng(302), np.repeat(scene[None], n, axis=0)
    for start in own.uniform(-20, n, 25):
        speed, row, colour = own.choice([-1, 1]) * own.uniform(2, 5), own.integers(26, 38), own.uniform(20, 220, 3)
        for t in range(max(0, int(start)), n):
            left = int(speed * (t - start)) - 14 if speed > 0 else shape[1] + int(speed * (t - start))
            frames[t, row : row + 8, max(0, left) : max(0, left + 14)] = colour
    light = 1 + 0.05 * np.sin(np.arange(n) / 20)
    return as_bytes(frames * light[:, None, None, None] * 0.9 + own.normal(0, 2, frames.shape))


def parts_of_a_motorcycle(side=40):
    """Patches of a photograph of a garage, in colour, in any order, uint8."""
    images = patches_of([data.stereo_motorcycle()[1]], side)
    return images[rng(303).permutation(len(images))]


def retina(side=48):
    """Patches of the back of an eye: vessels on red, in colour, in any order, uint8."""
    images = patches_of([np.ascontiguousarray(data.retina()[::2, ::2])], side)
    images = images[images.mean(axis=3).min(axis=(1, 2)) > 15]
    return images[rng(304).permutation(len(images))]


def digits_on_envelopes(n=500, side=24):
    """Digits somewhere on paper that is lit unevenly, float32 from 0 to 1, in folders by label."""
    digits, labels = load_digits(return_X_y=True)
    own, ramp = rng(305), np.linspace(-0.5, 0.5, side)
    images = np.empty((n, side, side), np.float32)
    for image, digit in zip(images, digits, strict=False):
        a, b = own.normal(0, 0.06, 2)
        image[:] = own.uniform(0.75, 0.9) + a * ramp + b * ramp[:, None]
        top, left = own.integers(2, 7, 2)
        image[top : top + 16, left : left + 16] *= 1 - own.uniform(0.6, 0.9) * zoom(
            digit.reshape(8, 8) / 16, 2, order=1
        )
    return with_labels(images + own.normal(0, 0.01, images.shape).astype(np.float32), labels[:n])


def portraits(n=140, shape=(56, 48)):
    """Drawn faces before a wall, with light from any side, in colour, uint8."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    images = np.empty((n, *shape, 3))
    for i, image in enumerate(images):
        own = rng(11000 + i)
        cy, cx = np.array([25, 24]) + own.normal(0, 1.2, 2)
        wide, high = own.uniform(10, 13), own.uniform(14, 17)
        skin = np.array([225, 180, 150]) * own.uniform(0.45, 1.0)
        image[:] = own.normal(0, 4) + np.array([120, 130, 145])
        image[np.hypot((y - 60) / 14, (x - cx) / 22) < 1] = own.uniform(20, 200, 3)  # clothes
        image[np.hypot((y - cy + 3) / high, (x - cx) / (wide + 2)) < 1] = own.uniform(15, 110) * np.array([1, 0.8, 0.6])
        image[np.hypot((y - cy - 2) / (high - 3), (x - cx) / wide) < 1] = skin
        for side in (-1, 1):
            image[np.hypot(y - cy, x - cx - 4.5 * side) < 1.7] = 30
        image[(abs(y - cy - 8) < 1.2) & (abs(x - cx) < own.uniform(2, 5))] = skin * [0.8, 0.4, 0.4]
        angle = own.uniform(0, 2 * np.pi)
        image *= (1 + 0.25 * (np.cos(angle) * (x - 24) / 24 + np.sin(angle) * (y - 28) / 28))[..., None]
    return as_bytes(gaussian_filter(images, (0, 0.6, 0.6, 0)) + rng(306).normal(0, 2, images.shape))


def reef(n=120, side=64):
    """Squares of a reef from above: sand, corals, algae and rock under more or less water, in colour, uint8."""
    kinds = np.array([[200, 190, 160], [190, 110, 80], [80, 120, 60], [90, 85, 80]])
    images = np.empty((n, side, side, 3))
    for i, image in enumerate(images):
        own = rng(12000 + i)
        heights = np.stack([gaussian_filter(own.normal(size=(side, side)), size) for size in (6, 4, 4, 7)])
        heights /= heights.std(axis=(1, 2), keepdims=True)
        grain = gaussian_filter(own.normal(size=(side, side)), 0.7)
        image[:] = kinds[heights.argmax(axis=0)] * (1 + 0.15 * grain / grain.std())[..., None]
        image *= np.exp(-own.uniform(0, 1) * np.array([0.5, 0.15, 0.1])) * own.normal(0.9, 0.05)
    return as_bytes(images + rng(307).normal(0, 2, images.shape))


def rock_core(n=100, side=64):
    """Slices of a rock core by X-rays, one after the other: grains of three kinds in a circle, float32 in 1/mm."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    grains = gaussian_filter(rng(308).normal(size=(n, side, side)), (2.2, 2.2, 2.2))
    attenuation = np.array([0.021, 0.034, 0.052])[np.digitize(grains / grains.std(), [-0.8, 0.9])]
    volume = gaussian_filter(attenuation, 0.6) + rng(309).normal(0, 0.003, attenuation.shape)
    return np.where(np.hypot(y, x) < 0.98, volume, 0).astype(np.float32)


def maps_of_elements(n=90, shape=(32, 40)):
    """Fluorescence of six elements in thin sections: counts that differ by a factor of 20, uint32."""
    images = np.empty((n, *shape, 6))
    contents = rng(310).uniform(0.1, 1, (4, 6)) * np.array([3000, 900, 400, 250, 2000, 150])
    for i, image in enumerate(images):
        own = rng(13000 + i)
        heights = np.stack([gaussian_filter(own.normal(size=shape), own.uniform(2, 5)) for _ in range(4)])
        heights /= heights.std(axis=(1, 2), keepdims=True)
        image[:] = contents[heights.argmax(axis=0)] * own.normal(1, 0.04)
    return rng(311).poisson(gaussian_filter(images, (0, 0.5, 0.5, 0))).astype(np.uint32)


def terrain(side=28):
    """Tiles of a map of heights in metres, in any order, int16."""
    with np.load(matplotlib.cbook.get_sample_data("jacksboro_fault_dem.npz", asfileobj=False)) as file:
        images = patches_of([file["elevation"][..., None]], side)[..., 0]
    return images[rng(312).permutation(len(images))].astype(np.int16)


# Faults -----------------------------------------------------------------------------------------------------------


def saturated_at_its_full_well():
    """The largest value of this sensor is no power of two."""
    images = dividing_embryo()
    images[[40, 41, 90]] = np.minimum(images[[40, 41, 90]].astype(int) * 4, 3600)
    return Case(images, ("clipped", "outliers"), (40, 41, 90))


def a_camera_that_got_stuck():
    images = traffic()
    images[50:55] = images[49]
    return Case(images, ("duplicates",), (50, 51, 52, 53, 54))


def portraits_upside_down():
    images = portraits()
    images[[12, 60, 61]] = images[[12, 60, 61], ::-1, ::-1]
    return Case(images, ("turned", "outliers", "leverage"), (12, 60, 61))


def a_lamp_that_fades_within_labels():
    images, names = digits_on_envelopes()
    labels = np.array([name[0] for name in names])
    lamp = np.empty(len(images), np.float32)
    for label in np.unique(labels):
        lamp[labels == label] = np.linspace(1, 0.65, (labels == label).sum())
    return Case(images * lamp[:, None, None], ("drift",), names=names)


def a_dead_row_and_hot_pixels():
    images = dividing_embryo()
    images[:, 17] = 0
    images[:, [5, 30, 44], [50, 12, 33]] = 4095
    return Case(images, ("pixels",))


def out_of_focus():
    images = reef()
    blurred = gaussian_filter(images[[5, 40, 41]].astype(float), (0, 3, 3, 0))
    images[[5, 40, 41]] = as_bytes(blurred + rng(313).normal(0, 2, blurred.shape))
    return Case(images, ("sharpness", "outliers", "leverage"), (5, 40, 41))


def files_of_another_series():
    images = portraits()
    eyes = np.ascontiguousarray(data.retina()[::2, ::2])
    images[33], images[101] = eyes[200:256, 300:348], eyes[420:476, 150:198]
    return Case(images, ("outliers", "leverage", "channels", "range"), (33, 101))


def some_of_12_bits_times_16():
    images = dividing_embryo()
    images[[10, 66, 67, 103]] *= 16
    return Case(images, ("range", "leverage"), (10, 66, 67, 103))


def slices_cropped_elsewhere():
    images = rock_core()
    images[[20, 70, 71]] = np.roll(images[[20, 70, 71]], 9, axis=2)
    images[[20, 70, 71], :, :9] = 0
    return Case(images, ("outliers", "leverage"), (20, 70, 71))


def compressed_too_much():
    images = parts_of_a_motorcycle()
    for i in (31, 110, 111):
        file = io.BytesIO()
        Image.fromarray(images[i]).save(file, format="JPEG", quality=6)
        images[i] = np.asarray(Image.open(file))
    return Case(images, ("sharpness", "outliers", "leverage"), (31, 110, 111))


ORDINARY_FIFTH = {
    "movie: an embryo that divides": lambda: Case(dividing_embryo()),
    "movie: traffic": lambda: Case(traffic()),
    "photographs: parts of a motorcycle": lambda: Case(parts_of_a_motorcycle()),
    "photographs: a retina": lambda: Case(retina()),
    "digits on envelopes, in folders": lambda: Case(digits_on_envelopes()[0], names=digits_on_envelopes()[1]),
    "portraits": lambda: Case(portraits()),
    "survey: squares of a reef": lambda: Case(reef()),
    "tomograms: a rock core": lambda: Case(rock_core()),
    "spectra: maps of six elements": lambda: Case(maps_of_elements()),
    "survey: heights of a terrain": lambda: Case(terrain()),
}
FAULTS_FIFTH = {
    "saturated at its full well": saturated_at_its_full_well,
    "a camera that got stuck": a_camera_that_got_stuck,
    "portraits upside down": portraits_upside_down,
    "a lamp that fades within labels": a_lamp_that_fades_within_labels,
    "a dead row and hot pixels": a_dead_row_and_hot_pixels,
    "out of focus": out_of_focus,
    "files of another series": files_of_another_series,
    "some of 12 bits times 16": some_of_12_bits_times_16,
    "slices cropped elsewhere": slices_cropped_elsewhere,
    "compressed too much": compressed_too_much,
}


@pytest.mark.slow
@pytest.mark.parametrize("cases", [ORDINARY_FIFTH, FAULTS_FIFTH])
def test_a_fifth_set(cases):
    assert wrong_among(cases) == KNOWN.keys() & cases.keys()
