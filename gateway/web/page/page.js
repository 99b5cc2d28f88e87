// The page at /: a chat whose replies show where each token came from, on the API that everybody uses.

const SOURCES = {
  model: "accepted from the draft model",
  lookup: "accepted from a lookup",
  prediction: "accepted from the prediction",
  memory: "accepted from what was said before",
  grammar: "the only one that the grammar allows",
  recovered: "recovered after a wrong draft token",
  bonus: "bonus after right draft tokens",
  plain: "plain, without draft tokens",
};
const [ON, OFF] = [0, 1];
const at = (id) => document.getElementById(id);
const messages = [];
let runs = [null, null];
let stopping = null;
let described = null;

function add(parent, tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = className;
  parent.append(element);
  return element;
}

/** One reply as its rounds come in. */
class Run {
  constructor() {
    this.sent = performance.now();
    this.times = [];
    this.rounds = [];
    this.text = "";
    this.content = "";
  }

  take(round) {
    this.times.push(performance.now());
    this.rounds.push(round);
    this.text += round.tokens.map((token) => token.text).join("");
  }

  sum(name) { return this.rounds.reduce((sum, round) => sum + round[name], 0); }
  get tokens() { return this.rounds.reduce((sum, round) => sum + round.tokens.length, 0); }
  get drafts() { return this.rounds.filter((round) => round.num_drafted).length; }
  get seconds() { return (this.times.at(-1) - this.sent) / 1000; }
  milliseconds(index) { return this.times[index] - (index ? this.times[index - 1] : this.sent); }

  /** Tokens a second without the first round, which waits for the prompt. */
  get rate() {
    const seconds = (this.times.at(-1) - this.times[0]) / 1000;
    return seconds ? (this.tokens - this.rounds[0].tokens.length) / seconds : null;
  }

  get acceptance() { return this.sum("num_drafted") ? this.sum("num_accepted") / this.sum("num_drafted") : null; }
  get length() { return this.drafts ? 1 + this.sum("num_accepted") / this.drafts : null; }
}

/** Yield the data of a stream's events. */
async function* events(response) {
  let text = "";
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    const lines = (text + piece).split("\n\n");
    text = lines.pop();
    for (const line of lines) {
      const data = line.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

/** Fetch with the key that was given, if any, and ask for one where the gateway wants another. */
async function call(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers });
  at("access").hidden = response.status !== 401;
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  const body = await response.json().catch(() => null);
  return new Error(body?.error?.message ?? `The gateway answered ${response.status}.`);
}

/** Send a request and show its rounds as they come. Returns the run and the seed that was used. */
async function decode(which, fields, show) {
  const run = new Run();
  runs[which] = run;
  const response = await call("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...fields, stream: true }),
    signal: stopping.signal,
  });
  let seed = fields.seed;
  for await (const chunk of events(response)) {
    if (chunk.error) throw new Error(chunk.error.message);
    seed = chunk.seed ?? seed;
    const [choice] = chunk.choices;
    run.content += choice?.delta.content ?? "";
    for (const round of choice?.rounds ?? []) {
      run.take(round);
      show(round);
      draw(which);
    }
  }
  return seed;
}

function request() {
  const number = (id) => (at(id).value === "" ? undefined : Number(at(id).value));
  const prediction = at("prediction").value;
  return {
    model: at("model").dataset.id,
    messages,
    max_tokens: number("max_tokens"),
    temperature: number("temperature"),
    seed: number("seed"),
    prediction: prediction ? { type: "content", content: prediction } : undefined,
    speculative: { enabled: true, rounds: true, k: number("k"), proposer: at("proposer").value },
  };
}

function message(role, text) {
  at("hint")?.remove();
  const article = add(at("log"), "article", "", `message ${role}`);
  add(article, "h3", role === "user" ? "You" : "Reply");
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

function busy(is) {
  at("log").ariaBusy = is;
  at("send").disabled = at("clear").disabled = is;
  at("stop").disabled = !is;
}

async function send() {
  const text = at("message").value.trim();
  if (!text || stopping) return;
  stopping = new AbortController();
  at("error").textContent = at("verdict").textContent = "";
  at("status").textContent = "Replying …";
  busy(true);
  clearRuns();
  await described;
  messages.push({ role: "user", content: text });
  const said = message("user", text);
  const paragraph = message("assistant", "");
  at("message").value = "";
  const fields = { ...request(), messages: [...messages] };
  try {
    const seed = await decode(ON, fields, (round) => write(paragraph, round));
    const reply = runs[ON];
    messages.push({ role: "assistant", content: reply.content });
    at("status").textContent = summary(reply);
    if (at("compare").checked) {
      at("status").textContent += " Now the same with speculation off …";
      await decode(OFF, { ...fields, seed, speculative: { enabled: false, rounds: true } }, () => {});
      at("status").textContent = `${summary(reply)} With speculation off: ${figure(runs[OFF].rate)} tokens/s.`;
      at("verdict").textContent = verdict();
    }
  } catch (error) {
    if (messages.at(-1).role === "user" && !runs[ON]?.content) {
      messages.pop();
      for (const part of [said, paragraph]) part.parentElement.remove();
      at("message").value ||= text;
    } else if (messages.at(-1).role === "user") {
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

const figure = (value, digits = 1) => (value === null ? "–" : value.toFixed(digits));
const percent = (value) => (value === null ? "–" : `${Math.round(value * 100)} %`);

function summary(run) {
  const accepted = run.acceptance === null ? "no draft tokens" : `${percent(run.acceptance)} of the draft tokens accepted`;
  return `${run.tokens} tokens in ${run.rounds.length} rounds, ${figure(run.rate)} tokens/s, ${accepted}.`;
}

function verdict() {
  const [on, off] = runs;
  const same = on.text === off.text ? "The two texts are equal." : "The two texts are not equal.";
  return on.rate && off.rate ? `${same} With speculation ${figure(on.rate / off.rate, 2)} times as fast.` : same;
}

/** Show what the run is by now: its figures, its lane, and for speculation on each round and source. */
function draw(which) {
  const run = runs[which];
  const figures = [figure(run.rate), run.tokens, run.rounds.length, percent(run.acceptance), figure(run.length, 2),
    `${figure(run.milliseconds(0), 0)} ms`];
  at("runs").tBodies[0].querySelectorAll("tr").forEach((row, index) => {
    row.cells[1 + which].textContent = figures[index];
  });
  lane(which);
  if (which === ON) {
    each(run.rounds.length - 1);
    sources();
  }
}

function tracks() { return document.querySelectorAll(".track"); }

/** Add the newest round to the lane, as wide as it took, and make both lanes of one scale. */
function lane(which) {
  const run = runs[which];
  const track = tracks()[which];
  const index = run.rounds.length - 1;
  const round = run.rounds[index];
  const bar = add(track, "span");
  bar.style.flex = `${run.milliseconds(index)} 0 0`;
  bar.title = `Round ${index + 1}: ${round.num_drafted} drafted, ${round.num_accepted} accepted, `
    + `${figure(run.milliseconds(index))} ms (${round.reason?.replaceAll("_", " ") ?? "–"})`;
  for (const token of round.tokens) add(bar, "i", "", token.source);
  for (let number = round.num_accepted; number < round.num_drafted; number += 1) add(bar, "i", "", "rejected");
  const cells = Math.max(5, ...runs.flatMap((one) => (one?.rounds ?? []).map(({ num_drafted: k }) => k + 1)));
  at("timeline").style.setProperty("--cells", cells);
  track.setAttribute("aria-label", `${run.rounds.length} rounds in ${figure(run.seconds)} seconds`);
  const longest = Math.max(...runs.map((one) => (one?.times.length ? one.seconds : 0)));
  tracks().forEach((one, number) => {
    one.style.width = runs[number]?.times.length ? `${(100 * runs[number].seconds) / longest}%` : "0";
  });
}

function each(index) {
  const run = runs[ON];
  const round = run.rounds[index];
  const row = add(at("each").tBodies[0], "tr");
  for (const value of [index + 1, round.proposer ?? "–", round.num_drafted, round.num_accepted,
    figure(run.milliseconds(index))]) add(row, "td", value);
  const text = add(row, "td");
  for (const token of round.tokens) add(text, "span", token.text, token.source);
}

function sources() {
  const counts = {};
  for (const round of runs[ON]?.rounds ?? []) {
    for (const { source } of round.tokens) counts[source] = (counts[source] ?? 0) + 1;
  }
  const body = at("sources").tBodies[0];
  body.replaceChildren();
  for (const [source, name] of Object.entries(SOURCES)) {
    const row = add(body, "tr");
    add(add(row, "th"), "span", name, source).parentElement.scope = "row";
    add(row, "td", counts[source] ?? 0);
  }
}

function clearRuns() {
  runs = [null, null];
  for (const cell of at("runs").querySelectorAll("td")) cell.textContent = "–";
  at("each").tBodies[0].replaceChildren();
  for (const track of tracks()) {
    track.replaceChildren();
    track.setAttribute("aria-label", "No rounds yet");
  }
  sources();
}

async function describe() {
  const [models, version] = await Promise.all(
    ["v1/models", "version"].map(async (path) => (await call(path)).json()),
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
at("clear").addEventListener("click", () => {
  messages.length = 0;
  at("log").replaceChildren();
  at("status").textContent = at("error").textContent = at("verdict").textContent = "";
  clearRuns();
  at("message").focus();
});

clearRuns();
begin();
at("message").focus();
