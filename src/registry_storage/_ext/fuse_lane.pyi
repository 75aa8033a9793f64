def run(device: int, socket: int, stop: int, capacity: int) -> str:
    """Carry requests from /dev/fuse into a socket pair, and replies back, until something ends it.

    `device`: descriptor of /dev/fuse, non-blocking, after INIT. `socket`: our end of an AF_UNIX SOCK_SEQPACKET
    pair. `stop`: a descriptor that becomes readable when it shall end. `capacity`: bytes of the largest message.
    Returns "unmounted", "stopped", "closed" or "failed: <errno>". Raises MemoryError. Runs without the GIL.
    """
