// Follow a job with the stock socket.io-client, resuming by position, and print each envelope on a line.
// usage: node socketio.cjs URL TOKEN JOB_ID TRANSPORTS(comma list)
const { io } = require("socket.io-client");

const [url, token, jobId, transports] = process.argv.slice(2);
const socket = io(url, { auth: { token }, transports: transports.split(","), reconnectionDelay: 100, reconnectionDelayMax: 500 });
let position = "0";
let early = null;

function apply(event) {
  const at = Number(position.split(":").at(-1));
  if (event.seq <= at) return true;
  if ((event.prev ?? event.seq - 1) > at) return false;
  position = `${event.epoch}:${event.seq}`;
  console.log(JSON.stringify(event));
  if (["completed", "failed", "cancelled"].includes(event.kind)) socket.disconnect();
  return true;
}

function subscribe() {
  early = [];
  socket.timeout(10_000).emit("subscribe", { job_id: jobId, after: position }, (error, ack) => {
    if (error) return; // no answer: the next connect asks again
    if (!ack.ok || ack.reset) {
      console.error(JSON.stringify(ack));
      process.exit(1);
    }
    const events = [...ack.events, ...early];
    early = null;
    if (!events.every(apply)) subscribe();
  });
}

socket.onAny((name, event) => {
  if (!name.startsWith("job:") || event.job_id !== jobId) return;
  if (early) early.push(event);
  else if (!apply(event)) subscribe();
});
socket.on("connect", subscribe);
socket.on("connect_error", (error) => {
  if (error.data?.code && error.data.code !== "server_draining") {
    console.error(error.message);
    process.exit(1);
  }
  if (!socket.active) setTimeout(() => socket.connect(), 200);
});
