"""What QEMU runs a guest of ours by: the processor itself where that works, else emulation.

Must not start anything.
"""

from __future__ import annotations

import os

from holdfast.base.errors import Invalid

VARIABLE = "HOLDFAST_ACCELERATOR"
"""``kvm``, ``tcg``, or nothing: KVM where it is there. Inside of a virtual machine it may be there
and not work, and nobody can tell that but whoever waits for the guest."""

_WORDS = {
    "": ["-accel", "kvm", "-accel", "tcg,thread=multi"],
    "kvm": ["-accel", "kvm"],
    "tcg": ["-accel", "tcg,thread=multi"],
}


def accelerators() -> list[str]:
    """Words of QEMU's command line, in the order in which it tries them.

    Raises:
        Invalid: The environment names another one.
    """
    named = os.environ.get(VARIABLE, "")
    if named not in _WORDS:
        raise Invalid(f"{VARIABLE}={named} is no way to run a guest", "say kvm, or tcg")
    return _WORDS[named]
