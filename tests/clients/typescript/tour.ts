// The README's tour with the types that openapi-typescript makes and the client openapi-fetch:
// node built/tour.js <url> <email> <password> <file>

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Job = components["schemas"]["JobOut"];
const unfinished: Job["status"][] = ["queued", "running"];

/** What an answer holds, or the end of the tour with what the hub said is wrong. */
function held<T>(answer: { data?: T; error?: components["schemas"]["ErrorBody"] }): T {
  if (answer.data === undefined) assert.fail(`${answer.error?.code}: ${answer.error?.detail}`);
  return answer.data;
}

const [baseUrl = "", email = "", password = "", file = ""] = process.argv.slice(2);
const hub = createClient<paths, "application/json">({ baseUrl });
const tokens = held(await hub.POST("/api/v1/auth/login", { body: { email, password } }));
hub.use({
  onRequest({ request }) {
    request.headers.set("Authorization", `Bearer ${tokens.access_token}`);
  },
});
assert.equal(held(await hub.GET("/api/v1/auth/me")).user?.email, email);

const name = "analysts of typescript";
const role = held(await hub.POST("/api/v1/roles", { body: { name, permissions: ["data-sources:read"] } }));
const user = held(await hub.POST("/api/v1/users", { body: { email: "typescript@example.org" } }));
const given = { params: { path: { user_id: user.id, role_id: role.id } } };
const holder = held(await hub.PUT("/api/v1/users/{user_id}/roles/{role_id}", given));
assert.ok(holder.roles.some((each) => each.name === name));

const wrong = await hub.POST("/api/v1/data-sources/test", { body: { type: "sqlite", config: { path: "nothing.db" } } });
assert.equal(held(wrong).status, "failed");
const body = { type: "sqlite", name: "Shop of typescript", config: { path: file } } as const;
const source = held(await hub.POST("/api/v1/data-sources", { body }));
assert.equal(source.status, "untested");
const taken = await hub.POST("/api/v1/data-sources", { body });
assert.equal(taken.error?.code, "name_taken");
const params = { path: { source_id: source.id } };
const tested = held(await hub.POST("/api/v1/data-sources/{source_id}/test", { params }));
assert.deepEqual(
  tested.steps.map((step) => step.name),
  ["resolve", "connect", "tls", "authenticate", "list"],
);
assert.equal(tested.status, "passed");

let job: Job = held(await hub.POST("/api/v1/data-sources/{source_id}/discover", { params }));
while (unfinished.includes(job.status)) {
  await sleep(100);
  job = held(await hub.GET("/api/v1/jobs/{job_id}", { params: { path: { job_id: job.id } } }));
}
assert.equal(job.status, "succeeded");
const objects = held(
  await hub.GET("/api/v1/data-sources/{source_id}/objects", { params: { ...params, query: { q: "orders" } } }),
);
const found = objects.items[0] ?? assert.fail("no object was found");
assert.deepEqual(
  found.fields.map((field) => [field.name, field.type]),
  [
    ["id", "integer"],
    ["name", "string"],
  ],
);
const ask = { object: found.id, limit: 2 };
const sample = held(await hub.POST("/api/v1/data-sources/{source_id}/preview", { params, body: ask }));
assert.deepEqual(sample.rows, [
  [1, "a lamp"],
  [2, "a kettle"],
]);

const gone = await hub.DELETE("/api/v1/users/{user_id}", { params: { path: { user_id: user.id } } });
assert.equal(gone.response.status, 204);
const events = held(await hub.GET("/api/v1/audit-events", { params: { query: { resource_id: user.id } } }));
assert.deepEqual(
  events.items.map((event) => event.action),
  ["user.delete", "user.assign_role", "user.create"],
);
