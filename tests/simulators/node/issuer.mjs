// An outside issuer for the tests: a real OpenID provider (npm oidc-provider) on a loopback port.
// It issues RFC 9068 access tokens for the resources that it is told, to clients with private_key_jwt.
//
//   node issuer.mjs '{"audiences": {"<resource>": "<scope> <scope>"}, "clients": [{"client_id", "jwks"}]}'
//
// Says {"issuer": …} on its first line. A line on stdin, the JWK of a new signing key, restarts the provider with that
// key in front of the others: a rotation, as the world sees one.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import Provider from 'oidc-provider';

const { audiences, clients, keys } = JSON.parse(process.argv[2]);
const signingKeys = [...keys];
let handle;

const server = createServer((request, response) => handle(request, response));

function start(issuer) {
  const provider = new Provider(issuer, {
    clients: clients.map((client) => ({
      grant_types: ['client_credentials'],
      id_token_signed_response_alg: 'ES256',
      redirect_uris: [],
      response_types: [],
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'ES256',
      ...client,
    })),
    jwks: { keys: signingKeys },
    enabledJWA: { clientAuthSigningAlgValues: ['ES256'], dPoPSigningAlgValues: ['ES256', 'Ed25519', 'EdDSA'] },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      dPoP: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, resource) => ({
          accessTokenFormat: 'jwt',
          accessTokenTTL: 300,
          audience: resource,
          jwt: { sign: { alg: 'ES256' } },
          scope: audiences[resource],
        }),
      },
    },
    scopes: [...new Set(Object.values(audiences).flatMap((scopes) => scopes.split(' ')))],
  });
  handle = provider.callback();
}

server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  start(issuer);
  console.log(JSON.stringify({ issuer }));
  createInterface({ input: process.stdin })
    .on('line', (line) => {
      signingKeys.unshift(JSON.parse(line));
      start(issuer);
      console.log(JSON.stringify({ kids: signingKeys.map((key) => key.kid) }));
    })
    .on('close', () => process.exit(0));
});
