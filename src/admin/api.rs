//! The routes.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, metrics};
use crate::experiment::{ByHand, Experiment};
use crate::lab::{Exploration, Order, Over, Refusal, Status, Stop};
use crate::report::files;
use crate::units::{Seed, Span};

/// An experiment is never longer than this.
const LONGEST_DOCUMENT: usize = 1 << 20;

/// Why something is refused is never longer than this.
const LONGEST_REASON: usize = 16 << 10;

/// What may be read by everybody.
pub(super) fn telemetry(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/healthz", get(readyz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .with_state(admin)
}

/// What operators do.
pub(super) fn switches(admin: Admin) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/runs", get(status).post(start))
        .route("/inject", post(inject))
        .route("/rehearse", post(rehearse))
        .route("/runs/{run}", get(run))
        .route("/runs/{run}/heartbeat", post(heartbeat))
        .route("/runs/{run}/halt", post(halt_run))
        .route("/halt", post(halt))
        .route("/resume", post(resume))
        .route("/reload", post(reload))
        .fallback(|| async { ApiError(StatusCode::NOT_FOUND, "there is no such path here".to_owned()) })
        .method_not_allowed_fallback(|| async {
            ApiError(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method".to_owned())
        })
        .layer(DefaultBodyLimit::max(LONGEST_DOCUMENT))
        .layer(from_fn_with_state(admin.clone(), only_by_our_names))
        .layer(map_response(in_json))
        .with_state(admin)
}

/// An answer that says why not.
#[derive(Debug)]
struct ApiError(StatusCode, String);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// What the framework itself refuses is said in our words' shape.
async fn in_json(response: Response) -> Response {
    let status = response.status();
    let said = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if said || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), LONGEST_REASON).await.unwrap_or_default();
    ApiError(status, String::from_utf8_lossy(&text).into_owned()).into_response()
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Document(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::NotNow(_) => StatusCode::CONFLICT,
            Refusal::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, refusal.to_string())
    }
}

fn unknown(run: &str) -> ApiError {
    ApiError(StatusCode::NOT_FOUND, format!("there is no run `{run}` here; `GET /status` lists them"))
}

/// Changes need the token; stopping does not, when it comes from this machine, and from no page of a browser on it.
fn admit(admin: &Admin, headers: &HeaderMap, caller: Option<SocketAddr>) -> Result<(), ApiError> {
    let stops_from_here = caller.is_some_and(|caller| caller.ip().is_loopback()) && !headers.contains_key(ORIGIN);
    if stops_from_here || admin.admits(headers) {
        return Ok(());
    }
    let why =
        "a change needs `Authorization: Bearer <token>`; the token is in `admin.token_file`, or beside the ledger";
    Err(ApiError(StatusCode::UNAUTHORIZED, why.to_owned()))
}

impl Admin {
    fn admits(&self, headers: &HeaderMap) -> bool {
        self.token.admits(headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()))
    }
}

/// A page in a browser on this machine may have its own name lead here (DNS rebinding), and read what it likes. From here
/// one comes by an address or as `localhost`, or has the token.
async fn only_by_our_names(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    if !caller.ip().is_loopback() || host.is_none_or(is_ours) || admin.admits(request.headers()) {
        return Ok(next.run(request).await);
    }
    let why = "from this machine one comes by an address or as `localhost`, or with the token";
    Err(ApiError(StatusCode::MISDIRECTED_REQUEST, why.to_owned()))
}

fn is_ours(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_matches(['[', ']']);
    name.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

#[derive(Deserialize)]
struct Verbose {
    verbose: Option<String>,
}

async fn readyz(State(admin): State<Admin>, Query(query): Query<Verbose>) -> Response {
    let draining = admin.draining.is_cancelled();
    let status = if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    if query.verbose.is_none() {
        return (status, if draining { "draining\n" } else { "ok\n" }).into_response();
    }
    let mark = |good: bool| if good { "[+]" } else { "[-]" };
    let lab = admin.control.lab();
    let mut text = format!("{}listeners {}\n", mark(!draining), if draining { "draining" } else { "serving" });
    let trouble = match &admin.ledger {
        Some(ledger) => ledger.trouble(),
        None => Some("there is none".to_owned()),
    };
    text += &match trouble {
        None => "[+]ledger\n".to_owned(),
        Some(why) => format!("[-]ledger: {why}\n"),
    };
    text += &format!("[+]armed for {}\n", armed(lab.limits.armed(), &lab.limits.faults));
    if let Some(reason) = admin.control.halted() {
        text += &format!("[-]halted by {} at {}\n", reason.by, reason.at);
    }
    for complaint in admin.standing.complaints() {
        text += &format!("[-]{complaint}\n");
    }
    if let Some(wrong) = admin.standing.reloads().wrong {
        text += &format!("[-]a changed system file is not taken up, the one before is served:\n{wrong}\n");
    }
    (status, text).into_response()
}

fn armed(armed: bool, faults: &[String]) -> String {
    if armed { faults.join(", ") } else { "nothing".to_owned() }
}

async fn show_metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::render(&admin))
}

async fn status(State(admin): State<Admin>) -> Json<Value> {
    let control = &admin.control;
    let runs: Vec<Value> = control.runs_here().into_iter().map(|status| shown(&status, false)).collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "armed": control.lab().limits.faults,
        "halted": control.halted(),
        "connections": control.lab().proxy.connections(),
        "runs": runs,
        "complaints": admin.standing.complaints(),
    }))
}

async fn run(State(admin): State<Admin>, Path(run): Path<String>) -> Result<Json<Value>, ApiError> {
    let status = admin.control.status(&run).ok_or_else(|| unknown(&run))?;
    Ok(Json(shown(&status, true)))
}

fn shown(status: &Status, with_report: bool) -> Value {
    let mut value = json!({ "progress": status.progress });
    match &status.result {
        Some(Ok(Over::Exploration(explored))) if with_report => value["exploration"] = json!(explored),
        Some(Ok(Over::Rehearsal(rehearsed))) => {
            value["ending"] = json!(rehearsed.ending);
            value["reason"] = json!(rehearsed.reason);
            if with_report {
                value["rehearsal"] = json!(rehearsed);
            }
        }
        Some(Ok(Over::Exploration(_))) => {}
        Some(Ok(Over::Run(report))) => {
            value["ending"] = json!(report.verdict.ending);
            value["reason"] = json!(report.verdict.reason);
            if with_report {
                value["report"] = json!(report);
            }
        }
        Some(Err(refusal)) => {
            value["refused"] = json!(refusal.to_string());
            value["refused_for"] = json!(match refusal {
                Refusal::Document(_) => "document",
                Refusal::NotNow(_) => "not_now",
                Refusal::Internal(_) => "internal",
            });
        }
        None => {}
    }
    value
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HowToStart {
    seed: Option<u64>,
    #[serde(default)]
    underpowered: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HowToRehearse {
    seed: Option<u64>,
    #[serde(rename = "for")]
    length: Option<Span>,
}

/// Nothing can be said of it beside its body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// What a document that came over the API asks for.
fn order(seed: Option<u64>, underpowered: bool, document: &str) -> Result<Order, ApiError> {
    let wrong = |why: String| ApiError(StatusCode::UNPROCESSABLE_ENTITY, why);
    // Documents that travel see nothing of this machine's environment.
    let (experiment, mut problems) =
        Experiment::parse("<body>", document, &|_| None).map_err(|problems| wrong(problems.to_string()))?;
    experiment.check_travelled(&mut problems);
    if problems.has_errors() {
        return Err(wrong(problems.to_string()));
    }
    Ok(Order {
        seed: seed.map(Seed).or(experiment.seed).unwrap_or_else(|| Seed(rand::random())),
        run: crate::ledger::new_run_id(crate::clock::now()),
        follow_up_of: crate::lab::follow_up::failure_of(document).map(ToOwned::to_owned),
        underpowered,
        experiment: experiment.into(),
    })
}

async fn start(
    State(admin): State<Admin>,
    Query(how): Query<HowToStart>,
    headers: HeaderMap,
    document: String,
) -> Result<Response, ApiError> {
    admit(&admin, &headers, None)?;
    let order = order(how.seed, how.underpowered, &document)?;
    let started = admin.control.start(order, true)?;
    let (run, reports) = (started.run.clone(), admin.reports);
    tokio::spawn(async move {
        let Ok(Ok(report)) = started.result.await else { return };
        let saved = tokio::task::spawn_blocking(move || files::save(&report, &reports)).await;
        if let Ok(Err(error)) = saved {
            tracing::error!(%error, "the report could not be written to its files; `pratfall report` has it from the ledger");
        }
    });
    Ok(accepted(&run))
}

fn accepted(run: &str) -> Response {
    let lease = crate::lab::control::LEASE.as_secs();
    (StatusCode::ACCEPTED, Json(json!({ "run": run, "lease_seconds": lease }))).into_response()
}

async fn rehearse(
    State(admin): State<Admin>,
    Query(how): Query<HowToRehearse>,
    headers: HeaderMap,
    document: String,
) -> Result<Response, ApiError> {
    admit(&admin, &headers, None)?;
    let length = how.length.unwrap_or_else(|| crate::lab::rehearse::LENGTH.parse().expect("it is a length of time"));
    let started = admin.control.rehearse(order(how.seed, true, &document)?, length, true)?;
    Ok(accepted(&started.run))
}

async fn inject(
    State(admin): State<Admin>,
    Query(Nothing {}): Query<Nothing>,
    headers: HeaderMap,
    document: String,
) -> Result<Response, ApiError> {
    admit(&admin, &headers, None)?;
    let wrong = |why: String| ApiError(StatusCode::UNPROCESSABLE_ENTITY, why);
    let by_hand = ByHand::parse("<body>", &document).map_err(|problems| wrong(problems.to_string()))?;
    let listeners = admin.control.lab().proxy.listeners();
    let names: Vec<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
    let exploration = Exploration::new(by_hand, &names, crate::ledger::new_run_id(crate::clock::now()))?;
    let started = admin.control.explore(exploration, true)?;
    Ok(accepted(&started.run))
}

async fn heartbeat(
    State(admin): State<Admin>,
    Path(run): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    admit(&admin, &headers, None)?;
    if admin.control.heartbeat(&run) { Ok(StatusCode::NO_CONTENT) } else { Err(unknown(&run)) }
}

async fn halt_run(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    Path(run): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    admit(&admin, &headers, Some(caller))?;
    let stopped = admin.control.stop(&run, Stop::Halt("an operator".to_owned()));
    if stopped { Ok(StatusCode::NO_CONTENT) } else { Err(unknown(&run)) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Who {
    by: Option<String>,
}

async fn halt(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    Query(who): Query<Who>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    admit(&admin, &headers, Some(caller))?;
    let by = who.by.unwrap_or_else(|| "an operator".to_owned());
    let by: String = by.chars().filter(|c| !c.is_control()).take(100).collect();
    let stopped = admin.control.halt(&by).map_err(|error| {
        let why = format!("all faults are off, but the mark that forbids new runs cannot be written: {error}");
        ApiError(StatusCode::INTERNAL_SERVER_ERROR, why)
    })?;
    Ok(Json(json!({ "stopped": stopped })))
}

async fn resume(State(admin): State<Admin>, headers: HeaderMap) -> Result<StatusCode, ApiError> {
    admit(&admin, &headers, None)?;
    let wrong = |error: std::io::Error| ApiError(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    admin.control.resume().map_err(wrong)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn reload(State(admin): State<Admin>, headers: HeaderMap) -> Result<Json<Value>, ApiError> {
    admit(&admin, &headers, None)?;
    let notes = admin.standing.reload().await.map_err(|why| ApiError(StatusCode::UNPROCESSABLE_ENTITY, why))?;
    Ok(Json(json!({ "notes": notes })))
}
