// OpenAI's package for Node: `node openai_node.mjs http://127.0.0.1:8000/v1`, beside its node_modules.

import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const messages = [{ role: "user", content: "How far is it from London to Dover?" }];
const ask = { model, messages, seed: 7 };
const short = { ...ask, max_tokens: 60 };
const number = { type: "integer", minimum: 0, maximum: 999 };
const object = (properties) => {
  return { type: "object", properties, required: Object.keys(properties), additionalProperties: false };
};

async function chat() {
  return (await client.chat.completions.create(short)).choices[0].message.content;
}

async function stream() {
  const pieces = [];
  for await (const chunk of await client.chat.completions.create({ ...short, stream: true })) {
    pieces.push(chunk.choices[0]?.delta.content ?? "");
  }
  assert(pieces.length > 2);
  assert.equal(pieces.join(""), await chat());
  return `${pieces.length} pieces`;
}

async function tool() {
  const tools = [{ type: "function", function: { name: "ride", parameters: object({ miles: number }) } }];
  const tool_choice = { type: "function", function: { name: "ride" } };
  const asked = { ...ask, tools, tool_choice, parallel_tool_calls: false };
  const [call] = (await client.chat.completions.create(asked)).choices[0].message.tool_calls;
  const { miles, ...others } = JSON.parse(call.function.arguments);
  assert.deepEqual([call.function.name, others], ["ride", {}]);
  assert(Number.isInteger(miles) && miles >= 0 && miles <= 999);
  return call.function.arguments;
}

async function structured() {
  const schema = object({ length: number, unit: { enum: ["miles", "km"] } });
  const response_format = { type: "json_schema", json_schema: { name: "distance", schema, strict: true } };
  const text = (await client.chat.completions.create({ ...ask, response_format })).choices[0].message.content;
  const { length, unit, ...others } = JSON.parse(text);
  assert.deepEqual(others, {});
  assert(Number.isInteger(length) && length >= 0 && length <= 999 && ["miles", "km"].includes(unit));
  return text;
}

for (const feature of [chat, stream, tool, structured]) {
  try {
    const told = await feature();
    assert(told, "nothing came");
    console.log(`${feature.name}: ok ${JSON.stringify(told).slice(0, 80)}`);
  } catch (error) {
    console.log(`${feature.name}: ${error.name}: ${error.message.replaceAll("\n", " ")}`);
    process.exitCode = 1;
  }
}
