"""Jetson AGX Thor (T5000, 128 GB), 273 GB/s."""

from __future__ import annotations

from alm.device import COMPUTE_REACHED, GB, GIB, NOT_HIDDEN, TERA, Device

READ = 220 * GB

DEVICE = Device(
    title="Jetson AGX Thor T5000 128 GB (273 GB/s)",
    memory=128 * GIB,
    targets=("trt-jetpack7",),
    step_ms=1.5,
    step_rate=READ,
    prompt_ms=13.5,
    prompt_ms_per_gb=NOT_HIDDEN * 1e3 / (READ / GB),
    compute=258.5 * TERA * COMPUTE_REACHED,
    # One figure: Llama-3.1-8B, int4, 383 tokens in 215.5 ms; its NVFP4 is six times as fast.
    compute_int4=28 * TERA,
    source="fitted to figures in NVFP4 and of vLLM, which do not agree better than 20 %; of int4 "
    "there is one prompt, of encoders nothing",
    step_error=0.20,
    prompt_error=0.30,
    encoder_error=0.50,
)
