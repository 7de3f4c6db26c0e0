"""Names of the images of an array."""

import pickle

import numpy as np

from imgstack_ml import open_stack


def test_names_of_the_images_of_an_array_are_made_when_asked_for(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((300, 2, 3), np.uint8))
    stack = open_stack(tmp_path / "x.npy")
    expected = tuple(f"{tmp_path / 'x.npy'}[{i}]" for i in range(300))
    assert stack.files == expected
    assert hash(stack.files) == hash(expected)
    assert stack.files[-1] == expected[-1]
    assert stack.files[3:5] == expected[3:5]
    assert stack.files.index(expected[200]) == 200
    assert stack[[7, 2, -1]].files == tuple(expected[i] for i in (7, 2, -1)) != stack.files
    assert stack[::2][::2].files == stack[::4].files == expected[::4]
    assert repr(stack[:2].files) == repr(expected[:2])
    assert pickle.loads(pickle.dumps(stack)).files == expected
    assert len(pickle.dumps(stack.files)) < 400
