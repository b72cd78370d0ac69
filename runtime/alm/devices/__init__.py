"""Devices that `alm plan` knows, one file of data each: `orin_nano_8gb.py` is `orin-nano-8gb`."""

from __future__ import annotations

import sys

from alm import registry
from alm.device import Device
from alm.errors import BadOption, UnknownName


def known() -> list[str]:
    """The names of all devices, as a person types them."""
    return [name.replace("_", "-") for name in registry.names(sys.modules[__name__])]


def device(name: str) -> Device:
    """The device of this name.

    Raises:
        UnknownName: there is none; the message lists those there are.
        BadOption: the name is empty.
    """
    there = ", ".join(known())
    if not name:
        raise BadOption(f"wanted --device; there is: {there}")
    if name not in known():
        raise UnknownName(f"unknown device {name!r:.80}; there is: {there}")
    return registry.pick(sys.modules[__name__], name.replace("-", "_")).DEVICE
