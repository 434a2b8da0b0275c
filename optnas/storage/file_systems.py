"""What kind of file system a file is on; files that are written whole or not at all."""

import re
from pathlib import Path

STALE = frozenset({"fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone"})
"""Those where a reader may see an old file, though the writer has closed it."""
NETWORK = STALE | {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "lustre", "gpfs", "beegfs", "ceph"),
    *("fuse.ceph", "fuse.glusterfs", "orangefs"),
}
"""Those that other machines write to: sqlite's locks and shared memory do not work there."""
WITHOUT_LINKS = frozenset({"cifs", "smb3", "smbfs", "vfat", "exfat", "msdos", "ntfs3", "fuseblk"})
"""Those that need not have symbolic links."""


def file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The kind of file system that ``path`` is or will be on, as Linux names it; else ``""``.

    Args:
        path: A file, which need not exist.
        mounts: The table of mounts.
    """
    try:
        table = mounts.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # Not Linux.
        return ""
    place, kind, length = path.resolve(), "", 0
    for line in table.splitlines():
        _, folder, name, *_ = line.split(" ")
        folder = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), folder)
        # The last of equals: it covers what was mounted there before.
        if len(folder) >= length and place.is_relative_to(folder):
            kind, length = name, len(folder)
    return kind
