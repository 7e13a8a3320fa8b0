/** What is remembered of jobs: survives a reload, is bounded, is shared between tabs, is kept apart by subject. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { Memory, PageStorage, statusAfter } from "../../../static/tidings/memory.js";
import { Tokens, subjectOf } from "../../../static/tidings/tokens.js";

const job = (id, more = {}) => ({ id, type: "demo.steps", status: "running", position: "a:1", progress: null, created_at: null, ...more });

test("a job is found again by another page with the same storage", () => {
  const storage = new PageStorage();
  const first = new Memory(storage, "ann");
  first.put(job("01"));
  first.put(job("02", { position: "a:7" }));
  first.flush();
  const second = new Memory(storage, "ann");
  assert.deepEqual(second.list().map(({ id, position }) => [id, position]), [["02", "a:7"], ["01", "a:1"]]);
  assert.deepEqual(new Memory(storage, "bob").list(), []);
});

test("a watch that replays from the beginning does not set a position back", () => {
  const memory = new Memory(new PageStorage(), "ann");
  memory.put(job("01", { position: "a:9" }));
  memory.put(job("01", { position: "a:2" }));
  assert.equal(memory.find("01").position, "a:9");
  memory.put(job("01", { position: "b:3" }));
  assert.equal(memory.find("01").position, "b:3");
});

test("what another tab wrote meanwhile is kept", () => {
  const storage = new PageStorage();
  const [here, there] = [new Memory(storage, "ann"), new Memory(storage, "ann")];
  here.put(job("01"));
  there.put(job("02"));
  here.flush();
  there.flush();
  assert.deepEqual(here.list().map(({ id }) => id), ["02", "01"]);
  here.forget("02");
  assert.deepEqual(there.list().map(({ id }) => id), ["01"]);
});

test("the newest hundred are kept", () => {
  const memory = new Memory(new PageStorage(), "ann");
  for (let i = 0; i < 130; i++) memory.put(job(String(i).padStart(4, "0")));
  memory.flush();
  assert.equal(memory.list().length, 100);
  assert.equal(memory.list()[0].id, "0129");
});

test("what is no list of jobs is not believed", () => {
  for (const text of ["{", "{}", "null", '[null, 3, {"id": 1}]', '[{"id":"x","type":"t","status":"running","position":"?"}]']) {
    const storage = new PageStorage();
    storage.setItem("tidings:jobs:ann", text);
    assert.deepEqual(new Memory(storage, "ann").list(), [], text);
  }
});

test("storage that refuses to write costs no job of this page", () => {
  const storage = { getItem: () => null, removeItem: () => {}, setItem: () => { throw new Error("quota"); } };
  const memory = new Memory(storage, "ann");
  memory.put(job("01"));
  memory.flush();
  assert.equal(memory.find("01").id, "01");
  assert.equal(memory.list().length, 1);
});

test("the subject is read from the token's claims, and nonsense has none", () => {
  const claims = Buffer.from(JSON.stringify({ sub: "änn" })).toString("base64url");
  assert.equal(subjectOf(`x.${claims}.y`), "änn");
  for (const token of ["", "abc", "a.b.c", "a.e30.c"]) assert.equal(subjectOf(token), "");
});

test("renewals asked for at the same time are one call", async () => {
  let calls = 0;
  const tokens = new Tokens(async () => `t${++calls}`);
  assert.deepEqual(await Promise.all([tokens.get(), tokens.renew(), tokens.renew()]), ["t1", "t1", "t1"]);
  assert.equal(await tokens.get(), "t1");
  assert.equal(await tokens.renew(), "t2");
});

test("a token function that fails says so in words", async () => {
  await assert.rejects(new Tokens(() => { throw new Error("no session"); }).get(), { code: "unauthenticated", message: /no session/ });
  await assert.rejects(new Tokens(() => "").get(), { code: "unauthenticated" });
});

test("an event tells the state it leads to, and one of an unknown kind tells none", () => {
  const after = (/** @type {string} */ kind) => statusAfter(/** @type {any} */ ({ kind, data: { percent: 5 } }));
  assert.deepEqual(after("started"), { status: "running" });
  assert.deepEqual(after("progress"), { status: "running", progress: { percent: 5 } });
  for (const kind of ["scheduled", "queued", "retrying", "completed", "failed", "cancelled"]) {
    assert.deepEqual(after(kind), { status: kind });
  }
  for (const kind of ["log", "output", "cancelling", "asking_again"]) assert.deepEqual(after(kind), {});
});
