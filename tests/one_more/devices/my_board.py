"""A board of one's own: 2 GiB, 10 GB/s."""

from __future__ import annotations

from alm.device import GB, GIB, TERA, Device

DEVICE = Device(
    title="My board 2 GB (10 GB/s)",
    memory=2 * GIB,
    step_ms=3.0,
    step_rate=8 * GB,
    prompt_ms=5.0,
    prompt_ms_per_gb=100.0,
    compute=TERA,
    source="measured with a stopwatch",
    targets=("trt-jetpack6",),
)
