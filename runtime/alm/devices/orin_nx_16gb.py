"""Jetson Orin NX 16 GB, 102.4 GB/s."""

from __future__ import annotations

from alm.device import GB, GIB, TERA, Device

DEVICE = Device(
    title="Jetson Orin NX 16 GB (102 GB/s)",
    memory=16 * GIB,
    step_ms=3.1,
    step_rate=96.6 * GB,
    prompt_ms=9.7,
    prompt_ms_per_gb=6.5,
    compute=9.73 * TERA,
    source="fitted to the figures published for TensorRT Edge-LLM 0.9 on this device",
)
