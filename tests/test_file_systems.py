"""File systems are told from the table of mounts."""

from pathlib import Path

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
def test_the_longest_mount_point_counts(path, expected, tmp_path):
    (tmp_path / "mounts").write_text(MOUNTS)
    assert file_system(Path(path), tmp_path / "mounts") == expected


def test_links_are_followed(tmp_path):
    (tmp_path / "link").symlink_to("/home/me")
    (tmp_path / "mounts").write_text(MOUNTS)
    assert file_system(tmp_path / "link" / "study.db", tmp_path / "mounts") == "nfs4"


def test_without_a_table_nothing_is_known(tmp_path):
    assert file_system(tmp_path, tmp_path / "missing") == ""


def test_temporary_folders_are_local(tmp_path):
    assert file_system(tmp_path / "study.db") not in NETWORK
