"""Jetson AGX Orin 32 GB, 204.8 GB/s."""

from __future__ import annotations

from alm.device import COMPUTE_REACHED, GB, GIB, TERA, Device

DEVICE = Device(
    title="Jetson AGX Orin 32 GB (205 GB/s)",
    memory=32 * GIB,
    step_ms=2.3,
    step_rate=168 * GB,
    prompt_ms=9.7,
    prompt_ms_per_gb=3.3,
    compute=27 * TERA * COMPUTE_REACHED,
    source="no figure was published: agx-orin-64gb has the same bandwidth and a larger GPU",
    step_error=0.20,
    prompt_error=0.25,
    encoder_error=0.35,
)
