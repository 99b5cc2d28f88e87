// Vercel's AI SDK, on its provider for servers of OpenAI's API: `node ai_sdk.mjs http://127.0.0.1:8000/v1`.

import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, streamText, tool as aTool } from "ai";
import { z } from "zod";

const baseURL = process.argv[2];
const models = await (await fetch(`${baseURL}/models`)).json();
const gateway = createOpenAICompatible({ name: "outrider", baseURL, supportsStructuredOutputs: true });
const ask = {
  model: gateway(models.data[0].id),
  prompt: "How far is it from London to Dover?",
  maxRetries: 0,
  seed: 7,
};
const short = { ...ask, maxOutputTokens: 60 };
const length = z.number().int().min(0).max(999);

async function chat() {
  return (await generateText(short)).text;
}

async function stream() {
  const pieces = [];
  for await (const piece of streamText(short).textStream) pieces.push(piece);
  assert(pieces.length > 2);
  assert.equal(pieces.join(""), await chat());
  return `${pieces.length} pieces`;
}

async function tool() {
  const tools = { ride: aTool({ description: "Rides ahead.", inputSchema: z.object({ miles: length }) }) };
  const reply = await generateText({ ...ask, tools, toolChoice: { type: "tool", toolName: "ride" } });
  const [call] = reply.toolCalls;
  assert.equal(call.toolName, "ride");
  assert(!call.invalid);
  return call.input;
}

async function structured() {
  const schema = z.object({ length, unit: z.enum(["miles", "km"]) });
  return (await generateText({ ...ask, output: Output.object({ schema }) })).output;
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
