"""Milliseconds of a folder in a page: python bench/in_browser.py artifacts --threads 1

Headless Chromium runs web/ as a page does; the columns are the least of some answers to one clip,
whose samples differ a little so that no embeddings are remembered, and the words of the last.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

import soundfile  # noqa: E402
from selenium import webdriver  # noqa: E402

from tests.web.hosting import hosted  # noqa: E402

SOFTWARE = (  # WebGPU on the processor: it shows that it runs, and nothing of its speed
    "--enable-unsafe-webgpu --use-webgpu-adapter=swiftshader --use-vulkan=swiftshader "
    "--enable-features=Vulkan --ignore-gpu-blocklist"
).split()
COLUMNS = ("load", "first_token", "per_token", "total")
RUN = """
const done = arguments[arguments.length - 1];
const [address, samples, prompt, options, repeats] = arguments;
(async () => {
  const { openInWorker } = await import('/web/src/index.js');
  const model = await openInWorker(address, options);
  const least = {};
  let text = '';
  for (let i = 0; i < repeats; i++) {
    const pcm = Float32Array.from(samples);
    pcm[0] = i * 1e-6;
    const answer = await model.generate(pcm, prompt, { num_beams: 1, do_sample: false });
    for (const [stage, ms] of Object.entries(answer.timings)) {
      least[stage] = Math.min(least[stage] ?? Infinity, ms);
    }
    text = answer.text;
  }
  await model.close();
  return { least, text, provider: model.provider, threads: model.threads };
})().then(done, (error) => done(`${error.name}: ${error.message}`));
"""


def browser(software: bool) -> Any:
    """Chromium, with WebGPU on the processor or with none."""
    options = webdriver.ChromeOptions()
    profile = f"--user-data-dir={tempfile.mkdtemp()}"
    flags = SOFTWARE if software else ["--disable-gpu"]
    for flag in ("--headless=new", "--no-sandbox", profile, *flags):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or ""
    started = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    started.set_script_timeout(1200)
    return started


def main() -> None:
    """Print a row for each folder."""
    parser = argparse.ArgumentParser(description="milliseconds of a folder in a page")
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--clip", type=Path, default=ROOT / "demo" / "lamp.wav")
    parser.add_argument("--prompt", default="transcribe")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--software-webgpu", action="store_true")
    said = parser.parse_args()
    pcm, rate = soundfile.read(said.clip, dtype="float32", always_2d=True)
    options = {"provider": "webgpu" if said.software_webgpu else "wasm", "threads": said.threads}
    chrome = browser(said.software_webgpu)
    named = {f"folder-{i}": folder.resolve() for i, folder in enumerate(said.folders)}
    print(f"{said.clip.name}, {len(pcm) / rate:.1f} s, {said.prompt}")
    print(f"{'folder':16} {'MB':>7} " + " ".join(f"{name:>11}" for name in COLUMNS))
    with hosted({"web": ROOT / "web", **named}) as url:
        chrome.get(f"{url}/web/package.json")
        for name, folder in named.items():
            given = [f"/{name}/", pcm[:, 0].tolist(), said.prompt, options, said.repeats]
            made = chrome.execute_async_script(RUN, *given)
            size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
            if isinstance(made, str):
                print(f"{folder.name:16} {size:7.1f} {made}")
                continue
            times = " ".join(f"{made['least'][column]:11.1f}" for column in COLUMNS)
            print(f"{folder.name:16} {size:7.1f} {times}  {made['text']}", flush=True)
    chrome.quit()


if __name__ == "__main__":
    main()
