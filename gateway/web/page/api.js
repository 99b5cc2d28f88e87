// Requests to the gateway, and one as a command for the shell.

/** Fetch with the key that was given, if any. Throws an error whose status is the answer's. */
export async function call(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers });
  if (!response.ok) {
    const body = await response.json().catch(() => null);
    const error = new Error(body?.error?.message ?? `The gateway answered ${response.status}.`);
    throw Object.assign(error, { status: response.status });
  }
  return response;
}

/** Ask for a streamed chat; resolves when the target has a slot for it. */
export function stream(fields, signal) {
  return call("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(fields),
    signal,
  });
}

/** Yield the data of a stream's events. */
export async function* events(response) {
  let text = "";
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    const parts = (text + piece).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data !== "[DONE]" && !part.startsWith(":")) yield JSON.parse(data);
    }
  }
}

/** Return the command that sends these fields. The key itself stays out of it. */
export function curl(fields) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const key = sessionStorage.getItem("key") ? [`-H "Authorization: Bearer $OUTRIDER_API_KEY"`] : [];
  return [
    `curl -N ${new URL("v1/chat/completions", location.href)}`,
    ...key,
    "-H 'Content-Type: application/json'",
    `-d ${quoted(JSON.stringify(fields, null, 1))}`,
  ].join(" \\\n  ");
}
