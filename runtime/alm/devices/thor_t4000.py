"""Jetson Thor T4000 (64 GB), 273 GB/s."""

from __future__ import annotations

from alm.device import COMPUTE_REACHED, GIB, TERA, Device
from alm.devices import agx_thor

SHARE = 150 / 258.5  # of the T5000's dense fp16

DEVICE = Device(
    title="Jetson Thor T4000 64 GB (273 GB/s)",
    memory=64 * GIB,
    targets=("trt-jetpack7",),
    step_ms=agx_thor.DEVICE.step_ms,
    step_rate=agx_thor.DEVICE.step_rate,
    prompt_ms=agx_thor.DEVICE.prompt_ms,
    prompt_ms_per_gb=agx_thor.DEVICE.prompt_ms_per_gb,
    compute=150 * TERA * COMPUTE_REACHED,
    compute_int4=agx_thor.DEVICE.compute_int4 * SHARE,
    source="no figure was published: as agx-thor, its computing scaled by the datasheets",
    step_error=0.25,
    prompt_error=0.35,
    encoder_error=0.50,
)
