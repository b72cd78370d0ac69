// The server's endpoints: OpenAI's, with `alm` beside their fields.

const KEY = "alm.key"; // in sessionStorage: forgotten with the tab
const GONE = "The server does not answer; is alm serve still running?";

/** What the server refused, in its own sentence. */
export class Refused extends Error {
  constructor(status, error, retryAfter = 0) {
    super(error?.message || `The server answered with status ${status}.`);
    this.status = status;
    this.code = error?.code ?? null;
    this.retryAfter = retryAfter; // seconds
  }
}

/** Keep the key as long as the tab is open. */
export const useKey = (key) => sessionStorage.setItem(KEY, key);

/** Forget it, and say whether there was one. */
export function forgetKey() {
  const there = sessionStorage.getItem(KEY) !== null;
  sessionStorage.removeItem(KEY);
  return there;
}

async function asked(path, request = {}) {
  const headers = { ...request.headers };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...request, headers, cache: "no-store" });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Refused(0, { message: GONE });
  }
  if (response.ok) return response;
  let error = null;
  try {
    error = (await response.json()).error;
  } catch {
    // a proxy's page: the status says it
  }
  throw new Refused(response.status, error, Number(response.headers.get("Retry-After")) || 0);
}

/** The models that are served. */
export async function models() {
  return (await (await asked("v1/models")).json()).data;
}

/** The objects of a stream of events, as they come. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let got;
    try {
      got = await reader.read();
    } catch (error) {
      throw error.name === "AbortError" ? error : new Refused(0, { message: GONE });
    }
    const lines = (rest + (got.value ?? "")).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Refused(200, event.error);
      yield event;
    }
    if (got.done) return;
  }
}

/**
 * What is said in a clip: yields `{text}` for each piece, and last `{alm, usage, whole}`.
 * `kind`: transcriptions or translations.
 */
export async function* transcription(kind, clip, { model, language, signal }) {
  const form = new FormData();
  form.append("file", clip.blob, clip.name);
  form.append("model", model);
  form.append("stream", "true");
  if (language) form.append("language", language);
  const response = await asked(`v1/audio/${kind}`, { method: "POST", body: form, signal });
  for await (const event of events(response)) {
    if (event.type === "transcript.text.delta") yield { text: event.delta };
    else if (event.type === "transcript.text.done") {
      const { input_tokens: prompt, output_tokens: answer } = event.usage;
      const audio = event.usage.input_token_details.audio_tokens;
      yield { alm: event.alm, whole: event.text, usage: { prompt, answer, audio } };
    }
  }
}

/** The next message of a conversation, yielded as `transcription` does. */
export async function* completion(messages, { model, signal }) {
  const asks = { model, messages, stream: true, stream_options: { include_usage: true } };
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify(asks);
  const response = await asked("v1/chat/completions", { method: "POST", headers, body, signal });
  let alm = null;
  for await (const event of events(response)) {
    const text = event.choices[0]?.delta?.content;
    if (text) yield { text };
    alm = event.alm ?? alm;
    if (event.usage) {
      const { prompt_tokens: prompt, completion_tokens: answer } = event.usage;
      const { cached_tokens: cached, audio_tokens: audio } = event.usage.prompt_tokens_details;
      yield { alm, usage: { prompt, answer, audio, cached } };
    }
  }
}
