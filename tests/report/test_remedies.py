"""What to type about an alert."""

from imgstack_ml import ImagePCA
from imgstack_ml.report.remedies import Run, remedy


def test_lines_run_in_any_folder(tmp_path):
    """Paths are absolute, images are set aside where -r does not read them, and damaged pixels are looked for."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").touch()
    options = {"source": "in", "out": "out", "recursive": True, "on_error": "skip"}
    run = Run(
        {"command": "pca", "parameters": options, "input": {"source": str(folder)}}, f"x pca in -o {tmp_path}/out"
    )
    assert remedy("skipped", ImagePCA(), (), run) == f"imgstack-ml scan {folder} -r --verify"
    assert f"mv -- {folder}/a.png {folder}-set-aside\n" in remedy("clipped", ImagePCA(), ["a.png"], run)
    lines = remedy("duplicates", ImagePCA(), [], run)
    assert f"open_stack('{folder}', recursive=True, on_error='skip').verify()" in lines
    assert f"load_model('{tmp_path}/out/model.safetensors')" in lines
