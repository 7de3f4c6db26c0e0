"""What to type about an alert."""

from imgstack_ml import ImagePCA
from imgstack_ml.report.remedies import Run, remedy


def test_lines_run_in_any_folder(tmp_path):
    """Paths are absolute, images to leave out are listed beside the results, and damaged pixels are looked for."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").touch()
    options = {"source": "in", "out": "out", "recursive": True, "on_error": "skip", "labels": "/labels.csv"}
    run = Run(
        {"command": "pca", "parameters": options, "input": {"source": str(folder)}}, f"x pca in -o {tmp_path}/out"
    )
    assert remedy("skipped", ImagePCA(), (), run) == f"imgstack-ml scan {folder} -r --verify"
    assert remedy("clipped", ImagePCA(), ["a b.png", "-c.png"], run) == (
        f"printf '%s\\n' 'a b.png' -c.png >> {tmp_path}/out-left-out.txt\n"
        f"x pca in -o {tmp_path}/out --overwrite --leave-out {tmp_path}/out-left-out.txt"
    )
    lines = remedy("duplicates", ImagePCA(), [], run)
    assert f"open_stack('{folder}', recursive=True, on_error='skip').verify()" in lines
    assert "# without the labels that --labels had: '/labels.csv'" in lines
    assert f"load_model('{tmp_path}/out/model.safetensors')" in lines
