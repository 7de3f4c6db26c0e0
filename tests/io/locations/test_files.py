"""State of files."""

from imgstack_ml.io.locations.open import read_state


def test_state_differs_when_a_file_does(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    before = read_state(str(tmp_path / "a"))
    (tmp_path / "a").write_bytes(b"12")
    assert read_state(str(tmp_path / "a")) != before
