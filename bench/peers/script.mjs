// The script that is written first: read a line, look the user up, insert.
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { MongoClient } from "mongodb";

const [url, log] = process.argv.slice(2);
const client = await new MongoClient(url).connect();
const users = client.db().collection("users");
const events = client.db().collection("auditevents");

for await (const line of createInterface({ input: createReadStream(log) })) {
  const entry = JSON.parse(line);
  const user = await users.findOne({ authentikSubjectId: entry.User });
  await events.insertOne({
    at: new Date(entry.Time),
    source: "ocis",
    action: `ocis.${entry.Action}`,
    tenantId: user?.tenantIds[0],
    metadata: entry,
  });
}
await client.close();
