// The figures, lanes and tables of the two replies, with speculation on and off.

import { SOURCES, why } from "./run.js";

export const [ON, OFF] = [0, 1];
const at = (id) => document.getElementById(id);
const figure = (value, digits = 1) => (value === null ? "–" : value.toFixed(digits));
const percent = (value) => (value === null ? "–" : `${Math.round(value * 100)} %`);
const tracks = () => document.querySelectorAll(".track");

export function add(parent, tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = className;
  parent.append(element);
  return element;
}

/** Say in a sentence what the reply was. */
export function summary(run) {
  const accepted = run.acceptance === null ? "no draft tokens" : `${percent(run.acceptance)} of the draft tokens accepted`;
  return `${run.tokens} tokens in ${run.rounds.length} rounds, ${figure(run.rate)} tokens/s, ${accepted}.`;
}

/** Say how the two compare. */
export function verdict([on, off]) {
  const same = on.text === off.text ? "The two texts are equal." : "The two texts are not equal.";
  return on.rate && off.rate ? `${same} With speculation ${figure(on.rate / off.rate, 2)} times as fast.` : same;
}

/** Show what one of the runs is by now: its figures, its lane, and for speculation on its rounds by source and reason. */
export function draw(runs, which) {
  const run = runs[which];
  const tokens = run.usage?.prompt_tokens ?? "–";
  const cached = run.usage?.prompt_tokens_details.cached_tokens ?? "–";
  const figures = [figure(run.rate), run.tokens, run.rounds.length, percent(run.acceptance), figure(run.length, 2),
    `${figure(run.milliseconds(0), 0)} ms`, tokens, cached, `${figure(run.slotWait, 0)} ms`, `${figure(run.queued, 0)} ms`];
  at("runs").tBodies[0].querySelectorAll("tr").forEach((row, index) => {
    row.cells[1 + which].textContent = figures[index];
  });
}

/** Show the newest round of a run. */
export function drawRound(runs, which) {
  draw(runs, which);
  lane(runs, which);
  if (which === ON) {
    each(runs[ON]);
    tables(runs[ON]);
  }
}

/** Show that there are no runs. */
export function drawNone() {
  for (const cell of at("runs").querySelectorAll("td")) cell.textContent = "–";
  at("each").tBodies[0].replaceChildren();
  for (const track of tracks()) {
    track.replaceChildren();
    track.setAttribute("aria-label", "No rounds yet");
  }
  tables(null);
}

/** Add the newest round to the lane, as wide as it took, and make both lanes of one scale. */
function lane(runs, which) {
  const run = runs[which];
  const track = tracks()[which];
  const index = run.rounds.length - 1;
  const round = run.rounds[index];
  const bar = add(track, "span");
  bar.style.flex = `${run.milliseconds(index)} 0 0`;
  bar.title = `Round ${index + 1}: ${round.num_drafted} drafted, ${round.num_accepted} accepted, `
    + `${figure(run.milliseconds(index))} ms (${why(round)})`;
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

function each(run) {
  const index = run.rounds.length - 1;
  const round = run.rounds[index];
  const row = add(at("each").tBodies[0], "tr");
  for (const value of [index + 1, round.proposer ?? "–", round.num_drafted, round.num_accepted,
    figure(run.milliseconds(index))]) add(row, "td", value);
  add(row, "td", round.reason?.replaceAll("_", " ") ?? "–").title = why(round);
  const text = add(row, "td");
  for (const token of round.tokens) add(text, "span", token.text, token.source);
}

function tables(run) {
  const sources = Object.fromEntries(Object.keys(SOURCES).map((source) => [source, 0]));
  const reasons = {};
  for (const round of run?.rounds ?? []) {
    reasons[why(round)] = (reasons[why(round)] ?? 0) + 1;
    for (const { source } of round.tokens) sources[source] += 1;
  }
  const rows = Object.entries(sources).map(([source, count]) => [SOURCES[source], count, source]);
  fill(at("sources"), rows);
  const often = Object.entries(reasons).sort((one, other) => other[1] - one[1]);
  fill(at("reasons"), often.length ? often : [["no rounds yet", "–"]]);
}

function fill(table, rows) {
  table.tBodies[0].replaceChildren();
  for (const [name, count, className = ""] of rows) {
    const row = add(table.tBodies[0], "tr");
    add(add(row, "th"), "span", name, className).parentElement.scope = "row";
    add(row, "td", count);
  }
}
