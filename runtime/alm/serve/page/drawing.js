// What stands on the canvases: waveform, axis, bands of segments, the level of a microphone.

const TALL = 56; // pixels of the waveform
const BAND = 62; // where the bands begin
const THICK = 3;
const AXIS = 82; // the baseline of the times
const BAR = 3; // a bar and the gap beside it
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];

/** The waveform; what is left of `done`, a part of the clip, has been heard. */
export function bars(pen, width, { low, high }, done, colour) {
  const count = Math.floor(width / BAR);
  for (let i = 0; i < count; i++) {
    const from = Math.floor((i * low.length) / count);
    const to = Math.max(from + 1, Math.floor(((i + 1) * low.length) / count));
    let down = 0;
    let up = 0;
    for (let j = from; j < to && j < low.length; j++) {
      down = Math.min(down, low[j]);
      up = Math.max(up, high[j]);
    }
    const top = (TALL / 2) * (1 - up);
    const tall = Math.max(1.5, (TALL / 2) * (up - down));
    pen.fillStyle = colour(i / count < done ? "--accent" : "--wave");
    pen.beginPath();
    pen.roundRect(i * BAR, top, BAR - 1, tall, 1);
    pen.fill();
  }
  if (done > 0 && done < 1) {
    pen.fillStyle = colour("--accent");
    pen.fillRect(Math.round(done * width), 0, 1.5, TALL);
  }
}

/** Times under it: as many as stand apart. */
export function axis(pen, width, seconds, colour, family) {
  const most = Math.max(2, width / 64);
  const step = STEPS.find((s) => seconds / s <= most) ?? STEPS.at(-1);
  const digits = step < 1 ? 1 : 0;
  pen.font = `11px ${family}`;
  pen.fillStyle = colour("--soft");
  for (let i = 0; i * step <= seconds + 1e-6; i++) {
    const time = i * step;
    const x = (time / seconds) * width;
    const whole = Math.floor(time / 60);
    const last = (i + 1) * step > seconds + 1e-6;
    const text =
      seconds < 60
        ? `${time.toFixed(digits)}${last ? " s" : ""}`
        : `${whole}:${String(Math.round(time - 60 * whole)).padStart(2, "0")}`;
    const half = pen.measureText(text).width / 2;
    pen.fillText(text, Math.max(0, Math.min(width - 2 * half, x - half)), AXIS);
  }
}

/** Segments as lines with gaps; the one that is heard in the accent. */
export function bands(pen, width, seconds, segments, now, colour) {
  for (const { start, end } of segments) {
    const left = (start / seconds) * width;
    const right = (Math.min(end, seconds) / seconds) * width;
    const heard = start <= now && now < end && now > 0;
    pen.fillStyle = colour(heard ? "--accent" : "--band");
    pen.beginPath();
    pen.roundRect(left + 0.5, BAND, Math.max(1.5, right - left - 2), THICK, 2);
    pen.fill();
  }
}
bands.top = BAND - 4; // pixels from which on a click means a segment

/** The loudness of the last seconds, the newest at the right. */
export function level(canvas, blocks) {
  const { width, height } = canvas.getBoundingClientRect();
  const scale = devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.fillStyle = getComputedStyle(canvas).getPropertyValue("--halt").trim();
  const count = Math.floor(width / BAR);
  const last = blocks.slice(-count);
  last.forEach((loudest, i) => {
    const tall = Math.max(2, Math.min(1, 1.4 * Math.sqrt(loudest)) * height);
    pen.beginPath();
    pen.roundRect(width - (last.length - i) * BAR, (height - tall) / 2, BAR - 1, tall, 1);
    pen.fill();
  });
}
