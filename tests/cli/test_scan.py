"""``imgstack-ml scan``."""

import json

from tests.lib.commands import cut_off, run
from tests.lib.images import random_pixels, write_folder, write_image


def test_tells_what_is_there(tmp_path):
    folder = tmp_path / "in"
    write_folder(folder, 6)
    (folder / "img10.png").write_text("no image")
    result = run("scan", folder)
    assert result.exit_code == 3
    assert "PNG" in result.stdout
    assert f"bad: {str(folder / 'img10.png')!r}" in result.stdout
    record = json.loads(run("scan", folder, "--json").stdout)
    assert [problem["file"] for problem in record["problems"]] == [str(folder / "img10.png")]
    (kind,) = record["kinds"]
    assert kind["n_images"] == record["n_images"]
    (folder / "img10.png").unlink()
    assert run("scan", folder, "-q").exit_code == 0


def test_verifies_and_brings_to_one_kind(tmp_path):
    write_image(tmp_path / "in/a.jpg", random_pixels((32, 32)))
    write_image(tmp_path / "in/b.jpg", random_pixels((32, 30, 3)))
    damaged = tmp_path / "in/c.jpg"
    write_image(damaged, random_pixels((32, 32)))
    cut_off(damaged)
    result = run("scan", tmp_path / "in")
    assert result.exit_code == 1
    assert "not of one shape and dtype" in result.stderr
    options = ("--mode", "L", "--shape", 16, 16)
    assert run("scan", tmp_path / "in", *options).exit_code == 0
    result = run("scan", tmp_path / "in", *options, "--verify")
    assert result.exit_code == 3
    assert f"bad: {str(damaged)!r}" in result.stdout
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["reading", "decoding"]
    (tmp_path / "empty/sub").mkdir(parents=True)
    result = run("scan", tmp_path / "empty")
    assert result.exit_code == 1
    assert "hint: to read the sub-folders too: --recursive" in result.stderr
