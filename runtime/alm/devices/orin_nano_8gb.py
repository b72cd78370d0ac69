"""Jetson Orin Nano 8 GB in its 15 W mode, 68 GB/s."""

from __future__ import annotations

from alm.device import GB, GIB, TERA, Device

DEVICE = Device(
    title="Jetson Orin Nano 8 GB, 15 W (68 GB/s)",
    memory=8 * GIB,
    step_ms=5.1,
    step_rate=62.4 * GB,
    prompt_ms=10.7,
    prompt_ms_per_gb=13.8,
    compute=5.09 * TERA,
    source="fitted to the figures published for TensorRT Edge-LLM 0.9 on this device",
    remark="in the mode MAXN SUPER it is faster: --device orin-nano-8gb-super",
)
