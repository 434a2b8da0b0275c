"""File systems are told from the table of mounts."""

from pathlib import Path

import psutil
import pytest

from optnas.storage.file_systems import NETWORK, file_system

MOUNTS = """\
/dev/root / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb /home/me/local xfs rw 0 0
//server/share /mnt/with\\040space cifs rw 0 0
me@server: /mnt/far fuse.sshfs rw 0 0
/dev/sdc /mnt/twice ext4 rw 0 0
server:/twice /mnt/twice nfs rw 0 0
"""


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    """What Linux would tell of the machine of ``MOUNTS``."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mounts").write_text(MOUNTS)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/study.db", "ext4"),
        ("/home/me/study.db", "nfs4"),
        ("/homeless/study.db", "ext4"),
        ("/home/me/local/a/study.db", "xfs"),
        ("/mnt/with space/study.db", "cifs"),
        ("/mnt/far/study.db", "fuse.sshfs"),
        ("/mnt/twice/study.db", "nfs"),
    ],
)
@pytest.mark.usefixtures("mounts")
def test_the_longest_mount_point_counts(path, expected):
    assert file_system(Path(path)) == expected


def test_links_are_followed(mounts):
    (mounts / "link").symlink_to("/home/me")
    assert file_system(mounts / "link" / "study.db") == "nfs4"


def test_without_a_table_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "missing"))
    assert file_system(tmp_path) == ""


def test_temporary_folders_are_local(tmp_path):
    assert file_system(tmp_path / "study.db") not in NETWORK
