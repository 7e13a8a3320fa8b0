// Submit a demo job and follow it with the stock Socket.IO client: order, repeats and gaps by one rule.
//
//     npm install socket.io-client
//     TIDINGS_TOKEN=… node follow-a-job.mjs [URL]        URL: else TIDINGS_URL, else http://127.0.0.1:8000

import { io } from "socket.io-client";

const url = process.argv[2] ?? process.env.TIDINGS_URL ?? "http://127.0.0.1:8000";
const token = process.env.TIDINGS_TOKEN || fail("set TIDINGS_TOKEN to a token, such as tidings dev prints");

function fail(why) {
  console.error(`error: ${why}`);
  process.exit(1);
}

const answer = await fetch(`${url}/api/jobs`, {
  method: "POST",
  headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
  body: JSON.stringify({ type: "demo.steps", input: { steps: 20, delay_ms: 200, output_every: 5 } }),
}).catch((error) => fail(`${url} cannot be reached: ${error.cause?.message || error.cause?.code || error.message}`));
const job = await answer.json().catch(() => fail(`${url} answers ${answer.status} with something else than JSON`));
if (!answer.ok) fail(`${job.code}: ${job.detail}`);

const socket = io(url, { auth: { token }, transports: ["websocket"] });
let position = "0"; // "<epoch>:<seq>": where this client stands
let early = null; // events that come between a subscribe and its answer

// Returns false where events are missing before this one.
function apply(event) {
  const seq = Number(position.split(":").at(-1));
  if (event.seq <= seq) return true; // a repeat
  if ((event.prev ?? event.seq - 1) > seq) return false;
  position = `${event.epoch}:${event.seq}`;
  console.log(event.seq, event.kind, event.data);
  if (["completed", "failed", "cancelled"].includes(event.kind)) socket.disconnect();
  return true;
}

async function subscribe() {
  early = [];
  let ack;
  try {
    ack = await socket.timeout(10_000).emitWithAck("subscribe", { job_id: job.id, after: position });
  } catch {
    socket.disconnect().connect(); // no answer: the next connect asks again
    return;
  }
  if (!ack.ok) fail(`${ack.error.code}: ${ack.error.detail}`);
  if (ack.reset) {
    console.log("begin anew from", ack.job.status);
    position = ack.job.position;
  }
  const events = [...ack.events, ...early];
  early = null;
  if (!events.every(apply)) await subscribe();
}

socket.onAny((name, event) => {
  if (!name.startsWith("job:") || event.job_id !== job.id) return;
  if (early) early.push(event);
  else if (name === "job:reset" || !apply(event)) subscribe();
});
socket.on("connect", subscribe); // first, and after every reconnect
socket.on("connect_error", (error) => {
  const why = [error.message, error.data?.detail].filter(Boolean).join(": ");
  if (socket.active) console.error(`${why}; trying again`);
  else fail(why); // refused by the server itself: the client does not try again
});
