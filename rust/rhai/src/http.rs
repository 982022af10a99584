//! HTTP inside scripts. Every call returns a map: {status, status_str, body, body_raw, ok, error}.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rhai::{Dynamic, Engine, EvalAltResult, Map};
use ureq::config::Config;
use ureq::http::{Request, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::Agent;

use crate::functions::terminated;
use crate::{json, Denied, Limits};

/// Longest time of one request, unless the script has less left.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest number of bytes of one answer.
const MAX_BODY_BYTES: u64 = 10 * 1024 * 1024;
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);

type Answer = Result<Map, Box<EvalAltResult>>;

/// Register `http_get`, `http_post`, `http_delete`, their `_auth` forms and `get_gcp_token`.
pub fn register(engine: &mut Engine, limits: &Limits) {
    for (name, method) in [("http_get", "GET"), ("http_delete", "DELETE")] {
        let (plain, auth) = (limits.clone(), limits.clone());
        engine.register_fn(name, move |url: &str| -> Answer { call(&plain, method, url, None, None) });
        engine.register_fn(format!("{name}_auth"), move |url: &str, token: &str| -> Answer {
            call(&auth, method, url, None, Some(token))
        });
    }
    let (plain, auth) = (limits.clone(), limits.clone());
    engine.register_fn("http_post", move |url: &str, body: Dynamic| -> Answer {
        call(&plain, "POST", url, Some(&body), None)
    });
    engine.register_fn("http_post_auth", move |url: &str, body: Dynamic, token: &str| -> Answer {
        call(&auth, "POST", url, Some(&body), Some(token))
    });
    engine.register_fn("get_gcp_token", || gcp_token().unwrap_or_default());
}

fn call(limits: &Limits, method: &str, url: &str, body: Option<&Dynamic>, token: Option<&str>) -> Answer {
    if limits.are_over() {
        return Err(terminated());
    }
    let timeout = limits.left().unwrap_or(REQUEST_TIMEOUT).min(REQUEST_TIMEOUT);
    let answer = send(&guarded(timeout, &limits.denied), &limits.denied, method, url, body, token);
    if limits.are_over() {
        return Err(terminated());
    }
    Ok(match answer {
        Ok((status, raw)) => answered(status, raw),
        Err(error) => unanswered(&error),
    })
}

fn send(
    agent: &Agent,
    denied: &Arc<Denied>,
    method: &str,
    url: &str,
    body: Option<&Dynamic>,
    token: Option<&str>,
) -> Result<(u16, String), ureq::Error> {
    check_literal(denied, url)?;
    let mut request = Request::builder().method(method).uri(url);
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let content = body.map(|body| match body.read_lock::<rhai::ImmutableString>() {
        Some(text) => text.to_string(),
        None => json::to_value(body).to_string(),
    });
    let answer = match content {
        Some(content) => agent.run(request.header("Content-Type", "application/json").body(content)?),
        None => agent.run(request.body(())?),
    };
    let mut answer = answer?;
    let raw = answer.body_mut().with_config().limit(MAX_BODY_BYTES).lossy_utf8(true).read_to_string()?;
    Ok((answer.status().as_u16(), raw))
}

fn agent(timeout: Duration) -> Agent {
    Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false).build().into()
}

/// Return an agent that refuses denied addresses. It connects only to the checked addresses of a name, also after a
/// redirect.
fn guarded(timeout: Duration, denied: &Arc<Denied>) -> Agent {
    let config = agent(timeout).config().clone();
    let resolver = GuardedResolver { inner: DefaultResolver::default(), denied: Arc::clone(denied) };
    Agent::with_parts(config, DefaultConnector::default(), resolver)
}

struct GuardedResolver {
    inner: DefaultResolver,
    denied: Arc<Denied>,
}

impl fmt::Debug for GuardedResolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("GuardedResolver")
    }
}

impl Resolver for GuardedResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        if config.proxy().is_some_and(|proxy| proxy.uri() == uri) {
            return Ok(found); // the worker's own proxy is always allowed
        }
        let (mut allowed, mut reason) = (self.empty(), None);
        for address in found.iter() {
            match (self.denied)(uri.host().unwrap_or_default(), &address.ip().to_string(), Some(address.port())) {
                None => allowed.push(*address),
                Some(text) => reason = Some(text),
            }
        }
        match reason {
            Some(text) if allowed.is_empty() => Err(ureq::Error::Other(text.into())),
            _ => Ok(allowed),
        }
    }
}

/// Check an address written in a URL, which the resolver does not see if a proxy makes the connection.
fn check_literal(denied: &Arc<Denied>, url: &str) -> Result<(), ureq::Error> {
    let uri: Uri = url.parse().map_err(ureq::http::Error::from)?;
    let host = uri.host().unwrap_or_default();
    match denied(host, host.trim_start_matches('[').trim_end_matches(']'), uri.port_u16()) {
        Some(text) => Err(ureq::Error::Other(text.into())),
        None => Ok(()),
    }
}

fn answered(status: u16, raw: String) -> Map {
    let body = serde_json::from_str(&raw).map_or_else(|_| raw.clone().into(), json::from_value);
    let mut map = Map::new();
    map.insert("status".into(), i64::from(status).into());
    map.insert("status_str".into(), status.to_string().into());
    map.insert("ok".into(), (200..300).contains(&status).into());
    map.insert("body".into(), body);
    map.insert("body_raw".into(), raw.into());
    map.insert("error".into(), Dynamic::UNIT);
    map
}

fn unanswered(error: &ureq::Error) -> Map {
    let mut map = answered(0, String::new());
    map.insert("body".into(), Dynamic::UNIT);
    let text = match error {
        ureq::Error::Other(reason) => reason.to_string(),
        other => other.to_string(),
    };
    map.insert("error".into(), text.into());
    map
}

/// Return a token of the machine's service account, or "" outside Google's cloud.
fn gcp_token() -> Option<String> {
    let host = std::env::var("GCE_METADATA_HOST").unwrap_or_else(|_| "metadata.google.internal".to_owned());
    let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
    let mut answer = agent(METADATA_TIMEOUT).get(url).header("Metadata-Flavor", "Google").call().ok()?;
    let body = answer.body_mut().read_to_string().ok()?;
    let body: serde_json::Value = serde_json::from_str(&body).ok()?;
    Some(body.get("access_token")?.as_str()?.to_owned())
}
