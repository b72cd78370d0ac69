"""Jetson Orin Nano 4 GB in its 10 W mode, 34 GB/s."""

from __future__ import annotations

from alm.device import BANDWIDTH_REACHED, COMPUTE_REACHED, GB, GIB, NOT_HIDDEN, TERA, Device

READ = 34 * GB * BANDWIDTH_REACHED

DEVICE = Device(
    title="Jetson Orin Nano 4 GB (34 GB/s)",
    memory=4 * GIB,
    step_ms=5.1,
    step_rate=READ,
    prompt_ms=10.7,
    prompt_ms_per_gb=NOT_HIDDEN * 1e3 / (READ / GB),
    compute=5 * TERA * COMPUTE_REACHED,
    source="no figure was published: scaled from orin-nano-8gb by the datasheets",
    step_error=0.25,
    prompt_error=0.30,
    encoder_error=0.35,
)
