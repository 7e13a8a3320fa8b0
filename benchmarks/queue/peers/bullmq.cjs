// BullMQ: `node bullmq.cjs worker`, or `node bullmq.cjs MODE JOB COUNT`, which takes the modes of benchmarks/queue/producer.py.
'use strict';
const fs = require('node:fs');
const { Queue, Worker } = require('bullmq');

const UPDATES = 10, CONCURRENT = 1000, BATCH = 500, PACE_MS = 100;
const connection = { path: process.env.BENCH_SOCKET, maxRetriesPerRequest: null };
const notes = process.env.BENCH_NOTES, jobs = Number(process.env.BENCH_JOBS);

const nowMs = () => Number(process.hrtime.bigint()) / 1e6;
const cpuS = () => { const { user, system } = process.cpuUsage(); return (user + system) / 1e6; };
function write(name, value) {
  fs.writeFileSync(`${notes}.${name}.new`, JSON.stringify(value));
  fs.renameSync(`${notes}.${name}.new`, `${notes}.${name}`);
}

async function work() {
  let begun = 0, ended = 0;
  const latenciesMs = [];
  const begin = () => { if (++begun === 1) write('first', { at_ms: nowMs(), cpu_s: cpuS(), pid: process.pid }); };
  const end = () => { if (++ended === jobs) write('last', { at_ms: nowMs() }); };
  const functions = {
    async noop() { begin(); end(); },
    async progress(job) {
      begin();
      for (let number = 1; number <= UPDATES; number++) {
        await job.updateProgress({ percent: 100 * number / UPDATES, message: `step ${number} of ${UPDATES}` });
      }
      end();
    },
    async pickup(job) {
      latenciesMs.push(nowMs() - job.data.sent_ms);
      if (latenciesMs.length === jobs) write('latencies', latenciesMs);
    },
  };
  const worker = new Worker('bench', (job) => functions[job.name](job), {
    connection, concurrency: Number(process.env.BENCH_CONCURRENCY),
  });
  worker.on('error', (error) => console.error(error));
  process.once('SIGTERM', async () => { await worker.close(); process.exit(0); });
}

async function produce(mode, name, count) {
  const queue = new Queue('bench', { connection });
  await queue.waitUntilReady();
  const chunks = (size) => Array.from({ length: Math.ceil(count / size) }, (_, at) =>
    Array.from({ length: Math.min(size, count - at * size) }, (_, n) => at * size + n));
  const modes = {
    async one() { for (let n = 0; n < count; n++) await queue.add(name, { n }); },
    async concurrent() {
      for (const numbers of chunks(CONCURRENT)) await Promise.all(numbers.map((n) => queue.add(name, { n })));
    },
    async batch() {
      for (const numbers of chunks(BATCH)) await queue.addBulk(numbers.map((n) => ({ name, data: { n } })));
    },
    async paced() {
      const began = nowMs();
      for (let n = 0; n < count; n++) {
        await new Promise((done) => setTimeout(done, began + n * PACE_MS - nowMs()));
        await queue.add(name, { sent_ms: nowMs() });
      }
    },
  };
  const began = nowMs(), beganCpuS = cpuS();
  await modes[mode]();
  console.log(JSON.stringify({ seconds: (nowMs() - began) / 1000, cpu_s: cpuS() - beganCpuS }));
  await queue.close();
}

const [what, name, count] = process.argv.slice(2);
if (what === 'worker') work();
else produce(what, name, Number(count));
