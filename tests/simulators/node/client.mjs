// A real OAuth client for the tests (npm oauth4webapi) against our authorization server, step by step.
//
//   node client.mjs <step> '<parameters as JSON>'
//
// Ends with one JSON object on stdout. oauth4webapi checks what a careful client checks: issuer of the metadata, types,
// `iss` of the authorization response, DPoP binding of the answer.
import * as oauth from 'oauth4webapi';

const [step, text] = process.argv.slice(2);
const given = JSON.parse(text);
const insecure = { [oauth.allowInsecureRequests]: true }; // loopback has no https

async function privateKey(jwk) {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256' };
  const { d, ...rest } = jwk;
  const key = await crypto.subtle.importKey('jwk', { ...rest, d, key_ops: ['sign'] }, algorithm, false, ['sign']);
  return { key, kid: jwk.kid };
}

const issuer = new URL(given.issuer);
const as = await oauth.processDiscoveryResponse(
  issuer,
  await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure }),
);

// our server takes the issuer alone as the audience of assertions (FAPI 2.0); oauth4webapi sends just that
const authentication = given.key ? oauth.PrivateKeyJwt(await privateKey(given.key)) : oauth.None();
const client = { client_id: given.client_id };
const dpopKeys = await oauth.generateKeyPair('ES256');

async function withProofs() {
  return { DPoP: oauth.DPoP(client, dpopKeys), ...insecure };
}

async function clientCredentials(scope, options) {
  const answer = await oauth.clientCredentialsGrantRequest(
    as, client, authentication, new URLSearchParams({ scope }), options,
  );
  return oauth.processClientCredentialsResponse(as, client, answer);
}

const steps = {
  async discovery() {
    return as;
  },

  async credentials() {
    const options = given.dpop ? await withProofs() : insecure;
    const token = await clientCredentials(given.scope, options);
    const answer = await oauth.protectedResourceRequest(
      token.access_token, given.method ?? 'GET', new URL(given.resource), new Headers(), null, options,
    );
    return { token_type: token.token_type, scope: token.scope, status: answer.status, body: await answer.json() };
  },

  // validates our access token the way a resource server of somebody else would (RFC 9068, RFC 9449)
  async validated() {
    const options = await withProofs();
    const token = await clientCredentials(given.scope, options);
    const headers = new Headers();
    let claims;
    await oauth.protectedResourceRequest(token.access_token, 'GET', new URL(given.resource), headers, null, {
      ...options,
      [oauth.customFetch]: async (url, init) => {
        const request = new Request(url, { method: init.method, headers: init.headers });
        claims = await oauth.validateJwtAccessToken(as, request, given.audience, {
          requireDPoP: true, ...insecure,
        });
        return new Response('{}');
      },
    });
    return { claims };
  },

  async lifecycle() {
    const token = (await clientCredentials(given.scope, insecure)).access_token;
    const introspect = async () =>
      oauth.processIntrospectionResponse(
        as, client, await oauth.introspectionRequest(as, client, authentication, token, insecure),
      );
    const before = await introspect();
    await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, authentication, token, insecure));
    return { before, after: await introspect() };
  },

  // first half of the code flow: where to send the browser
  async begin() {
    const verifier = oauth.generateRandomCodeVerifier();
    const state = oauth.generateRandomState();
    const url = new URL(as.authorization_endpoint);
    url.search = new URLSearchParams({
      client_id: given.client_id,
      redirect_uri: given.redirect_uri,
      response_type: 'code',
      scope: given.scope,
      state,
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
    });
    return { url: url.href, verifier, state };
  },

  // second half: the browser came back
  async finish() {
    const options = given.dpop ? await withProofs() : insecure;
    const params = oauth.validateAuthResponse(as, client, new URL(given.callback), given.state);
    const answer = await oauth.authorizationCodeGrantRequest(
      as, client, authentication, params, given.redirect_uri, given.verifier, options,
    );
    const token = await oauth.processAuthorizationCodeResponse(as, client, answer);
    const resource = await oauth.protectedResourceRequest(
      token.access_token, 'GET', new URL(given.resource), new Headers(), null, options,
    );
    return { token_type: token.token_type, scope: token.scope, status: resource.status, body: await resource.json() };
  },
};

try {
  console.log(JSON.stringify(await steps[step]()));
} catch (error) {
  console.log(JSON.stringify({ error: error.error ?? error.code ?? error.name, message: error.message, cause: String(error.cause ?? '') }));
  process.exitCode = 1;
}
