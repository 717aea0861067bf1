// An OpenID provider for the tests of the device flow: oidc-provider, with its own pages for people.
//   node oidc_op.mjs PATH-OF-OIDC-PROVIDER CHAIN KEY ALG
// Its issuer goes to stdout as one line of JSON.  The account NAME has the e-mail NAME@desk.example;
// that of "mallory" is not verified.  It ends with its stdin.
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { generateKeyPairSync } from 'node:crypto'
import { pathToFileURL } from 'node:url'

const [place, chain, key, alg] = process.argv.slice(2)
const { Provider } = await import(pathToFileURL(`${place}/lib/index.js`).href)

const signing =
  alg === 'RS256'
    ? generateKeyPairSync('rsa', { modulusLength: 2048 })
    : generateKeyPairSync('ec', { namedCurve: 'P-256' })
const jwk = { ...signing.privateKey.export({ format: 'jwk' }), use: 'sig', alg, kid: 'k1' }
const deviceGrant = 'urn:ietf:params:oauth:grant-type:device_code'
const client = (id) => ({
  client_id: id,
  application_type: 'native',
  grant_types: [deviceGrant],
  response_types: [],
  redirect_uris: [],
  token_endpoint_auth_method: 'none',
  id_token_signed_response_alg: alg,
})

const server = createServer({ cert: readFileSync(chain), key: readFileSync(key) })
server.listen(0, '127.0.0.1', () => {
  const issuer = `https://localhost:${server.address().port}`
  const provider = new Provider(issuer, {
    clients: [client('sallyport'), client('another')],
    jwks: { keys: [jwk] },
    cookies: { keys: ['of a test'] },
    features: { deviceFlow: { enabled: true }, devInteractions: { enabled: true } },
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['groups'] },
    conformIdTokenClaims: false, // so that the ID token has the claims, as those of most providers
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({
        sub: id,
        email: `${id}@desk.example`,
        email_verified: id !== 'mallory',
        groups: ['people', id],
      }),
    }),
  })
  server.on('request', provider.callback())
  process.stdout.write(JSON.stringify({ issuer }) + '\n')
})
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
