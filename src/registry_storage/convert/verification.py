"""A written layer read back before anybody sees it."""

from collections.abc import Callable
from typing import BinaryIO

from ..digest import Digest
from ..errors import FormatError, VerificationError
from .blob_reader import FileSource, LayerReader
from .checking import check_tar
from .written import WrittenLayer


def verify_written(
    blob: BinaryIO, written: WrittenLayer, *, progress: Callable[[int], None] = lambda _: None
) -> None:
    """Read a written blob back: every chunk's digest, TOC digest, footer against annotations, blob digest, diffID.

    `blob` is seekable. `progress` is called with the bytes of the blob read so far. Raises VerificationError and
    FormatError.
    """
    source = FileSource(blob)
    descriptor = written.descriptor
    if written.toc_digest is None:
        _compare("layer blob", descriptor.digest, check_tar(source, progress))
        return
    reader = LayerReader.open(source, descriptor=descriptor, external_toc=written.external_toc)
    _compare("TOC digest", written.toc_digest, reader.toc_digest)
    if reader.toc != written.toc:
        raise FormatError("TOC: it is not the one that was written")
    verified = reader.verify(progress)
    _compare("layer blob", descriptor.digest, verified.blob_digest)
    if verified.diff_id is not None:
        _compare("diffID", written.diff_id, verified.diff_id)


def _compare(what: str, wanted: Digest, got: Digest) -> None:
    if wanted != got:
        raise VerificationError(what, wanted=str(wanted), got=str(got))
