"""Advice of errors and warnings, which is Python, in words of the command line."""

import re

__all__ = ["in_options"]

_NAMES = {
    "n_components": "-k",
    "svd_solver": "--solver",
    "memory_limit": "--memory-limit",
    "mode": "--mode",
    "fit": "--fit",
    "level": "--level",
}
# What is written in Python, and what stands for it on the command line; in this order.
_RULES = (
    (re.compile(r" Repair it or leave it out, e\.g\. keep = .*", re.DOTALL), ""),
    (re.compile(r" If it is right: open_stack\(\.\.\., max_pixels=\.\.\.\)"), ""),
    (re.compile(r" To (?:read it|try imageio): [^\n]*open_stack\([^\n]*"), ""),
    (re.compile(r" (?:Scale others to 8 bits|Give dtype=[^\n]*): from imgstack_ml[^\n]*"), ""),
    (re.compile(r"Set ImagePCA\((.*?)\), ask for fewer components, or make the images smaller"),
     r"Give \1, fewer components by -k, or smaller images by --shape"),
    (re.compile(r"Open the stack in smaller blocks, e\.g\. open_stack\(.*?\), or give fit_tog"), "Give fit_tog"),
    (re.compile(r"Give fit_together\(\[\.\.\.\], X, (.*?)\)"), r"Give \1"),
    (re.compile(r"Raise max_passes=\d+, e\.g\. to \d+, or set tol=[\d.e-]+|"
                r"Set tol=[\d.e-]+, or ask for fewer components"),
     "Ask for fewer components by -k, or for an exact solver by --solver"),
    (re.compile(r"(?:and )?tol=[\d.e-]+ is not (?:known to be )?reached"), "which is less accurate than wanted"),
    (re.compile(r"(?:Store the stack in chunks of whole images once): save_stack\(X, .*\)\."),
     "Store the stack in chunks of whole images once, in Python, by imgstack_ml.save_stack."),
    (re.compile(r"give dtype='float64' too"), "give --mode F too"),
    (re.compile(r"\bshape=\((\d+), (\d+)\)"), r"--shape \1x\2"),
    (re.compile(r"min\(n_samples, n_features\)=(\d+)"), r"\1"),
    (re.compile(r"\bn_samples=(\d+)"), r"\1"),
    (re.compile(r"\bn=(\d+), but (.*); leave n out"), r"-n \1, but \2; leave -n out"),
    (re.compile(r"\bpass overwrite=True"), "give --overwrite"),
    (re.compile(rf"\b({'|'.join(_NAMES)})='?([\w;.]+)'?"), lambda found: f"{_NAMES[found[1]]} {found[2]}"),
    (re.compile(r"open_stack\(('[^']*'|\"[^\"]*\")\)"), r"\1"),
    (re.compile(r"open the stack again|open it again"), "run the command again"),
)  # fmt: skip


def in_options(message: str) -> str:
    """Replace Python in a message by options, or leave it out where there is no option."""
    for advice, text in _RULES:
        message = advice.sub(text, message)
    # Two options in a row, as of a call, are no list.
    return re.sub(r"(--[a-z-]+ [\w.]+), (?=--)", r"\1 ", message)
