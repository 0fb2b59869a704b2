// Lets a test call the published TypeScript client, unpatched: one JSON line in, one JSON line out.
//
//   node drive.mjs BASE_URL TOKEN
//   {"id": 1, "path": "automationsV2.getRun", "args": ["run-1"]}   calls a method
//   {"id": 2, "stream": "automationsV2.events", "args": [{}], "until": "TYPE"}   reads a stream until a type
//
// The answer is {"id", "value"} or {"id", "error": {"name", "message"}}.

import { createInterface } from "node:readline";
import { TandemClient } from "@frumu/tandem-client";

const [baseUrl, token] = process.argv.slice(2);
const client = new TandemClient({ baseUrl, token });

function found(path) {
  const steps = path.split(".");
  const name = steps.pop();
  const holder = steps.reduce((object, step) => object[step], client);
  return holder[name].bind(holder);
}

async function streamed({ stream, args, until }) {
  const events = [];
  for await (const event of found(stream)(...args)) {
    events.push(event);
    if (event.type === until) break;
  }
  return events;
}

async function answered(asked) {
  try {
    const value = asked.stream ? await streamed(asked) : await found(asked.path)(...asked.args);
    return { id: asked.id, value: value ?? null };
  } catch (error) {
    return { id: asked.id, error: { name: error.name, message: String(error.message) } };
  }
}

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  answered(JSON.parse(line)).then((answer) => process.stdout.write(JSON.stringify(answer) + "\n"));
});
lines.on("close", () => process.exit(0));
