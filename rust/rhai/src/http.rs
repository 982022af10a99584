//! HTTP inside scripts. Every call returns a map: {status, status_str, body, body_raw, ok, error}.

use std::time::Duration;

use rhai::{Dynamic, Engine, EvalAltResult, Map};
use ureq::http::Request;
use ureq::Agent;

use crate::functions::terminated;
use crate::{json, Limits};

/// One request may take this long, and never longer than the script has left.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of one answer.
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
    if limits.verdict().is_some() {
        return Err(terminated());
    }
    let timeout = limits.left().unwrap_or(REQUEST_TIMEOUT).min(REQUEST_TIMEOUT);
    let answer = send(timeout, method, url, body, token);
    if limits.verdict().is_some() {
        return Err(terminated());
    }
    Ok(match answer {
        Ok((status, raw)) => answered(status, raw),
        Err(error) => unanswered(&error),
    })
}

fn send(
    timeout: Duration,
    method: &str,
    url: &str,
    body: Option<&Dynamic>,
    token: Option<&str>,
) -> Result<(u16, String), ureq::Error> {
    let mut request = Request::builder().method(method).uri(url);
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let content = body.map(|body| match body.read_lock::<rhai::ImmutableString>() {
        Some(text) => text.to_string(),
        None => json::to_value(body).to_string(),
    });
    let agent = agent(timeout);
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
    map.insert("error".into(), error.to_string().into());
    map
}

/// A token of the machine's service account; "" anywhere but on Google's machines.
fn gcp_token() -> Option<String> {
    let host = std::env::var("GCE_METADATA_HOST").unwrap_or_else(|_| "metadata.google.internal".to_owned());
    let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
    let mut answer = agent(METADATA_TIMEOUT).get(url).header("Metadata-Flavor", "Google").call().ok()?;
    let body = answer.body_mut().read_to_string().ok()?;
    let body: serde_json::Value = serde_json::from_str(&body).ok()?;
    Some(body.get("access_token")?.as_str()?.to_owned())
}
