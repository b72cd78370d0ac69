// Elements made in one line, and numbers as people read them.

/** The element of this id. */
export const at = (id) => document.getElementById(id);

/** An element with properties and children; text is never read as HTML. */
export function made(kind, properties = {}, ...children) {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Milliseconds: `9.8 ms`, `221 ms`, `1.24 s`. */
export function duration(ms) {
  if (ms >= 999.5) return `${(ms / 1000).toFixed(ms < 9995 ? 2 : 1)} s`;
  return ms < 9.95 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}
