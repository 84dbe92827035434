// Passkeys in the browser: the two WebAuthn ceremonies, with the JSON forms of WebAuthn Level 3 §5.1.9 and §5.1.10.

/** The person, or their device, said no or let the time run out. */
export class CancelledError extends Error {}

export const isSupported = () => "PublicKeyCredential" in window && "parseRequestOptionsFromJSON" in PublicKeyCredential;

/** Make a passkey. @param {object} options PublicKeyCredentialCreationOptionsJSON @returns {Promise<object>} toJSON() */
export async function createPasskey(options) {
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
  return answered(() => navigator.credentials.create({ publicKey }));
}

/** Answer a challenge. @param {object} options PublicKeyCredentialRequestOptionsJSON @returns {Promise<object>} toJSON() */
export async function usePasskey(options) {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
  return answered(() => navigator.credentials.get({ publicKey }));
}

/** Sign a hash: the challenge is the hash itself. @param {Uint8Array} sha256 32 bytes */
export async function signHash(sha256, options) {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
  publicKey.challenge = sha256;
  return answered(() => navigator.credentials.get({ publicKey }));
}

async function answered(ceremony) {
  try {
    const credential = await ceremony();
    return credential.toJSON();
  } catch (error) {
    if (error instanceof DOMException && ["NotAllowedError", "AbortError"].includes(error.name)) {
      throw new CancelledError(error.message);
    }
    throw error;
  }
}
