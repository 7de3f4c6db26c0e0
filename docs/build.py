"""Build the pages as a user would see them run: from the built wheel, in an environment of its own.

python docs/build.py PAGES                           # minutes: the notebooks run, each in an empty folder
python docs/build.py PAGES -D nb_execution_mode=off  # further arguments are for sphinx-build
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main(pages: str, *options: str) -> None:
    """Build the wheel, install it, and write the pages into a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        venv.create(work / "venv", with_pip=True)
        scripts = work / "venv" / ("Scripts" if os.name == "nt" else "bin")
        # Nothing of the checkout can be imported, and notebooks find the commands of this environment.
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        env["PATH"] = f"{scripts}{os.pathsep}{env.get('PATH', '')}"

        def run(*command: str | Path) -> None:
            subprocess.run([scripts / command[0], *command[1:]], cwd=work, env=env, check=True)

        run("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", work / "dist", ROOT)
        (wheel,) = (work / "dist").glob("*.whl")
        run("pip", "install", "--quiet", f"imgstack_ml[docs] @ {wheel.as_uri()}")
        run("sphinx-build", "-W", "--keep-going", *options, ROOT / "docs", Path(pages).absolute())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
