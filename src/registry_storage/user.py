"""Who runs this: in the namespace where podman starts a user's programs, the user looks like root."""

import os


def user_id() -> int:
    """The effective user, as the rest of the system knows them."""
    told = os.environ.get("_CONTAINERS_ROOTLESS_UID", "")
    return int(told) if os.geteuid() == 0 and told.isdecimal() else os.geteuid()
