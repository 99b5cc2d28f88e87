// The fields of a request, from the form.

const at = (id) => document.getElementById(id);

/** Return what the options say, without the messages. Throws an error for text that is not JSON, and shows where. */
export function options() {
  const number = (id) => (at(id).value === "" ? undefined : Number(at(id).value));
  const prediction = at("prediction").value;
  const schema = json("schema");
  const tools = tool();
  return {
    model: at("model").dataset.id,
    max_tokens: number("max_tokens"),
    temperature: number("temperature"),
    seed: number("seed"),
    prediction: prediction ? { type: "content", content: prediction } : undefined,
    ...(tools && { tools, tool_choice: at("must_call").checked ? "required" : "auto", parallel_tool_calls: false }),
    response_format: schema && { type: "json_schema", json_schema: { name: "reply", schema } },
    speculative: { enabled: true, rounds: true, k: number("k"), proposer: at("proposer").value },
    stream: true,
    stream_options: { include_usage: true },
  };
}

/** Return the message that tells the model who it is, if there is one. */
export function system() {
  const content = at("system").value.trim();
  return content ? [{ role: "system", content }] : [];
}

/** Return the tool, given as OpenAI's form has it or as the function alone. */
function tool() {
  const given = json("tool");
  return given && [given].flat().map((one) => (one?.type === "function" ? one : { type: "function", function: one }));
}

function json(id) {
  const field = at(id);
  field.removeAttribute("aria-invalid");
  if (!field.value.trim()) return undefined;
  try {
    return JSON.parse(field.value);
  } catch (error) {
    field.closest("details").open = true;
    field.setAttribute("aria-invalid", "true");
    throw Object.assign(new Error(`${field.labels[0].textContent.trim()}: ${error.message}`), { field });
  }
}
