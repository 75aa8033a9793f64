import mmap
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview | mmap.mmap

def fail_taken(device: int, below: int, most: int, error: int) -> int:
    """Answer requests that a process took that is gone: `most` numbers below `below`, all with `error` (an errno).

    Returns how many had no answer. Releases the GIL; about a quarter of a microsecond for each number.
    """

class Lane:
    def __init__(self, root: int, capacity: int, every_read: bool, first_reads: bool = False) -> None:
        """`root`: a descriptor on the file system that STATFS describes. `capacity`: bytes of the largest reply.

        `every_read`: the other side of `python` sees every read before it is answered. `first_reads`: it sees the
        first one of each file.
        """

    def add_layer(self, number: int, index: Buffer, content: int, state: Buffer, chunk_count: int) -> None:
        """Answer requests for layer `number` (1 to 2^31 - 1) from now on; from any thread.

        `index`: a packed index. `content`: its content file, open until `run` has returned. `state`: writable, 64
        bytes and twice a bit per chunk, see cache/content.py. Both buffers are held as long as the lane lives.
        Raises ValueError for an index or a state that does not fit.
        """

    def hide_layer(self, number: int) -> None:
        """Ask Python again for this layer number. What was shown stays in memory."""

    def first_request(self) -> int:
        """The number of the first request that came, 0 before; lower ones came to nobody or to an earlier process."""

    def counts(self) -> dict[str, int]:
        """Since the start: requests `answered`, `forwarded`, `parked`, `blocked` (by the disk), and `read_bytes`."""

    def run(self, device: int, libfuse: int, python: int, stop: int, to_disk: int, from_disk: int) -> str:
        """Serve until something ends it; call it in a thread of its own.

        `device`: of /dev/fuse, non-blocking, after INIT. `libfuse`, `python`: our ends of AF_UNIX SOCK_SEQPACKET
        pairs; over the second go the records of _ext/lane_parking.pxd. `stop`: becomes readable when it shall end.
        `to_disk`, `from_disk`: non-blocking ends of two pipes, whose other ends `run_disk` has.

        Returns "unmounted", "stopped", "closed" (another end is gone) or "failed: <errno>".
        """

    def run_disk(self, device: int, jobs: int, back: int) -> None:
        """Answer reads that must wait for the disk until `jobs` ends; call it in one or more threads.

        Raises MemoryError.
        """
