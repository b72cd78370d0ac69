// Segments as players take them: the same files as response_format=srt and vtt give.

const stamp = (seconds, comma) => {
  const ms = Math.round(seconds * 1000);
  const part = (value, digits) => String(Math.floor(value)).padStart(digits, "0");
  const hours = part(ms / 3_600_000, 2);
  return `${hours}:${part((ms / 60_000) % 60, 2)}:${part((ms / 1000) % 60, 2)}${comma}${part(ms % 1000, 3)}`;
};

const line = (text) =>
  text
    .split(/\r?\n/)
    .map((part) => part.trim())
    .filter(Boolean)
    .join("\n");

const escaped = (text) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const ordered = (segments) => [...segments].sort((a, b) => a.start - b.start);

/** SubRip. */
export const srt = (segments) =>
  ordered(segments)
    .map((s, i) => {
      const who = s.speaker ? `${s.speaker}: ` : "";
      return `${i + 1}\n${stamp(s.start, ",")} --> ${stamp(s.end, ",")}\n${who}${line(s.text)}\n`;
    })
    .join("\n");

/** WebVTT. */
export const vtt = (segments) =>
  "WEBVTT\n" +
  ordered(segments)
    .map((s) => {
      const who = s.speaker ? `<v ${escaped(s.speaker)}>` : "";
      return `\n${stamp(s.start, ".")} --> ${stamp(s.end, ".")}\n${who}${escaped(line(s.text))}\n`;
    })
    .join("");
