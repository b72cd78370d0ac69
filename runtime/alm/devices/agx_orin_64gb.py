"""Jetson AGX Orin 64 GB, 204.8 GB/s."""

from __future__ import annotations

from alm.device import GB, GIB, TERA, Device

DEVICE = Device(
    title="Jetson AGX Orin 64 GB (205 GB/s)",
    memory=64 * GIB,
    step_ms=2.3,
    step_rate=168 * GB,
    prompt_ms=9.7,
    prompt_ms_per_gb=3.3,
    compute=21.2 * TERA,
    source="fitted to the figures published for TensorRT Edge-LLM 0.9 on this device",
)
