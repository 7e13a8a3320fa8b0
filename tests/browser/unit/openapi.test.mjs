/** The documentation viewer's view of an OpenAPI document: operations, examples, words for types, calls. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { buildCall, curlOf, readOperations } from "../../../static/api/document.js";
import { exampleOf, typeWords } from "../../../static/app/schema.js";

const DOCUMENT = {
  openapi: "3.1.0",
  tags: [{ name: "jobs", description: "Jobs." }, { name: "empty" }],
  security: [{ bearer: [] }],
  paths: {
    "/jobs/{id}": {
      get: {
        operationId: "getJob",
        tags: ["jobs"],
        summary: "Read",
        parameters: [
          { name: "id", in: "path", required: true, schema: { type: "string" }, example: "a/b" },
          { $ref: "#/components/parameters/Wait" },
          { name: "If-None-Match", in: "header", schema: { type: "string" } },
        ],
        responses: { 200: { description: "It.", content: { "application/json": { schema: { $ref: "#/components/schemas/Job" } } } } },
      },
    },
    "/jobs": {
      post: {
        tags: ["jobs"],
        security: [],
        requestBody: { required: true, content: { "application/json": { schema: { $ref: "#/components/schemas/Job" } } } },
        responses: {},
      },
    },
  },
  components: {
    parameters: { Wait: { name: "wait", in: "query", schema: { type: "number", maximum: 55 } } },
    schemas: {
      Job: {
        type: "object",
        required: ["type", "steps", "again"],
        properties: {
          type: { type: "string", examples: ["demo.steps"] },
          steps: { type: "integer", minimum: 1, maximum: 9 },
          again: { anyOf: [{ $ref: "#/components/schemas/Job" }, { type: "null" }] },
          tags: { type: "array", items: { type: "string", maxLength: 64 } },
          state: { enum: ["on", "off"] },
        },
      },
    },
  },
};

test("operations are found by tag, references resolved, security inherited", () => {
  const [jobs, ...others] = readOperations(DOCUMENT);
  assert.deepEqual(others, []);
  assert.deepEqual(jobs.operations.map(({ method, path, isPublic }) => [method, path, isPublic]), [
    ["GET", "/jobs/{id}", false],
    ["POST", "/jobs", true],
  ]);
  assert.deepEqual(jobs.operations[0].parameters.map(({ name, in: place }) => `${place}.${name}`), ["path.id", "query.wait", "header.If-None-Match"]);
});

test("what is served under /api too is one operation that names the other path", () => {
  const read = (summary) => ({ get: { operationId: summary, summary: "Read", tags: ["health"], responses: {} } });
  const [{ operations }] = readOperations({ paths: { "/api/health": read("under"), "/health": read("plain"), "/api/files": read("files") } });
  assert.deepEqual(operations.map(({ path, aliases }) => [path, aliases]), [
    ["/health", [{ id: "under", path: "/api/health" }]],
    ["/api/files", []],
  ]);
});

test("a call is built with what was given, encoded where it belongs", () => {
  const [{ operations: [get, post] }] = readOperations(DOCUMENT);
  const call = buildCall(get, { "path.id": "a/b", "query.wait": "5 & 6", "header.If-None-Match": 'W/"k:1"' });
  assert.deepEqual(call, { url: "/jobs/a%2Fb?wait=5+%26+6", headers: { "If-None-Match": 'W/"k:1"' } });
  assert.equal(buildCall(get, { "path.id": "x" }).url, "/jobs/x");
  assert.equal(
    curlOf(get, call, "http://h", null).replaceAll(" \\\n ", ""),
    `curl 'http://h/jobs/a%2Fb?wait=5+%26+6' -H "Authorization: Bearer $TIDINGS_TOKEN" -H 'If-None-Match: W/"k:1"'`,
  );
  assert.match(curlOf(post, buildCall(post, {}), "http://h", `{"a": "it's"}`), /-X POST[^]*-d '\{"a": "it'\\''s"\}'/);
  assert.doesNotMatch(curlOf(post, buildCall(post, {}), "http://h", null), /Authorization/);
});

test("an example holds what is required, and a schema that contains itself ends", () => {
  const { type, steps, again } = exampleOf({ $ref: "#/components/schemas/Job" }, DOCUMENT);
  assert.deepEqual([type, steps, typeof again], ["demo.steps", 1, "object"]);
  assert.deepEqual(exampleOf({ type: "array", minItems: 1, items: { type: "boolean" } }), [false]);
  assert.equal(exampleOf({ default: null, type: "string" }), null);
});

test("types are told in a few words", () => {
  const { properties } = DOCUMENT.components.schemas.Job;
  const words = Object.values(properties).map((schema) => typeWords(schema, DOCUMENT));
  assert.deepEqual(words, ["string", "integer 1–9", "Job | null", "list of string ≤ 64 characters", '"on" | "off"']);
  assert.equal(typeWords(undefined, DOCUMENT), "anything");
});
