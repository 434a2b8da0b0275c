"""What kind of file system a file is on; files that are written whole or not at all."""

import os
from pathlib import Path

import psutil

STALE = frozenset({"fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone"})
"""Those where a reader may see an old file, though the writer has closed it."""
NETWORK = STALE | {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "lustre", "gpfs", "beegfs", "ceph"),
    *("fuse.ceph", "fuse.glusterfs", "orangefs"),
}
"""Those that other machines write to: sqlite's locks and shared memory do not work there."""
WITHOUT_LINKS = frozenset({"cifs", "smb3", "smbfs", "vfat", "exfat", "msdos", "ntfs3", "fuseblk"})
"""Those that need not have symbolic links."""


def file_system(path: Path) -> str:
    """The kind of file system that ``path`` is or will be on, as the system names it; else ``""``.

    Args:
        path: A file, which need not exist.
    """
    try:
        mounts = psutil.disk_partitions(all=True)
    except OSError:  # The system does not tell.
        return ""
    place, kind, length = Path(os.path.realpath(path)), "", 0  # A link may lead to itself.
    for mount in mounts:
        # The last of equals: it covers what was mounted there before.
        if len(mount.mountpoint) >= length and place.is_relative_to(mount.mountpoint):
            kind, length = mount.fstype, len(mount.mountpoint)
    return kind
