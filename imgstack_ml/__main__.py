"""``python -m imgstack_ml``: the same as the console script ``imgstack-ml``."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="imgstack-ml")
