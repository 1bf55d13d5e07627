//! A token server for docker-registry's `auth: token` and for the lying upstream: signs ES256
//! JWTs whose x5c header holds its own certificate, and misbehaves when told.

use super::listener::{Listener, Received, read_request};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::json;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The `service` and the `issuer` of every token.
pub const SERVICE: &str = "registry.test";
pub const ISSUER: &str = "issuer.test";

/// A token server on 127.0.0.1.
pub struct TokenServer {
    listener: Listener,
    state: Arc<State>,
}

/// How it behaves; everything off means well.
#[derive(Clone, Default)]
pub struct Conduct {
    /// Nothing is answered before so long.
    pub delay: Duration,
    /// Every request gets a 500.
    pub broken: bool,
    /// `expires_in` and the life of the JWT; 300 s when zero.
    pub lifetime: Duration,
    /// The JWT is dated back, so that docker-registry's leeway of 60 s is used up.
    pub backdated: bool,
    /// Only these credentials get a token; others 401.
    pub credentials: Option<(String, String)>,
    /// This text instead of a JWT.
    pub fixed_token: Option<String>,
}

struct State {
    signer: Signer,
    conduct: Mutex<Conduct>,
    seen: Mutex<Vec<Received>>,
}

struct Signer {
    key: EcdsaKeyPair,
    certificate_der: Vec<u8>,
    certificate_pem: String,
    random: SystemRandom,
}

impl TokenServer {
    /// Starts on a free port of 127.0.0.1.
    pub fn start() -> TokenServer {
        TokenServer::start_on([127, 0, 0, 1])
    }

    /// Starts on a free port of another loopback address.
    pub fn start_on(ip: [u8; 4]) -> TokenServer {
        let state = Arc::new(State {
            signer: Signer::new(),
            conduct: Mutex::default(),
            seen: Mutex::default(),
        });
        let for_handler = Arc::clone(&state);
        let listener = Listener::start_on(SocketAddr::from((ip, 0)), move |stream| {
            let _ = for_handler.serve(stream);
        });
        TokenServer { listener, state }
    }

    /// The realm, by host name: clients refuse a realm that is a private address literal.
    pub fn realm(&self) -> String {
        format!("http://localhost:{}/token", self.listener.addr().port())
    }

    /// `localhost:<port>`, as `token_realms` lists it.
    pub fn realm_host(&self) -> String {
        format!("localhost:{}", self.listener.addr().port())
    }

    /// The challenge that sends clients here for one repository.
    pub fn challenge(&self, repository: &str) -> String {
        format!(
            "Bearer realm=\"{}\",service=\"{SERVICE}\",scope=\"repository:{repository}:pull\"",
            self.realm()
        )
    }

    /// Changes how it behaves.
    pub fn conduct(&self, change: impl FnOnce(&mut Conduct)) {
        change(&mut self.state.conduct.lock().unwrap());
    }

    /// The certificate for docker-registry's `rootcertbundle`.
    pub fn certificate_pem(&self) -> &str {
        &self.state.signer.certificate_pem
    }

    /// Requests so far.
    pub fn requests(&self) -> Vec<Received> {
        self.state.seen.lock().unwrap().clone()
    }
}

impl State {
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        while let Some(request) = read_request(stream)? {
            let conduct = self.conduct.lock().unwrap().clone();
            self.seen.lock().unwrap().push(request.clone());
            std::thread::sleep(conduct.delay);
            let (status, body) = self.answer(&request, &conduct);
            let length = body.len();
            let mut out = stream;
            write!(
                out,
                "HTTP/1.1 {status} Token\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            )?;
        }
        Ok(())
    }

    fn answer(&self, request: &Received, conduct: &Conduct) -> (u16, String) {
        if conduct.broken {
            return (500, "{}".to_owned());
        }
        if let Some((user, password)) = &conduct.credentials {
            let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            let form = String::from_utf8_lossy(&request.body).into_owned();
            let by_form = form.contains(&format!("password={password}"));
            if request.header("authorization") != Some(basic.as_str()) && !by_form {
                return (401, r#"{"details":"wrong credentials"}"#.to_owned());
            }
        }
        let lifetime = match conduct.lifetime.as_secs() {
            0 => 300,
            seconds => seconds,
        };
        let token = match &conduct.fixed_token {
            Some(token) => token.clone(),
            None => self.signer.token(&access(request), lifetime, conduct.backdated),
        };
        let body = json!({"token": token, "access_token": token, "expires_in": lifetime});
        (200, body.to_string())
    }
}

/// The `access` claim for the scopes of the query or the form: what is asked for is given.
fn access(request: &Received) -> Vec<serde_json::Value> {
    let form = String::from_utf8_lossy(&request.body).into_owned();
    let query = request.query.clone().unwrap_or_default();
    let pairs = query.split('&').chain(form.split('&'));
    pairs
        .filter_map(|pair| pair.strip_prefix("scope="))
        .flat_map(|value| {
            let decoded = value.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
            let scopes: Vec<String> = decoded.split(['+', ' ']).map(str::to_owned).collect();
            scopes
        })
        .filter_map(|scope| {
            let (kind, rest) = scope.split_once(':')?;
            let (name, actions) = rest.rsplit_once(':')?;
            let actions: Vec<&str> = actions.split(',').collect();
            Some(json!({"type": kind, "name": name, "actions": actions}))
        })
        .collect()
}

impl Signer {
    fn new() -> Signer {
        let key = rcgen::KeyPair::generate().expect("a P-256 key");
        let mut parameters =
            rcgen::CertificateParams::new(vec![ISSUER.to_owned()]).expect("a certificate request");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).expect("a self-signed certificate");
        let random = SystemRandom::new();
        let der = key.serialize_der();
        Signer {
            key: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random)
                .expect("rcgen's key in ring"),
            certificate_der: certificate.der().to_vec(),
            certificate_pem: certificate.pem(),
            random,
        }
    }

    fn token(&self, access: &[serde_json::Value], lifetime: u64, backdated: bool) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        let shift = if backdated { 60 } else { 0 };
        let header = json!({
            "typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(&self.certificate_der)],
        });
        let claims = json!({
            "iss": ISSUER, "aud": SERVICE, "sub": "", "jti": now.to_string(),
            "iat": now - shift - 10, "nbf": now - shift - 10, "exp": now + lifetime - shift,
            "access": access,
        });
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(&self.random, signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}
