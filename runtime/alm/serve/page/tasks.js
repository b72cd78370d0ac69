// Which of a model's tasks are shown at once: the first of each kind, the rest folded.

const MAIN = 5;

/**
 * `{main, others}`: lists of `[name, prompt]`. Tasks that differ in a language only, such as
 * translate_de and translate_ja, are of one kind; a name for a prompt that is shown is not main.
 */
export function arranged(tasks) {
  const main = [];
  const others = [];
  const kinds = new Set();
  const prompts = new Set();
  for (const [name, prompt] of Object.entries(tasks)) {
    const kind = name.replace(/_[a-z]{2}$/, "");
    const seen = kinds.has(kind) || prompts.has(prompt);
    if (seen || main.length >= MAIN) others.push([name, prompt]);
    else main.push([name, prompt]);
    kinds.add(kind);
    prompts.add(prompt);
  }
  return { main, others };
}
