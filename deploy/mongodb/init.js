// Run by mongosh: makes the replica set of one, and for Daybook a user that may do what it needs
// and no more. Everything that is there already stays; a changed password is taken over.
const fs = require('fs');
const secret = (name) => fs.readFileSync(`/run/secrets/${name}`, 'utf8').trim();

const url = new URL(secret('store_url'));
const database = url.pathname.slice(1);
const address = `mongodb://root:${encodeURIComponent(secret('mongodb_root_password'))}@${url.host}/admin?directConnection=true`;
// A server may be restarted once more before it stays.
const patience = Date.now() + 60_000;
let admin;
while (!admin) {
  try {
    admin = new Mongo(address).getDB('admin');
  } catch (error) {
    if (Date.now() > patience) throw error;
    sleep(1000);
  }
}

try {
  admin.runCommand({ replSetGetStatus: 1 });
} catch (error) {
  if (error.codeName !== 'NotYetInitialized') throw error;
  admin.runCommand({ replSetInitiate: { _id: 'rs0', members: [{ _id: 0, host: url.host }] } });
}
while (!admin.runCommand({ hello: 1 }).isWritablePrimary) sleep(200);

// Daybook writes its own collections and reads the platform's directory.
const own = ['auditevents', 'ingestcursors', 'auditdeadletters', 'daybooktokens', 'daybookspaces'];
// What it derives from the events stands in collections beside them.
own.push(...['facets', 'texts', 'pendingtexts', 'counts'].map((derived) => `auditevents.${derived}`));
const writes = ['find', 'insert', 'update', 'remove', 'createCollection', 'createIndex', 'listIndexes', 'collStats', 'changeStream'];
const privileges = [
  { resource: { db: database, collection: '' }, actions: ['listCollections'] },
  ...own.map((collection) => ({ resource: { db: database, collection }, actions: writes })),
  ...['tenants', 'users'].map((collection) => ({ resource: { db: database, collection }, actions: ['find'] })),
];
const role = { privileges, roles: [] };
const user = { pwd: decodeURIComponent(url.password), roles: ['daybook'] };
const of = admin.getSiblingDB(database);
const name = decodeURIComponent(url.username);
if (of.getRole('daybook')) of.updateRole('daybook', role);
else of.createRole({ role: 'daybook', ...role });
if (of.getUser(name)) of.updateUser(name, user);
else of.createUser({ user: name, ...user });
print(`replica set and user ${name} of ${database} are ready`);
