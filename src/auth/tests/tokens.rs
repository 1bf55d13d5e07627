//! Tokens, and the keys they are verified with.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::auth::keys;
use crate::auth::token::{TokenFault, Tokens};
use crate::config::TokenAuth;

const NOW: u64 = 1_800_000_000;
/// Signed once, by a key that is no more.
const RS256: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IkFBQUE6QkJCQiJ9.eyJpc3MiOiJhdXRoLmV4YW1wbGU\
    iLCJzdWIiOiJjaSIsImF1ZCI6InJlZ2lzdHJ5LmV4YW1wbGUiLCJleHAiOjIwMDAwMDAwMDAsIm5iZiI6MTAwMDA\
    wMDAwMCwiYWNjZXNzIjpbeyJ0eXBlIjoicmVwb3NpdG9yeSIsIm5hbWUiOiJ0ZWFtL2FwcCIsImFjdGlvbnMiOls\
    icHVsbCIsInB1c2giXX1dfQ.ko_0hq7jTIBtEH3fFELkpJwoVHJLLnR9vb7uYlOUQ3HQGUtY00sMFs9Kbfp7FChv\
    j2RO5Sw8QG1UPzAygrgE15MV6Bhn3gzkybncxJtkfrZGlZZyrXyFDU9zWLu7ScyHL0wjiBzLwGuG7IIUoQTeCcX2\
    qhDXhuDvfT6a4EagiJP2pz8ylqevQ43MfC14FHMSZ_LnkvjGKzLNX79CnnykqRerO4gvIPKZ2VcAHgXMvpiDk8qJ\
    5XvzjUdxHMyI0NDGe5VN1JE0m11XJuh3wJIxvmEUkeNTggQtC_mLWLvFMDr-4LtOL-e-juv8ntAY9fwMhqZ0sRIN\
    M9pC-65DoM8y9g";
const RS256_KEY: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEArF+QljqHq80LXCS3RWWu
LWDa5AcoTYvOrrmrg1IqN2GlGwQ8g3PX8oBUD0YjVhGKcNjhN6gsLRc46QfxyWRJ
1Hv1idWr4oRTozb8sAw5jGUchLhl0N36jaMEOP0FoYOlVD8/8hNeJ8w0YNeQKmkB
dC5KTrteGg5gbJa8A5Hzd7hDumXREdgujIa+1IfyxXzboSXu2/tEc2Hlby962Xt2
vqBqqZtyixreucgeOkCnjw5WRwfx5zdU/PRS+Hgbz8RAheTCdIjpvyoq40xEN4fh
Xhr7F4k1ggyyU++S3C1NyAVcSPs6vSXFgbnbAdrYLkKnU/eujTWEhkhB2Tj+2TyY
xQIDAQAB
-----END PUBLIC KEY-----
";

/// What signs tokens.
struct Issuer {
    key: rcgen::KeyPair,
    is_p256: bool,
}

impl Issuer {
    fn p256() -> Self {
        Self { key: rcgen::KeyPair::generate().unwrap(), is_p256: true }
    }

    fn ed25519() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        Self { key, is_p256: false }
    }

    fn sign(&self, text: &str) -> Vec<u8> {
        let der = self.key.serialize_der();
        if self.is_p256 {
            let random = SystemRandom::new();
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random);
            key.unwrap().sign(&random, text.as_bytes()).unwrap().as_ref().to_vec()
        } else {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).unwrap();
            key.sign(text.as_bytes()).as_ref().to_vec()
        }
    }

    fn token_with(&self, header: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", encode(header), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(&text));
        format!("{text}.{signature}")
    }

    fn token(&self, claims: &Value) -> String {
        let algorithm = if self.is_p256 { "ES256" } else { "EdDSA" };
        self.token_with(&json!({"alg": algorithm, "typ": "JWT"}), claims)
    }

    fn pem(&self) -> String {
        self.key.public_key_pem()
    }

    fn jwk(&self, id: &str) -> Value {
        let raw = self.key.public_key_raw();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        if self.is_p256 {
            let (x, y) = (part(&raw[1..33]), part(&raw[33..]));
            json!({"kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y})
        } else {
            json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": part(raw)})
        }
    }
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn claims() -> Value {
    json!({
        "iss": "auth.example", "sub": "ci", "aud": "registry.example", "exp": NOW + 300,
        "nbf": NOW - 10, "iat": NOW - 10, "jti": "x",
        "access": [{"type": "repository", "name": "team/app", "actions": ["pull", "push"]}],
    })
}

/// The claims with some of them replaced; `null` removes one.
fn but(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value.is_null() {
            true => _ = claims.as_object_mut().unwrap().remove(name),
            false => claims[name] = value.clone(),
        }
    }
    claims
}

fn tokens(files: &[String]) -> Tokens {
    let config = TokenAuth {
        realm: "https://auth.example/token".into(),
        service: "registry.example".into(),
        issuer: "auth.example".into(),
        key_files: Vec::new(),
    };
    let keys = files.iter().flat_map(|file| keys::read(file.as_bytes()).unwrap()).collect();
    Tokens::new(&config, keys)
}

fn verify(tokens: &Tokens, token: &str) -> Result<Principal, TokenFault> {
    tokens.verify(token.as_bytes(), NOW)
}

#[test]
fn every_kind_of_key_in_every_form() {
    let (p256, ed25519) = (Issuer::p256(), Issuer::ed25519());
    let certificate = {
        let parameters = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        parameters.self_signed(&p256.key).unwrap().pem()
    };
    let set = json!({"keys": [
        {"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"}, p256.jwk("one"), ed25519.jwk("two"),
    ]});
    let cases = [
        (p256.pem(), p256.token(&claims())),
        (certificate, p256.token(&claims())),
        (p256.jwk("k").to_string(), p256.token(&claims())),
        (set.to_string(), p256.token(&claims())),
        (set.to_string(), ed25519.token(&claims())),
        (ed25519.pem(), ed25519.token(&claims())),
        (format!("{}{}", ed25519.pem(), p256.pem()), p256.token(&claims())),
        (RS256_KEY.to_owned(), RS256.to_owned()),
    ];
    for (file, token) in cases {
        let found = verify(&tokens(std::slice::from_ref(&file)), &token);
        let principal = found.unwrap_or_else(|fault| panic!("{fault:?}: {file}"));
        assert_eq!((principal.name(), principal.proof()), (Some("ci"), Proof::Token));
        let may =
            [Verb::Pull, Verb::Push, Verb::Delete].map(|v| principal.is_granted(v, "team/app"));
        assert_eq!(may, [true, true, false]);
        assert!(!principal.is_granted(Verb::Pull, "team/app2"));
        assert!(!principal.is_granted(Verb::Catalog, "team/app"));
    }
}

#[test]
fn rotation_goes_by_name_and_by_trying() {
    let (old, new, other) = (Issuer::p256(), Issuer::p256(), Issuer::p256());
    let both =
        tokens(&[json!({"keys": [old.jwk("old"), new.jwk("new")]}).to_string(), other.pem()]);
    let named = |issuer: &Issuer, id: &str| {
        issuer.token_with(&json!({"alg": "ES256", "kid": id}), &claims())
    };
    let cases = [
        (named(&old, "old"), true),
        (named(&new, "new"), true),
        // A name of ours picks that key alone.
        (named(&old, "new"), false),
        (named(&other, "new"), false),
        // Another one, such as libtrust's fingerprint, says nothing.
        (named(&new, "ABCD:EFGH"), true),
        (named(&other, "ABCD:EFGH"), true),
        (other.token(&claims()), true),
        (Issuer::p256().token(&claims()), false),
    ];
    for (n, (token, expected)) in cases.into_iter().enumerate() {
        assert_eq!(verify(&both, &token).is_ok(), expected, "{n}");
    }
}

/// RFC 8725: what a token says of itself decides nothing.
#[test]
fn forged_tokens_are_foreign_or_malformed() {
    let (issuer, thief) = (Issuer::p256(), Issuer::p256());
    let ours = tokens(&[issuer.jwk("k").to_string(), RS256_KEY.to_owned()]);
    let good = issuer.token(&claims());
    assert!(verify(&ours, &good).is_ok());
    let (text, signature) = good.rsplit_once('.').unwrap();
    let header = text.split('.').next().unwrap();
    let none = |alg: &str| format!("{}.{}.", encode(&json!({"alg": alg})), encode(&claims()));
    // Signed with the public key as if it were a shared secret.
    let hmac = {
        let text = format!("{}.{}", encode(&json!({"alg": "HS256"})), encode(&claims()));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, issuer.pem().as_bytes());
        let tag = ring::hmac::sign(&key, text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    };
    let brought = json!({"alg": "ES256", "kid": "k", "jwk": thief.jwk("k")});
    let critical = json!({"alg": "ES256", "crit": ["exp"]});
    let raised = format!("{header}.{}.{signature}", encode(&but(json!({"sub": "root"}))));
    let long = format!("{good}{}", "A".repeat(13_000));
    let (malformed, foreign) = (TokenFault::Malformed, TokenFault::Foreign);
    let cases = [
        (none("none"), malformed),
        (none("None"), malformed),
        (none("ES256"), foreign),
        (hmac, malformed),
        (thief.token(&claims()), foreign),
        (thief.token_with(&brought, &claims()), foreign),
        (issuer.token_with(&critical, &claims()), malformed),
        (issuer.token_with(&json!({"alg": "RS256"}), &claims()), foreign),
        (issuer.token_with(&json!({"alg": ["ES256"]}), &claims()), malformed),
        (raised, foreign),
        (format!("{text}.{}", URL_SAFE_NO_PAD.encode([0_u8; 64])), foreign),
        (format!("{text}."), foreign),
        (format!("{good}A"), foreign),
        (format!("{good}.e30"), malformed),
        (text.to_owned(), malformed),
        (good.replace('.', ".."), malformed),
        (long, malformed),
        (String::new(), malformed),
        ("..".to_owned(), malformed),
        ("é.é.é".to_owned(), malformed),
    ];
    for (n, (token, expected)) in cases.into_iter().enumerate() {
        assert_eq!(
            verify(&ours, &token).map(|p| p.name().map(str::to_owned)),
            Err(expected),
            "{n}"
        );
    }
}

#[test]
fn claims_are_compared_with_the_configuration_and_the_clock() {
    let issuer = Issuer::p256();
    let ours = tokens(&[issuer.pem()]);
    use TokenFault::{Audience, Expired, Issuer as OtherIssuer, Malformed, NotYet};
    let cases = [
        (json!({}), None),
        (json!({"aud": ["x", "registry.example"]}), None),
        (json!({"aud": ["x"]}), Some(Audience)),
        (json!({"aud": []}), Some(Audience)),
        (json!({"aud": "registry.example.evil"}), Some(Audience)),
        (json!({"aud": null}), Some(Malformed)),
        (json!({"aud": 5}), Some(Malformed)),
        (json!({"iss": "auth.evil"}), Some(OtherIssuer)),
        (json!({"iss": null}), Some(Malformed)),
        (json!({"exp": NOW - 59}), None),
        (json!({"exp": NOW as f64 - 59.5}), None),
        (json!({"exp": NOW - 60}), Some(Expired)),
        (json!({"exp": 0}), Some(Expired)),
        (json!({"exp": -1}), Some(Expired)),
        (json!({"exp": null}), Some(Malformed)),
        (json!({"exp": "2030"}), Some(Malformed)),
        (json!({"nbf": NOW + 60}), None),
        (json!({"nbf": NOW + 61}), Some(NotYet)),
        (json!({"nbf": null}), None),
        (json!({"sub": null}), None),
        (json!({"sub": "x".repeat(257)}), Some(Malformed)),
        (json!({"sub": "a\nb"}), Some(Malformed)),
        (json!({"access": null}), None),
        (json!({"access": "all"}), Some(Malformed)),
    ];
    for (changes, expected) in cases {
        let found = verify(&ours, &issuer.token(&but(changes.clone())));
        assert_eq!(found.err(), expected, "{changes}");
    }
}

#[test]
fn grants_are_for_exactly_what_they_name() {
    let issuer = Issuer::p256();
    let ours = tokens(&[issuer.pem()]);
    let grant = |kind: &str, name: &str, actions: &[&str]| json!({"access": [{"type": kind, "name": name, "actions": actions}]});
    let cases = [
        (grant("repository", "a/b", &["pull"]), "pull"),
        (grant("repository", "a/b", &["pull", "push", "delete"]), "pull push delete"),
        (grant("repository", "a/b", &["*"]), "pull push delete"),
        (grant("repository(plugin)", "a/b", &["pull"]), "pull"),
        (grant("repository", "a/b", &[]), ""),
        (grant("repository", "a/*", &["pull"]), ""),
        (grant("repository", "a", &["pull"]), ""),
        (grant("registry", "a/b", &["*"]), ""),
        (grant("registry", "catalog", &["*"]), "catalog"),
        (grant("repository", "catalog", &["*"]), ""),
        (json!({"access": []}), ""),
    ];
    for (changes, expected) in cases {
        let principal = verify(&ours, &issuer.token(&but(changes.clone()))).unwrap();
        let verbs = [Verb::Pull, Verb::Push, Verb::Delete, Verb::Catalog];
        let may = verbs.into_iter().filter(|verb| principal.is_granted(*verb, "a/b"));
        let may: Vec<_> = may.map(Verb::as_str).collect();
        assert_eq!(may.join(" "), expected, "{changes}");
    }
    let unknown = verify(&ours, &issuer.token(&but(json!({"sub": ""})))).unwrap();
    assert_eq!((unknown.name(), unknown.said_nothing()), (None, false));
    assert!(unknown.is_granted(Verb::Push, "team/app"), "but no rule means it by name");
    assert!(!unknown.is_among(&[Subject::Authenticated]));
}

#[test]
fn a_token_by_the_header() {
    on_workers(1, Driver::Epoll, |_| async {
        let issuer = Issuer::p256();
        let folder = tempfile::tempdir().unwrap();
        let (key, users) = (folder.path().join("key.pem"), folder.path().join("htpasswd"));
        fs::write(&key, issuer.pem()).unwrap();
        fs::write(&users, super::users()).unwrap();
        let token = format!(
            "[auth.token]\nrealm = \"https://a\"\nservice = \"registry.example\"\n\
             issuer = \"auth.example\"\nkey_files = [{key:?}]"
        );
        let alone = authenticator(&token);
        let both = authenticator(&format!("[auth]\nhtpasswd_file = {users:?}\n{token}"));
        let good = but(json!({"exp": 4_000_000_000_u64, "nbf": null}));
        let bearer = |token: &str| head(&format!("Authorization: Bearer {token}\r\n"));
        for who in [&alone, &both] {
            let found = who.identify(&bearer(&issuer.token(&good)), None).await.unwrap();
            assert_eq!((found.name(), found.proof()), (Some("ci"), Proof::Token));
            let stale = bearer(&issuer.token(&but(json!({"exp": 1}))));
            assert_eq!(who.identify(&stale, None).await, Err(AuthError::TokenExpired));
            assert_eq!((count(who, "token", "accepted"), count(who, "token", "expired")), (1, 1));
        }
        let login = basic("alice:alice's");
        assert_eq!(alone.identify(&login, None).await, Err(AuthError::Scheme));
        assert_eq!(both.identify(&login, None).await.unwrap().name(), Some("alice"));
        // Rotated: the old key's tokens are foreign as soon as the file has been read again.
        let next = Issuer::p256();
        fs::write(&key, next.pem()).unwrap();
        until(async || alone.identify(&bearer(&next.token(&good)), None).await.is_ok()).await;
        let old = alone.identify(&bearer(&issuer.token(&good)), None).await;
        assert_eq!(old, Err(AuthError::TokenForeign));
    });
}
