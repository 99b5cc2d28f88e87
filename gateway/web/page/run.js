// What is known of one reply, and the words for it.

export const SOURCES = {
  model: "accepted from the draft model",
  lookup: "accepted from a lookup",
  prediction: "accepted from the prediction",
  memory: "accepted from what was said before",
  grammar: "the only one that the grammar allows",
  recovered: "recovered after a wrong draft token",
  bonus: "bonus after right draft tokens",
  plain: "plain, without draft tokens",
};
const REASONS = {
  requested: "the request or a setting gives their number",
  pays: "speculation is expected to be faster",
  does_not_pay: "none: plain decoding is expected to be faster",
  catching_up: "none: the draft would have too much to read first",
  probe: "plain decoding seems faster; a trial of speculation",
  probe_plain: "none: speculation seems faster; a trial of plain decoding",
  first_round: "none: the target was reading the prompt on the same cores",
  last_token: "none: one token was left, which the target adds anyway",
  no_room: "none: the text fills the draft's context",
  unmeasured: "none: the target's costs were not known yet",
  no_draft: "none: the draft was gone, full or late",
};

/** Say why a round had as many draft tokens as it had. */
export const why = (round) => REASONS[round.reason] ?? round.reason?.replaceAll("_", " ") ?? "–";

/** One reply as its rounds come in. */
export class Run {
  constructor() {
    this.sent = performance.now();
    this.accepted = null;
    this.times = [];
    this.rounds = [];
    this.text = "";
    this.content = "";
    this.calls = [];
    this.usage = null;
  }

  take(round) {
    this.times.push(performance.now());
    this.rounds.push(round);
    this.text += round.tokens.map((token) => token.text).join("");
  }

  /** Put together the calls of tools, whose arguments come in pieces. */
  addCalls(deltas) {
    for (const { index, id, type, function: part } of deltas) {
      this.calls[index] ??= { id, type, function: { name: part.name, arguments: "" } };
      this.calls[index].function.arguments += part.arguments;
    }
  }

  /** The message that the chat goes on with. */
  get message() {
    const calls = this.calls.length ? { tool_calls: this.calls } : {};
    return { role: "assistant", content: this.content, ...calls };
  }

  sum(name) { return this.rounds.reduce((sum, round) => sum + round[name], 0); }
  get tokens() { return this.rounds.reduce((sum, round) => sum + round.tokens.length, 0); }
  get drafts() { return this.rounds.filter((round) => round.num_drafted).length; }
  get seconds() { return (this.times.at(-1) - this.sent) / 1000; }
  milliseconds(index) { return this.times[index] - (index ? this.times[index - 1] : this.sent); }

  /** What it waited before the target had a slot for it, in milliseconds. */
  get slotWait() { return this.accepted - this.sent; }

  /** What its rounds waited for a pass of either service, in milliseconds. */
  get queued() { return this.rounds.reduce((sum, round) => sum + round.time_ms.queue, 0); }

  /** Tokens a second without the first round, which waits for the prompt. */
  get rate() {
    const seconds = (this.times.at(-1) - this.times[0]) / 1000;
    return seconds ? (this.tokens - this.rounds[0].tokens.length) / seconds : null;
  }

  get acceptance() { return this.sum("num_drafted") ? this.sum("num_accepted") / this.sum("num_drafted") : null; }
  get length() { return this.drafts ? 1 + this.sum("num_accepted") / this.drafts : null; }
}
