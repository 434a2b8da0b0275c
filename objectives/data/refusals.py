"""Why a file cannot be read as an image, in a line."""

from optnas.errors import first_line

_OTHERS = (
    (b"%!PS", "it is PostScript"),
    (b"%PDF", "it is a PDF"),
    (b"version https://git-lfs", "it is a pointer of Git LFS: run `git lfs pull`"),
    (b"<", "it is text, such as a web page or SVG"),
)


def reason_of(content: bytes, error: Exception, reads_heif: bool = False) -> str:
    """Why a file cannot be read, in a line."""
    if not content:
        return "the file is empty"
    if type(error).__name__ != "UnidentifiedImageError":
        return first_line(error)
    if content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"mif1", b"hevc"):
        return "it is damaged HEIC" if reads_heif else "it is HEIC: pip install 'optnas[heif]'"
    if content[4:8] == b"ftyp" and content[8:12] in (b"avif", b"avis"):
        return "it is AVIF: convert it to PNG"
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    for beginning, reason in _OTHERS:
        if start.startswith(beginning):
            return reason
    return "it is no image of a known format"
