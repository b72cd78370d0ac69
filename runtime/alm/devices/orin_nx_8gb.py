"""Jetson Orin NX 8 GB, 102.4 GB/s."""

from __future__ import annotations

from alm.device import COMPUTE_REACHED, GB, GIB, TERA, Device

DEVICE = Device(
    title="Jetson Orin NX 8 GB (102 GB/s)",
    memory=8 * GIB,
    step_ms=3.1,
    step_rate=96.6 * GB,
    prompt_ms=9.7,
    prompt_ms_per_gb=6.5,
    compute=19 * TERA * COMPUTE_REACHED,
    source="no figure was published: as orin-nx-16gb, which has the same GPU and bandwidth",
    step_error=0.20,
    prompt_error=0.25,
    encoder_error=0.35,
)
