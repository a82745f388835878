// The npm package oidc-provider, served on a port of loopback. Arguments: the folder with its node_modules.
//
// Each line of standard input is JSON: {"accounts": {NAME: CLAIMS}, "clients": [METADATA], "keys": NAME}, all of
// it from now on. Each answer is a line too, {"issuer": URL}. What was given to whom stays.
import { createServer } from 'node:http';
import { generateKeyPairSync } from 'node:crypto';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const folder = pathToFileURL(`${process.argv[2]}/node_modules/oidc-provider/lib/`);
const { Provider } = await import(new URL('index.js', folder));
const { createMemoryAdapter } = await import(new URL('adapters/memory_adapter.js', folder));

// The package says things of its own, among the answers.
console.info = console.error;

const adapter = createMemoryAdapter();
const keys = new Map();
let answer = (request, response) => response.writeHead(503).end();

const server = createServer((request, response) => answer(request, response));
await new Promise((done) => server.listen(0, '127.0.0.1', done));
// By this name, so that browsers take it for another site than a hub on 127.0.0.1.
const issuer = `http://localhost:${server.address().port}`;

function key(name) {
  if (!keys.has(name)) {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    keys.set(name, { ...privateKey.export({ format: 'jwk' }), kid: name, use: 'sig', alg: 'RS256' });
  }
  return keys.get(name);
}

function begin({ accounts, clients, keys: name }) {
  const provider = new Provider(issuer, {
    adapter,
    clients,
    jwks: { keys: [key(name)] },
    claims: {
      openid: ['sub'],
      profile: ['name', 'preferred_username'],
      email: ['email', 'email_verified'],
      groups: ['groups'],
    },
    scopes: ['openid', 'profile', 'email', 'groups', 'offline_access'],
    pkce: { required: () => true },
    rotateRefreshToken: true,
    features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true } },
    cookies: { keys: ['of a test'] },
    findAccount: (ctx, id) => Object.hasOwn(accounts, id)
      ? { accountId: id, claims: () => ({ sub: id, name: id, preferred_username: id, ...accounts[id] }) }
      : undefined,
  });
  answer = provider.callback();
}

for await (const line of createInterface({ input: process.stdin })) {
  begin(JSON.parse(line));
  process.stdout.write(`${JSON.stringify({ issuer })}\n`);
}
// Whoever started it has gone.
process.exit(0);
