// The page at /: a chat whose replies show where each token came from, on the API that everybody uses.

import { call, curl, events, stream } from "./api.js";
import { ON, OFF, add, draw, drawNone, drawRound, summary, verdict } from "./figures.js";
import { options, system } from "./options.js";
import { Run, SOURCES } from "./run.js";

const at = (id) => document.getElementById(id);
const messages = [];
let runs = [null, null];
let stopping = null;
let described = null;

/** Send a request and show its rounds as they come. Returns the seed that was used. */
async function decode(which, fields, show) {
  const run = new Run();
  runs[which] = run;
  const response = await asking(stream(fields, stopping.signal));
  run.accepted = performance.now();
  let seed = fields.seed;
  for await (const chunk of events(response)) {
    if (chunk.error) throw new Error(chunk.error.message);
    seed = chunk.seed ?? seed;
    run.usage = chunk.usage ?? run.usage;
    const [choice] = chunk.choices;
    run.content += choice?.delta.content ?? "";
    run.addCalls(choice?.delta.tool_calls ?? []);
    for (const round of choice?.rounds ?? []) {
      run.take(round);
      show(round);
      drawRound(runs, which);
    }
  }
  if (run.rounds.length) draw(runs, which);
  return seed;
}

/** Wait for an answer, and ask for a key where the gateway wants another. */
async function asking(answer) {
  try {
    const response = await answer;
    at("access").hidden = true;
    return response;
  } catch (error) {
    if (error.status) at("access").hidden = error.status !== 401;
    throw error;
  }
}

function message(role, text) {
  at("hint")?.remove();
  const article = add(at("log"), "article", "", `message ${role}`);
  add(article, "h3", { user: "You", tool: "The tool's answer", assistant: "Reply" }[role]);
  return add(article, "p", text);
}

function write(paragraph, round) {
  const log = at("log");
  const following = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  for (const token of round.tokens) {
    if (token.text) add(paragraph, "span", token.text, token.source).title = SOURCES[token.source];
  }
  if (following) log.scrollTop = log.scrollHeight;
}

/** The call that waits for the tool's answer, if the last reply is one. */
const waitingCall = () => messages.at(-1)?.tool_calls?.at(-1);

function busy(is) {
  at("log").ariaBusy = is;
  at("send").disabled = at("clear").disabled = is;
  at("stop").disabled = !is;
  const called = waitingCall();
  at("message_label").textContent = called ? `What ${called.function.name} answers` : "Message";
}

async function send() {
  const text = at("message").value.trim();
  if (!text || stopping) return;
  stopping = new AbortController();
  at("error").textContent = at("verdict").textContent = "";
  await described;
  let chosen;
  try {
    chosen = options();
  } catch (error) {
    stopping = null;
    at("error").textContent = error.message;
    error.field.focus();
    return;
  }
  at("status").textContent = "Replying …";
  runs = [null, null];
  drawNone();
  const called = waitingCall();
  const asked = called ? { role: "tool", tool_call_id: called.id, content: text } : { role: "user", content: text };
  messages.push(asked);
  busy(true);
  const said = message(asked.role, text);
  const paragraph = message("assistant", "");
  at("message").value = "";
  const fields = { ...chosen, messages: [...system(), ...messages] };
  at("curl").textContent = curl(fields);
  try {
    const seed = await decode(ON, fields, (round) => write(paragraph, round));
    const reply = runs[ON];
    messages.push(reply.message);
    at("curl").textContent = curl({ ...fields, seed });
    at("status").textContent = summary(reply);
    if (at("compare").checked) {
      at("status").textContent += " Now the same with speculation off …";
      await decode(OFF, { ...fields, seed, speculative: { enabled: false, rounds: true } }, () => {});
      at("status").textContent = `${summary(reply)} With speculation off: ${runs[OFF].rate?.toFixed(1) ?? "–"} tokens/s.`;
      at("verdict").textContent = verdict(runs);
    }
  } catch (error) {
    if (messages.at(-1) === asked && !runs[ON]?.content) {
      messages.pop();
      for (const part of [said, paragraph]) part.parentElement.remove();
      at("message").value ||= text;
    } else if (messages.at(-1) === asked) {
      messages.push({ role: "assistant", content: runs[ON].content });
    }
    const stopped = error.name === "AbortError";
    at("status").textContent = stopped ? "Stopped." : "";
    at("error").textContent = stopped ? "" : error.message;
  } finally {
    stopping = null;
    busy(false);
    at("message").focus();
  }
}

async function describe() {
  const [models, version] = await Promise.all(
    ["v1/models", "version"].map(async (path) => (await asking(call(path))).json()),
  );
  at("max_tokens").value = Math.min(256, Math.floor(models.data[0].max_model_len / 2));
  at("model").dataset.id = models.data[0].id;
  at("warning").textContent = models.data[0].warning ?? "";
  at("warning").hidden = !models.data[0].warning;
  at("model").textContent = `${models.data[0].id}, ${version.dtype} on ${version.device}`;
}

function begin() {
  at("error").textContent = "";
  described = describe().catch((error) => {
    at("error").textContent = error instanceof TypeError ? "The gateway does not answer." : error.message;
  });
}

/** Copy the command, or select it where a page may not write to the clipboard: without TLS, but on this machine. */
async function copy() {
  try {
    await navigator.clipboard.writeText(at("curl").textContent);
    at("copied").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(at("curl"));
    at("copied").textContent = "Selected; your browser lets only you copy it.";
  }
}

at("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", at("key").value.trim());
  at("key").value = "";
  begin();
  at("message").focus();
});
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
at("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("form").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stopping?.abort();
});
at("stop").addEventListener("click", () => stopping?.abort());
at("copy").addEventListener("click", copy);
at("clear").addEventListener("click", () => {
  messages.length = 0;
  at("log").replaceChildren();
  at("status").textContent = at("error").textContent = at("verdict").textContent = "";
  runs = [null, null];
  drawNone();
  busy(false);
  at("message").focus();
});

drawNone();
begin();
at("message").focus();
