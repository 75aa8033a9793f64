"""What a supervisor hears of spares, in an order that hardly ever happens."""

import os
import selectors
import socket

from registry_storage.supervision.process import WorkerProcess
from registry_storage.supervision.supervisor import Supervisor


def test_a_spare_whose_end_was_heard_can_be_dismissed_and_heard_of_once_more() -> None:
    supervisor = Supervisor.__new__(Supervisor)  # without a mount
    supervisor._selector = selectors.DefaultSelector()
    supervisor._dismissed = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    spare = WorkerProcess(os.getpid(), os.pidfd_open(os.getpid()), ours, prepared=True)
    supervisor._spare = supervisor._listen_to(spare)
    theirs.close()
    supervisor._hear(spare)
    supervisor._dismiss()
    supervisor._hear(spare)  # an event that was on its way
    assert supervisor._dismissed == [spare]
    os.close(spare.descriptor)
