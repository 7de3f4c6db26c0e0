"""Messages about disk space: how many bytes are needed, before and while a file is written."""

import errno
import os

import pytest

from imgstack_ml.errors import StoreError
from imgstack_ml.files.space import explain_full_disk, require_space


def test_space_is_named_in_bytes(tmp_path):
    require_space(tmp_path, 1)
    with pytest.raises(StoreError, match=r"needs 4,611,686,018,427,387,904 bytes, but only [\d,]+ bytes are free"):
        require_space(tmp_path, 1 << 62)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_names_the_bytes(code):
    with pytest.raises(StoreError, match=r"disk is full: 'x' needs up to 1,234 bytes"), explain_full_disk("x", 1234):
        raise OSError(code, os.strerror(code))


def test_other_errors_pass_unchanged():
    with pytest.raises(PermissionError), explain_full_disk("x", 1234):
        raise PermissionError(errno.EACCES, "no")
